//! Options that select the host and the key; the same in every command that talks to a host.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use url::Url;

use super::client::Client;

/// Maximum bytes read from a key file; a key is far shorter.
const KEY_FILE_BYTES_MAX: usize = 1024;

// Not doc comments: clap would use them as the command's own description.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// URL of the host.
    #[arg(long, alias = "url", value_name = "URL", env = "SETGATE_HOST", default_value = "http://127.0.0.1:8080")]
    #[arg(value_parser = host)]
    pub(crate) host: Url,
    /// File with the API key, such as the operator's key file; takes precedence over --key.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// The API key. Other users of the machine can see it on a command line: prefer the variable, or --key-file.
    #[arg(long, value_name = "KEY", env = "SETGATE_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// PEM file of certificate authorities to trust in addition to the system's, for a host with a private certificate.
    #[arg(long, value_name = "FILE", env = "SETGATE_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl Connection {
    /// A client that sends the key.
    ///
    /// # Errors
    /// If no key is given, or a file cannot be used.
    pub(crate) fn with_key(&self) -> anyhow::Result<Client> {
        let key = self
            .key()?
            .context("an API key is required: give a file with --key-file, or the key in the variable SETGATE_KEY")?;
        self.client(Some(key))
    }

    /// A client without a key, for sending events.
    pub(crate) fn without_key(&self) -> anyhow::Result<Client> {
        self.client(None)
    }

    /// The key, from the file or the option. `None` if neither is given.
    pub(crate) fn key(&self) -> anyhow::Result<Option<String>> {
        match (&self.key_file, &self.key) {
            (Some(file), _) => read_key(file).map(Some),
            (None, Some(key)) => one_key(key).context("the key from --key or the variable SETGATE_KEY").map(Some),
            (None, None) => Ok(None),
        }
    }

    fn client(&self, key: Option<String>) -> anyhow::Result<Client> {
        Client::trusting(self.host.as_str(), key, self.ca_file.as_deref())
    }
}

/// Reads the key from a file. A trailing line break, as written by editors and `echo`, and a byte order mark are
/// stripped.
fn read_key(file: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read the key file {}", file.display()))?;
    ensure!(
        bytes.len() <= KEY_FILE_BYTES_MAX,
        "the key file {} has {} bytes, so it is not a key",
        file.display(),
        bytes.len()
    );
    let text = String::from_utf8(bytes).ok();
    let text = text.with_context(|| format!("the key file {} is not text", file.display()))?;
    one_key(&text).with_context(|| format!("the key file {}", file.display()))
}

/// Trims a key. An error if it contains characters that are not allowed in a header.
fn one_key(text: &str) -> anyhow::Result<String> {
    let key = text.trim_start_matches('\u{feff}').trim();
    ensure!(!key.is_empty(), "is empty");
    ensure!(key.bytes().all(|byte| byte.is_ascii_graphic()), "contains more than one key: give one key on one line");
    Ok(key.to_owned())
}

/// Parses a host's URL: scheme, name or address, and port. A path is kept as a prefix of the API paths, for a host
/// behind a proxy.
fn host(given: &str) -> anyhow::Result<Url> {
    let example = if given.is_empty() { "127.0.0.1:8080" } else { given };
    let Ok(url) = Url::parse(given) else {
        bail!("`{given}` is not a URL: add the scheme, such as http://{example}");
    };
    // `localhost:8080` also parses as a URL, with the scheme `localhost`.
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        let example = if given.contains("://") { "127.0.0.1:8080" } else { example };
        bail!("`{given}` is not the URL of a host: it must begin with http:// or https://, such as http://{example}");
    }
    if url.query().is_some() || url.fragment().is_some() {
        bail!("`{given}` has a query or fragment: leave out the query");
    }
    if !url.username().is_empty() || url.password().is_some() {
        bail!("the host's URL contains a user name or password: give the key with --key-file");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_may_be_written_by_any_editor() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tenant.key");
        for text in ["sgk_a_b", "sgk_a_b\n", "sgk_a_b\r\n", "\u{feff}sgk_a_b\r\n", "  sgk_a_b\n\n"] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read_key(&file).unwrap(), "sgk_a_b", "{text:?}");
        }
        for (text, says) in [("", "is empty"), ("\r\n", "is empty"), ("sgk_a_b\nsgk_c_d\n", "more than one")] {
            std::fs::write(&file, text).unwrap();
            let error = format!("{:#}", read_key(&file).unwrap_err());
            assert!(
                error.contains(says) && error.contains("tenant.key") && !error.contains("sgk_"),
                "{text:?}: {error}"
            );
        }
        std::fs::write(&file, [0xff, 0xfe, b's', 0]).unwrap();
        assert!(format!("{:#}", read_key(&file).unwrap_err()).contains("is not text"));
        std::fs::write(&file, vec![b'x'; 4096]).unwrap();
        assert!(format!("{:#}", read_key(&file).unwrap_err()).contains("4096 bytes"));
        let missing = read_key(&folder.path().join("none")).unwrap_err();
        assert!(format!("{missing:#}").contains("cannot read the key file"), "{missing:#}");
    }

    #[test]
    fn a_host_needs_its_scheme() {
        for good in ["http://127.0.0.1:8080", "https://setgate.example/", "https://gate.example/setgate"] {
            host(good).unwrap();
        }
        for (bad, says) in [
            ("127.0.0.1:8080", "such as http://127.0.0.1:8080"),
            ("localhost:8080", "such as http://localhost:8080"),
            ("setgate.example", "such as http://setgate.example"),
            ("", "such as http://"),
            ("ftp://setgate.example", "http:// or https://"),
            ("http:///x?", "leave out the query"),
            ("https://me:pw@setgate.example", "--key-file"),
            ("https://setgate.example?a=b", "leave out the query"),
        ] {
            let error = host(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
