//! `cargo xtask openapi`: the API against its own description, by schemathesis.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::host;
use crate::run::{read, root, run, target_dir, which};

const HELP: &str = "\
cargo xtask openapi [--examples N] [--seed S]

Builds the host and the suite, then has schemathesis call every operation of the live /openapi.json with data that fits and
data that does not. Not 0 where an answer is not as the document says: a 5xx, a status, a content type or a body that is not
in it, an answer without a key. schemathesis is installed into target/schemathesis the first time: that takes Python 3.10 or
newer with its `venv` module, and a package index that pip reaches.
  --examples N  calls of each operation and phase at the most; 15 where absent
  --seed S      the same seed makes the same calls; 1 where absent";

/// `cargo xtask openapi` with these arguments.
pub(crate) fn command(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| matches!(argument.as_str(), "--help" | "-h")) {
        println!("{HELP}");
        return Ok(());
    }
    let schemathesis = provide()?;
    run(host::suite("openapi")?.arg("--schemathesis").arg(schemathesis).args(arguments))
}

/// Schemathesis of the version in `requirements.txt`, from an environment of its own.
fn provide() -> Result<PathBuf> {
    let requirements = root().join("xtask/schemathesis/requirements.txt");
    let wanted = fs::read_to_string(&requirements).context("xtask/schemathesis/requirements.txt")?;
    let folder = target_dir().join("schemathesis");
    let program = folder.join("bin/schemathesis");
    let stamp = folder.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) && program.is_file() {
        return Ok(program);
    }
    let python = ["python3", "python"].into_iter().find_map(which);
    let python = python.context("schemathesis needs Python 3.10 or newer: install `python3` and `python3-venv`")?;
    eprintln!("openapi: installing schemathesis into {}: about 30 MB, once", folder.display());
    let hint = "on Debian, `apt-get install python3-venv`";
    read(Command::new(&python).args(["-m", "venv", "--clear"]).arg(&folder)).context(hint)?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&requirements);
    read(&mut pip).with_context(|| {
        format!(
            "schemathesis could not be installed. Without a network, copy {} from a machine that has it, or tell pip of a \
             package index that it reaches (`PIP_INDEX_URL`, `PIP_FIND_LINKS`), and run `cargo xtask openapi` again",
            folder.display()
        )
    })?;
    ensure!(program.is_file(), "pip installed no {}: remove {} and try again", program.display(), folder.display());
    fs::write(stamp, wanted)?;
    Ok(program)
}
