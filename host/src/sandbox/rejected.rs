//! Why an upload is not taken.

use crate::domain::verdict::Fault;

/// What was wrong with an uploaded filter, in words for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// More bytes than the tenant's quota takes.
    #[error("the filter is {bytes} bytes: `filter_bytes_max` is {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The quota's `filter_bytes_max`.
        limit: u64,
    },
    /// Machine code compiled elsewhere, which is never loaded.
    #[error("this is a precompiled artefact (.cwasm): upload the .wasm component it was made from")]
    Precompiled,
    /// A core module.
    #[error(
        "this is a core WebAssembly module, not a component: build with `cargo component build`, for wasm32-wasip2, \
         or with `wasm-component-ld` as linker"
    )]
    CoreModule,
    /// Neither a module nor a component.
    #[error("this is not a WebAssembly component: {detail}")]
    NotWasm {
        /// What it starts with.
        detail: String,
    },
    /// Its structure is larger than what is compiled here.
    #[error("the component is too complex: {what} is {found}, and `{limit_name}` is {limit}")]
    Structure {
        /// What is too large, and where in the upload.
        what: String,
        /// How large it is, as far as it was counted.
        found: u64,
        /// The configuration key of the limit that answered.
        limit_name: String,
        /// Its value.
        limit: u64,
    },
    /// The engine does not take it: invalid, or it uses a proposal or a size that is off here.
    #[error("the component is not valid here: {detail}")]
    Invalid {
        /// The engine's words, bounded.
        detail: String,
    },
    /// It lacks the export that makes it a filter.
    #[error(
        "the component does not export `setgate:filter/transform@0.1.x`, so it is not a filter; it exports {exports}"
    )]
    NoTransform {
        /// What it exports instead.
        exports: String,
    },
    /// It was made for a version of the world that this host does not speak.
    #[error("the component exports `{export}`; this host speaks version 0.1.x")]
    WrongVersion {
        /// The export's name.
        export: String,
    },
    /// The names fit the world, the types do not.
    #[error("the component does not fit the world `setgate:filter/filter@0.1`: {detail}")]
    WrongTypes {
        /// The engine's words.
        detail: String,
    },
    /// It imports what no filter is given.
    #[error(
        "the component imports `{import}`, which no filter is given: there are setgate:filter/log, config and lookup at \
         0.1.x, and an empty WASI 0.2 (cli, clocks, filesystem, http, io, random, sockets)"
    )]
    Import {
        /// The import's name.
        import: String,
    },
    /// It took more than the compiler may use.
    #[error("the compiler went over `{limit_name}`, {limit}")]
    CompileLimit {
        /// The configuration key of the limit that answered.
        limit_name: String,
        /// Its value.
        limit: u64,
    },
    /// As many uploads of the tenant wait for the compiler as may.
    #[error(
        "{limit} uploads of this tenant wait for the compiler already, which is \
         `sandbox.compiles_waiting_per_tenant_max`: wait for their answers, then send it again"
    )]
    CompileQueue {
        /// The host's `sandbox.compiles_waiting_per_tenant_max`.
        limit: usize,
    },
    /// It could not be instantiated within the tenant's quota.
    #[error("the filter cannot be started: {0}")]
    Start(Fault),
    /// The host could not do its part; the same upload may pass later.
    #[error("the filter could not be compiled now: {detail}")]
    Host {
        /// What failed.
        detail: String,
    },
}

impl Rejected {
    /// A stable word for each kind: for problem codes and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Precompiled => "precompiled",
            Self::CoreModule => "core_module",
            Self::NotWasm { .. } => "not_wasm",
            Self::Structure { .. } => "structure",
            Self::Invalid { .. } => "invalid",
            Self::NoTransform { .. } => "no_transform",
            Self::WrongVersion { .. } => "wrong_version",
            Self::WrongTypes { .. } => "wrong_types",
            Self::Import { .. } => "import",
            Self::CompileLimit { .. } => "compile_limit",
            Self::CompileQueue { .. } => "compile_queue",
            Self::Start(_) => "start",
            Self::Host { .. } => "host",
        }
    }

    /// Whether the host is to blame, so that the same upload may pass later.
    pub fn is_hosts_fault(&self) -> bool {
        match self {
            Self::Host { .. } => true,
            Self::Start(fault) => matches!(fault, Fault::Unavailable { .. }),
            _ => false,
        }
    }
}
