//! The IR section: ops, blocks, regions.

use super::cursor::{Cursor, Fault};
use super::entries::Tables;
use super::{Body, ReadError};
use crate::bytecode::{mask, section};
use crate::module::{BlockId, Module, OpId, ValueId};
use crate::opcode::Opcode;

/// Deepest nesting of regions. Apple's files nest six deep.
const DEEPEST: usize = 64;

/// Reads the root op, with everything in it, into the module.
pub(super) fn read(
    ir: &Body,
    properties: &Body,
    op_names: &[Opcode],
    tables: &Tables<'_>,
    module: &mut Module,
) -> Result<(), ReadError> {
    let properties = properties.parse(|cursor| {
        cursor.list(|cursor| {
            let length = cursor.length()?;
            let start = cursor.position();
            Ok(Cursor::new(cursor.take(length)?, start))
        })
    })?;
    ir.parse(|cursor| {
        let (count, has_arguments) = cursor.flagged()?;
        if count != 1 || has_arguments {
            return Err(cursor.fault("the file must hold one op"));
        }
        let mut reader = IrReader { op_names, properties: &properties, tables, module };
        let root = reader.op(cursor, &mut Vec::new(), 0)?;
        reader.module.set_root(root);
        Ok(())
    })
}

struct IrReader<'r, 'b> {
    op_names: &'r [Opcode],
    properties: &'r [Cursor<'b>],
    tables: &'r Tables<'b>,
    module: &'r mut Module,
}

impl IrReader<'_, '_> {
    /// Reads an op. `scope` holds the values by their ids; the op's results are added to it.
    fn op(&mut self, cursor: &mut Cursor<'_>, scope: &mut Vec<ValueId>, depth: usize) -> Result<OpId, Fault> {
        let name = cursor.index(self.op_names.len(), "op name")?;
        let parts = cursor.byte()?;
        let unsupported = parts & (mask::ATTRIBUTES | mask::SUCCESSORS | mask::USE_LISTS);
        if unsupported != 0 || parts & 0x80 != 0 {
            return Err(cursor.fault(format!("an op with parts {parts:#04x} is not supported")));
        }
        let location = self.tables.attribute(cursor)?;
        let op = self.module.add_op(self.op_names[name], location);
        self.properties(cursor, op, parts & mask::PROPERTIES != 0)?;
        let result_types = if parts & mask::RESULTS == 0 {
            Vec::new()
        } else {
            cursor.list(|cursor| self.tables.ty(cursor))?
        };
        if parts & mask::OPERANDS != 0 {
            let operands = cursor.list(|cursor| Ok(scope[cursor.index(scope.len(), "value")?]))?;
            self.module.op_mut(op).operands = operands;
        }
        for ty in result_types {
            scope.push(self.module.add_result(op, ty));
        }
        if parts & mask::REGIONS != 0 {
            self.regions(cursor, op, scope, depth)?;
        }
        Ok(op)
    }

    fn properties(&mut self, cursor: &mut Cursor<'_>, op: OpId, present: bool) -> Result<(), Fault> {
        let opcode = self.module.op(op).opcode;
        if present == opcode.properties().is_empty() {
            let problem = if present { "has properties that are unknown" } else { "lacks its properties" };
            return Err(cursor.fault(format!("{opcode} {problem}")));
        }
        if !present {
            return Ok(());
        }
        let mut fields = self.properties[cursor.index(self.properties.len(), "property entry")?].clone();
        let mut properties = Vec::new();
        for name in opcode.properties() {
            properties.push(if name.ends_with('?') {
                self.tables.optional_attribute(&mut fields)?
            } else {
                Some(self.tables.attribute(&mut fields)?)
            });
        }
        fields.finish()?;
        self.module.op_mut(op).properties = properties;
        Ok(())
    }

    fn regions(
        &mut self,
        cursor: &mut Cursor<'_>,
        op: OpId,
        scope: &mut Vec<ValueId>,
        depth: usize,
    ) -> Result<(), Fault> {
        if depth >= DEEPEST {
            return Err(cursor.fault("regions nest too deep"));
        }
        let (count, isolated) = cursor.flagged()?;
        if !isolated {
            return (0..count).try_for_each(|_| self.region(cursor, op, scope, depth));
        }
        let mut body = cursor.section(section::IR)?;
        (0..count).try_for_each(|_| self.region(&mut body, op, &mut Vec::new(), depth))?;
        body.finish()
    }

    /// Reads a region. Values made in it are not visible after it.
    fn region(
        &mut self,
        cursor: &mut Cursor<'_>,
        op: OpId,
        scope: &mut Vec<ValueId>,
        depth: usize,
    ) -> Result<(), Fault> {
        let region = self.module.add_region(op);
        let outer = scope.len();
        let blocks = cursor.count()?;
        if blocks == 0 {
            return Ok(());
        }
        let values = cursor.varint()?;
        for _ in 0..blocks {
            let block = self.module.add_block(region);
            self.block(cursor, block, scope, depth)?;
        }
        let found = (scope.len() - outer) as u64;
        if found != values {
            return Err(cursor.fault(format!("{values} values announced in a region, {found} found")));
        }
        scope.truncate(outer);
        Ok(())
    }

    fn block(
        &mut self,
        cursor: &mut Cursor<'_>,
        block: BlockId,
        scope: &mut Vec<ValueId>,
        depth: usize,
    ) -> Result<(), Fault> {
        let (ops, has_arguments) = cursor.flagged()?;
        if has_arguments {
            for _ in 0..cursor.count()? {
                let (ty, has_location) = cursor.flagged()?;
                if !has_location {
                    return Err(cursor.fault("a block argument without a location"));
                }
                let ty = cursor.check_index(ty, usize::MAX, "type")?;
                let ty = self.tables.known_type(cursor, ty)?;
                let location = self.tables.attribute(cursor)?;
                scope.push(self.module.add_argument(block, ty, location));
            }
            if cursor.byte()? != 0 {
                return Err(cursor.fault("use-list orders are not supported"));
            }
        }
        // Not a count of bytes that are left: an op takes at least three, and each is checked as it is read.
        for _ in 0..ops {
            let op = self.op(cursor, scope, depth + 1)?;
            self.module.block_mut(block).ops.push(op);
        }
        Ok(())
    }
}
