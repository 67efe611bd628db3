//! What the host signs, a receiver written by others verifies: PyPI `standardwebhooks`. (The crate of that name checks
//! every Standard Webhooks delivery of the other stories.)

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;
use setgate_tests::{Host, Receiver, Seed, event, place};
use tokio::process::Command;

/// The release that is installed.
const STANDARDWEBHOOKS: &str = "standardwebhooks==1.1.0";

/// Reads `{secret, headers, body}` and verifies; then once more with another body, which has to fail.
const VERIFY: &str = "
import json, sys
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
given = json.load(sys.stdin)
webhook = Webhook(given['secret'])
webhook.verify(given['body'], given['headers'])
try:
    webhook.verify(given['body'] + ' ', given['headers'])
    sys.exit('a changed body was verified')
except WebhookVerificationError:
    print('verified')
";

#[tokio::test]
async fn a_python_receiver_verifies_what_the_host_signs() {
    let python = match python_with_standardwebhooks().await {
        Ok(python) => python,
        Err(why) => {
            assert!(!place::is_on("SETGATE_REQUIRE_INTEROP"), "SETGATE_REQUIRE_INTEROP=1, but {why}");
            return place::skip("a_python_receiver_verifies_what_the_host_signs", &why);
        }
    };
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Logto).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    // With letters beyond ASCII: the signature is over bytes.
    source.accept(event::logto("s1").replace("Jane Doe", "Jäne Døe 你好")).await;

    let received = receiver.received(1).await.remove(0);
    let headers: serde_json::Map<_, _> = ["webhook-id", "webhook-timestamp", "webhook-signature"]
        .map(|name| (name.to_owned(), json!(received.header(name))))
        .into_iter()
        .collect();
    let given = json!({"secret": subscription.secret, "headers": headers, "body": received.text()});
    let said = run(&python, &["-c", VERIFY], &given.to_string()).await;
    assert_eq!(said.as_deref().map(str::trim), Ok("verified"), "standardwebhooks of PyPI verifies the delivery");
}

/// A Python with the package, installed into `target/venv` where it is not there yet; else why there is none.
async fn python_with_standardwebhooks() -> Result<PathBuf, String> {
    let venv = place::target_dir().join("venv");
    let python = venv.join("bin/python");
    let wanted = STANDARDWEBHOOKS.rsplit('=').next().expect("a version");
    let installed = "import importlib.metadata as m; print(m.version('standardwebhooks'))";
    if run(&python, &["-c", installed], "").await.is_ok_and(|version| version.trim() == wanted) {
        return Ok(python);
    }
    let venv = venv.to_string_lossy().into_owned();
    run(&PathBuf::from("python3"), &["-m", "venv", &venv], "")
        .await
        .map_err(|why| format!("no virtual environment can be made with python3: {why}"))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", STANDARDWEBHOOKS];
    run(&python, &install, "").await.map_err(|why| format!("{STANDARDWEBHOOKS} cannot be installed: {why}"))?;
    Ok(python)
}

/// Standard output, or what went wrong.
async fn run(program: &PathBuf, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
    let mut stdin = process.stdin.take().expect("piped");
    tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await.map_err(|error| error.to_string())?;
    drop(stdin);
    let ended = process.wait_with_output().await.map_err(|error| error.to_string())?;
    if ended.status.success() {
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&ended.stderr).into_owned())
    }
}
