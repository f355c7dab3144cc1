//! The rotary embedding of each kind of layer.

use super::fields::Fields;
use super::{ConfigError, LayerKind, Rope};

/// Reads `rope_parameters` of one kind of layer, whose heads have `head_dim` elements.
pub(super) fn read(text: &Fields<'_>, kind: LayerKind, head_dim: usize) -> Result<Rope, ConfigError> {
    let fields = text.object("rope_parameters")?.object(kind.name())?;
    let factor_given = fields.get("partial_rotary_factor").is_some();
    let factor = if factor_given { fields.positive("partial_rotary_factor")? } else { 1.0 };
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
    if fields.get("factor").is_some() && fields.positive("factor")? != 1.0 {
        return Err(fields.refuse("factor", "1.0 or none: frequencies are not scaled"));
    }
    if factor > 1.0 {
        return Err(fields.refuse("partial_rotary_factor", "a number from 0 to 1"));
    }
    // transformers: int(partial_rotary_factor * head_dim // 2), in 64-bit floats.
    let rotary_pairs = (factor * head_dim as f64 / 2.0).floor() as usize;
    if rotary_pairs == 0 {
        let expected = format!("a number that rotates at least one pair of {head_dim} elements");
        return Err(fields.refuse("partial_rotary_factor", expected));
    }
    Ok(Rope { theta: fields.positive("rope_theta")?, partial_rotary_factor: factor, rotary_pairs })
}
