//! A sandbox of one's own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;

use super::show::{grouped, needs};
use crate::cli::out::say;
use crate::crypto;
use crate::domain::id::Digest;
use crate::domain::limits::CallLimits;
use crate::domain::tenant::Quota;
use crate::sandbox::{Compiled, Components, Options, Sandbox};

/// A sandbox with a folder that goes with it.
pub(super) struct Bench {
    pub(super) sandbox: Sandbox,
    pub(super) quota: Quota,
    dir: PathBuf,
}

impl Bench {
    /// For the author's own filter, within the default quota. It is compiled in this process.
    pub(super) fn new() -> anyhow::Result<Self> {
        Self::with(Quota::default(), HashMap::new(), None)
    }

    /// For components of a host, within the limits of a delivery. They may be anybody's, so another process compiles
    /// them within limits, as at a host.
    pub(super) fn over(components: HashMap<Digest, Bytes>, limits: &CallLimits) -> anyhow::Result<Self> {
        let compiler = std::env::current_exe().context("the program that compiles")?;
        Self::with(Quota::default().with(limits), components, Some(compiler))
    }

    fn with(quota: Quota, wasm: HashMap<Digest, Bytes>, compiler: Option<PathBuf>) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("setgate-filter-{:032x}", crypto::random_u128()));
        let components: Components = Arc::new(move |digest| {
            let found = wasm.get(&digest).cloned();
            Box::pin(async { found })
        });
        let mut options = Options::new(dir.clone(), crypto::random_bytes(), components);
        options.instances_max = 1;
        options.guest_threads = 1;
        options.compiler = compiler;
        // A slot is never what stands in the way here, only the limits of the call.
        options.memory_bytes_max = options.memory_bytes_max.max(quota.memory_bytes_max);
        options.table_elements_max = options.table_elements_max.max(quota.table_elements_max);
        Ok(Self { sandbox: Sandbox::new(options)?, quota, dir })
    }

    /// Takes the filter in as a host would; says why where it would not.
    pub(super) async fn take_in(&self, file: &Path) -> anyhow::Result<Option<Compiled>> {
        let wasm = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        match self.sandbox.compile(&"local".parse()?, wasm.into(), &self.quota).await {
            Ok(compiled) => Ok(Some(compiled)),
            Err(why) => {
                say!("{}: a host would not take this filter: {}", file.display(), why.kind());
                say!("  {why}");
                Ok(None)
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.sandbox.shutdown();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Says whether a host with the default quota would take a filter.
pub(in crate::cli) async fn check(file: &Path) -> anyhow::Result<std::process::ExitCode> {
    let bench = Bench::new()?;
    let Some(compiled) = bench.take_in(file).await? else { return Ok(std::process::ExitCode::FAILURE) };
    say!("{}: a host would take this filter", file.display());
    say!("digest    {}", compiled.digest);
    say!("size      {} bytes", grouped(compiled.size_bytes));
    say!("needs     {}", needs(&compiled));
    say!("compiled  in {} ms", grouped(compiled.compile_ms));
    Ok(std::process::ExitCode::SUCCESS)
}
