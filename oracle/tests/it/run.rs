//! Text generation with a package: tokens, chat template, streaming.

use crate::support::{cases, checkpoint, package, stepper};
use oracle::generate::{Limits, generate};
use oracle::sampling::{Sampler, Sampling};
use oracle::text::Text;
use packer::template::{Conversation, Message};

#[test]
fn prompts_encode_to_the_ids_of_transformers_and_decode_again() {
    let text = Text::open(&checkpoint()).unwrap();
    for case in [cases("oracle.json"), cases("oracle-long.json")].concat() {
        assert_eq!(text.encode(&case.prompt).unwrap(), case.prompt_ids);
        assert_eq!(text.decode(&case.ids()).unwrap(), case.text);
    }
}

#[test]
fn a_chat_ends_with_the_start_of_the_models_turn() {
    let text = Text::open(&checkpoint()).unwrap();
    let messages = [Message { role: "user", content: "Days?" }];
    let prompt = text.chat(&messages, &Conversation::render).unwrap();
    assert_eq!(prompt, "<bos><|turn>user\nDays?<turn|>\n<|turn>model\n");
    let ids = text.encode(&prompt).unwrap();
    assert_eq!(ids.iter().filter(|id| **id == 2).count(), 1, "one begin token in {ids:?}");
}

#[test]
fn the_text_is_streamed_and_equals_the_oracles_continuation() {
    let text = Text::open(&checkpoint()).unwrap();
    let case = &cases("oracle.json")[0];
    let mut stepper = stepper(&package("provider.f16"));
    let mut pieces = Vec::new();
    let (limits, mut sampler) = (Limits::tokens(case.generated_ids.len()), Sampler::new(Sampling::GREEDY));
    let made = generate(&mut stepper, &text, &case.prompt_ids, &limits, &mut sampler, &mut |piece| {
        pieces.push(piece.to_owned());
    })
    .unwrap();
    assert_eq!(made.ids, case.generated_ids);
    assert!(pieces.len() > 5);
    assert_eq!(format!("{}{}", case.prompt, pieces.concat()), case.text);
    assert!(!made.stopped && made.tokens_per_second() > 0.0);
}
