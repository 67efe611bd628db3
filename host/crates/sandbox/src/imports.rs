//! The allowlist of imports.

use setgate_domain::filter::Grant;

use super::wasi;

/// An interface that a filter may import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Import<'a> {
    /// `setgate:filter/types`: types only.
    Types,
    /// `setgate:filter/log`, which needs no grant.
    Log,
    /// An interface that requires a grant.
    Granted(Grant),
    /// An interface of WASI 0.2, without its version. Functions that the empty WASI does not implement can be imported
    /// and trap when called: see `wasi`.
    Wasi(&'a str),
}

/// Parses the name of an import. `None` if it is not on the allowlist in a supported version.
pub(super) fn parse(name: &str) -> Option<Import<'_>> {
    let (interface, version) = name.split_once('@')?;
    match interface {
        _ if interface.starts_with("setgate:filter/") => {
            if !is_supported_version(version) {
                return None;
            }
            match interface {
                "setgate:filter/types" => Some(Import::Types),
                "setgate:filter/log" => Some(Import::Log),
                "setgate:filter/config" => Some(Import::Granted(Grant::Config)),
                "setgate:filter/lookup" => Some(Import::Granted(Grant::Lookup)),
                _ => None,
            }
        }
        _ if !version.starts_with("0.2.") => None,
        _ => {
            let (package, _) = interface.split_once('/')?;
            wasi::PACKAGES.contains(&package).then_some(Import::Wasi(interface))
        }
    }
}

/// Whether this host supports a version of `setgate:filter`: all of `0.1.x`, since patch releases only add to it.
pub(super) fn is_supported_version(version: &str) -> bool {
    version.strip_prefix("0.1.").is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowlisted_imports_are_accepted() {
        assert_eq!(parse("setgate:filter/lookup@0.1.7"), Some(Import::Granted(Grant::Lookup)));
        for (name, interface) in [
            ("wasi:cli/stdout@0.2.3", "wasi:cli/stdout"),
            ("wasi:sockets/tcp-create-socket@0.2.0", "wasi:sockets/tcp-create-socket"),
            ("wasi:http/outgoing-handler@0.2.8", "wasi:http/outgoing-handler"),
            ("wasi:filesystem/types@0.2.12", "wasi:filesystem/types"),
            ("wasi:clocks/timezone@0.2.1", "wasi:clocks/timezone"),
        ] {
            assert_eq!(parse(name), Some(Import::Wasi(interface)));
        }
        for not in [
            "setgate:filter/log@0.2.0",
            "setgate:filter/log@0.1.0-rc.1",
            "setgate:filter/log",
            "setgate:filter/http@0.1.0",
            "wasi:http/outgoing-handler@0.3.0",
            "wasi:http/outgoing-handler",
            "wasi:https/outgoing-handler@0.2.0",
            "wasi:http",
            "other:http/types@0.2.0",
            "wasi:cli/stdout@0.3.0",
            "wasi:keyvalue/store@0.2.0",
            "env",
        ] {
            assert_eq!(parse(not), None, "{not}");
        }
    }
}
