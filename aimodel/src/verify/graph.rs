//! Graphs: names, the function type, states and their tokens.

use std::collections::{HashMap, HashSet};

use super::Checked;
use super::attributes::Attributes;
use crate::attribute::{Attribute, AttributeId};
use crate::describe::describe_type_within;
use crate::module::{BlockId, Definition, MUTATION_KEY, Module, NAME_KEY, OpId, ValueId};
use crate::opcode::Opcode;
use crate::types::{Type, TypeId};

/// Name of a graph, if it has one.
pub(super) fn name(module: &Module, graph: OpId) -> Option<&str> {
    match module.property(graph, "name")? {
        Attribute::String(name) if !name.is_empty() => Some(name),
        _ => None,
    }
}

/// Graphs are distinguished by their names.
pub(super) fn distinct_names(module: &Module) -> Checked {
    let mut names = HashSet::new();
    for graph in module.graphs() {
        let name = name(module, graph).ok_or("a graph has no name")?;
        if !names.insert(name) {
            return Err(format!("two graphs are called {name:?}"));
        }
    }
    Ok(())
}

/// Checks a graph's properties against its block.
pub(super) fn check(module: &Module, graph: OpId, attributes: &mut Attributes<'_>) -> Checked {
    let block = module.body(graph).ok_or("its region is not one block")?;
    let arguments = &module.block(block).arguments;
    let results = outputs(module, block).ok_or("does not end in an output")?;
    check_function_type(module, graph, arguments, results)?;
    for (name, what, values, mutation) in [
        ("argAttrs", "argument", arguments.as_slice(), Some(MUTATION_KEY)),
        ("resAttrs", "result", results, None),
    ] {
        let entries = module.property(graph, name);
        check_entries(module, entries, what, values, mutation)?;
        check_values(module, entries, what, attributes)?;
    }
    if let Some(Attribute::Opaque { parameters, .. }) = module.property(graph, "compositeDecl?") {
        parameters.iter().try_for_each(|parameter| attributes.entry(*parameter))?;
    }
    let is_set = |name| matches!(module.property(graph, name), Some(Attribute::Integer { value: 1, .. }));
    if is_set("externalize") && is_set("isPrivate") {
        return Err("it is marked externalize and private, which loaders refuse together".to_owned());
    }
    let handles = arguments.iter().filter(|value| is_handle(module, **value)).count();
    let tokens = results.iter().filter(|value| is_token(module, **value)).count();
    let first = results.iter().take_while(|value| is_token(module, **value)).count();
    if tokens != handles {
        return Err(format!("{handles} states come in, but {tokens} tokens leave"));
    }
    if first != tokens {
        return Err("tokens must be its first results".to_owned());
    }
    if let Some(at) =
        results.iter().position(|value| !is_token(module, *value) && module.tensor(*value).is_none())
    {
        return Err(format!("result {at} is neither a token nor a tensor"));
    }
    match arguments.iter().position(|value| !is_handle(module, *value) && module.tensor(*value).is_none()) {
        Some(at) => Err(format!("argument {at} is neither a tensor nor a state")),
        None => Ok(()),
    }
}

/// Operands of a graph's last op, if that is the output.
fn outputs(module: &Module, block: BlockId) -> Option<&[ValueId]> {
    let last = module.op(*module.block(block).ops.last()?);
    (last.opcode == Opcode::Output).then_some(&last.operands)
}

fn is_handle(module: &Module, value: ValueId) -> bool {
    matches!(module.ty(module.value(value).ty), Type::Handle(inner) if module.as_tensor(*inner).is_some())
}

fn is_token(module: &Module, value: ValueId) -> bool {
    *module.ty(module.value(value).ty) == Type::Token
}

fn check_function_type(module: &Module, graph: OpId, arguments: &[ValueId], results: &[ValueId]) -> Checked {
    let Some(Attribute::Type(ty)) = module.property(graph, "functionType") else {
        return Err("it has no function type".to_owned());
    };
    let Type::Function { operands, results: declared } = module.ty(*ty) else {
        return Err("its function type is of another kind".to_owned());
    };
    let sides = [("argument", operands, arguments), ("result", declared, results)];
    for (what, declared, values) in sides {
        let made: Vec<TypeId> = values.iter().map(|value| module.value(*value).ty).collect();
        if declared.len() != made.len() {
            return Err(format!(
                "its function type has {} {what}s, but it has {}",
                declared.len(),
                made.len()
            ));
        }
        if let Some(at) = (0..made.len()).find(|at| declared[*at] != made[*at]) {
            let text = |ty| describe_type_within(module, ty, super::LONGEST);
            let (declared, made) = (text(declared[at]), text(made[at]));
            return Err(format!("{what} {at} is {made}, but its function type says {declared}"));
        }
    }
    Ok(())
}

