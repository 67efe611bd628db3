//! Checks the data directory and its master key before the host writes anything. If they do not match, both are left
//! unchanged.

use std::path::Path;

use anyhow::{Context as _, bail};
use setgate_base::crypto::MasterKey;
use setgate_ledger::Identity;

/// Creates the data directory if it does not exist, and returns the master key: the one in its file, or a new one if
/// there is no ledger yet that needs an existing key.
///
/// # Errors
/// If others may write to the directory, if this version or this key cannot open the ledger, or if the key is missing.
/// Nothing is written in these cases.
pub(super) fn master_key(dir: &Path, key_file: &Path) -> anyhow::Result<MasterKey> {
    let ledger = dir.join("ledger");
    setgate_ledger::check_folder_mode(dir)?;
    let found = setgate_ledger::identity(&ledger).context("the ledger cannot be opened")?;
    let needed = found.as_ref().and_then(|Identity { master_key }| master_key.as_deref());
    if let (Some(needed), false) = (needed, key_file.try_exists().unwrap_or(true)) {
        bail!(
            "the ledger in {} requires the master key {needed}, which is not at {}: put the right file back there, or set \
             `data.master_key_file`. Without it, the secrets of the ledger cannot be decrypted. Nothing was written; to start \
             with an empty ledger, choose another data directory",
            ledger.display(),
            key_file.display()
        );
    }
    if key_file.try_exists().unwrap_or(true) {
        let master = MasterKey::load(key_file)?;
        match needed {
            Some(needed) if needed != master.fingerprint() => bail!(
                "{} contains the master key {}, but the ledger in {} requires {needed}: put the right file back. Nothing was \
                 written",
                key_file.display(),
                master.fingerprint(),
                ledger.display()
            ),
            None if found.is_none() => {
                tracing::warn!(
                    key = %key_file.display(),
                    ledger = %ledger.display(),
                    "master key exists without a ledger: creating a new ledger. If this host had a ledger, stop it and \
                     check that the data directory is correct and mounted"
                );
            }
            _ => {}
        }
    }
    super::private_folder(dir).with_context(|| format!("the data directory {}", dir.display()))?;
    Ok(MasterKey::load_or_create(key_file)?)
}
