//! Seeded damage: to the bytes of a file, and to a module before it is written.

use std::iter;

use aimodel::{Attribute, AttributeId, BlockId, Dim, Element, Module, OpId, Opcode, Type, TypeId, ValueId};

use super::file_with_any_blobs;

/// A sequence of numbers that is the same on every run.
pub struct Numbers(pub u64);

impl Numbers {
    /// A step of SplitMix64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.below(items.len())).copied()
    }
}

/// Damages a file in one of the ways in which files are damaged.
pub fn damage(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    let at = numbers.below(bytes.len());
    let length = 1 + numbers.below(8).min(bytes.len() - at - 1);
    match numbers.below(16) {
        0..=3 => bytes[at] ^= 1 << numbers.below(8),
        // Numbers of one byte end in a 1 bit: this makes the next number, or the one before.
        4..=10 => bytes[at] = bytes[at].wrapping_add([2, 254][numbers.below(2)]),
        11 => bytes[at] = numbers.next() as u8,
        12 => bytes[at..at + length].fill([0, 0xFF][numbers.below(2)]),
        13 => drop(bytes.drain(at..at + length)),
        14 => {
            let copied = bytes[at..at + length].to_vec();
            let to = numbers.below(bytes.len());
            bytes.splice(to..to, copied);
        }
        _ => {
            let other = numbers.below(bytes.len());
            bytes.swap(at, other);
        }
    }
}

/// A file of a module that was changed in one to three places, or whose bytes were.
pub fn mutant(module: &Module, numbers: &mut Numbers) -> Vec<u8> {
    let mut module = module.clone();
    let (edits, damages) = [(1, 0), (1, 0), (1, 0), (2, 0), (3, 0), (1, 1), (0, 1), (0, 2)][numbers.below(8)];
    (0..edits).for_each(|_| edit(&mut module, numbers));
    let mut bytes = file_with_any_blobs(&module);
    (0..damages).for_each(|_| damage(&mut bytes, numbers));
    bytes
}

/// Every op with the block it is in and its position there.
fn places(module: &Module) -> Vec<(BlockId, usize, OpId)> {
    let mut found = Vec::new();
    let mut pending: Vec<OpId> = module.root().into_iter().collect();
    while let Some(op) = pending.pop() {
        for block in module.op(op).regions.iter().flat_map(|region| &module.region(*region).blocks) {
            for (at, op) in module.block(*block).ops.iter().enumerate() {
                found.push((*block, at, *op));
                pending.push(*op);
            }
        }
    }
    found
}

/// Values of a block: its arguments and what its ops make.
fn values(module: &Module, block: BlockId) -> Vec<ValueId> {
    let block = module.block(block);
    let results = block.ops.iter().flat_map(|op| &module.op(*op).results);
    block.arguments.iter().chain(results).copied().collect()
}

/// Attributes that ops have as properties or locations, and what is in them.
fn attributes(module: &Module, places: &[(BlockId, usize, OpId)]) -> Vec<AttributeId> {
    let mut found = Vec::new();
    for op in places.iter().map(|(_, _, op)| module.op(*op)).chain(module.root().map(|root| module.op(root)))
    {
        found.extend(iter::once(op.location).chain(op.properties.iter().flatten().copied()));
    }
    let mut at = 0;
    while at < found.len() && found.len() < 10_000 {
        if let Attribute::Array(items) | Attribute::Opaque { parameters: items, .. } =
            module.attribute(found[at])
        {
            found.extend(items);
        }
        at += 1;
    }
    found
}

/// Changes a module in one place, so that it can still be written to a file.
pub fn edit(module: &mut Module, numbers: &mut Numbers) {
    let places = places(module);
    let Some((block, at, op)) = numbers.pick(&places) else { return };
    // Ops of graphs matter more than those in decompositions, and are fewer.
    let of_graph: Vec<_> = places
        .iter()
        .copied()
        .filter(|(block, ..)| module.graphs().iter().any(|graph| module.body(*graph) == Some(*block)))
        .collect();
    let (block, at, op) = match numbers.below(3) {
        0 => (block, at, op),
        _ => numbers.pick(&of_graph).unwrap_or((block, at, op)),
    };
    match numbers.below(20) {
        0..=2 => change_operands(module, block, op, numbers),
        3..=5 => change_result(module, &places, op, numbers),
        6 => change_opcode(module, &places, op, numbers),
        7 => drop(module.block_mut(block).ops.remove(at)),
        8 => {
            let ops = &mut module.block_mut(block).ops;
            let other = numbers.below(ops.len());
            ops.swap(at, other);
        }
        9 => repeat(module, block, at, op),
        10..=11 => {
            let all = attributes(module, &places);
            let count = module.op(op).properties.len();
            let property = Some(numbers.pick(&all)).filter(|_| numbers.below(8) > 0).flatten();
            if let Some(at) = numbers.below(count + 1).checked_sub(1) {
                module.op_mut(op).properties[at] = property;
            }
        }
        12..=15 => change_constant(module, &places, numbers),
        16 => {
            let all = attributes(module, &places);
            module.op_mut(op).location = numbers.pick(&all).unwrap_or(module.op(op).location);
        }
        17 => change_regions(module, &places, op, numbers),
        _ => change_text(module, numbers),
    }
}

