//! Builds one function of an asset.

use std::collections::HashMap;

use super::asset::AssetBuilder;
use super::decompose::decomposition;
use crate::attribute::{Attribute, AttributeId};
use crate::infer::{Known, TypeError, result_type};
use crate::module::{BlockId, MUTATION_KEY, NAME_KEY, OpId, ValueId};
use crate::opcode::Opcode;
use crate::types::{TensorType, Type, TypeId};

/// The key of a pure op: two uses with equal keys are one op.
type Key = (Opcode, Vec<ValueId>, Vec<Option<AttributeId>>, TypeId);

/// Why a graph cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Operands do not fit an op.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// A result was declared with a type that contradicts the operands.
    #[error("{opcode}: declared as {declared}, but its operands imply {inferred}")]
    Declared {
        /// The op.
        opcode: Opcode,
        /// Type asked for.
        declared: String,
        /// Type that follows from the operands.
        inferred: String,
    },
    /// Bytes of a constant do not fill its type.
    #[error("a constant of type {ty} cannot hold {bytes} bytes")]
    Constant {
        /// Type of the constant.
        ty: String,
        /// Bytes given.
        bytes: u64,
    },
    /// One key is used for two blobs of different lengths.
    #[error("the blob {key:?} is used with two lengths")]
    Blob {
        /// Key of the blob.
        key: String,
    },
    /// A handle was expected, or a tensor.
    #[error("{opcode}: operand is not a handle to a tensor")]
    Handle {
        /// The op.
        opcode: Opcode,
    },
    /// Tokens at the end of a graph do not match its states.
    #[error("the graph has {states} states, but {tokens} tokens leave it")]
    Tokens {
        /// Handles among the arguments.
        states: usize,
        /// Tokens given.
        tokens: usize,
    },
}

/// Builds a function of an asset. Pure ops with equal operands are one op, as in Apple's exports.
pub struct FunctionBuilder {
    pub(super) asset: AssetBuilder,
    pub(super) known: Known,
    pub(super) constants: Vec<OpId>,
    pub(super) pure: HashMap<Key, ValueId>,
    name: String,
    graph: OpId,
    block: BlockId,
    ops: Vec<OpId>,
    argument_names: Vec<AttributeId>,
    state_names: Vec<String>,
}

impl FunctionBuilder {
    /// A function without arguments, whose op is in the asset.
    pub(super) fn new(mut asset: AssetBuilder, graph: OpId, name: &str) -> Self {
        let region = asset.module.add_region(graph);
        let block = asset.module.add_block(region);
        FunctionBuilder {
            asset,
            known: Known::new(),
            constants: Vec::new(),
            pure: HashMap::new(),
            name: name.to_owned(),
            graph,
            block,
            ops: Vec::new(),
            argument_names: Vec::new(),
            state_names: Vec::new(),
        }
    }

    /// Adds an input. Inputs and states keep the order in which they are added.
    pub fn input(&mut self, name: &str, ty: &TensorType) -> ValueId {
        let names = vec![self.named(NAME_KEY, name)];
        let ty = self.asset.module.tensor_type(ty);
        self.argument(ty, names)
    }

    /// Adds a state: a tensor that outlives a run, as a handle.
    pub fn state(&mut self, name: &str, ty: &TensorType) -> ValueId {
        let names = vec![self.named(MUTATION_KEY, name), self.named(NAME_KEY, name)];
        let tensor = self.asset.module.tensor_type(ty);
        let ty = self.asset.module.intern_type(Type::Handle(tensor));
        self.state_names.push(name.to_owned());
        self.argument(ty, names)
    }

    fn argument(&mut self, ty: TypeId, names: Vec<AttributeId>) -> ValueId {
        let names = self.asset.module.intern(Attribute::Array(names));
        self.argument_names.push(names);
        self.asset.module.add_argument(self.block, ty, self.asset.location)
    }

    fn named(&mut self, key: &str, name: &str) -> AttributeId {
        let name = self.asset.module.string(name);
        self.asset.module.intern(Attribute::Opaque { name: key.to_owned(), parameters: vec![name] })
    }

    /// Shape and element of a value made so far; `None` for handles and tokens.
    pub fn tensor(&self, value: ValueId) -> Option<TensorType> {
        self.asset.module.tensor(value)
    }

    /// Appends an op with one tensor result of the type that its operands imply.
    pub(super) fn op(&mut self, opcode: Opcode, operands: &[ValueId]) -> Result<ValueId, BuildError> {
        // None of these ops takes the element type from its declaration.
        let inferred = result_type(&self.asset.module, &self.known, opcode, operands, crate::Element::Bool)?;
        Ok(self.append(opcode, operands, &inferred, Vec::new()))
    }

    /// Appends an op with one tensor result of a declared type, which may be more or less specific than what follows from the operands.
    pub(super) fn op_as(
        &mut self,
        opcode: Opcode,
        operands: &[ValueId],
        declared: &TensorType,
    ) -> Result<ValueId, BuildError> {
        let inferred = result_type(&self.asset.module, &self.known, opcode, operands, declared.element)?;
        if !inferred.compatible(declared) {
            let (declared, inferred) = (declared.to_string(), inferred.to_string());
            return Err(BuildError::Declared { opcode, declared, inferred });
        }
        Ok(self.append(opcode, operands, declared, Vec::new()))
    }

