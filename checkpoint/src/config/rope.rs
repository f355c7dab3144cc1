//! The rotary embedding of each kind of layer.

use super::fields::Fields;
use super::{ConfigError, LayerKind, Rope};

/// The settings that are known here. Others, such as `attention_factor`, scale frequencies or attention.
const SETTINGS: [&str; 4] = ["rope_type", "rope_theta", "partial_rotary_factor", "factor"];

/// Bounds of `rope_theta`: released models have 1e4 to 1e7.
const THETA: (f64, f64) = (10.0, 1e12);

/// Reads `rope_parameters` of one kind of layer, whose heads have `head_dim` elements.
pub(super) fn read(text: &Fields<'_>, kind: LayerKind, head_dim: usize) -> Result<Rope, ConfigError> {
    let both = text.object("rope_parameters")?;
    both.nothing_but(&[LayerKind::Sliding.name(), LayerKind::Full.name()])?;
    let fields = both.object(kind.name())?;
    fields.nothing_but(&SETTINGS)?;
    let factor_given = fields.get("partial_rotary_factor").is_some();
    let factor = if factor_given { fields.number("partial_rotary_factor", 0.0, 1.0)? } else { 1.0 };
    match kind {
        LayerKind::Sliding => {
            fields.only("rope_type", "default")?;
            // This type rotates the whole head and ignores a factor.
            if factor != 1.0 {
                return Err(fields.refuse("partial_rotary_factor", "1.0, or none, for rope_type \"default\""));
            }
        }
        LayerKind::Full => fields.only("rope_type", "proportional")?,
    }
    if fields.get("factor").is_some_and(|factor| factor.as_f64() != Some(1.0)) {
        return Err(fields.refuse("factor", "1.0 or none: frequencies are not scaled"));
    }
    // transformers: int(partial_rotary_factor * head_dim // 2), in 64-bit floats.
    let rotary_pairs = (factor * head_dim as f64 / 2.0).floor() as usize;
    if rotary_pairs == 0 {
        let expected = format!("a number that rotates at least one pair of {head_dim} elements");
        return Err(fields.refuse("partial_rotary_factor", expected));
    }
    let theta = fields.number("rope_theta", THETA.0, THETA.1)?;
    Ok(Rope { theta, partial_rotary_factor: factor, rotary_pairs })
}
