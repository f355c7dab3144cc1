//! Types and attributes by content: equal ones have equal fingerprints, even in different modules.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::attribute::{AttributeId, ResourceId};
use crate::bytecode::{Fields, attribute_fields, type_fields};
use crate::module::Module;
use crate::types::TypeId;

/// Fingerprints of everything that is interned in a module. Made in one pass over its tables, however often entries refer to
/// one another: written out, a few hundred bytes of a hostile file could take unbounded time and memory.
///
/// Blobs are all alike here: neither their keys nor their contents matter.
pub(crate) struct Fingerprints {
    types: Vec<u64>,
    attributes: Vec<u64>,
}

impl Fingerprints {
    pub(crate) fn of(module: &Module) -> Self {
        let mut known = Fingerprints { types: Vec::new(), attributes: Vec::new() };
        // An entry refers to entries that were interned before it, since it needs their ids.
        for ty in module.types() {
            let print = known.print(|content| type_fields(ty, content));
            known.types.push(print);
        }
        for attribute in module.attributes() {
            let print = known.print(|content| attribute_fields(attribute, content));
            known.attributes.push(print);
        }
        known
    }

    pub(crate) fn ty(&self, id: TypeId) -> u64 {
        self.types.get(id.index()).copied().unwrap_or_default()
    }

    pub(crate) fn attribute(&self, id: AttributeId) -> u64 {
        self.attributes.get(id.index()).copied().unwrap_or_default()
    }

    fn print(&self, fields: impl FnOnce(&mut Content<'_>)) -> u64 {
        let mut content = Content { known: self, hasher: DefaultHasher::new() };
        fields(&mut content);
        content.hasher.finish()
    }
}

/// The content of one entry, hashed.
struct Content<'k> {
    known: &'k Fingerprints,
    hasher: DefaultHasher,
}

impl Fields for Content<'_> {
    fn varint(&mut self, value: u64) {
        value.hash(&mut self.hasher);
    }

    fn signed(&mut self, value: i64) {
        value.hash(&mut self.hasher);
    }

    fn byte(&mut self, value: u8) {
        value.hash(&mut self.hasher);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        bytes.hash(&mut self.hasher);
    }

    fn string(&mut self, text: &str) {
        text.hash(&mut self.hasher);
    }

    fn attribute(&mut self, id: AttributeId) {
        self.known.attribute(id).hash(&mut self.hasher);
    }

    fn ty(&mut self, id: TypeId) {
        self.known.ty(id).hash(&mut self.hasher);
    }

    fn resource(&mut self, _: ResourceId) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::Attribute;
    use crate::element::Element;
    use crate::types::{TensorType, Type};

    #[test]
    fn content_matters_and_ids_do_not() {
        let (mut left, mut right) = (Module::new(), Module::new());
        right.string("something that the other module has not");
        right.tensor_type(&TensorType::fixed(&[7], Element::Si4));
        let entry = |module: &mut Module, extent: u64| {
            let ty = module.tensor_type(&TensorType::fixed(&[extent], Element::F16));
            let inner = module.intern(Attribute::Type(ty));
            module.intern(Attribute::Array(vec![inner, inner]))
        };
        let (a, b, c) = (entry(&mut left, 2), entry(&mut right, 2), entry(&mut right, 3));
        let (left, right) = (Fingerprints::of(&left), Fingerprints::of(&right));
        assert_eq!(left.attribute(a), right.attribute(b));
        assert_ne!(left.attribute(a), right.attribute(c));
    }

    #[test]
    fn a_type_that_doubles_a_thousand_times_is_one_pass() {
        let mut module = Module::new();
        let mut ty = module.intern_type(Type::Element(Element::F16));
        for _ in 0..1000 {
            ty = module.intern_type(Type::Function { results: vec![ty], operands: vec![ty] });
        }
        assert_ne!(Fingerprints::of(&module).ty(ty), 0);
    }
}
