//! Chat templates: rendering as the tokenizer libraries do it, and the token that a rendered turn ends with.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};

/// Steps a template may take: thousands of times what a long conversation needs, and an end to hostile loops.
const FUEL: u64 = 10_000_000;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message<'a> {
    /// `system`, `user` or `assistant`.
    pub role: &'a str,
    /// The text.
    pub content: &'a str,
}

/// A token that `tokenizer.json` adds to the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedToken {
    /// Its text.
    pub content: String,
    /// Its id.
    pub id: u64,
}

/// Why a chat template is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template cannot be parsed or fails while rendering.
    #[error("the chat template cannot be rendered: {0:#}")]
    Render(#[from] Error),
    /// The rendered conversation lacks the assistant's message.
    #[error("the chat template leaves out the assistant's message")]
    NoReply,
    /// What follows the assistant's message does not begin with an added token.
    #[error(
        "the chat template ends a turn with '{0}', which begins with no token of tokenizer.json's added_tokens"
    )]
    NoEndToken(String),
}

/// Renders a conversation the way Python's `apply_chat_template` does: blocks trimmed, Python's string and
/// dictionary methods available, `raise_exception` as an error.
///
/// ```
/// use packer::template::{Message, render};
/// let template = "{{ bos_token }}{% for m in messages %}{{ m['content'].strip() }}{% endfor %}";
/// let text = render(template, &[Message { role: "user", content: " Hi " }], "<bos>", false).unwrap();
/// assert_eq!(text, "<bos>Hi");
/// ```
///
/// # Errors
/// When the template is malformed, fails on purpose, or does not come to an end.
pub fn render(
    template: &str,
    messages: &[Message<'_>],
    bos_token: &str,
    add_generation_prompt: bool,
) -> Result<String, TemplateError> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    // Templates put today's date into system prompts; the epoch keeps what is rendered here reproducible.
    environment.add_function("strftime_now", |_format: String| "1970-01-01");
    let rendered = environment.template_from_str(template)?.render(context! {
        messages => Serde(messages),
        bos_token => bos_token,
        add_generation_prompt => add_generation_prompt,
    })?;
    Ok(rendered)
}

/// The token that ends an assistant's turn: the longest added token that follows the message in a rendered
/// conversation.
///
/// # Errors
/// When the template cannot be rendered or ends a turn with something else than an added token.
pub fn end_of_turn(
    template: &str,
    added_tokens: &[AddedToken],
    bos_token: &str,
) -> Result<AddedToken, TemplateError> {
    const QUESTION: &str = "What does a turn end with?";
    const REPLY: &str = "It ends here, with the following token:";
    let messages =
        [Message { role: "user", content: QUESTION }, Message { role: "assistant", content: REPLY }];
    let rendered = render(template, &messages, bos_token, false)?;
    let (_, end) = rendered.rsplit_once(REPLY).ok_or(TemplateError::NoReply)?;
    let end = end.trim_start();
    added_tokens
        .iter()
        .filter(|token| !token.content.is_empty() && end.starts_with(&token.content))
        .max_by_key(|token| token.content.len())
        .cloned()
        .ok_or_else(|| TemplateError::NoEndToken(end.chars().take(40).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURNS: &str = "{{ bos_token }}{% for m in messages %}<|turn>{{ m['role'] }}\n{{ m['content'] }}<turn|>\n\
        {% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}";

    /// The constructs that the templates of the released checkpoints use: macros, namespaces, Python methods,
    /// slices, reversed ranges, conditional expressions.
    const ELABORATE: &str = r"
{%- macro clean(text) -%}
    {%- set ns = namespace(result='') -%}
    {%- for part in text.split('<channel|>') -%}
        {%- if '<|channel>' in part -%}
            {%- set ns.result = ns.result + part.split('<|channel>')[0] -%}
        {%- else -%}
            {%- set ns.result = ns.result + part -%}
        {%- endif -%}
    {%- endfor -%}
    {{- ns.result | trim -}}
{%- endmacro -%}
{%- set ns = namespace(previous=None) -%}
{%- set loop_messages = messages -%}
{{- bos_token -}}
{%- if (enable_thinking is defined and enable_thinking) or tools or messages[0]['role'] in ['system', 'developer'] -%}
    {{- '<|turn>system\n' + messages[0]['content'] | trim + '<turn|>\n' -}}
    {%- set loop_messages = messages[1:] -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {%- set seen = namespace(found=false) -%}
    {%- for j in range(loop.index0 - 1, -1, -1) -%}
        {%- if not seen.found and loop_messages[j]['role'] != 'tool' -%}{%- set seen.found = true -%}{%- endif -%}
    {%- endfor -%}
    {{- '<|turn>' + role + '\n' }}
    {%- if message.get('reasoning') or message.get('reasoning_content') -%}{{- 'thought' -}}{%- endif -%}
    {%- if message['content'] is string -%}
        {%- if role == 'model' -%}{{- clean(message['content']) -}}
        {%- else -%}{{- message['content'] | trim -}}{%- endif -%}
    {%- endif -%}
    {{- '<turn|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model\n' -}}{%- endif -%}";

    fn tokens() -> Vec<AddedToken> {
        [("<eos>", 1), ("<bos>", 2), ("<|turn>", 4), ("<turn|>", 5), ("<", 9)]
            .map(|(content, id)| AddedToken { content: content.into(), id })
            .to_vec()
    }

    #[test]
    fn conversation_is_rendered_as_in_python() {
        let messages = [
            Message { role: "user", content: "Hi" },
            Message { role: "assistant", content: "a<|channel>b<channel|>c " },
        ];
        assert_eq!(
            render(TURNS, &messages[..1], "<bos>", true).unwrap(),
            "<bos><|turn>user\nHi<turn|>\n<|turn>model\n"
        );
        assert_eq!(
            render(ELABORATE, &messages, "<bos>", true).unwrap(),
            "<bos><|turn>user\nHi<turn|>\n<|turn>model\nac<turn|>\n<|turn>model\n"
        );
    }

    #[test]
    fn turn_end_is_the_longest_token_after_the_reply() {
        for template in [TURNS, ELABORATE] {
            assert_eq!(end_of_turn(template, &tokens(), "<bos>").unwrap().id, 5);
        }
        let eos = "{% for m in messages %}{{ m.content }} <eos>{% endfor %}";
        assert_eq!(end_of_turn(eos, &tokens(), "").unwrap().id, 1);
    }

    #[test]
    fn useless_templates_are_told_apart() {
        let error = |template: &str| end_of_turn(template, &tokens(), "").unwrap_err();
        assert!(matches!(error("{% for"), TemplateError::Render(_)));
        assert!(matches!(error("{{ raise_exception('no') }}"), TemplateError::Render(_)));
        assert!(matches!(error("{{ messages[0].content }}"), TemplateError::NoReply));
        assert!(matches!(error("{{ messages[1].content }}end"), TemplateError::NoEndToken(_)));
        let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
        assert!(matches!(error(endless), TemplateError::Render(_)));
    }
}