/// Checks the entries of each argument or result: a unique name, and for a handle that its state changes.
fn check_entries(
    module: &Module,
    entries: Option<&Attribute>,
    what: &str,
    values: &[ValueId],
    mutation: Option<&str>,
) -> Checked {
    let Some(Attribute::Array(entries)) = entries else {
        return Err(format!("its {what}s have no entries"));
    };
    if entries.len() != values.len() {
        return Err(format!("names {} {what}s, has {}", entries.len(), values.len()));
    }
    let mut names = HashSet::new();
    for (at, (entry, value)) in entries.iter().zip(values).enumerate() {
        sorted_keys(module, *entry).map_err(|reason| format!("{what} {at}: {reason}"))?;
        let name = module.named_entry(*entry, NAME_KEY).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| format!("{what} {at} has no {NAME_KEY}"))?;
        if !names.insert(name) {
            return Err(format!("two {what}s are called {name:?}"));
        }
        let wanted = mutation.filter(|_| is_handle(module, *value));
        if let Some(key) = wanted.filter(|key| module.named_entry(*entry, key).is_none()) {
            return Err(format!("{what} {at}, a state, has no {key}"));
        }
    }
    Ok(())
}

/// Checks the entries of each argument or result other than its name: loaders convert every entry to one of their own, and
/// accept only keys with a prefix.
fn check_values(
    module: &Module,
    lists: Option<&Attribute>,
    what: &str,
    attributes: &mut Attributes<'_>,
) -> Checked {
    let Some(Attribute::Array(lists)) = lists else { return Ok(()) };
    for (at, list) in lists.iter().enumerate() {
        let Attribute::Array(entries) = module.attribute(*list) else { continue };
        for entry in entries {
            attributes.entry(*entry).map_err(|reason| format!("{what} {at}: {reason}"))?;
            if let Attribute::Opaque { name, .. } = module.attribute(*entry)
                && !name.contains('.')
            {
                return Err(format!(
                    "{what} {at}: the key {name:?} has no prefix, such as that of {NAME_KEY}"
                ));
            }
        }
    }
    Ok(())
}

/// Entries of one argument or result are sorted by their keys.
fn sorted_keys(module: &Module, entries: AttributeId) -> Checked {
    let Attribute::Array(entries) = module.attribute(entries) else {
        return Err("its entries are not a list".to_owned());
    };
    let keys: Option<Vec<&str>> = entries
        .iter()
        .map(|entry| match module.attribute(*entry) {
            Attribute::Opaque { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let keys = keys.ok_or("an entry has no key")?;
    if keys.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err("its entries are not sorted".to_owned()) }
}

/// What the ops of a graph are checked against: its states.
pub(super) struct GraphFacts {
    /// Position among the handles of each handle that is an argument.
    handles: HashMap<ValueId, usize>,
}

impl GraphFacts {
    pub(super) fn new(module: &Module, block: BlockId) -> Self {
        let arguments = module.block(block).arguments.iter().copied();
        let handles = arguments.filter(|value| is_handle(module, *value));
        GraphFacts { handles: handles.enumerate().map(|(at, value)| (value, at)).collect() }
    }

    /// Checks an op that touches a state or lets its token out.
    pub(super) fn check_op(&self, module: &Module, id: OpId) -> Checked {
        let op = module.op(id);
        match (op.opcode, op.operands.as_slice()) {
            (Opcode::ReadHandle, [handle, token]) => {
                let tensor = module.value(op.results[0]).ty;
                self.check_access(module, *handle, *token, tensor)
            }
            (Opcode::WriteHandle, [handle, tensor, token]) => {
                self.check_access(module, *handle, *token, module.value(*tensor).ty)
            }
            (Opcode::Output, results) => {
                for (at, token) in results.iter().take(self.handles.len()).enumerate() {
                    self.check_token(module, *token, at)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_access(&self, module: &Module, handle: ValueId, token: ValueId, tensor: TypeId) -> Checked {
        let state = self.handles.get(&handle).ok_or("its handle is not an argument of the graph")?;
        let Type::Handle(inner) = module.ty(module.value(handle).ty) else {
            return Err("its handle is of another type".to_owned());
        };
        let fits = match (module.as_tensor(*inner), module.as_tensor(tensor)) {
            (Some(inner), Some(tensor)) => inner.compatible(&tensor),
            _ => false,
        };
        if !fits {
            let text = |ty| describe_type_within(module, ty, super::LONGEST);
            return Err(format!("its state holds {}, not {}", text(*inner), text(tensor)));
        }
        self.check_token(module, token, *state)
    }

    /// A token must be a new one, or come from the same state.
    fn check_token(&self, module: &Module, token: ValueId, state: usize) -> Checked {
        let Definition::Result { op, .. } = module.value(token).definition else {
            return Err("its token comes from outside".to_owned());
        };
        let op = module.op(op);
        match op.opcode {
            Opcode::CreateToken => Ok(()),
            Opcode::ReadHandle | Opcode::WriteHandle
                if op.operands.first().and_then(|handle| self.handles.get(handle)) == Some(&state) =>
            {
                Ok(())
            }
            _ => Err(format!("the token for state {state} belongs to another one")),
        }
    }
}
