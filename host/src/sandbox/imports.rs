//! Which imports a filter may have, by name.

use crate::domain::filter::Grant;

use super::wasi;

/// An interface that a filter may import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Import<'a> {
    /// `setgate:filter/types`: types only.
    Types,
    /// `setgate:filter/log`, which needs no grant.
    Log,
    /// An interface that has to be granted.
    Granted(Grant),
    /// One of the empty WASI, without its version.
    Wasi(&'a str),
    /// `wasi:sockets`, which may be named for its types but not used.
    Sockets(&'a str),
}

/// Reads an import's name; none where it is not one of ours in a version we have.
pub(super) fn read(name: &str) -> Option<Import<'_>> {
    let (interface, version) = name.split_once('@')?;
    match interface {
        _ if interface.starts_with("setgate:filter/") => {
            if !is_ours(version) {
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
        _ if wasi::INTERFACES.contains(&interface) => Some(Import::Wasi(interface)),
        _ if interface.starts_with("wasi:sockets/") => Some(Import::Sockets(interface)),
        _ => None,
    }
}

/// Whether a version of `setgate:filter` is one that this host speaks: any `0.1.x`, since those only add.
pub(super) fn is_ours(version: &str) -> bool {
    version.strip_prefix("0.1.").is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_may_be_imported() {
        assert_eq!(read("setgate:filter/lookup@0.1.7"), Some(Import::Granted(Grant::Lookup)));
        assert_eq!(read("wasi:cli/stdout@0.2.3"), Some(Import::Wasi("wasi:cli/stdout")));
        for not in [
            "setgate:filter/log@0.2.0",
            "setgate:filter/log@0.1.0-rc.1",
            "setgate:filter/log",
            "setgate:filter/http@0.1.0",
            "wasi:http/outgoing-handler@0.2.0",
            "wasi:cli/stdout@0.3.0",
            "wasi:keyvalue/store@0.2.0",
            "env",
        ] {
            assert_eq!(read(not), None, "{not}");
        }
    }
}
