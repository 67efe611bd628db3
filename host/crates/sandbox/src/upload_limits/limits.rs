//! Limits on the structure of an upload.

/// Limits on the structure of an upload. Errors name each with the prefix `filter_`.
///
/// The values of [`StructureLimits::LIMITS`] are several times, mostly more than ten times, the values of guests that contain a whole language
/// runtime, and far below the maximum that the format can encode within the bytes of a quota. Measured, with the
/// largest value of each column:
///
/// | | Rust (the example filters) | JavaScript (StarlingMonkey, its 3 builds) | Python (componentize-py) |
/// |---|---|---|---|
/// | bytes of the whole | 158 034 | 13 013 590 | 18 336 955 |
/// | functions | 422 | 19 852 | 13 361 |
/// | bytes of the largest body | 8 268 | 171 628 | 426 843 |
/// | locals, levels of blocks | 131, 42 | 483, 497 | 271, 781 |
/// | modules and components | 5 | 1 | 17 |
/// | instances, aliases | 8, 17 | none, as it is one module | 69, 1 351 |
/// | types, globals | 54, 3 | 174, 7 | 1 230, 874 |
/// | imports, exports | 7, 11 | 97, 23 | 2 261, 4 192 |
/// | memories, tables, segments | 1, 2, 3 | 1, 1, 6 715 | 1, 2, 1 809 |
///
/// QuickJS with a stubbed WASI has three memories. The limits of memories, tables and core instances are tighter than
/// the rest: creating and resetting them takes host time that no fuel pays for, and each memory reserves 4 GiB of
/// address space in each slot of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StructureLimits {
    /// Core modules and nested components, including components that an alias or an export gives another index.
    pub modules_max: u64,
    /// Instances of modules and components that result from one instantiation of the upload.
    pub instances_max: u64,
    /// Instances of core modules among them.
    pub core_instances_max: u64,
    /// Functions of all core modules. Also the limit of functions that are lifted, lowered or built in, over all
    /// instances.
    pub functions_max: u64,
    /// Size of one function body, in bytes.
    pub function_bytes_max: u64,
    /// Locals of one function, not counting its parameters.
    pub locals_max: u64,
    /// Nesting depth of blocks in one function.
    pub blocks_max: u64,
    /// Types of all modules and components, including the declarations in instance and component types.
    pub types_max: u64,
    /// Nesting depth of components, and of types. At most 100.
    pub nesting_max: u64,
    /// Imports of all modules and components.
    pub imports_max: u64,
    /// Exports of all modules and components.
    pub exports_max: u64,
    /// Aliases, exports, arguments and canonical functions, over all instances.
    pub links_max: u64,
    /// Globals of all modules.
    pub globals_max: u64,
    /// Linear memories of all modules. Also the limit over all instances. Each pool slot has room for this number.
    pub memories_max: u64,
    /// Tables of all modules. Also the limit over all instances. Each pool slot has room for this number.
    pub tables_max: u64,
    /// Element and data segments of all modules.
    pub segments_max: u64,
}

impl StructureLimits {
    /// The limits of every host.
    pub const LIMITS: Self = Self {
        modules_max: 500,
        instances_max: 1_000,
        core_instances_max: 64,
        functions_max: 200_000,
        function_bytes_max: 4 << 20,
        locals_max: 20_000,
        blocks_max: 5_000,
        types_max: 50_000,
        nesting_max: 20,
        imports_max: 100_000,
        exports_max: 100_000,
        links_max: 1_000_000,
        globals_max: 100_000,
        memories_max: 8,
        tables_max: 8,
        segments_max: 100_000,
    };
}

impl Default for StructureLimits {
    fn default() -> Self {
        Self::LIMITS
    }
}

/// Counters over a whole upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Total {
    Modules,
    Functions,
    Types,
    Imports,
    Exports,
    Globals,
    Memories,
    Tables,
    Segments,
}

impl Total {
    pub(super) const ALL: [Self; 9] = [
        Self::Modules,
        Self::Functions,
        Self::Types,
        Self::Imports,
        Self::Exports,
        Self::Globals,
        Self::Memories,
        Self::Tables,
        Self::Segments,
    ];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Modules => "modules and components",
            Self::Functions => "functions",
            Self::Types => "types",
            Self::Imports => "imports",
            Self::Exports => "exports",
            Self::Globals => "globals",
            Self::Memories => "memories",
            Self::Tables => "tables",
            Self::Segments => "segments",
        }
    }

    /// The name of the limit, and its value.
    pub(super) fn limit(self, limits: &StructureLimits) -> (&'static str, u64) {
        match self {
            Self::Modules => ("filter_modules_max", limits.modules_max),
            Self::Functions => ("filter_functions_max", limits.functions_max),
            Self::Types => ("filter_types_max", limits.types_max),
            Self::Imports => ("filter_imports_max", limits.imports_max),
            Self::Exports => ("filter_exports_max", limits.exports_max),
            Self::Globals => ("filter_globals_max", limits.globals_max),
            Self::Memories => ("filter_memories_max", limits.memories_max),
            Self::Tables => ("filter_tables_max", limits.tables_max),
            Self::Segments => ("filter_segments_max", limits.segments_max),
        }
    }
}
