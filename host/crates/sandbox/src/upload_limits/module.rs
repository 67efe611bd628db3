//! Core modules: their definitions and function bodies.

use wasmparser::{FunctionBody, Operator, Payload, RecGroup, TypeRef};

use super::limits::Total;
use super::{Open, Scan, UploadError, limit_exceeded, unreadable};

/// Default page size of a linear memory, as a power of two, in bytes.
const PAGE_BYTES_LOG2: u32 = 16;

/// A core module that is being parsed.
pub(super) struct Module {
    pub(super) number: u64,
    /// Imported functions plus the bodies parsed so far: the index of the next body.
    functions: u64,
    /// Number of linear memories and of tables that the module defines.
    pub(super) memories: u64,
    pub(super) tables: u64,
}

impl Module {
    pub(super) fn new(number: u64) -> Self {
        Self { number, functions: 0, memories: 0, tables: 0 }
    }
}

impl Scan<'_> {
    pub(super) fn module_payload(&mut self, payload: Payload<'_>) -> Result<(), UploadError> {
        match payload {
            Payload::TypeSection(types) => {
                for group in types {
                    self.count(Total::Types, types_of(&group.map_err(unreadable)?))?;
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.map_err(unreadable)?;
                    self.count(Total::Imports, 1)?;
                    if let (TypeRef::Func(_), Some(Open::Module(module))) = (import.ty, self.open.last_mut()) {
                        module.functions += 1;
                    }
                }
            }
            Payload::FunctionSection(functions) => self.count(Total::Functions, u64::from(functions.count()))?,
            Payload::TableSection(tables) => {
                if let Some(Open::Module(module)) = self.open.last_mut() {
                    module.tables += u64::from(tables.count());
                }
                for table in tables {
                    let elements = table.map_err(unreadable)?.ty.initial;
                    self.count(Total::Tables, 1)?;
                    self.check_initial_size(
                        "elements of a table",
                        elements,
                        "table_elements_max",
                        self.call_limits.table_elements_max,
                    )?;
                }
            }
            Payload::MemorySection(memories) => {
                if let Some(Open::Module(module)) = self.open.last_mut() {
                    module.memories += u64::from(memories.count());
                }
                for memory in memories {
                    let memory = memory.map_err(unreadable)?;
                    self.count(Total::Memories, 1)?;
                    let page = 1_u64.checked_shl(memory.page_size_log2.unwrap_or(PAGE_BYTES_LOG2)).unwrap_or(u64::MAX);
                    let bytes = memory.initial.saturating_mul(page);
                    self.check_initial_size(
                        "bytes of a memory",
                        bytes,
                        "memory_bytes_max",
                        self.call_limits.memory_bytes_max,
                    )?;
                }
            }
            Payload::GlobalSection(globals) => self.count(Total::Globals, u64::from(globals.count()))?,
            Payload::ExportSection(exports) => self.count(Total::Exports, u64::from(exports.count()))?,
            Payload::ElementSection(elements) => self.count(Total::Segments, u64::from(elements.count()))?,
            Payload::DataSection(data) => self.count(Total::Segments, u64::from(data.count()))?,
            Payload::CodeSectionEntry(body) => self.body(&body)?,
            _ => {}
        }
        Ok(())
    }

    /// Checks that the initial size of a memory or table fits within the limits of a call.
    fn check_initial_size(
        &self,
        what: &str,
        found: u64,
        limit_name: &'static str,
        limit: u64,
    ) -> Result<(), UploadError> {
        if found > limit {
            return Err(limit_exceeded(
                format!("the {what} that {} begins with", self.place()),
                found,
                limit_name,
                limit,
            ));
        }
        Ok(())
    }

    fn body(&mut self, body: &FunctionBody<'_>) -> Result<(), UploadError> {
        let place = self.place();
        let Some(Open::Module(module)) = self.open.last_mut() else { return Ok(()) };
        let number = module.functions;
        module.functions += 1;
        let named = |what: &str| format!("the {what} {place}, function {number}");

        let bytes = body.as_bytes().len() as u64;
        if bytes > self.limits.function_bytes_max {
            let what = named("number of bytes of");
            return Err(limit_exceeded(what, bytes, "filter_function_bytes_max", self.limits.function_bytes_max));
        }
        // Locals are encoded as groups of a count and a type: six bytes can encode four billion locals.
        let mut locals = 0_u64;
        for group in body.get_locals_reader().map_err(unreadable)? {
            locals = locals.saturating_add(u64::from(group.map_err(unreadable)?.0));
            if locals > self.limits.locals_max {
                return Err(limit_exceeded(
                    named("number of locals of"),
                    locals,
                    "filter_locals_max",
                    self.limits.locals_max,
                ));
            }
        }
        let mut operators = body.get_operators_reader().map_err(unreadable)?;
        let mut blocks = 0_u64;
        while !operators.eof() {
            match operators.read().map_err(unreadable)? {
                Operator::Block { .. }
                | Operator::Loop { .. }
                | Operator::If { .. }
                | Operator::Try { .. }
                | Operator::TryTable { .. } => {
                    blocks += 1;
                    if blocks > self.limits.blocks_max {
                        let what = named("nesting of blocks in");
                        return Err(limit_exceeded(what, blocks, "filter_blocks_max", self.limits.blocks_max));
                    }
                }
                Operator::End => blocks = blocks.saturating_sub(1),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Number of types in a recursion group. Most groups have one.
pub(super) fn types_of(group: &RecGroup) -> u64 {
    group.types().len() as u64
}
