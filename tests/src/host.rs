//! A host in a separate process.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustls::pki_types::CertificateDer;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::client::{Base, Client};
use crate::place;
use crate::tenant::Tenant;
use crate::wait::{DEADLINE, until};

/// Options of a story's host.
pub struct Options {
    config: String,
    env: Vec<(String, String)>,
    trusted: Vec<CertificateDer<'static>>,
    folder: Option<PathBuf>,
    wrapper: Vec<String>,
}

impl Options {
    /// Appends to the configuration file.
    pub fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Makes the client trust a certificate, for a host with TLS.
    pub fn trust(mut self, certificate: CertificateDer<'static>) -> Self {
        self.trusted.push(certificate);
        self
    }

    /// Uses a permanent directory, which is created if necessary. If it contains the data of an earlier host, this one
    /// continues with it.
    pub fn in_folder(mut self, folder: PathBuf) -> Self {
        // The host's working directory is this one, so paths must not be relative to the current one.
        self.folder = Some(std::path::absolute(folder).expect("a folder has a path"));
        self
    }

    /// Starts the program through a wrapper that is given the program and its arguments, such as `sh -c 'exec "$0"
    /// "$@"'`.
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// Starts the host and waits until it listens.
    pub async fn start(self) -> Host {
        let mut host = self.prepare();
        host.start_again().await;
        host.take_operator_key();
        host
    }

    /// A host that has not been started, for stories about the first start.
    pub fn prepare(self) -> Host {
        let folder = match self.folder {
            None => Folder::Temporary(tempfile::tempdir().expect("a temporary folder")),
            Some(path) => {
                std::fs::create_dir_all(&path).expect("a folder that can be made");
                Folder::Kept(path)
            }
        };
        std::fs::write(folder.path().join("setgate.toml"), &self.config).expect("a writable folder");
        let base = Base::default();
        let client = Client::new(base.clone(), &self.trusted);
        Host { folder, env: self.env, wrapper: self.wrapper, base, client, output: Output::default(), process: None }
    }
}

/// A host, killed on drop. A temporary directory is removed with it.
pub struct Host {
    folder: Folder,
    env: Vec<(String, String)>,
    wrapper: Vec<String>,
    base: Base,
    client: Client,
    output: Output,
    process: Option<Child>,
}

/// The directory of a host's configuration, key and data.
enum Folder {
    /// Removed with the host.
    Temporary(TempDir),
    /// Kept for the next host.
    Kept(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(path) => path,
        }
    }
}

/// The output of a process, line by line.
#[derive(Debug, Default)]
struct Output {
    reading: Vec<JoinHandle<()>>,
    stdout: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<Vec<String>>>,
}

impl Host {
    /// Options without any settings.
    pub fn with() -> Options {
        Options { config: String::new(), env: Vec::new(), trusted: Vec::new(), folder: None, wrapper: Vec::new() }
    }

    /// Starts a host that may deliver to this machine over http.
    pub async fn start() -> Host {
        Self::with().start().await
    }

    /// A command that runs the program in `folder`, without this process's Setgate variables.
    pub fn command(folder: &Path) -> Command {
        Self::command_of(folder, Command::new(place::setgate()))
    }

