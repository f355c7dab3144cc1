//! Canonical order of the tables: what Apple's serializer writes, so that loading and saving is the identity.
//!
//! One walk collects everything; an entry is made at its first mention and each later mention adds one to its count.
//! Op names, attributes and types are then sorted by count, descending and stable. Resources keep the order of first mention.

use std::collections::HashMap;
use std::hash::Hash;

use super::attributes::{Reference, References};
use crate::attribute::{AttributeId, ResourceId};
use crate::module::{Module, OpId, RegionId, ValueId};
use crate::opcode::Opcode;
use crate::types::TypeId;

/// Mentions of one kind of entry, in order of first mention.
struct Mentions<T> {
    counts: Vec<(T, u64)>,
    position: HashMap<T, usize>,
}

impl<T: Copy + Eq + Hash> Mentions<T> {
    fn new() -> Self {
        Mentions { counts: Vec::new(), position: HashMap::new() }
    }

    /// Counts a mention; true if it is the first one.
    fn mention(&mut self, item: T) -> bool {
        if let Some(&at) = self.position.get(&item) {
            self.counts[at].1 += 1;
            return false;
        }
        self.position.insert(item, self.counts.len());
        self.counts.push((item, 1));
        true
    }

    fn by_count(mut self) -> Table<T> {
        self.counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Table::new(self.counts.into_iter().map(|(item, _)| item).collect())
    }

    fn by_first_mention(self) -> Table<T> {
        Table::new(self.counts.into_iter().map(|(item, _)| item).collect())
    }
}

/// Items in the order of their ids in the file.
pub(super) struct Table<T> {
    pub(super) items: Vec<T>,
    ids: HashMap<T, u64>,
}

impl<T: Copy + Eq + Hash> Table<T> {
    fn new(items: Vec<T>) -> Self {
        let ids = items.iter().enumerate().map(|(id, item)| (*item, id as u64)).collect();
        Table { items, ids }
    }

    /// The id of an item. Every item that the module uses was mentioned by the walk.
    pub(super) fn id(&self, item: T) -> u64 {
        self.ids[&item]
    }
}

/// All ids of a file.
pub(super) struct Numbering {
    pub(super) opcodes: Table<Opcode>,
    pub(super) attributes: Table<AttributeId>,
    pub(super) types: Table<TypeId>,
    pub(super) resources: Table<ResourceId>,
    /// Id of each value within its region, by [`ValueId::index`].
    values: Vec<u64>,
    /// Values of each region, nested ones not counted, by [`RegionId::index`].
    region_values: Vec<u64>,
    /// Whether no op inside uses a value from outside, by [`OpId::index`].
    isolated: Vec<bool>,
}

impl Numbering {
    /// Numbers everything reachable from `root`.
    pub(super) fn new(module: &Module, root: OpId) -> Self {
        let mut walk = Walk {
            module,
            opcodes: Mentions::new(),
            attributes: Mentions::new(),
            types: Mentions::new(),
            resources: Mentions::new(),
            values: vec![0; module.value_count()],
            region_values: vec![0; module.region_count()],
            isolated: isolation(module, root),
        };
        walk.run(root);
        Numbering {
            opcodes: walk.opcodes.by_count(),
            attributes: walk.attributes.by_count(),
            types: walk.types.by_count(),
            resources: walk.resources.by_first_mention(),
            values: walk.values,
            region_values: walk.region_values,
            isolated: walk.isolated,
        }
    }

    pub(super) fn value(&self, value: ValueId) -> u64 {
        self.values[value.index()]
    }

    pub(super) fn values_in(&self, region: RegionId) -> u64 {
        self.region_values[region.index()]
    }

    pub(super) fn is_isolated(&self, op: OpId) -> bool {
        self.isolated[op.index()]
    }
}

