//! Checks the size of an upload's structure before anything is compiled.
//!
//! A component of a few megabytes can require far more work than its size suggests: a million functions, nested
//! components that amount to 10^10 instances, a type nested so deeply that parsing it overflows the stack. The compiler
//! process has its own limits, but exceeding those takes seconds and yields an error about memory. This pass reads each
//! byte once, stores almost nothing, recurses no deeper than [`NESTING_LIMIT`], and reports the name of the item that
//! is too large, its position, and the setting that limits it.
//!
//! It does not validate: the compiler does, under its limits. Unparsable input is reported here as
//! [`UploadError::Invalid`].

mod component;
mod limits;
mod module;

#[cfg(test)]
mod tests;

use wasmparser::{Parser, Payload};

use super::UploadError;

use component::{Component, Cost};
pub use limits::StructureLimits;
use limits::Total;
use module::Module;

/// Hard limit on the nesting of components and types, whatever is configured, because types are parsed recursively.
const NESTING_LIMIT: u64 = 100;

/// Memory limits of a call: the smaller of the tenant's quota and the pool slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallMemoryLimits {
    pub(super) memory_bytes_max: u64,
    pub(super) table_elements_max: u64,
}

/// Imports and exports of the outermost component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names<'a> {
    /// The name of each import, and whether it is an instance, as interfaces are.
    pub(super) imports: Vec<(&'a str, bool)>,
    pub(super) exports: Vec<&'a str>,
}

/// Checks the structure of `wasm`, which must begin with the header of a component. Takes time proportional to the
/// size, since each instruction is read once: tens of milliseconds for a Python filter of 18 MB, in a release build.
///
/// # Errors
/// [`UploadError::Structure`] if a limit is exceeded, [`UploadError::Invalid`] if the input cannot be parsed.
pub(super) fn check<'a>(
    wasm: &'a [u8],
    limits: &'a StructureLimits,
    call_limits: CallMemoryLimits,
) -> Result<Names<'a>, UploadError> {
    let (totals, names) = ([0; Total::ALL.len()], Names::default());
    let mut scan = Scan { wasm, limits, call_limits, totals, names, open: Vec::new(), modules: 0, components: 0 };
    for payload in Parser::new(0).parse_all(wasm) {
        scan.payload(payload.map_err(unreadable)?)?;
    }
    Ok(scan.names)
}

/// State of the parser.
struct Scan<'a> {
    wasm: &'a [u8],
    limits: &'a StructureLimits,
    call_limits: CallMemoryLimits,
    /// Indexed by [`Total`].
    totals: [u64; Total::ALL.len()],
    names: Names<'a>,
    /// The modules and components that are being parsed, outermost first.
    open: Vec<Open>,
    /// Number of core modules and of nested components so far. UsedInstance to number them in messages.
    modules: u64,
    components: u64,
}

enum Open {
    Module(Module),
    Component(Component),
}

impl<'a> Scan<'a> {
    fn payload(&mut self, payload: Payload<'a>) -> Result<(), UploadError> {
        match payload {
            Payload::Version { encoding, .. } => self.begin(encoding),
            Payload::End(_) => {
                self.end();
                Ok(())
            }
            payload => match self.open.last() {
                Some(Open::Module(_)) => self.module_payload(payload),
                Some(Open::Component(_)) => self.component_payload(payload),
                None => Ok(()),
            },
        }
    }

    fn begin(&mut self, encoding: wasmparser::Encoding) -> Result<(), UploadError> {
        let nested = !self.open.is_empty();
        match encoding {
            wasmparser::Encoding::Module => {
                self.open.push(Open::Module(Module::new(self.modules)));
                self.modules += 1;
            }
            wasmparser::Encoding::Component => {
                self.open.push(Open::Component(Component::new(self.components)));
                self.components += 1;
                let levels = self.open.len() as u64;
                let nesting_max = self.limits.nesting_max.min(NESTING_LIMIT);
                if levels > nesting_max {
                    let what = format!("the nesting of {}", self.place());
                    return Err(limit_exceeded(what, levels, "filter_nesting_max", nesting_max));
                }
            }
        }
        if nested { self.count(Total::Modules, 1) } else { Ok(()) }
    }

    fn end(&mut self) {
        let ended = self.open.pop();
        let Some(Open::Component(outer)) = self.open.last_mut() else { return };
        match ended {
            Some(Open::Component(ended)) => outer.components.push(ended.cost),
            Some(Open::Module(ended)) => outer.modules.push(Cost::of_module(ended.memories, ended.tables)),
            None => {}
        }
    }

    /// Adds `more` to a counter of the whole upload.
    fn count(&mut self, total: Total, more: u64) -> Result<(), UploadError> {
        let sum = &mut self.totals[total as usize];
        *sum = sum.saturating_add(more);
        let (found, (limit_name, limit)) = (*sum, total.limit(self.limits));
        if found > limit {
            let what = format!("the number of {} up to {}", total.words(), self.place());
            return Err(limit_exceeded(what, found, limit_name, limit));
        }
        Ok(())
    }

    /// Describes the current position in the upload.
    fn place(&self) -> String {
        match self.open.last() {
            Some(Open::Module(module)) => format!("core module {}", module.number),
            Some(Open::Component(component)) if component.number > 0 => format!("component {}", component.number),
            _ => "the outermost component".to_owned(),
        }
    }
}

fn limit_exceeded(what: String, found: u64, limit_name: &'static str, limit: u64) -> UploadError {
    UploadError::Structure { what, found, limit_name: limit_name.to_owned(), limit }
}

/// The parser's message ends with the offset.
fn unreadable(error: wasmparser::Error) -> UploadError {
    UploadError::Invalid { detail: super::fault::bounded(&error.to_string()) }
}
