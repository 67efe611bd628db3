//! Locations of the program, the built filters, the repository, and samples from outside it.

use std::env;
use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the workspace").to_owned()
}

/// The program: `SETGATE_BIN`, or the one beside this test in the target directory.
pub fn setgate() -> PathBuf {
    let file = from_env("SETGATE_BIN").unwrap_or_else(|| profile_dir().join("setgate"));
    assert!(file.is_file(), "there is no {}: run `cargo build -p setgate` first, or set SETGATE_BIN", file.display());
    file
}

/// The directory of the example filters: `SETGATE_FILTERS`, or `target/filters`.
pub fn filters() -> PathBuf {
    from_env("SETGATE_FILTERS").unwrap_or_else(|| target_dir().join("filters"))
}

/// An example filter as a component.
pub fn filter(name: &str) -> Vec<u8> {
    let file = filters().join(format!("{name}.wasm"));
    std::fs::read(&file).unwrap_or_else(|error| {
        panic!("{}: {error}; build the example filters with `cargo xtask guests`", file.display())
    })
}

/// Samples from the documentation of products and specifications, which are not part of the repository:
/// `SETGATE_EVENTS`, or `shared/events` beside the repository. `None` if neither exists.
pub fn events() -> Option<PathBuf> {
    let folder = from_env("SETGATE_EVENTS").unwrap_or_else(|| root().join("../shared/events"));
    folder.is_dir().then_some(folder)
}

/// Prints that a story is skipped, with the reason.
#[expect(clippy::print_stderr, reason = "a person has to see that a test did not run")]
pub fn skip(story: &str, why: &str) {
    eprintln!("SKIPPED {story}: {why}");
}

/// The target directory.
pub fn target_dir() -> PathBuf {
    profile_dir().parent().expect("a profile's folder lies in the target folder").to_owned()
}

/// The profile's directory in the target directory, such as `target/debug`.
pub fn profile_dir() -> PathBuf {
    let program = env::current_exe().expect("the program has a path");
    let folder = program.parent().expect("a file lies in a folder");
    // Tests are in `deps`, programs beside it.
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
