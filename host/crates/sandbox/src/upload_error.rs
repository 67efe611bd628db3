//! Why an upload was rejected.

use setgate_domain::verdict::Fault;

/// Why an upload was rejected. The messages are written for the filter's author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The upload is larger than the tenant's quota allows.
    #[error("the filter has {bytes} bytes, and `filter_bytes_max` is {limit}")]
    TooLarge {
        /// Size of the upload, in bytes.
        bytes: u64,
        /// The quota's `filter_bytes_max`.
        limit: u64,
    },
    /// Precompiled machine code, which is never loaded.
    #[error("the upload is a precompiled artefact (.cwasm): upload the .wasm component from which it was compiled")]
    Precompiled,
    /// A core module instead of a component.
    #[error(
        "the upload is a core WebAssembly module, not a component: build with `cargo component build`, for \
         wasm32-wasip2, or with `wasm-component-ld` as linker"
    )]
    CoreModule,
    /// Neither a module nor a component.
    #[error("the upload is not a WebAssembly component: {detail}")]
    NotWasm {
        /// The header that was found.
        detail: String,
    },
    /// The structure exceeds a limit.
    #[error("the component is too complex: {what} is {found}, and `{limit_name}` is {limit}")]
    Structure {
        /// Name of the structure that is too large, and its position in the upload.
        what: String,
        /// Its size. Counting stops soon after the limit.
        found: u64,
        /// Name of the limit: a member of the tenant's quota, or `filter_*` for one that is fixed.
        limit_name: String,
        /// Value of the limit.
        limit: u64,
    },
    /// The engine rejected the component: it is invalid, or uses a proposal or a size that is disabled.
    #[error("the component is invalid: {detail}")]
    Invalid {
        /// The engine's message, truncated.
        detail: String,
    },
    /// The export is missing that makes a component a filter.
    #[error(
        "the component does not export `setgate:filter/transform@0.1.x`, so it is not a filter; it exports {exports}"
    )]
    NoTransform {
        /// The exports that were found.
        exports: String,
    },
    /// The component targets a version of the world that this host does not support.
    #[error("the component exports `{export}`, but this host supports version 0.1.x")]
    WrongVersion {
        /// Name of the export, with its version.
        export: String,
    },
    /// The names match the world, but the types do not.
    #[error("the component does not fit the world `setgate:filter/filter@0.1`: {detail}")]
    WrongTypes {
        /// The engine's message.
        detail: String,
    },
    /// The component imports an interface that filters do not get.
    #[error(
        "the component imports `{import}`, which is not available to filters. Available: setgate:filter/log, config and \
         lookup at 0.1.x, and WASI 0.2 without files and network (cli, clocks, filesystem, http, io, random, sockets)"
    )]
    Import {
        /// Name of the import.
        import: String,
    },
    /// The compile exceeded a resource limit.
    #[error("compiling the component exceeded `{limit_name}`, which is {limit}")]
    CompileLimit {
        /// Configuration key of the limit.
        limit_name: String,
        /// Value of the limit.
        limit: u64,
    },
    /// The tenant's compile queue is full.
    #[error(
        "{limit} uploads of this tenant are queued for the compiler, the limit per tenant: retry after they have been \
         answered"
    )]
    CompileQueue {
        /// `COMPILES_QUEUED_PER_TENANT_MAX`.
        limit: usize,
    },
    /// The filter could not be instantiated within the tenant's quota.
    #[error("the filter cannot be started: {0}")]
    Start(Fault),
    /// The host failed. The same upload may succeed later.
    #[error("the host could not compile the filter: {detail}")]
    Host {
        /// The failed operation.
        detail: String,
    },
}

impl UploadError {
    /// Stable identifier of each variant, for problem codes and metrics.
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

    /// Whether the host is at fault, so that the same upload may succeed later.
    pub fn is_host_error(&self) -> bool {
        match self {
            Self::Host { .. } => true,
            Self::Start(fault) => matches!(fault, Fault::Unavailable { .. }),
            _ => false,
        }
    }
}