fn change_operands(module: &mut Module, block: BlockId, op: OpId, numbers: &mut Numbers) {
    let all = values(module, block);
    let Some(other) = numbers.pick(&all) else { return };
    let operands = &mut module.op_mut(op).operands;
    let at = numbers.below(operands.len());
    match numbers.below(6) {
        0 if !operands.is_empty() => drop(operands.remove(at)),
        1 => operands.insert(at, other),
        2 if !operands.is_empty() => {
            let to = numbers.below(operands.len());
            operands.swap(at, to);
        }
        _ if !operands.is_empty() => operands[at] = other,
        _ => operands.push(other),
    }
}

/// A type that is somewhere in the module, or a tensor type that is nearly one of these.
fn another_type(
    module: &mut Module,
    places: &[(BlockId, usize, OpId)],
    old: TypeId,
    numbers: &mut Numbers,
) -> TypeId {
    let types: Vec<TypeId> = places
        .iter()
        .flat_map(|(block, _, op)| module.op(*op).results.iter().chain(&module.block(*block).arguments))
        .map(|value| module.value(*value).ty)
        .collect();
    let ty = numbers.pick(&types).unwrap_or(old);
    let ty = if numbers.below(3) == 0 { ty } else { old };
    let handle = matches!(module.ty(ty), Type::Handle(_));
    let tensor = match *module.ty(ty) {
        Type::Handle(inner) => module.as_tensor(inner),
        _ => module.as_tensor(ty),
    };
    let Some(mut tensor) = tensor else { return ty };
    let at = numbers.below(tensor.rank());
    match numbers.below(8) {
        0 | 1 => tensor.element = Element::ALL[numbers.below(Element::ALL.len())],
        2 | 3 if tensor.rank() > 0 => tensor.shape[at] = Dim::Dynamic,
        4 if tensor.rank() > 0 => {
            let extents = [0, 1, 2, 3, 32, 64, 1 << 31, 1 << 40, (1 << 63) - 1];
            tensor.shape[at] = Dim::Fixed(extents[numbers.below(extents.len())]);
        }
        5 if tensor.rank() > 0 => drop(tensor.shape.remove(at)),
        6 => tensor.shape.insert(at, [Dim::Fixed(1), Dim::Dynamic, Dim::Fixed(2)][numbers.below(3)]),
        _ => return ty,
    }
    let ty = module.tensor_type(&tensor);
    if handle { module.intern_type(Type::Handle(ty)) } else { ty }
}

/// Changes the type of a result, or adds or removes a result.
fn change_result(module: &mut Module, places: &[(BlockId, usize, OpId)], op: OpId, numbers: &mut Numbers) {
    let results = module.op(op).results.clone();
    let Some(old) = numbers.pick(&results) else { return };
    let ty = another_type(module, places, module.value(old).ty, numbers);
    match numbers.below(12) {
        0 => drop(module.op_mut(op).results.pop()),
        1 => drop(module.add_result(op, ty)),
        _ => {
            let new = module.add_result(op, ty);
            module.op_mut(op).results.pop();
            for result in module.op_mut(op).results.iter_mut().filter(|result| **result == old) {
                *result = new;
            }
            for (_, _, user) in places {
                for operand in module.op_mut(*user).operands.iter_mut().filter(|operand| **operand == old) {
                    *operand = new;
                }
            }
        }
    }
}

fn change_opcode(module: &mut Module, places: &[(BlockId, usize, OpId)], op: OpId, numbers: &mut Numbers) {
    let opcode = Opcode::ALL[numbers.below(Opcode::ALL.len())];
    let all = attributes(module, places);
    let mut properties = module.op(op).properties.clone();
    properties.resize_with(opcode.properties().len(), || numbers.pick(&all));
    let op = module.op_mut(op);
    (op.opcode, op.properties) = (opcode, properties);
}

/// Inserts a copy of an op after it.
fn repeat(module: &mut Module, block: BlockId, at: usize, op: OpId) {
    let old = module.op(op).clone();
    let new = module.add_op(old.opcode, old.location);
    for result in &old.results {
        module.add_result(new, module.value(*result).ty);
    }
    let again = module.op_mut(new);
    (again.operands, again.properties) = (old.operands, old.properties);
    module.block_mut(block).ops.insert(at + 1, new);
}

