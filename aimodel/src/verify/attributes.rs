//! Attributes that loaders convert to their own when they read a program: locations, and entries of arguments and results.

use super::Checked;
use crate::attribute::{Attribute, AttributeId};
use crate::module::Module;

/// Checks attributes, each once: they may refer to each other any number of times.
pub(super) struct Attributes<'m> {
    module: &'m Module,
    locations: Vec<bool>,
    values: Vec<bool>,
}

/// Whether a value fits this many bits: the bits above them must be zero, as they are stored.
pub(super) fn fits(width: u64, value: i64) -> bool {
    width >= 64 || (value as u64) >> width == 0
}

impl<'m> Attributes<'m> {
    pub(super) fn new(module: &'m Module) -> Self {
        let count = module.attribute_count();
        Attributes { module, locations: vec![false; count], values: vec![false; count] }
    }

    /// A location must be of the only kind that loaders accept, and lead to a file.
    pub(super) fn location(&mut self, id: AttributeId) -> Checked {
        if self.locations[id.index()] {
            return Ok(());
        }
        let module = self.module;
        let Attribute::Location { source, scope, fused, metadata } = module.attribute(id) else {
            return Err("its location is of a kind that loaders do not accept".to_owned());
        };
        match module.attribute(*source) {
            Attribute::SourceLocation { file, .. } if self.is_file(*file) => {}
            _ => return Err("its location does not lead to a file".to_owned()),
        }
        self.scope(*scope)?;
        fused.iter().try_for_each(|location| self.location(*location))?;
        for entry in metadata {
            match module.attribute(*entry) {
                Attribute::Metadata { name, data } if !name.is_empty() => match module.attribute(*data) {
                    Attribute::MetadataData(value) => self.value(*value)?,
                    _ => return Err(format!("its location has no data under {name:?}")),
                },
                _ => return Err("its location has metadata of a kind that loaders do not accept".to_owned()),
            }
        }
        self.locations[id.index()] = true;
        Ok(())
    }

    fn is_file(&self, id: AttributeId) -> bool {
        matches!(self.module.attribute(id), Attribute::File { .. })
    }

    /// What a location is in: nothing, a symbol, a function or a unit.
    fn scope(&self, id: AttributeId) -> Checked {
        let is_unit = |id: AttributeId| match self.module.attribute(id) {
            Attribute::CompileUnit { file, files, .. } => {
                self.is_file(*file) && files.iter().all(|file| self.is_file(*file))
            }
            _ => false,
        };
        let fits = match self.module.attribute(id) {
            Attribute::Unit => true,
            Attribute::SymbolReference(path) => path.first().is_some_and(|name| !name.is_empty()),
            Attribute::Subprogram { unit, file, .. } => is_unit(*unit) && self.is_file(*file),
            _ => is_unit(id),
        };
        if fits {
            Ok(())
        } else {
            Err("its location has a scope of a kind that loaders do not accept".to_owned())
        }
    }

    /// An attribute that has a counterpart outside of the dialect: only these can be values of entries.
    pub(super) fn value(&mut self, id: AttributeId) -> Checked {
        if self.values[id.index()] {
            return Ok(());
        }
        match self.module.attribute(id) {
            Attribute::String(_) | Attribute::Type(_) | Attribute::Unit => {}
            Attribute::SymbolReference(path) if path.first().is_some_and(|name| !name.is_empty()) => {}
            Attribute::Integer { width, value, .. } if fits(*width, *value) => {}
            Attribute::Float { width: width @ (16 | 32 | 64), bits } if fits(*width, *bits) => {}
            Attribute::Integer { width, value, .. } | Attribute::Float { width, bits: value } => {
                return Err(format!("the number {value} does not fit {width} bits"));
            }
            Attribute::Array(items) => items.iter().try_for_each(|item| self.value(*item))?,
            Attribute::Dictionary(entries) => entries.iter().try_for_each(|entry| self.entry(*entry))?,
            _ => return Err("it has an attribute of a kind that loaders do not accept".to_owned()),
        }
        self.values[id.index()] = true;
        Ok(())
    }

    /// A named entry: a name and one value.
    pub(super) fn entry(&mut self, id: AttributeId) -> Checked {
        match self.module.attribute(id) {
            Attribute::Opaque { name, parameters } if !name.is_empty() => match parameters[..] {
                [value] => self.value(value).map_err(|reason| format!("{name:?}: {reason}")),
                _ => Err(format!("{name:?} has {} values instead of one", parameters.len())),
            },
            _ => Err("an entry has no name".to_owned()),
        }
    }
}
