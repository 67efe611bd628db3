//! `cargo xtask guests`: builds the example filters.

mod bench;
mod component;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

pub(crate) use bench::{build_bench, build_javascript, build_peers};

use crate::run::{read, root, run, target_dir, which};
use crate::toolchain::{self, Toolchain};

const HELP: &str = "\
cargo xtask guests [--target TARGET] [--all-toolchains] [--check-with SETGATE]
cargo xtask guests --env [--target TARGET]
cargo xtask guests --bench | --javascript | --peers

Builds each filter of example-filters/ into target/filters/NAME.wasm.
  --target TARGET       build for this target instead of wasm32-unknown-unknown, into target/filters/TARGET/
  --all-toolchains      build each filter with every supported toolchain, and print a table
  --check-with SETGATE  check each component with this binary: `SETGATE filter check FILE`
  --bench               build the benchmark's guest instead, into target/bench/
  --javascript          build the same guest from JavaScript; needs node and npm
  --peers               build the program with the benchmark's peers, and its guest; the first build takes ten minutes
  --env                 build nothing; print the variables with which plain cargo uses the same compiler
SETGATE_GUEST_TOOLCHAIN=active|rustup|debian selects the compiler's source.";

/// The target of the example filters, because its components import only Setgate's own interfaces.
const DEFAULT_TARGET: &str = "wasm32-unknown-unknown";

/// The default target of `cargo component`.
const COMPONENT_TARGET: &str = "wasm32-wasip1";

/// `cargo xtask guests` with these arguments.
pub(crate) fn command(arguments: &[String]) -> Result<()> {
    let mut target = None;
    let mut all_toolchains = false;
    let mut check_with = None;
    let mut env = false;
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--target" => target = Some(arguments.next().context("--target needs a target")?.clone()),
            "--all-toolchains" => all_toolchains = true,
            "--env" => env = true,
            "--bench" => return build_bench().map(drop),
            "--javascript" => return build_javascript().map(drop),
            "--peers" => return build_peers().map(|program| println!("BENCH_PEERS={}", program.display())),
            "--check-with" => check_with = Some(PathBuf::from(arguments.next().context("--check-with needs a file")?)),
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(());
            }
            other => bail!("there is no option `{other}`\n\n{HELP}"),
        }
    }
    if env {
        return print_environment(target.as_deref().unwrap_or(DEFAULT_TARGET));
    }
    if all_toolchains {
        ensure!(target.is_none(), "--all-toolchains builds for every target: leave --target out");
        return build_every_way(check_with.as_deref());
    }
    let filters = match target {
        None => build_all()?,
        Some(target) => build(&target, &names()?, &filters_dir().join(&target))?,
    };
    for filter in &filters {
        check(check_with.as_deref(), filter)?;
    }
    Ok(())
}

/// Output for `eval "$(cargo xtask guests --env)"` in a shell, so that filters outside this workspace are compiled like
/// those in it.
fn print_environment(target: &str) -> Result<()> {
    let toolchain = toolchain::provide(target)?;
    match (&toolchain.rustc, env::var("RUSTUP_TOOLCHAIN")) {
        (Some(rustc), _) => {
            println!("export RUSTC='{}'", rustc.display());
            // Documentation tests link the compiler's output, so rustc and rustdoc must have the same version.
            println!("export RUSTDOC='{}'", rustc.with_file_name("rustdoc").display());
        }
        // Outside this workspace, rustup would select another toolchain than the one in its `rust-toolchain.toml`.
        (None, Ok(name)) => println!("export RUSTUP_TOOLCHAIN='{name}'"),
        (None, Err(_)) => println!("# the active toolchain has {target}"),
    }
    Ok(())
}

/// Builds every example filter for the default target and returns the files, `target/filters/NAME.wasm`, sorted by
/// name. Does nothing if nothing changed.
pub(crate) fn build_all() -> Result<Vec<PathBuf>> {
    build(DEFAULT_TARGET, &names()?, &filters_dir())
}

/// The directory of the built filters.
pub(crate) fn filters_dir() -> PathBuf {
    target_dir().join("filters")
}

/// Builds the named packages for `target`, each into `NAME.wasm` in a directory.
fn build(target: &str, names: &[String], into: &Path) -> Result<Vec<PathBuf>> {
    let toolchain = toolchain::provide(target)?;
    let mut built = 0;
    let mut files = Vec::new();
    for (name, component) in compile(&toolchain, target, names)? {
        let file = into.join(format!("{name}.wasm"));
        if keep(&component, &file)? {
            built += 1;
        }
        files.push(file);
    }
    match built {
        0 => eprintln!("guests: {} filters are up to date in {}", files.len(), into.display()),
        _ => eprintln!("guests: built {built} of {} filters into {}", files.len(), into.display()),
    }
    Ok(files)
}