/// Changes the bytes of an inline constant, or how many there are.
fn change_constant(module: &mut Module, places: &[(BlockId, usize, OpId)], numbers: &mut Numbers) {
    let constants: Vec<OpId> =
        places.iter().map(|(_, _, op)| *op).filter(|op| module.op(*op).opcode == Opcode::Constant).collect();
    let Some(op) = numbers.pick(&constants) else { return };
    let value = module.op(op).properties.first().copied().flatten();
    let Some(Attribute::DenseElements { mut splat, mut bytes }) =
        value.map(|id| module.attribute(id).clone())
    else {
        return;
    };
    let at = numbers.below(bytes.len());
    match numbers.below(10) {
        0 => splat = !splat,
        1 => drop(bytes.pop()),
        2 => bytes.push(0),
        3 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
        _ if bytes.len().is_multiple_of(4) && !bytes.is_empty() => {
            let edges = [0, 1, 2, 3, 4, 7, -1, -2, -3, -4, -7, 100, 65_536, i32::MAX, i32::MIN];
            let number = edges[numbers.below(edges.len())];
            bytes[at / 4 * 4..at / 4 * 4 + 4].copy_from_slice(&number.to_le_bytes());
        }
        _ if !bytes.is_empty() => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][numbers.below(5)],
        _ => bytes.push(1),
    }
    let value = module.intern(Attribute::DenseElements { splat, bytes });
    module.op_mut(op).properties[0] = Some(value);
}

/// Removes a region from an op, replaces it with that of another op, or changes the arguments of a block.
fn change_regions(module: &mut Module, places: &[(BlockId, usize, OpId)], op: OpId, numbers: &mut Numbers) {
    let with_regions: Vec<OpId> =
        places.iter().map(|(_, _, op)| *op).filter(|op| !module.op(*op).regions.is_empty()).collect();
    let Some(from) = numbers.pick(&with_regions) else { return };
    let location = module.op(op).location;
    match numbers.below(7) {
        0 => drop(module.op_mut(from).regions.pop()),
        1 => drop(module.add_region(from)),
        2 => {
            let region = module.add_region(op);
            module.add_block(region);
        }
        3 => {
            let region = module.op(from).regions[0];
            module.add_block(region);
        }
        choice => {
            let Some(block) = module.body(from) else { return };
            let Some(old) = module.block(block).arguments.first().map(|value| module.value(*value).ty) else {
                return;
            };
            let ty = another_type(module, places, old, numbers);
            if choice == 4 {
                module.block_mut(block).arguments.pop();
            } else {
                module.add_argument(block, ty, location);
            }
        }
    }
}

/// Changes the name of the graph, or the entries of its arguments or results.
fn change_text(module: &mut Module, numbers: &mut Numbers) {
    let graphs = module.graphs();
    let Some(graph) = numbers.pick(&graphs) else { return };
    let texts = [
        "",
        "main",
        "x0",
        "y",
        "aicode.name",
        "MutableBuffers.buffer_mutation",
        "a\0b",
        "é",
        "a b",
        "%0",
        "-",
    ];
    let text = texts[numbers.below(texts.len())].to_owned();
    let name = module.intern(Attribute::String(text.clone()));
    let at = [0, 1, 2, 3, 4, 5, 6, 7, 8][numbers.below(9)];
    let old = module.op(graph).properties.get(at).copied().flatten();
    let changed = match old.map(|id| module.attribute(id).clone()) {
        Some(Attribute::Array(mut lists)) => {
            let entry = module.intern(Attribute::Opaque { name: text, parameters: vec![name] });
            let list = module.intern(Attribute::Array(vec![entry]));
            let position = numbers.below(lists.len());
            match numbers.below(4) {
                0 => drop(lists.pop()),
                1 => lists.push(list),
                _ => match lists.get(position).map(|id| module.attribute(*id).clone()) {
                    Some(Attribute::Array(mut entries)) => {
                        let at = numbers.below(entries.len() + 1);
                        entries.insert(at, entry);
                        lists[position] = module.intern(Attribute::Array(entries));
                    }
                    _ => lists.push(entry),
                },
            }
            module.intern(Attribute::Array(lists))
        }
        Some(Attribute::Integer { width, unsigned, value }) => {
            let value = [value ^ 1, 2, -1, value][numbers.below(4)];
            let width = [width, width, 8, 32][numbers.below(4)];
            module.intern(Attribute::Integer { width, unsigned: unsigned ^ (numbers.below(4) == 0), value })
        }
        _ => name,
    };
    if let Some(property) = module.op_mut(graph).properties.get_mut(at) {
        *property = Some(changed);
    }
}
