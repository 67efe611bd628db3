//! Machine code in memory and on disk, across calls and restarts.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Consecutive sandboxes on the same directory. Counts how often the wasm was fetched.
struct Restarts {
    dir: tempfile::TempDir,
    wasm: Bytes,
    fetched: Arc<AtomicUsize>,
}

impl Restarts {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), wasm: guests::pass(), fetched: Arc::default() }
    }

    fn start(&self) -> Fixture {
        let (wasm, fetched) = (self.wasm.clone(), self.fetched.clone());
        let cache = self.dir.path().to_owned();
        Fixture::with(|options| {
            options.cache_dir = cache;
            options.component_source = Arc::new(move |_, _| {
                fetched.fetch_add(1, Ordering::SeqCst);
                Box::pin(std::future::ready(Some(wasm.clone())))
            });
        })
    }

    async fn run(&self) -> Result<Verdict, Fault> {
        let fixture = self.start();
        fixture.sandbox.run(fixture.call(Digest(sha256(&self.wasm)))).await.verdict
    }

    fn fetched(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }

    fn file(&self) -> PathBuf {
        let files: Vec<_> = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.into_iter().next().unwrap()
    }
}

#[tokio::test]
async fn restart_loads_machine_code_from_disk() {
    let restarts = Restarts::new();
    assert_eq!(restarts.run().await, Ok(Verdict::Pass));
    assert_eq!(restarts.fetched(), 1);
    assert_eq!(restarts.run().await, Ok(Verdict::Pass));
    assert_eq!(restarts.fetched(), 1, "read from disk");
}

#[tokio::test]
async fn damaged_machine_code_is_recompiled() {
    let restarts = Restarts::new();
    assert_eq!(restarts.run().await, Ok(Verdict::Pass));
    let good = std::fs::read(restarts.file()).unwrap();
    let mut changed = good.clone();
    changed[good.len() / 2] ^= 0x40;
    for (nth, bad) in [&changed[..], &good[..good.len() / 2], b""].into_iter().enumerate() {
        std::fs::write(restarts.file(), bad).unwrap();
        assert_eq!(restarts.run().await, Ok(Verdict::Pass));
        assert_eq!(restarts.fetched(), nth + 2, "compiled again");
        assert_eq!(std::fs::read(restarts.file()).unwrap().len(), good.len(), "and kept");
    }
}

#[tokio::test]
async fn cache_directory_is_private() {
    let fixture = Fixture::new();
    let mode = std::fs::metadata(fixture.dir.path().join("cache")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn concurrent_first_calls_share_one_compile() {
    let restarts = Restarts::new();
    let fixture = restarts.start();
    let digest = Digest(sha256(&restarts.wasm));
    let calls = (0..20).map(|_| fixture.sandbox.run(fixture.call(digest)));
    for ran in futures_util::future::join_all(calls).await {
        assert_eq!(ran.verdict, Ok(Verdict::Pass));
    }
    assert_eq!(restarts.fetched(), 1);
}

/// The same filter with another digest, due to an additional custom section.
fn distinct(wasm: &Bytes, number: u8) -> Bytes {
    [&wasm[..], &[0, 3, 1, b'n', number]].concat().into()
}

#[tokio::test]
async fn evicted_filters_are_reloaded_from_disk() {
    const HELD_MAX: u64 = 256 << 10;
    let fixture = Fixture::with(|options| options.loaded_bytes_max = HELD_MAX);
    let mut digests = Vec::new();
    for number in 0..20 {
        digests.push(fixture.upload(distinct(&guests::pass(), number)).await.unwrap().digest);
    }
    for _ in 0..2 {
        for digest in &digests {
            // The wasm is not available here: evicted filters can only come from disk.
            assert_eq!(fixture.sandbox.run(fixture.call(*digest)).await.verdict, Ok(Verdict::Pass));
        }
        let (filters, bytes) = fixture.sandbox.0.filters.usage().await;
        assert!(filters > 0 && filters < 20, "{filters}");
        assert!(bytes <= HELD_MAX && bytes / filters > 16 << 10, "{filters} hold {bytes}");
    }
}

#[test]
fn machine_code_is_mapped_from_sealed_file() {
    let engine = engine::compile_only().unwrap();
    let code = engine.precompile_component(&guests::pass()).unwrap();
    let component = artefact::Artefact::compiled(code).load(&engine).unwrap();
    let begin = format!("{:x}-", component.image_range().start.addr());
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = mapped().lines().find(|line| line.starts_with(&begin)).unwrap().to_owned();
    assert!(line.contains("/memfd:setgate-filter"), "{line}");
    drop(component);
    assert!(!mapped().contains(&line), "its memory is released");
}

#[tokio::test]
async fn missing_component_is_a_transient_fault() {
    let fixture = Fixture::new();
    let fault = fixture.sandbox.run(fixture.call(Digest([1; 32]))).await.verdict.unwrap_err();
    assert!(fault.is_transient(), "{fault}");
    let wrong = Fixture::with(|options| {
        options.component_source = Arc::new(|_, _| Box::pin(std::future::ready(Some(guests::pass()))));
    });
    let fault = wrong.sandbox.run(wrong.call(Digest([1; 32]))).await.verdict.unwrap_err();
    assert_eq!(fault.kind(), "unavailable");
}

#[test]
fn pool_loads_output_of_compiler_process() {
    let options = Options::new(PathBuf::new(), [0; 32], Arc::new(|_, _| Box::pin(std::future::ready(None))));
    let (alone, pooled) = (engine::compile_only().unwrap(), engine::pooled(&options).unwrap());
    assert_eq!(engine::compatibility(&alone), engine::compatibility(&pooled));
}
