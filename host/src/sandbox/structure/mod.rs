//! How large an upload is in structure, looked at before anything of it is compiled.
//!
//! A component of a few megabytes can ask for far more work than its bytes show: a million functions, nested components
//! that come to 10^10 instances, a type nested so deeply that reading it overflows the reader's stack. The compiler's
//! process has its limits, but dies of them in seconds and in words about memory. This pass reads each byte once,
//! keeps next to nothing, recurses no deeper than [`NESTING_LIMIT`], and says what is too large, where, and which setting
//! answered.
//!
//! It does not validate: that is the compiler's, under its limits. What cannot be read at all is [`Rejected::Invalid`]
//! here already.

mod caps;
mod component;
mod module;

#[cfg(test)]
mod tests;

use wasmparser::{Parser, Payload};

use super::Rejected;

pub use caps::Caps;
use caps::Total;
use component::{Component, Cost};
use module::Module;

/// Levels of components and of types that are never gone past, whatever is configured: types are read by recursion.
const NESTING_LIMIT: u64 = 100;

/// What a call may hold: the smaller of the tenant's quota and the pool's slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) memory_bytes_max: u64,
    pub(super) table_elements_max: u64,
}

/// What the outermost component imports and exports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names<'a> {
    /// Each import, and whether it is an instance, as an interface is.
    pub(super) imports: Vec<(&'a str, bool)>,
    pub(super) exports: Vec<&'a str>,
}

/// Reads the structure of `wasm`, which has to begin as a component does. Takes time in proportion to its bytes, since
/// each instruction is read once: tens of milliseconds for the 18 MB of a filter in Python, in a release build.
///
/// # Errors
/// [`Rejected::Structure`] at the first cap that is passed, [`Rejected::Invalid`] where it cannot be read.
pub(super) fn check<'a>(wasm: &'a [u8], caps: &'a Caps, room: Room) -> Result<Names<'a>, Rejected> {
    let (totals, names) = ([0; Total::ALL.len()], Names::default());
    let mut scan = Scan { wasm, caps, room, totals, names, open: Vec::new(), modules: 0, components: 0 };
    for payload in Parser::new(0).parse_all(wasm) {
        scan.payload(payload.map_err(unreadable)?)?;
    }
    Ok(scan.names)
}

/// What was seen so far.
struct Scan<'a> {
    wasm: &'a [u8],
    caps: &'a Caps,
    room: Room,
    /// By [`Total`].
    totals: [u64; Total::ALL.len()],
    names: Names<'a>,
    /// What is being read, outermost first.
    open: Vec<Open>,
    /// Core modules and nested components begun so far: their numbers in words.
    modules: u64,
    components: u64,
}

enum Open {
    Module(Module),
    Component(Component),
}

impl<'a> Scan<'a> {
    fn payload(&mut self, payload: Payload<'a>) -> Result<(), Rejected> {
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

    fn begin(&mut self, encoding: wasmparser::Encoding) -> Result<(), Rejected> {
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
                let nesting_max = self.caps.nesting_max.min(NESTING_LIMIT);
                if levels > nesting_max {
                    let what = format!("the nesting of {}", self.place());
                    return Err(over(what, levels, "filter_nesting_max", nesting_max));
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

    /// Counts `more` of something over the whole upload.
    fn count(&mut self, total: Total, more: u64) -> Result<(), Rejected> {
        let sum = &mut self.totals[total as usize];
        *sum = sum.saturating_add(more);
        let (found, (limit_name, limit)) = (*sum, total.limit(self.caps));
        if found > limit {
            let what = format!("the number of {} up to {}", total.words(), self.place());
            return Err(over(what, found, limit_name, limit));
        }
        Ok(())
    }

    /// Where in the upload this is, in words.
    fn place(&self) -> String {
        match self.open.last() {
            Some(Open::Module(module)) => format!("core module {}", module.number),
            Some(Open::Component(component)) if component.number > 0 => format!("component {}", component.number),
            _ => "the outermost component".to_owned(),
        }
    }
}

fn over(what: String, found: u64, limit_name: &'static str, limit: u64) -> Rejected {
    Rejected::Structure { what, found, limit_name: limit_name.to_owned(), limit }
}

/// The parser's words, which end in the offset.
fn unreadable(error: wasmparser::Error) -> Rejected {
    Rejected::Invalid { detail: super::fault::bounded(&error.to_string()) }
}