/// Which ops' regions use nothing from outside.
fn isolation(module: &Module, root: OpId) -> Vec<bool> {
    let mut isolated = vec![true; module.op_count()];
    let mut depths = vec![0; module.value_count()];
    mark_escapes(module, root, &mut Vec::new(), &mut depths, &mut isolated);
    isolated
}

/// Depth of a value is the number of ops around it; an op that uses a value of depth d opens every enclosing op from d on.
fn mark_escapes(
    module: &Module,
    op: OpId,
    enclosing: &mut Vec<OpId>,
    depths: &mut [usize],
    isolated: &mut [bool],
) {
    for operand in &module.op(op).operands {
        for outer in &enclosing[depths[operand.index()].min(enclosing.len())..] {
            isolated[outer.index()] = false;
        }
    }
    for result in &module.op(op).results {
        depths[result.index()] = enclosing.len();
    }
    enclosing.push(op);
    for region in &module.op(op).regions {
        for block in &module.region(*region).blocks {
            for argument in &module.block(*block).arguments {
                depths[argument.index()] = enclosing.len();
            }
            for nested in &module.block(*block).ops {
                mark_escapes(module, *nested, enclosing, depths, isolated);
            }
        }
    }
    enclosing.pop();
}

struct Walk<'m> {
    module: &'m Module,
    opcodes: Mentions<Opcode>,
    attributes: Mentions<AttributeId>,
    types: Mentions<TypeId>,
    resources: Mentions<ResourceId>,
    values: Vec<u64>,
    region_values: Vec<u64>,
    isolated: Vec<bool>,
}

impl Walk<'_> {
    fn run(&mut self, root: OpId) {
        let mut next = 0;
        self.op(root, &mut next);
        let mut pending = Vec::new();
        self.push_regions(root, next, &mut pending);
        while let Some((region, first)) = pending.pop() {
            let next = self.region(region, first);
            for block in &self.module.region(region).blocks {
                for op in &self.module.block(*block).ops {
                    self.push_regions(*op, next, &mut pending);
                }
            }
        }
    }

    /// Regions wait on a stack, so that those of the last op are numbered first.
    fn push_regions(&self, op: OpId, next: u64, pending: &mut Vec<(RegionId, u64)>) {
        let first = if self.isolated[op.index()] { 0 } else { next };
        pending.extend(self.module.op(op).regions.iter().map(|region| (*region, first)));
    }

    /// Mentions what is directly in a region; returns the next free value id.
    fn region(&mut self, region: RegionId, first: u64) -> u64 {
        let mut next = first;
        for block in &self.module.region(region).blocks {
            for argument in &self.module.block(*block).arguments {
                self.number(*argument, &mut next);
                self.attribute(self.module.location_of(*argument));
                self.ty(self.module.value(*argument).ty);
            }
            for op in &self.module.block(*block).ops {
                self.op(*op, &mut next);
            }
        }
        self.region_values[region.index()] = next - first;
        next
    }

    fn op(&mut self, id: OpId, next: &mut u64) {
        let op = self.module.op(id);
        self.opcodes.mention(op.opcode);
        for result in &op.results {
            self.number(*result, next);
            self.ty(self.module.value(*result).ty);
        }
        op.properties.iter().flatten().for_each(|property| self.attribute(*property));
        self.attribute(op.location);
    }

    fn number(&mut self, value: ValueId, next: &mut u64) {
        self.values[value.index()] = *next;
        *next += 1;
    }

    fn attribute(&mut self, id: AttributeId) {
        if self.attributes.mention(id) {
            References::of_attribute(self.module, id).into_iter().for_each(|item| self.reference(item));
        }
    }

    fn ty(&mut self, id: TypeId) {
        if self.types.mention(id) {
            References::of_type(self.module, id).into_iter().for_each(|item| self.reference(item));
        }
    }

    fn reference(&mut self, item: Reference) {
        match item {
            Reference::Attribute(id) => self.attribute(id),
            Reference::Type(id) => self.ty(id),
            Reference::Resource(id) => {
                self.resources.mention(id);
            }
        }
    }
}
