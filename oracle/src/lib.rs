//! Reference values, and the comparison of a bundle's logits with them.
