//! Client generators, in the versions of `xtask/clients`: openapi-python-client in a virtual environment, and
//! openapi-typescript with the packages that compile and run its output.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::{read, root, target_dir, which};
use crate::toolchain::install_from_debian;

/// The oldest Node.js that supports openapi-fetch and is available in Debian.
const NODE_MAJOR_MIN: u32 = 18;

/// Locations of both generators.
pub(crate) struct Generators {
    /// The `bin` directory of the Python environment.
    pub(crate) python: PathBuf,
    /// The directory that contains `node_modules`.
    pub(crate) node: PathBuf,
}

/// Installs both into `target/clients`, unless they are installed already.
pub(crate) fn provide() -> Result<Generators> {
    let requirements = root().join("xtask/clients/requirements.txt");
    let python = python(&requirements, "clients/python", "openapi-python-client")?;
    Ok(Generators { python, node: node()? })
}

/// Creates a Python environment below the target directory with the listed requirements, which must provide `program`.
/// Returns its `bin` directory.
pub(crate) fn python(requirements: &PathBuf, folder: &str, program: &str) -> Result<PathBuf> {
    let wanted = fs::read_to_string(requirements).with_context(|| requirements.display().to_string())?;
    let folder = target_dir().join(folder);
    let bin = folder.join("bin");
    let stamp = folder.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) && bin.join(program).is_file() {
        return Ok(bin);
    }
    let python = ["python3", "python"].into_iter().find_map(which);
    let python = python
        .with_context(|| format!("{program} needs Python 3.10 or newer: install `python3` and `python3-venv`"))?;
    eprintln!("openapi: installing {program} into {}: about 30 MB, once", folder.display());
    let hint = "on Debian, `apt-get install python3-venv`";
    fs::create_dir_all(&folder)?;
    read(Command::new(&python).args(["-m", "venv", "--clear"]).arg(&folder)).context(hint)?;
    let mut pip = Command::new(bin.join("python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
    read(&mut pip).with_context(|| {
        format!(
            "{program} could not be installed. Without a network, copy {} from a machine that has it, or tell pip of a \
             package index that it reaches (`PIP_INDEX_URL`, `PIP_FIND_LINKS`), and run `cargo xtask openapi` again",
            folder.display()
        )
    })?;
    ensure!(bin.join(program).is_file(), "pip installed no {program}: remove {} and try again", folder.display());
    fs::write(stamp, wanted)?;
    Ok(bin)
}

fn node() -> Result<PathBuf> {
    let pinned = root().join("xtask/clients");
    let wanted = fs::read_to_string(pinned.join("package-lock.json")).context("xtask/clients/package-lock.json")?;
    let folder = target_dir().join("clients/node");
    let stamp = folder.join("installed");
    if which("node").is_none() || which("npm").is_none() {
        install_from_debian(&["nodejs", "npm"]).context("the client in TypeScript needs Node.js and npm")?;
    }
    let version = read(Command::new("node").arg("--version"))?;
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    ensure!(
        major.is_some_and(|major| major >= NODE_MAJOR_MIN),
        "the client in TypeScript needs Node.js {NODE_MAJOR_MIN} or newer, not {version}"
    );
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    fs::create_dir_all(&folder)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(pinned.join(file), folder.join(file))?;
    }
    eprintln!("openapi: installing openapi-typescript into {}: about 50 MB, once", folder.display());
    let mut npm = Command::new("npm");
    npm.current_dir(&folder).args(["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]);
    read(&mut npm).with_context(|| {
        format!(
            "openapi-typescript could not be installed. Without a network, copy {} from a machine that has it, or tell npm \
             of a registry that it reaches (`npm_config_registry`), and run `cargo xtask openapi` again",
            folder.display()
        )
    })?;
    fs::write(stamp, wanted)?;
    Ok(folder)
}
