//! Which members of the Gemma 4 family are refused, and for which field.

use super::ConfigError;
use super::fields::Fields;

const OTHER_MEMBER: &str =
    "this is another member of the family, and only the dense E-series (E2B, E4B) is converted";

/// Settings of other models that say how attention and its rotation are computed. This family has `rope_parameters`, so a
/// configuration with such settings describes a model that would be converted wrongly.
const FOREIGN: [&str; 7] = [
    "rope_scaling",
    "rope_theta",
    "rope_local_base_freq",
    "partial_rotary_factor",
    "attention_factor",
    "attn_logit_softcapping",
    "query_pre_attn_scalar",
];

/// Refuses what would change the decoder's mathematics.
pub(super) fn refuse_others(outer: Option<&Fields<'_>>, text: &Fields<'_>) -> Result<(), ConfigError> {
    for (flag, what) in [
        ("enable_moe_block", "mixture of experts"),
        ("attention_k_eq_v", "values taken from keys"),
        ("attention_bias", "biases in attention"),
    ] {
        if text.flag(flag, false)? {
            return Err(text.refuse(flag, format!("false ({what}: {OTHER_MEMBER})")));
        }
    }
    if text.get("hidden_size_per_layer_input").is_none_or(|width| width.as_u64() == Some(0)) {
        let expected = format!("a size (no per-layer input: {OTHER_MEMBER})");
        return Err(text.refuse("hidden_size_per_layer_input", expected));
    }
    text.only("hidden_activation", "gelu_pytorch_tanh")?;
    if text.get("use_bidirectional_attention").is_some() {
        return Err(text.refuse("use_bidirectional_attention", "null: this decoder is causal"));
    }
    for part in outer.into_iter().chain([text]) {
        if part.get("quantization_config").is_some() {
            let expected = "none: the weights must be plain bf16, as in the *-unquantized releases";
            return Err(part.refuse("quantization_config", expected));
        }
        if let Some(name) = FOREIGN.into_iter().find(|name| part.get(name).is_some()) {
            let expected =
                "none: Gemma 4 has no such setting (rotation is in rope_parameters, scores are not scaled)";
            return Err(part.refuse(name, expected));
        }
    }
    Ok(())
}