/// Copies a build result to its destination if it differs. Returns whether it did.
fn keep(built: &Path, file: &Path) -> Result<bool> {
    let bytes = fs::read(built).with_context(|| format!("no guest at {}", built.display()))?;
    let is_new = fs::read(file).ok().as_ref() != Some(&bytes);
    if is_new {
        fs::create_dir_all(file.parent().context("a file lies in a folder")?)?;
        fs::write(file, bytes)?;
    }
    Ok(is_new)
}

/// Compiles filters with the `guest` profile. Returns the name and path of each component.
fn compile(toolchain: &Toolchain, target: &str, names: &[String]) -> Result<Vec<(String, PathBuf)>> {
    let folder = toolchain.target_dir.join(target).join("guest");
    if !folder.exists() {
        eprintln!("guests: compiling {} filters for {target}: about a minute the first time", names.len());
    }
    let mut cargo = toolchain.cargo();
    cargo.current_dir(root()).args(["build", "--quiet", "--lib", "--profile", "guest", "--target", target]);
    for name in names {
        cargo.args(["--package", name]);
    }
    run(&mut cargo)?;
    Ok(names.iter().map(|name| (name.clone(), folder.join(file_name(name)))).collect())
}

/// The example filters, sorted by name. A directory has the name of its crate.
fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for folder in fs::read_dir(root().join("example-filters"))? {
        let folder = folder?.path();
        if folder.join("Cargo.toml").is_file() {
            names.extend(folder.file_name().and_then(OsStr::to_str).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

fn file_name(name: &str) -> String {
    format!("{}.wasm", name.replace('-', "_"))
}

fn check(with: Option<&Path>, component: &Path) -> Result<()> {
    let Some(setgate) = with else { return Ok(()) };
    read(Command::new(setgate).args(["filter", "check"]).arg(component)).map(|_| ())
}

/// Builds each filter in every way that is available to filter authors, validates each component, and prints a table.
fn build_every_way(check_with: Option<&Path>) -> Result<()> {
    let mut rows = Vec::new();
    for target in [DEFAULT_TARGET, "wasm32-wasip2"] {
        let toolchain = toolchain::provide(target)?;
        rows.extend(compile(&toolchain, target, &names()?)?.into_iter().map(|(name, file)| (name, target, file)));
    }
    match which("cargo-component") {
        Some(program) => {
            let toolchain = toolchain::provide(COMPONENT_TARGET)?;
            for name in names()? {
                let file = cargo_component(&program, &toolchain, &name)?;
                rows.push((name, "cargo component", file));
            }
        }
        None => eprintln!("guests: cargo component is not installed (`cargo install cargo-component --locked`)"),
    }

    rows.sort();
    println!("{:<24} {:<24} {:>8}  imports", "filter", "way", "bytes");
    for (name, way, file) in rows {
        let bytes = fs::read(&file).with_context(|| format!("no component at {}", file.display()))?;
        let imports = component::imports(&bytes).with_context(|| format!("{} is no component", file.display()))?;
        println!("{name:<24} {way:<24} {:>8}  {}", bytes.len(), component::summary(&imports));
        if way == DEFAULT_TARGET {
            let foreign = imports.iter().find(|import| !import.starts_with("setgate:filter/"));
            ensure!(foreign.is_none(), "{name} imports {}, which no host need offer", foreign.unwrap_or(&name));
        }
        check(check_with, &file)?;
    }
    Ok(())
}

/// Runs `cargo component build --release` in a filter's directory, as its author would.
///
/// It asks the `rustc` on the `PATH` for the target regardless of `RUSTC`, and would make rustup download missing
/// parts. So our compiler comes first on the `PATH`, and rustup's server is set to an unreachable address.
fn cargo_component(program: &Path, toolchain: &Toolchain, name: &str) -> Result<PathBuf> {
    let mut command = Command::new(program);
    command.args(["component", "build", "--quiet", "--release"]).current_dir(root().join("example-filters").join(name));
    let cargo = toolchain.cargo();
    for (variable, value) in cargo.get_envs() {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    command.env("CARGO", cargo.get_program()).env("RUSTUP_DIST_SERVER", "http://127.0.0.1:9");
    if let Some(rustc) = &toolchain.rustc {
        let folder = rustc.parent().context("a compiler lies in a folder")?.to_owned();
        let path = env::var_os("PATH").unwrap_or_default();
        command.env("PATH", env::join_paths(std::iter::once(folder).chain(env::split_paths(&path)))?);
    }
    run(&mut command)?;
    Ok(toolchain.target_dir.join(COMPONENT_TARGET).join("release").join(file_name(name)))
}
