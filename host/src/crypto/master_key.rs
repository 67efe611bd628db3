//! The master key: where it comes from and what follows from it.
//!
//! Written as base64 of 32 random bytes, in a file that only its owner may read or in a setting taken from the
//! environment; both have the same text, so that one can be moved to the other.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use zeroize::Zeroizing;

use super::sealing::Sealing;
use super::{Error, hmac_sha256, random_bytes, write_private};
use crate::domain::secret::{Sealed, Secret};

/// Length of the master key.
pub const MASTER_KEY_BYTES: usize = 32;

/// A key file is read this far; base64 of the key and some white space are far shorter.
const KEY_FILE_BYTES_MAX: u64 = 1024;

/// The one key of an installation. Whoever has it and the data folder has every secret.
/// Wiped when dropped, never printed.
pub struct MasterKey {
    bytes: Zeroizing<[u8; MASTER_KEY_BYTES]>,
    /// With the key that is derived for secrets at rest: an event whose source has one needs it.
    sealing: Sealing,
}

impl MasterKey {
    /// A new one.
    pub fn generate() -> Self {
        Self::of(random_bytes().into())
    }

    fn of(bytes: Zeroizing<[u8; MASTER_KEY_BYTES]>) -> Self {
        let sealing = Sealing::new(&derive(&bytes, Sealing::LABEL));
        Self { bytes, sealing }
    }

    /// Reads base64, with white space around it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(text.trim()).map_err(|_| Error::KeyText)?);
        let key = <[u8; MASTER_KEY_BYTES]>::try_from(bytes.as_slice());
        key.map(|key| Self::of(key.into())).map_err(|_| Error::KeySize { found: bytes.len() })
    }

    /// Reads a key file. Refuses one that its group or others may read or change.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::KeyFile { action: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        // Asked of the open file, not of the path: what is checked is what is read.
        let meta = file.metadata().map_err(failed)?;
        if meta.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Error::KeyMode { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        match file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text) {
            Ok(_) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Error::KeyText),
            Err(error) => Err(failed(error)),
        }
    }

    /// Reads the key file, or makes it, readable by its owner alone, where there is none. The file is on disk
    /// before this returns; where two processes start at once, both use the one that was there first.
    pub fn load_or_create(path: &Path) -> Result<Self, Error> {
        if path.exists() {
            return Self::load(path);
        }
        match Self::generate().store(path) {
            Ok(()) => Self::load(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(source) => Err(Error::KeyFile { action: "create", path: path.to_owned(), source }),
        }
    }

    /// A key for one purpose: HKDF-Expand (RFC 5869 section 2.3) with SHA-256, one block, `info` being
    /// `setgate/v1/` and the label. Extract is left out: the master key is uniformly random already (section 3.3).
    /// The label says what the key is for and, where it matters, for whom.
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        derive(&self.bytes, label)
    }

    /// Encrypts a secret for an owner. `context` names the owner and the place, and has to be the same to open it.
    pub fn seal(&self, context: &str, secret: &Secret) -> Sealed {
        self.sealing.seal(context, secret)
    }

    /// Decrypts what [`MasterKey::seal`] made with the same key and context.
    ///
    /// # Errors
    /// [`Error::SealedForm`] where it is no sealed text, [`Error::SealedShut`] where it is another key's or owner's.
    pub fn open(&self, context: &str, sealed: &Sealed) -> Result<Secret, Error> {
        self.sealing.open(context, sealed)
    }

    /// Names the key without telling anything about it: 16 hex digits. Kept beside the data, it shows at start that
    /// the data belongs to another key.
    pub fn fingerprint(&self) -> String {
        hex::encode(&self.derive("fingerprint")[..8])
    }

    fn store(&self, path: &Path) -> io::Result<()> {
        let text = Zeroizing::new(BASE64_STANDARD.encode(*self.bytes) + "\n");
        write_private(path, ".master-key", text.as_bytes())
    }
}

fn derive(master: &[u8; MASTER_KEY_BYTES], label: &str) -> Zeroizing<[u8; 32]> {
    hmac_sha256(master, &[b"setgate/v1/", label.as_bytes(), &[1]]).into()
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn is_made_once_and_read_ever_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let first = MasterKey::load_or_create(&path).unwrap();
        let again = MasterKey::load_or_create(&path).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left behind");
        assert_eq!(MasterKey::parse(&fs::read_to_string(&path).unwrap()).unwrap().fingerprint(), first.fingerprint());
    }

    #[test]
    fn never_replaces_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let first = MasterKey::load_or_create(&path).unwrap();
        let refused = MasterKey::generate().store(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(MasterKey::load(&path).unwrap().fingerprint(), first.fingerprint());
    }

    #[test]
    fn refuses_what_others_may_read_and_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        MasterKey::load_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = MasterKey::load_or_create(&path).unwrap_err();
            assert!(matches!(error, Error::KeyMode { .. }));
            assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        MasterKey::load_or_create(&path).unwrap();
    }

    #[test]
    fn refuses_other_sizes_and_other_text() {
        let long = BASE64_STANDARD.encode([0; 33]);
        assert!(matches!(MasterKey::parse(&long), Err(Error::KeySize { found: 33 })));
        assert!(matches!(MasterKey::parse(""), Err(Error::KeySize { found: 0 })));
        assert!(matches!(MasterKey::parse("not base64!"), Err(Error::KeyText)));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(&[0xff; 40]).unwrap();
        assert!(matches!(MasterKey::load(&path), Err(Error::KeyText)));
        let nowhere = folder.path().join("none/master.key");
        assert!(matches!(MasterKey::load_or_create(&nowhere), Err(Error::KeyFile { action: "create", .. })));
    }

    #[test]
    fn derives_by_label_and_prints_nothing() {
        let key = MasterKey::parse(&BASE64_STANDARD.encode([7; 32])).unwrap();
        assert_eq!(key.derive("a"), key.derive("a"));
        assert_ne!(key.derive("a"), key.derive("b"));
        assert_ne!(key.derive("a"), MasterKey::generate().derive("a"));
        assert_eq!(format!("{key:?}"), "MasterKey(..)");
    }
}
