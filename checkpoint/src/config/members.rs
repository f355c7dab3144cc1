//! Which members of the Gemma 4 family are refused, and for which field.

use serde_json::Value;
use text::terminal::word;

use super::ConfigError;
use super::fields::{Fields, QUOTED, shortened};

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
pub(super) fn refuse_others(
    outer: Option<&Fields<'_>>,
    text: &Fields<'_>,
    has_per_layer: bool,
) -> Result<(), ConfigError> {
    for (flag, why) in [
        (
            "enable_moe_block",
            "a mixture of experts (such as 26B-A4B) chooses matrices for each token, and the decoder here has one MLP for all",
        ),
        ("attention_bias", "no Gemma 4 release has biases in attention, and the decoder here has none"),
    ] {
        if text.flag(flag, false)? {
            return Err(text.refuse(flag, format!("false: {why}")));
        }
    }
    refuse_mixtures(text, has_per_layer)?;
    text.only("hidden_activation", "gelu_pytorch_tanh")?;
    // With "vision", images attend in both directions and text does not.
    if text.get("use_bidirectional_attention").is_some_and(|value| value != "vision") {
        let expected = "null or \"vision\": the decoder here is causal, a token sees no later one";
        return Err(text.refuse("use_bidirectional_attention", expected));
    }
    for part in outer.into_iter().chain([text]) {
        refuse_quantized(part)?;
        if let Some(name) = FOREIGN.into_iter().find(|name| part.get(name).is_some()) {
            let expected =
                "none: Gemma 4 has no such setting (rotation is in rope_parameters, scores are not scaled)";
            return Err(part.refuse(name, expected));
        }
    }
    Ok(())
}

/// Refuses weights that another quantizer made.
fn refuse_quantized(part: &Fields<'_>) -> Result<(), ConfigError> {
    let quantized = |name: &str, by: String| Err(ConfigError::Quantized { field: part.field(name), by });
    if let Some(settings) = part.get("quantization_config") {
        let method = settings.get("quant_method").and_then(Value::as_str);
        let by =
            method.map_or("another tool".to_owned(), |method| word(&shortened(method, QUOTED)).to_string());
        // MLX writes its settings twice, the second time without a method.
        let is_mlx = method.is_none() && part.get("quantization").is_some();
        return quantized("quantization_config", if is_mlx { "MLX".to_owned() } else { by });
    }
    match part.get("quantization") {
        Some(_) => quantized("quantization", "MLX".to_owned()),
        None => Ok(()),
    }
}

/// Refuses a configuration that mixes the two families: no release does, so there is no bundle to compare with.
fn refuse_mixtures(text: &Fields<'_>, has_per_layer: bool) -> Result<(), ConfigError> {
    if has_per_layer && text.flag("attention_k_eq_v", false)? {
        let expected =
            "false: models with per-layer embeddings (hidden_size_per_layer_input) project their values";
        return Err(text.refuse("attention_k_eq_v", expected));
    }
    if !has_per_layer && text.count("num_kv_shared_layers")? > 0 {
        let expected =
            "0: only models with per-layer embeddings (hidden_size_per_layer_input) share keys and values";
        return Err(text.refuse("num_kv_shared_layers", expected));
    }
    Ok(())
}