    fn command_of(folder: &Path, mut command: Command) -> Command {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SETGATE_") {
                command.env_remove(name);
            }
        }
        command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Restarts the host with the same data, and waits until it listens.
    ///
    /// # Panics
    /// If it does not start; the message contains its output.
    pub async fn start_again(&mut self) {
        self.launch();
        let mut ended = None;
        until("the host prints `listening on`", async || match self.is_listening() {
            Ok(listens) => listens.then_some(()),
            Err(why) => {
                ended = Some(why);
                Some(())
            }
        })
        .await;
        assert!(ended.is_none(), "{}", ended.unwrap_or_default());
    }

    /// Makes [`Host::operator`] use the key of the first start.
    pub fn take_operator_key(&mut self) {
        self.client = self.client.with_key(&self.operator_key());
    }

    /// Restarts the host with the same data, without waiting. It cannot be reached before [`Host::is_listening`]
    /// returns true.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs: stop it first");
        let folder = self.folder.path();
        self.output.stdout.lock().expect("no thread panics while holding it").clear();
        let program = match self.wrapper.split_first() {
            None => Command::new(place::setgate()),
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(place::setgate());
                command
            }
        };
        let mut process = Self::command_of(folder, program)
            .args(["serve", "--config", "setgate.toml", "--operator-key-file", "operator.key"])
            .env("SETGATE_LISTEN__ADDRESS", "127.0.0.1:0")
            .env("SETGATE_LISTEN__SHUTDOWN_DELAY_MS", "0")
            .env("SETGATE_DATA__DIR", self.data())
            .env("SETGATE_EGRESS__ALLOW", r#"["127.0.0.0/8"]"#)
            .env("SETGATE_EGRESS__ALLOW_HTTP", "true")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        self.output.reading = vec![
            collect(process.stdout.take().expect("piped"), self.output.stdout.clone()),
            collect(process.stderr.take().expect("piped"), self.output.stderr.clone()),
        ];
        self.process = Some(process);
    }

    /// Whether it listens. An error message if it has ended.
    pub fn is_listening(&mut self) -> Result<bool, String> {
        let lines = self.output.stdout.lock().expect("no thread panics while holding it").clone();
        if let Some(address) = lines.iter().find_map(|line| line.strip_prefix("listening on ")) {
            self.base.set(address);
            return Ok(true);
        }
        match self.process.as_mut().expect("it was launched").try_wait() {
            Ok(Some(status)) => {
                Err(format!("the host ended with {status} instead of listening:\n{}", self.output.text()))
            }
            _ => Ok(false),
        }
    }

    /// Sets an environment variable for the next starts.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Waits until all output of the last process has been read. The process must have ended.
    pub async fn read_to_the_end(&mut self) {
        for reading in std::mem::take(&mut self.output.reading) {
            // A child process may keep the pipe open a little longer.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(2), reading).await;
        }
    }

    /// Number of lines that it has written to standard error so far.
    pub fn logged(&self) -> usize {
        self.output.stderr.lock().expect("no thread panics while holding it").len()
    }

    /// The last log line that contains one of the words, from line number `from` on.
    pub fn last_logged(&self, from: usize, words: &[&str]) -> Option<String> {
        let lines = self.output.stderr.lock().expect("no thread panics while holding it");
        lines.iter().skip(from).rev().find(|line| words.iter().any(|word| line.contains(word))).cloned()
    }

    /// Stops it with SIGTERM and restarts it.
    pub async fn restart(&mut self) {
        let status = self.terminate().await;
        assert!(status.success(), "after SIGTERM the host ends with 0, not {status}:\n{}", self.log());
        self.start_again().await;
    }

    /// Sends SIGTERM and waits for the process to end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.tell_to_stop().await;
        self.ended().await
    }

    /// Sends SIGTERM.
    pub async fn tell_to_stop(&mut self) {
        self.signal("TERM").await;
    }

    /// Waits for the process to end.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        match tokio::time::timeout(DEADLINE, process.wait()).await {
            Ok(status) => status.expect("a child can be waited for"),
            Err(_) => panic!("the host does not end:\n{}", self.log()),
        }
    }

    /// Sends SIGKILL, which ends the process without any cleanup.
    pub async fn kill9(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().await.expect("a child can be killed");
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().and_then(Child::id).expect("it runs")
    }

    /// The operator's client.
    pub fn operator(&self) -> &Client {
        &self.client
    }

    /// The operator's key.
    pub fn key(&self) -> &str {
        self.client.key().expect("the operator's client has a key")
    }

    /// A client without a key, as used by senders.
    pub fn stranger(&self) -> Client {
        self.client.without_key()
    }

    /// Its base URL, such as `http://127.0.0.1:40001`.
    pub fn base(&self) -> String {
        self.base.get()
    }

    /// The address of an interface's separate listener, as printed by the host at its start.
    pub fn interface(&self, name: &str) -> Base {
        let said = self.said();
        let told = said.lines().find_map(|line| line.strip_prefix(&format!("{name} interface on ")));
        let base = Base::default();
        base.set(told.unwrap_or_else(|| panic!("the host does not print the {name} interface: {said}")));
        base
    }

    /// The key of the first start.
    pub fn operator_key(&self) -> String {
        let key = std::fs::read_to_string(self.path("operator.key")).expect("the operator's key of the first start");
        key.trim().to_owned()
    }

    /// Sends a signal, such as `HUP`.
    pub async fn signal(&self, name: &str) {
        let id = self.pid().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().await.expect("`kill` is installed");
        assert!(sent.success(), "SIG{name} could not be sent");
    }

    /// The file or directory with that name in the host's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Standard output since the last start.
    pub fn said(&self) -> String {
        self.output.stdout.lock().expect("no thread panics while holding it").join("\n")
    }

    /// Standard error over all starts.
    pub fn log(&self) -> String {
        self.output.text()
    }

    /// Creates a tenant with its own key.
    pub async fn tenant(&self, name: &str) -> Tenant {
        self.tenant_with(name, json!({})).await
    }

    /// Creates a tenant with further members in the request, such as a quota.
    pub async fn tenant_with(&self, name: &str, mut more: serde_json::Value) -> Tenant {
        more["id"] = name.into();
        self.client.post("/api/v1/tenants", &more).await.expect(201);
        let key = self.client.post(&format!("/api/v1/tenants/{name}/keys"), &json!({})).await.expect(201).json();
        Tenant::new(name, key["key"].as_str().expect("a key is shown once"), &self.client)
    }

    /// Memory of its process in bytes, including swap.
    pub fn rss_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        let kib = |name| line(name).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        (kib("VmRSS:") + kib("VmSwap:")) * 1024
    }

    /// The value of a metric: the sum of its series that have all of these labels, written `name="value"`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.client.get("/metrics").await.expect(200).text();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let lines = text.lines().filter(of_name).filter(|line| labels.iter().all(|label| line.contains(label)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Host {
    #[expect(clippy::print_stderr, reason = "the host's log is needed to understand a failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the host's log ---\n{}---", self.log());
        }
    }
}

impl Output {
    fn text(&self) -> String {
        let lines = self.stderr.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }
}

fn collect(from: impl AsyncRead + Unpin + Send + 'static, into: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            into.lock().expect("no thread panics while holding it").push(line);
        }
    })
}
