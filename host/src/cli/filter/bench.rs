//! A local sandbox for trying out filters.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use setgate_base::crypto;
use setgate_domain::id::Digest;
use setgate_domain::limits::CallLimits;
use setgate_domain::tenant::Quota;
use setgate_sandbox::{CompiledFilter, ComponentSource, Options, Sandbox, UploadError};

use super::cache::{self, OwnCache};
use super::outcome;
use super::show::{grouped, needs};
use crate::cli::out::{say, say_error};

/// A sandbox that caches compiled filters for the current user.
pub(super) struct Bench {
    pub(super) sandbox: Sandbox,
    pub(super) quota: Quota,
    /// Temporary directory, removed on drop, if there is no usable cache directory.
    temporary: Option<PathBuf>,
}

impl Bench {
    /// For the author's own filter, within the default quota. It is compiled in this process.
    pub(super) fn new() -> anyhow::Result<Self> {
        Self::with(Quota::default(), HashMap::new(), None)
    }

    /// For components downloaded from a host, within the limits of a delivery. They are not trusted, so a separate
    /// process compiles them within limits, as on a host.
    pub(super) fn over(components: HashMap<Digest, Bytes>, limits: &CallLimits) -> anyhow::Result<Self> {
        let compiler = std::env::current_exe().context("the path of this program, which compiles filters")?;
        Self::with(Quota::default().with_call_limits(limits), components, Some(compiler))
    }

    fn with(quota: Quota, wasm: HashMap<Digest, Bytes>, compiler: Option<PathBuf>) -> anyhow::Result<Self> {
        let (dir, key, temporary) = match cache::of_user() {
            Ok(OwnCache { dir, key }) => (dir, key, None),
            Err(why) => {
                say_error!("compiled filters are not cached for the next run: {why}");
                let dir = std::env::temp_dir().join(format!("setgate-filter-{:032x}", crypto::random_u128()));
                (dir.clone(), crypto::random_bytes(), Some(dir))
            }
        };
        let components: ComponentSource = Arc::new(move |_, digest| {
            let found = wasm.get(&digest).cloned();
            Box::pin(async { found })
        });
        let mut options = Options::new(dir, key, components);
        options.cache_bytes_max = cache::BYTES_MAX;
        options.instances_max = 1;
        options.guest_threads = 1;
        options.compiler = compiler;
        // The pool must never be the limiting factor, only the limits of the call.
        options.memory_bytes_max = options.memory_bytes_max.max(quota.memory_bytes_max);
        options.table_elements_max = options.table_elements_max.max(quota.table_elements_max);
        Ok(Self { sandbox: Sandbox::new(options)?, quota, temporary })
    }

    /// Validates and compiles the filter as a host would. The inner error is the reason for which a host would reject
    /// it.
    pub(super) async fn take_in(&self, file: &Path) -> anyhow::Result<Result<CompiledFilter, UploadError>> {
        let wasm = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(self.sandbox.compile(&"local".parse()?, wasm.into(), &self.quota).await)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.sandbox.shutdown();
        if let Some(dir) = &self.temporary {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// Prints whether a host with the default quota would accept the filter.
pub(crate) async fn check(file: &Path) -> anyhow::Result<std::process::ExitCode> {
    let bench = Bench::new()?;
    let compiled = match bench.take_in(file).await? {
        Ok(compiled) => compiled,
        Err(why) => {
            outcome::say_not_taken(file, &why, false)?;
            return Ok(std::process::ExitCode::FAILURE);
        }
    };
    say!("{}: a host would accept this filter", file.display());
    say!("digest    {}", compiled.digest);
    say!("size      {} bytes", grouped(compiled.size_bytes));
    say!("needs     {}", needs(&compiled));
    say!("compiled  in {} ms", grouped(compiled.compile_ms));
    Ok(std::process::ExitCode::SUCCESS)
}
