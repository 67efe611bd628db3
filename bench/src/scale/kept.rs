//! A permanent crowd, since ten thousand filters take half an hour to compile: a host's directory with all its tenants,
//! and the list of them.
//!
//! The directory is `crowd/KEY` beside the bench's guests. `KEY` identifies the filter and the engine that its machine
//! code was compiled from and with. It contains:
//!
//! | name | content |
//! |---|---|
//! | `setgate.toml`, `operator.key`, `data/` | the host's own |
//! | `members.jsonl` | a line for each tenant, with data that only its creation returns, see [`Line`] |
//!
//! A line is written once its tenant is complete. So an interrupted run only loses the tenants it was setting up: the
//! next run removes tenants without a line, and continues. An incomplete last line is ignored.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use setgate_base::crypto::sha256;
use setgate_domain::id::Digest;
use setgate_sandbox::{Options, Sandbox};

use crate::place;

const LIST: &str = "members.jsonl";
/// The host's data directory, its subdirectory of compiled filters, and the extension of their files.
const DATA: &str = "data";
const COMPILED: &str = "compiled";
const COMPILED_EXTENSION: &str = "cwasm";
/// Written once, by the host at its first start.
const OPERATOR_KEY: &str = "operator.key";

/// One tenant.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) tenant: String,
    pub(super) key: String,
    /// The path of its source.
    pub(super) ingest_path: String,
    pub(super) subscription: String,
    pub(super) secret: String,
}

/// The list of a crowd's members, open for appending.
pub(super) struct List(File);

impl List {
    /// Opens the list in a crowd's directory and reads it. A directory that is no longer usable is removed first, with
    /// a message.
    pub(super) fn open(folder: &Path) -> anyhow::Result<(Self, Vec<Line>)> {
        let (mut lines, mut bytes) = read(folder)?;
        if let Some(why) = useless(folder, lines.len())? {
            eprintln!("  set up again: {}: {why}", folder.display());
            fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
            (lines, bytes) = (Vec::new(), 0);
        }
        // It contains keys of the host.
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let file = folder.join(LIST);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(file)?;
        file.set_len(bytes)?;
        Ok((Self(file), lines))
    }

    /// Adds a complete tenant.
    pub(super) fn add(&mut self, line: &Line) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.0.write_all(&text).context("the list of the crowd's tenants")
    }
}

/// The directory of the crowd whose filters equal this one except for their digests, compiled by an engine of this
/// program's version with the host's settings.
pub(super) fn folder(wasm: &[u8]) -> anyhow::Result<PathBuf> {
    let nowhere = tempfile::tempdir()?;
    let none: setgate_sandbox::ComponentSource = Arc::new(|_, _| Box::pin(std::future::ready(None)));
    let sandbox = Sandbox::new(Options::new(nowhere.path().to_owned(), [0; 32], none))?;
    let engine = sandbox.engine_id().replace(' ', "-");
    sandbox.shutdown();
    let digest = Digest(sha256(wasm)).to_string();
    let digest = digest.trim_start_matches("sha256:").get(..16).unwrap_or_default();
    Ok(place::folder().join("crowd").join(format!("{digest}-{engine}")))
}

/// Reads all machine code into the system's cache, as after a set-up, so that a cold start does not measure the disk.
/// Blocks.
pub(super) fn read_compiled(data: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(data.join(COMPILED)).context("the compiled filters of the crowd")? {
        io::copy(&mut File::open(entry?.path())?, &mut io::sink())?;
    }
    Ok(())
}

/// The complete lines, and their total length in bytes.
fn read(folder: &Path) -> anyhow::Result<(Vec<Line>, u64)> {
    let text = match fs::read(folder.join(LIST)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        text => text.with_context(|| format!("{LIST} in {}", folder.display()))?,
    };
    let (mut lines, mut bytes) = (Vec::new(), 0);
    for whole in text.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = whole.strip_suffix(b"\n").and_then(|line| serde_json::from_slice(line).ok()) else { break };
        lines.push(line);
        bytes += whole.len() as u64;
    }
    Ok((lines, bytes))
}

/// The reason for which a directory with this many members is not usable. `None` if it is usable or empty.
fn useless(folder: &Path, members: usize) -> anyhow::Result<Option<String>> {
    if !folder.try_exists()? {
        return Ok(None);
    }
    if !folder.join(OPERATOR_KEY).try_exists()? {
        return Ok(Some("its host never started, or its operator key was removed".to_owned()));
    }
    let compiled = match fs::read_dir(folder.join(DATA).join(COMPILED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        entries => {
            let paths = entries?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
            paths.iter().filter(|path| path.extension().is_some_and(|is| is == COMPILED_EXTENSION)).count()
        }
    };
    let missing = members.saturating_sub(compiled);
    Ok((missing > 0).then(|| format!("{missing} of its {members} compiled filters are missing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> Line {
        let of = |what: &str| format!("{what} {number}");
        Line {
            tenant: of("tenant"),
            key: of("key"),
            ingest_path: of("path"),
            subscription: of("subscription"),
            secret: of("secret"),
        }
    }

    /// A directory of a host with compiled filters.
    fn lived_in(folder: &Path, compiled: usize) {
        fs::write(folder.join(OPERATOR_KEY), "key").unwrap();
        let folder = folder.join(DATA).join(COMPILED);
        fs::create_dir_all(&folder).unwrap();
        for number in 0..compiled {
            fs::write(folder.join(format!("{number}.cwasm")), "code").unwrap();
        }
    }

    #[test]
    fn goes_on_behind_the_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("crowd");
        let (mut list, found) = List::open(&folder).unwrap();
        assert_eq!(found, []);
        lived_in(&folder, 3);
        list.add(&line(0)).unwrap();
        list.add(&line(1)).unwrap();
        let text = fs::read(folder.join(LIST)).unwrap();
        fs::write(folder.join(LIST), &text[..text.len() - 1]).unwrap();
        let (mut list, found) = List::open(&folder).unwrap();
        assert_eq!(found, [line(0)]);
        list.add(&line(2)).unwrap();
        assert_eq!(List::open(&folder).unwrap().1, [line(0), line(2)]);
    }

    #[test]
    fn a_crowd_without_its_machine_code_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("crowd");
        let (mut list, _) = List::open(&folder).unwrap();
        lived_in(&folder, 1);
        list.add(&line(0)).unwrap();
        assert_eq!(List::open(&folder).unwrap().1, [line(0)]);
        list.add(&line(1)).unwrap();
        assert_eq!(List::open(&folder).unwrap().1, []);
        assert!(!folder.join(DATA).exists());
    }
}
