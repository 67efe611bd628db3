//! Where things lie: the program, the built filters, the repository, samples from outside it.

use std::env;
use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the workspace").to_owned()
}

/// The program: `SETGATE_BIN`, else the one beside this test in the target folder.
pub fn setgate() -> PathBuf {
    let file = from_env("SETGATE_BIN").unwrap_or_else(|| profile_dir().join("setgate"));
    assert!(file.is_file(), "there is no {}: run `cargo build -p setgate` first, or set SETGATE_BIN", file.display());
    file
}

/// The folder of the example filters: `SETGATE_FILTERS`, else `target/filters`.
pub fn filters() -> PathBuf {
    from_env("SETGATE_FILTERS").unwrap_or_else(|| target_dir().join("filters"))
}

/// One of the example filters as a component.
pub fn filter(name: &str) -> Vec<u8> {
    let file = filters().join(format!("{name}.wasm"));
    std::fs::read(&file).unwrap_or_else(|error| {
        panic!("{}: {error}; build the example filters with `cargo xtask guests`", file.display())
    })
}

/// Samples as products and specifications document them: `SETGATE_EVENTS`, else `shared/events` beside the
/// repository; none where neither is there. They are not part of it.
pub fn events() -> Option<PathBuf> {
    let folder = from_env("SETGATE_EVENTS").unwrap_or_else(|| root().join("../shared/events"));
    folder.is_dir().then_some(folder)
}

/// Says that a story is not told here, and why.
#[expect(clippy::print_stderr, reason = "a person has to see that a test did not run")]
pub fn skip(story: &str, why: &str) {
    eprintln!("SKIPPED {story}: {why}");
}

/// The target folder.
pub fn target_dir() -> PathBuf {
    profile_dir().parent().expect("a profile's folder lies in the target folder").to_owned()
}

/// The profile's folder in the target folder, such as `target/debug`.
pub fn profile_dir() -> PathBuf {
    let program = env::current_exe().expect("a program knows where it is");
    let folder = program.parent().expect("a file lies in a folder");
    // Tests lie in `deps`, programs beside it.
    let deps = folder.ends_with("deps").then(|| folder.parent()).flatten();
    deps.unwrap_or(folder).to_owned()
}

/// Whether a switch such as `SETGATE_REQUIRE_INTEROP=1` is on.
pub fn is_on(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| value == "1")
}

fn from_env(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
