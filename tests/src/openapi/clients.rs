//! Runs clients that were generated from `/openapi.json` through the tutorial's flow on a live host, see `tests/clients`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::{Host, Receiver, place};

/// The generators of clients.
#[derive(Debug, Clone)]
pub struct Generators {
    /// A `bin` directory with `openapi-python-client` and a `python` with the packages that its clients need.
    pub python: PathBuf,
    /// A directory whose `node_modules` contains openapi-typescript, openapi-fetch and typescript.
    pub node: PathBuf,
}

/// Warnings about media types that openapi-python-client does not support: it omits these and uses the others. Any
/// other warning is an error.
const KNOWN_WARNINGS: [&str; 2] = ["Unsupported content type ", "(Unsupported content_type "];

/// Generates both clients and runs each through the flow; returns error messages.
pub async fn run(generators: &Generators) -> Vec<String> {
    let host = Host::start().await;
    let receiver = Receiver::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let document = folder.path().join("openapi.json");
    let text = host.stranger().get("/openapi.json").await.expect(200).text();
    std::fs::write(&document, text).expect("a writable folder");
    // The file of an example filter.
    let wasm = folder.path().join("filter.wasm");
    std::fs::write(&wasm, place::filter("drop-by-type")).expect("a writable folder");
    let arguments = [host.base(), host.key().to_owned(), receiver.url(), wasm.display().to_string()];
    let mut faults = Vec::new();
    for (client, made) in [
        ("openapi-python-client", python(generators, folder.path(), &document, &arguments).await),
        ("openapi-typescript", typescript(generators, folder.path(), &document, &arguments).await),
    ] {
        faults.extend(made.err().map(|why| format!("the client of {client}: {why}")));
    }
    if receiver.count() != 2 && faults.is_empty() {
        faults.push(format!("each client sent one event, and {} arrived", receiver.count()));
    }
    faults
}

async fn python(generators: &Generators, folder: &Path, document: &Path, arguments: &[String]) -> Result<(), String> {
    let mut generate = Command::new(generators.python.join("openapi-python-client"));
    generate.args(["generate", "--meta", "none", "--overwrite", "--path"]).arg(document);
    generate.arg("--output-path").arg(folder.join("setgate_client")).env("PATH", path(&generators.python));
    let said = output(generate.current_dir(folder)).await?;
    for warning in said.split("WARNING ").skip(1) {
        if !KNOWN_WARNINGS.iter().any(|known| warning.contains(known)) || warning.contains("will not be generated") {
            return Err(format!("it leaves something out: {warning}"));
        }
    }
    let flow = place::root().join("tests/clients/flow.py");
    let mut run = Command::new(generators.python.join("python"));
    output(run.arg(flow).args(arguments).env("PYTHONPATH", folder)).await.map(drop)
}

async fn typescript(
    generators: &Generators,
    folder: &Path,
    document: &Path,
    arguments: &[String],
) -> Result<(), String> {
    let sources = place::root().join("tests/clients");
    let modules = generators.node.join("node_modules");
    std::os::unix::fs::symlink(&modules, folder.join("node_modules")).map_err(|error| error.to_string())?;
    for file in ["flow.ts", "tsconfig.json"] {
        std::fs::copy(sources.join(file), folder.join(file)).map_err(|error| error.to_string())?;
    }
    std::fs::write(folder.join("package.json"), r#"{"type":"module"}"#).map_err(|error| error.to_string())?;
    let program = |name: &str| {
        let mut command = Command::new("node");
        command.current_dir(folder).arg(modules.join(name));
        command
    };
    output(program("openapi-typescript/bin/cli.js").arg(document).args(["--output", "schema.ts"])).await?;
    output(program("typescript/bin/tsc").args(["--project", "."])).await?;
    let mut run = Command::new("node");
    output(run.current_dir(folder).arg("out/flow.js").args(arguments)).await.map(drop)
}

/// The environment's own programs come first, because the generator runs its formatter from there.
fn path(first: &Path) -> std::ffi::OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(first.to_owned()).chain(std::env::split_paths(&rest));
    std::env::join_paths(folders).unwrap_or(rest)
}

/// The output of a program, which must succeed.
async fn output(command: &mut Command) -> Result<String, String> {
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(|error| error.to_string())?;
    let said = [ended.stdout, ended.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat();
    if ended.status.success() { Ok(said) } else { Err(format!("{}\n{said}", ended.status)) }
}
