//! Components: their types, and the cost of instantiating them.

use std::ops::Range;

use wasmparser::{
    BinaryReader, ComponentAlias, ComponentExternName, ComponentExternalKind, ComponentImport, ComponentInstance,
    ComponentOuterAliasKind, ComponentType, ComponentTypeRef, CoreType, Instance, ModuleTypeDeclaration, Payload,
};

use super::limits::Total;
use super::module::types_of;
use super::{NESTING_LIMIT, Open, Scan, UploadError, limit_exceeded, unreadable};

/// A component that is being parsed.
pub(super) struct Component {
    pub(super) number: u64,
    /// Its index space of components, as the cost of one instance of each.
    pub(super) components: Vec<Cost>,
    /// Its index space of core modules, likewise.
    pub(super) modules: Vec<Cost>,
    /// Cost of one instance of the component, without the instance itself.
    pub(super) cost: Cost,
}

/// Cost of one instance of a component, including its inner instances.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    instances: u64,
    core_instances: u64,
    functions: u64,
    links: u64,
    memories: u64,
    tables: u64,
}

impl Cost {
    /// Cost of one instance of a core module.
    pub(super) fn of_module(memories: u64, tables: u64) -> Self {
        Self { instances: 1, core_instances: 1, memories, tables, ..Self::default() }
    }
}

impl Component {
    pub(super) fn new(number: u64) -> Self {
        Self { number, components: Vec::new(), modules: Vec::new(), cost: Cost::default() }
    }
}

