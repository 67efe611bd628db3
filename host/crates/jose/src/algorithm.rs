//! The `alg` of a token's header.

use std::fmt;

use setgate_domain::algorithm::Algorithm;

/// A supported algorithm as a header names it. Ed25519 has two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeaderAlgorithm {
    /// By its name in [`Algorithm::as_str`].
    Named(Algorithm),
    /// [`Algorithm::EdDsa`] by its newer name `Ed25519` (RFC 9864 section 2.2).
    Ed25519,
}

/// The newer name of [`Algorithm::EdDsa`].
const ED25519: &str = "Ed25519";

impl HeaderAlgorithm {
    /// `None` if the algorithm is not supported.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if name == ED25519 { Some(Self::Ed25519) } else { name.parse().ok().map(Self::Named) }
    }

    /// The algorithm, by whichever name.
    pub const fn algorithm(self) -> Algorithm {
        match self {
            Self::Named(algorithm) => algorithm,
            Self::Ed25519 => Algorithm::EdDsa,
        }
    }

    /// The name in the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Named(algorithm) => algorithm.as_str(),
            Self::Ed25519 => ED25519,
        }
    }
}

impl fmt::Display for HeaderAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
