//! Third-party libraries of Python and Node.js that judge tokens and signatures. Their versions are pinned in
//! `tests/judges`; they are installed into the target directory on first use.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::place;

/// Stories of one run install one after another.
static INSTALLATION: Mutex<()> = Mutex::const_new(());

/// A Python with the packages of `tests/judges/requirements.txt`.
///
/// # Errors
/// Why they cannot be installed.
pub async fn python() -> Result<PathBuf, String> {
    let _turn = INSTALLATION.lock().await;
    let pinned = pinned("requirements.txt");
    let wanted = read(&pinned);
    let venv = place::target_dir().join("venv");
    let (python, stamp) = (venv.join("bin/python"), venv.join("installed"));
    if python.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let (venv, pinned) = (venv.to_string_lossy(), pinned.to_string_lossy());
    run(Command::new("python3").args(["-m", "venv", &venv]), "")
        .await
        .map_err(|why| format!("no virtual environment can be made with python3: {why}"))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", &pinned];
    run(Command::new(&python).args(install), "").await.map_err(|why| format!("{pinned} cannot be installed: {why}"))?;
    std::fs::write(stamp, wanted).map_err(|error| error.to_string())?;
    Ok(python)
}

/// A directory whose `node_modules` has the packages of `tests/judges/package-lock.json`. Run `node` there.
///
/// # Errors
/// Why they cannot be installed.
pub async fn node() -> Result<PathBuf, String> {
    let _turn = INSTALLATION.lock().await;
    let wanted = read(&pinned("package-lock.json"));
    let folder = place::target_dir().join("judges");
    let stamp = folder.join("installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(pinned(file), folder.join(file)).map_err(|error| error.to_string())?;
    }
    let mut npm = Command::new("npm");
    npm.current_dir(&folder).args(["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]);
    run(&mut npm, "").await.map_err(|why| format!("tests/judges/package.json cannot be installed: {why}"))?;
    std::fs::write(stamp, wanted).map_err(|error| error.to_string())?;
    Ok(folder)
}

/// The claims of a SET, after PyJWT has verified it with a JWKS.
///
/// # Errors
/// Why it is refused.
pub async fn claims_of_set(jwks: &str, token: &str, audience: &str, issuer: &str) -> Result<Value, String> {
    let jwks: Value = serde_json::from_str(jwks).map_err(|error| format!("the JWKS is not JSON: {error}"))?;
    let given = json!({"jwks": jwks, "token": token, "audience": audience, "issuer": issuer});
    let mut judge = Command::new(python().await?);
    let claims = run(judge.args(["-c", include_str!("../judges/set.py")]), &given.to_string()).await?;
    serde_json::from_str(&claims).map_err(|error| error.to_string())
}

/// Runs a program with this standard input. Returns its standard output.
///
/// # Errors
/// Its standard error, or why it cannot be started.
pub async fn run(command: &mut Command, input: &str) -> Result<String, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let mut process = command.spawn().map_err(|error| format!("{name}: {error}"))?;
    let mut stdin = process.stdin.take().expect("piped");
    // A program that fails early does not read all of it. Its standard error has the reason.
    let written = tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await;
    drop(stdin);
    let ended = process.wait_with_output().await.map_err(|error| error.to_string())?;
    if !ended.status.success() {
        return Err(format!("{name}: {}: {}", ended.status, String::from_utf8_lossy(&ended.stderr)));
    }
    written.map_err(|error| format!("{name}: {error}"))?;
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

fn pinned(file: &str) -> PathBuf {
    place::root().join("tests/judges").join(file)
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