impl<'a> Scan<'a> {
    pub(super) fn component_payload(&mut self, payload: Payload<'a>) -> Result<(), UploadError> {
        match payload {
            Payload::CoreTypeSection(types) => {
                for of_type in types {
                    let declared = core_types(&of_type.map_err(unreadable)?);
                    self.count(Total::Types, declared)?;
                }
            }
            Payload::ComponentTypeSection(types) => self.types(types.range())?,
            Payload::InstanceSection(instances) => {
                for instance in instances {
                    match instance.map_err(unreadable)? {
                        Instance::Instantiate { module_index, args } => {
                            self.add_cost(self.module_at(0, module_index))?;
                            self.add_cost(Cost { links: args.len() as u64, ..Cost::default() })?;
                        }
                        Instance::FromExports(exports) => {
                            self.add_cost(Cost { instances: 1, links: exports.len() as u64, ..Cost::default() })?;
                        }
                    }
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances {
                    self.component_instance(&instance.map_err(unreadable)?)?;
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                for (offset, alias) in aliases.into_iter_with_offsets().map(flat) {
                    self.alias(offset, &alias?)?;
                }
            }
            Payload::ComponentCanonicalSection(functions) => {
                let functions = u64::from(functions.count());
                self.add_cost(Cost { functions, links: functions, ..Cost::default() })?;
            }
            Payload::ComponentImportSection(imports) => {
                for (offset, import) in imports.into_iter_with_offsets().map(flat) {
                    let import = import?;
                    self.count(Total::Imports, 1)?;
                    if matches!(import.ty, ComponentTypeRef::Component(_)) {
                        return Err(self.component_as_value(offset, "imports a component"));
                    }
                    if matches!(import.ty, ComponentTypeRef::Module(_)) {
                        return Err(self.component_as_value(offset, "imports a core module"));
                    }
                    if self.open.len() == 1 {
                        let is_instance = matches!(import.ty, ComponentTypeRef::Instance(_));
                        self.names.imports.push((import.name.name, is_instance));
                    }
                }
            }
            Payload::ComponentExportSection(exports) => {
                for (offset, export) in exports.into_iter_with_offsets().map(flat) {
                    let export = export?;
                    self.count(Total::Exports, 1)?;
                    self.add_cost(Cost { links: 1, ..Cost::default() })?;
                    match export.kind {
                        ComponentExternalKind::Component => self.add_component_alias(offset, 0, export.index)?,
                        ComponentExternalKind::Module => self.add_module_alias(0, export.index),
                        _ => {}
                    }
                    if self.open.len() == 1 {
                        self.names.exports.push(export.name.name);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn component_instance(&mut self, instance: &ComponentInstance<'_>) -> Result<(), UploadError> {
        match instance {
            ComponentInstance::Instantiate { component_index, args } => {
                let links = args.len() as u64;
                let inner = self.component_at(0, *component_index).ok_or_else(|| {
                    let detail =
                        format!("{} instantiates component {component_index}, which is not there", self.place());
                    UploadError::Invalid { detail }
                })?;
                self.add_cost(Cost { instances: 1, links, ..Cost::default() })?;
                self.add_cost(inner)
            }
            ComponentInstance::FromExports(exports) => {
                self.add_cost(Cost { instances: 1, links: exports.len() as u64, ..Cost::default() })
            }
        }
    }

    fn alias(&mut self, offset: usize, alias: &ComponentAlias<'_>) -> Result<(), UploadError> {
        self.add_cost(Cost { links: 1, ..Cost::default() })?;
        match alias {
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
                Err(self.component_as_value(offset, "takes a component out of an instance"))
            }
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                self.add_component_alias(offset, *count, *index)
            }
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. } => {
                Err(self.component_as_value(offset, "takes a core module out of an instance"))
            }
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, count, index } => {
                self.add_module_alias(*count, *index);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// If components or core modules are passed around as values, the cost of an instantiation cannot be computed
    /// statically. No toolchain generates such filters.
    fn component_as_value(&self, offset: usize, what: &str) -> UploadError {
        let detail = format!("{} {what}, which no filter may (at offset {offset:#x})", self.place());
        UploadError::Invalid { detail }
    }

    /// Adds another index for an existing component, which is in this component or `outer` levels further out.
    fn add_component_alias(&mut self, offset: usize, outer: u32, index: u32) -> Result<(), UploadError> {
        self.count(Total::Modules, 1)?;
        let Some(cost) = self.component_at(outer, index) else {
            let detail = format!("{} names a component that is not there (at offset {offset:#x})", self.place());
            return Err(UploadError::Invalid { detail });
        };
        if let Some(Open::Component(component)) = self.open.last_mut() {
            component.components.push(cost);
        }
        Ok(())
    }

    fn component_at(&self, outer: u32, index: u32) -> Option<Cost> {
        let component = self.open.iter().rev().nth(usize::try_from(outer).ok()?)?;
        let Open::Component(component) = component else { return None };
        component.components.get(usize::try_from(index).ok()?).copied()
    }

    /// Adds another index for an existing core module, which is in this component or `outer` levels further out.
    fn add_module_alias(&mut self, outer: u32, index: u32) {
        let cost = self.module_at(outer, index);
        if let Some(Open::Component(component)) = self.open.last_mut() {
            component.modules.push(cost);
        }
    }

    /// Cost of one instance of a core module. An index that does not exist is left to the validator.
    fn module_at(&self, outer: u32, index: u32) -> Cost {
        let found = || {
            let component = self.open.iter().rev().nth(usize::try_from(outer).ok()?)?;
            let Open::Component(component) = component else { return None };
            component.modules.get(usize::try_from(index).ok()?).copied()
        };
        found().unwrap_or(Cost::of_module(0, 0))
    }

    /// Adds to the cost of one instance of the open component.
    fn add_cost(&mut self, more: Cost) -> Result<(), UploadError> {
        let Some(Open::Component(component)) = self.open.last_mut() else { return Ok(()) };
        let cost = &mut component.cost;
        cost.instances = cost.instances.saturating_add(more.instances);
        cost.core_instances = cost.core_instances.saturating_add(more.core_instances);
        cost.functions = cost.functions.saturating_add(more.functions);
        cost.links = cost.links.saturating_add(more.links);
        cost.memories = cost.memories.saturating_add(more.memories);
        cost.tables = cost.tables.saturating_add(more.tables);
        let (cost, limits) = (*cost, self.limits);
        for (words, found, limit_name, limit) in [
            ("instances", cost.instances, "filter_instances_max", limits.instances_max),
            ("core instances", cost.core_instances, "filter_core_instances_max", limits.core_instances_max),
            ("memories", cost.memories, "filter_memories_max", limits.memories_max),
            ("tables", cost.tables, "filter_tables_max", limits.tables_max),
            ("lifted and lowered functions", cost.functions, "filter_functions_max", limits.functions_max),
            ("links", cost.links, "filter_links_max", limits.links_max),
        ] {
            if found > limit {
                let what = format!("the number of {words} that one instance of {} comes to", self.place());
                return Err(limit_exceeded(what, found, limit_name, limit));
            }
        }
        Ok(())
    }

    /// Parses a type section. `wasmparser`'s own reader for a whole type recurses as deep as the type is nested, and a
    /// few megabytes of nested types would overflow the stack.
    fn types(&mut self, range: Range<usize>) -> Result<(), UploadError> {
        let section = self.wasm.get(range.clone()).unwrap_or_default();
        let mut reader = BinaryReader::new(section, range.start);
        for _ in 0..reader.read_var_u32().map_err(unreadable)? {
            self.component_type(&mut reader, 1)?;
        }
        Ok(())
    }

    fn component_type(&mut self, reader: &mut BinaryReader<'_>, level: u64) -> Result<(), UploadError> {
        self.count(Total::Types, 1)?;
        let nesting_max = self.limits.nesting_max.min(NESTING_LIMIT);
        if level > nesting_max {
            let what =
                format!("the nesting of types in {}, at offset {:#x},", self.place(), reader.original_position());
            return Err(limit_exceeded(what, level, "filter_nesting_max", nesting_max));
        }
        if !matches!(reader.clone().read_u8(), Ok(COMPONENT_TYPE | INSTANCE_TYPE)) {
            return reader.read::<ComponentType<'_>>().map(drop).map_err(unreadable);
        }
        reader.read_u8().map_err(unreadable)?;
        for _ in 0..reader.read_var_u32().map_err(unreadable)? {
            self.declaration(reader, level)?;
        }
        Ok(())
    }

    /// Parses a declaration in a component type or an instance type.
    fn declaration(&mut self, reader: &mut BinaryReader<'_>, level: u64) -> Result<(), UploadError> {
        let declares = reader.clone().read_u8().map_err(unreadable)?;
        if declares == DECLARES_TYPE {
            reader.read_u8().map_err(unreadable)?;
            return self.component_type(reader, level + 1);
        }
        let mut declared = 1;
        let read = match declares {
            DECLARES_CORE_TYPE => reader.read_u8().and_then(|_| {
                declared = core_types(&reader.read::<CoreType<'_>>()?);
                Ok(())
            }),
            DECLARES_ALIAS => reader.read_u8().and_then(|_| reader.read::<ComponentAlias<'_>>().map(drop)),
            DECLARES_IMPORT => reader.read_u8().and_then(|_| reader.read::<ComponentImport<'_>>().map(drop)),
            DECLARES_EXPORT => reader.read_u8().and_then(|_| {
                reader.read::<ComponentExternName<'_>>()?;
                reader.read::<ComponentTypeRef>().map(drop)
            }),
            unknown => {
                let offset = reader.original_position();
                let detail =
                    format!("a type declares something of an unknown kind {unknown:#x} (at offset {offset:#x})");
                return Err(UploadError::Invalid { detail });
            }
        };
        read.map_err(unreadable)?;
        self.count(Total::Types, declared)
    }
}

// Leading bytes of types and declarations, from the component model's `Binary.md`.
const COMPONENT_TYPE: u8 = 0x41;
const INSTANCE_TYPE: u8 = 0x42;
const DECLARES_CORE_TYPE: u8 = 0x00;
const DECLARES_TYPE: u8 = 0x01;
const DECLARES_ALIAS: u8 = 0x02;
const DECLARES_IMPORT: u8 = 0x03;
const DECLARES_EXPORT: u8 = 0x04;

/// Number of types in a core type. A module type counts as one, plus one for each of its declarations.
fn core_types(of_type: &CoreType<'_>) -> u64 {
    match of_type {
        CoreType::Rec(group) => types_of(group),
        CoreType::Module(declarations) => {
            let declared = declarations.iter().map(|declaration| match declaration {
                ModuleTypeDeclaration::Type(group) => types_of(group),
                _ => 1,
            });
            declared.fold(1, u64::saturating_add)
        }
    }
}

/// Moves the offset out of the result, so that errors have one too.
fn flat<T>(item: wasmparser::Result<(usize, T)>) -> (usize, Result<T, UploadError>) {
    match item {
        Ok((offset, item)) => (offset, Ok(item)),
        Err(error) => (error.offset(), Err(unreadable(error))),
    }
}
