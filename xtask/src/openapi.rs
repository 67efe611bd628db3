//! `cargo xtask openapi`: tests the API against its own description, with schemathesis and with generated clients.

use anyhow::Result;

use crate::run::{root, run};
use crate::{clients, host};

const HELP: &str = "\
cargo xtask openapi [--clients] [--examples N] [--seed S]

Builds the host and the suite, then schemathesis calls every operation of the live /openapi.json with valid and invalid
data. Exits non-zero if an answer deviates from the document: a 5xx, an undocumented status, content type or body, or
access without a key. The first run installs schemathesis into target/schemathesis, which needs Python 3.10 or newer with
its `venv` module, and a package index that pip can reach.

Before that, openapi-python-client and openapi-typescript each generate a client from the same document, and each client
runs the tutorial's flow. The first run installs them into target/clients, which also needs Node.js and npm (if missing,
from Debian's packages).
  --clients     run only the clients
  --examples N  maximum number of calls for each operation and phase (default 15)
  --seed S      seed of the generated calls (default 1)";

/// `cargo xtask openapi` with these arguments.
pub(crate) fn command(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| matches!(argument.as_str(), "--help" | "-h")) {
        println!("{HELP}");
        return Ok(());
    }
    let generators = clients::provide()?;
    let mut suite = host::suite("openapi")?;
    suite.arg("--python").arg(generators.python).arg("--node").arg(generators.node);
    if !arguments.iter().any(|argument| argument == "--clients") {
        let requirements = root().join("xtask/schemathesis/requirements.txt");
        let schemathesis = clients::python(&requirements, "schemathesis", "schemathesis")?.join("schemathesis");
        suite.arg("--schemathesis").arg(schemathesis);
    }
    run(suite.args(arguments.iter().filter(|argument| *argument != "--clients")))
}
