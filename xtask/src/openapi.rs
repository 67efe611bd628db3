//! `cargo xtask openapi`: tests the API against its own description, with schemathesis and with generated clients.

use anyhow::Result;

use crate::run::{root, run};
use crate::{clients, host};

const HELP: &str = "\
cargo xtask openapi [--clients] [--examples N] [--seed S]

Builds the host and the suite, then has schemathesis call every operation of the live /openapi.json with data that fits and
data that does not. Not 0 where an answer is not as the document says: a 5xx, a status, a content type or a body that is not
in it, an answer without a key. schemathesis is installed into target/schemathesis the first time: that takes Python 3.10 or
newer with its `venv` module, and a package index that pip reaches.

Before that, openapi-python-client and openapi-typescript each make a client of the same document, and each client goes through
the tutorial's flow. They are installed into target/clients the first time: that takes Node.js and npm as well, from Debian's
packages if they are not there.
  --clients     the clients alone
  --examples N  calls of each operation and phase at the most; 15 where absent
  --seed S      the same seed makes the same calls; 1 where absent";

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