    /// Appends an op with one property.
    pub(super) fn op_with(
        &mut self,
        opcode: Opcode,
        operands: &[ValueId],
        property: Attribute,
    ) -> Result<ValueId, BuildError> {
        let inferred = result_type(&self.asset.module, &self.known, opcode, operands, crate::Element::Bool)?;
        let property = self.asset.module.intern(property);
        Ok(self.append(opcode, operands, &inferred, vec![Some(property)]))
    }

    fn append(
        &mut self,
        opcode: Opcode,
        operands: &[ValueId],
        ty: &TensorType,
        properties: Vec<Option<AttributeId>>,
    ) -> ValueId {
        let ty = self.asset.module.tensor_type(ty);
        let key = (opcode, operands.to_vec(), properties.clone(), ty);
        if let Some(known) = self.pure.get(&key) {
            return *known;
        }
        let op = self.append_op(opcode, operands);
        self.asset.module.op_mut(op).properties = properties;
        let result = self.asset.module.add_result(op, ty);
        if opcode.is_composite() {
            decomposition(&mut self.asset.module, op);
        }
        self.known.learn(&self.asset.module, op);
        self.pure.insert(key, result);
        result
    }

    fn append_op(&mut self, opcode: Opcode, operands: &[ValueId]) -> OpId {
        let op = self.asset.module.add_op(opcode, self.asset.location);
        self.asset.module.op_mut(op).operands = operands.to_vec();
        self.ops.push(op);
        op
    }

    fn token_type(&mut self) -> TypeId {
        self.asset.module.intern_type(Type::Token)
    }

    /// The first token of an order.
    pub fn create_token(&mut self) -> ValueId {
        let op = self.append_op(Opcode::CreateToken, &[]);
        let ty = self.token_type();
        self.asset.module.add_result(op, ty)
    }

    /// Reads a state; returns the tensor and the token of the read.
    pub fn read_handle(&mut self, handle: ValueId, token: ValueId) -> Result<(ValueId, ValueId), BuildError> {
        let opcode = Opcode::ReadHandle;
        let Type::Handle(tensor) = *self.asset.module.ty(self.asset.module.value(handle).ty) else {
            return Err(BuildError::Handle { opcode });
        };
        let op = self.append_op(opcode, &[handle, token]);
        let tensor = self.asset.module.add_result(op, tensor);
        let ty = self.token_type();
        Ok((tensor, self.asset.module.add_result(op, ty)))
    }

    /// Writes a state; returns the token of the write.
    pub fn write_handle(
        &mut self,
        handle: ValueId,
        tensor: ValueId,
        token: ValueId,
    ) -> Result<ValueId, BuildError> {
        let opcode = Opcode::WriteHandle;
        match *self.asset.module.ty(self.asset.module.value(handle).ty) {
            Type::Handle(inner) if inner == self.asset.module.value(tensor).ty => {}
            _ => return Err(BuildError::Handle { opcode }),
        }
        let op = self.append_op(opcode, &[handle, tensor, token]);
        let ty = self.token_type();
        Ok(self.asset.module.add_result(op, ty))
    }

    /// Ends the function and returns the asset: the last token of each state, in their order, and the named outputs.
    ///
    /// # Errors
    /// [`BuildError::Tokens`] if there are not as many tokens as states.
    pub fn finish(
        mut self,
        tokens: &[ValueId],
        outputs: &[(&str, ValueId)],
    ) -> Result<AssetBuilder, BuildError> {
        if tokens.len() != self.state_names.len() {
            return Err(BuildError::Tokens { states: self.state_names.len(), tokens: tokens.len() });
        }
        let results: Vec<ValueId> =
            tokens.iter().copied().chain(outputs.iter().map(|(_, value)| *value)).collect();
        self.append_op(Opcode::Output, &results);
        let properties = self.graph_properties(&results, outputs);
        self.asset.module.op_mut(self.graph).properties = properties;
        let mut ops = self.constants;
        ops.extend(&self.ops);
        self.asset.module.block_mut(self.block).ops = ops;
        Ok(self.asset)
    }

    /// Properties in alphabetical order, as [`Opcode::properties`] lists them.
    fn graph_properties(
        &mut self,
        results: &[ValueId],
        outputs: &[(&str, ValueId)],
    ) -> Vec<Option<AttributeId>> {
        let result_names: Vec<String> = self
            .state_names
            .iter()
            .cloned()
            .chain(outputs.iter().map(|(name, _)| (*name).to_owned()))
            .collect();
        let result_names = result_names
            .iter()
            .map(|name| {
                let named = self.named(NAME_KEY, name);
                self.asset.module.intern(Attribute::Array(vec![named]))
            })
            .collect();
        let types =
            |values: &[ValueId]| values.iter().map(|value| self.asset.module.value(*value).ty).collect();
        let function = Type::Function {
            results: types(results),
            operands: types(&self.asset.module.block(self.block).arguments),
        };
        let function = self.asset.module.intern_type(function);
        let argument_names = std::mem::take(&mut self.argument_names);
        let arguments = self.asset.module.intern(Attribute::Array(argument_names));
        let no = self.asset.module.intern(Attribute::Integer { width: 1, unsigned: true, value: 0 });
        let function = self.asset.module.intern(Attribute::Type(function));
        let name = self.asset.module.string(&self.name);
        let parameters = self.asset.module.intern(Attribute::Array(Vec::new()));
        let results = self.asset.module.intern(Attribute::Array(result_names));
        vec![
            Some(arguments),
            None,
            Some(no),
            Some(function),
            Some(no),
            Some(name),
            Some(no),
            Some(parameters),
            Some(results),
        ]
    }
}
