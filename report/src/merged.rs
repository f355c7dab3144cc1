//! Facts about several bundles that differ in the bundle's name alone are shown once.

use crate::facts::{Evaluation, Gate};

/// Something that was found about a bundle.
pub(crate) trait OfBundle: Clone + PartialEq {
    /// The bundle's name.
    fn bundle(&self) -> &str;

    /// The same about a bundle without a name.
    fn anonymous(&self) -> Self;
}

impl OfBundle for Gate {
    fn bundle(&self) -> &str {
        &self.bundle
    }

    fn anonymous(&self) -> Self {
        Gate { bundle: String::new(), ..self.clone() }
    }
}

impl OfBundle for Evaluation {
    fn bundle(&self) -> &str {
        &self.bundle
    }

    fn anonymous(&self) -> Self {
        Evaluation { bundle: String::new(), ..self.clone() }
    }
}

/// What was found, each once, in order, with the names of all bundles that it was found about.
pub(crate) fn merged<T: OfBundle>(found: &[T]) -> Vec<(Vec<&str>, &T)> {
    let mut groups: Vec<(Vec<&str>, &T)> = Vec::new();
    for item in found {
        match groups.iter_mut().find(|(_, known)| known.anonymous() == item.anonymous()) {
            Some((names, _)) => names.push(item.bundle()),
            None => groups.push((vec![item.bundle()], item)),
        }
    }
    groups
}
