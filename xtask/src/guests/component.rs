//! Looking into a component.

use anyhow::{Result, ensure};
use wasmparser::{Encoding, Parser, Payload};

/// The names of what a component imports.
pub(super) fn imports(bytes: &[u8]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { encoding, .. } => {
                ensure!(depth > 0 || encoding == Encoding::Component, "it is a core module");
                depth += 1;
            }
            Payload::End(_) => depth -= 1,
            // The imports of what is nested inside are served inside.
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    names.push(import?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

/// Imports on one line: our own by interface, all of WASI as a number.
pub(super) fn summary(imports: &[String]) -> String {
    let ours = imports.iter().filter_map(|name| name.strip_prefix("setgate:filter/"));
    let mut words: Vec<String> = ours.map(|name| name.split('@').next().unwrap_or(name).to_owned()).collect();
    words.sort();
    let wasi = imports.iter().filter(|name| name.starts_with("wasi:")).count();
    if wasi > 0 {
        words.push(format!("{wasi} of wasi"));
    }
    words.join(", ")
}
