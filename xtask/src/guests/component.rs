//! Inspects components.

use anyhow::{Result, ensure};
use wasmparser::{Encoding, Parser, Payload};

/// The names of a component's imports.
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
            // Imports of nested components are satisfied by the outer one.
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

/// Imports on one line: Setgate's own by interface, all of WASI as a count.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a component: version 13, layer 1.
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn lists_imports_of_the_outermost_component() {
        let name = b"setgate:filter/log@0.1.0";
        // A type section with one empty instance type, and an import section with one instance of it.
        let import = [&[10, name.len() as u8 + 5, 1, 0, name.len() as u8][..], name, &[5, 0]].concat();
        let component = [COMPONENT, &[7, 3, 1, 0x42, 0], &import].concat();
        let names = imports(&component).expect("it is a component");
        assert_eq!(names, ["setgate:filter/log@0.1.0"]);

        // Nested in another component (section 4), the import is not one of the outer component.
        let outer = [COMPONENT, &[4, component.len() as u8], &component].concat();
        assert!(imports(&outer).expect("it is a component").is_empty());
    }

    #[test]
    fn a_core_module_is_refused() {
        let error = imports(b"\0asm\x01\0\0\0").expect_err("it is no component");
        assert_eq!(error.to_string(), "it is a core module");
    }

    #[test]
    fn wasi_is_summed_up() {
        let names = ["wasi:cli/exit@0.2.6", "setgate:filter/log@0.1.0", "wasi:io/poll@0.2.6"].map(str::to_owned);
        assert_eq!(summary(&names), "log, 2 of wasi");
    }
}
