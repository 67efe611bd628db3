//! The master key and the keys derived from it.
//!
//! It is the base64 of 32 random bytes, stored either in a file that only its owner may read or in a setting from the
//! environment. Both use the same text, so the key can be moved between them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use setgate_domain::secret::{Sealed, Secret};
use zeroize::Zeroizing;

use super::sealing::Sealing;
use super::{Error, hmac_sha256, random_bytes, write_private_file};

/// Length of the master key in bytes.
pub const MASTER_KEY_BYTES: usize = 32;

/// Limit for reading a key file in bytes. The base64 of a key with white space is far shorter.
const KEY_FILE_BYTES_MAX: u64 = 1024;

/// The master key of an installation. Together with the data directory it gives access to every secret. Zeroized on
/// drop and never printed.
pub struct MasterKey {
    bytes: Zeroizing<[u8; MASTER_KEY_BYTES]>,
    /// Includes the derived key for secrets at rest, which is needed for each event of a source with secrets.
    sealing: Sealing,
}

impl MasterKey {
    /// Generates a random key.
    pub fn generate() -> Self {
        Self::of(random_bytes().into())
    }

    fn of(bytes: Zeroizing<[u8; MASTER_KEY_BYTES]>) -> Self {
        let sealing = Sealing::new(&derive(&bytes, Sealing::LABEL));
        Self { bytes, sealing }
    }

    /// Parses base64. Surrounding white space is ignored.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(text.trim()).map_err(|_| Error::KeyNotBase64)?);
        let key = <[u8; MASTER_KEY_BYTES]>::try_from(bytes.as_slice());
        key.map(|key| Self::of(key.into())).map_err(|_| Error::KeyLength { found: bytes.len() })
    }

    /// Reads a key file. Refuses a file that its group or others may read or change.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::KeyFile { action: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        // Checks the open file instead of the path, so that the checked file is the one that is read.
        let meta = file.metadata().map_err(failed)?;
        if meta.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Error::KeyPermissions { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        match file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text) {
            Ok(_) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Error::KeyNotBase64),
            Err(error) => Err(failed(error)),
        }
    }

    /// Reads the key file. If it does not exist, creates it with access only for its owner. The file is durable when
    /// this returns. If two processes start at the same time, both use the file that was created first.
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

    /// Derives a key for one purpose: HKDF-Expand (RFC 5869 section 2.3) with SHA-256, one block, and `setgate/v1/`
    /// followed by the label as `info`. Extract is skipped, because the master key is already uniformly random (section
    /// 3.3). The label identifies the purpose and, if relevant, the owner.
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        derive(&self.bytes, label)
    }

    /// Encrypts a secret. `context` identifies its owner and its purpose, and must be the same for decryption.
    pub fn seal(&self, context: &str, secret: &Secret) -> Sealed {
        self.sealing.seal(context, secret)
    }

    /// Decrypts a secret from [`MasterKey::seal`] with the same key and context.
    ///
    /// # Errors
    /// [`Error::MalformedCiphertext`] if the text is malformed, [`Error::DecryptionFailed`] if it was encrypted with another key or
    /// context.
    pub fn open(&self, context: &str, sealed: &Sealed) -> Result<Secret, Error> {
        self.sealing.open(context, sealed)
    }

    /// Identifies the key without revealing anything about it: 16 hex digits. It is stored with the data, so that a
    /// start with the wrong key is detected.
    pub fn fingerprint(&self) -> String {
        hex::encode(&self.derive("fingerprint")[..8])
    }

    fn store(&self, path: &Path) -> io::Result<()> {
        let text = Zeroizing::new(BASE64_STANDARD.encode(*self.bytes) + "\n");
        write_private_file(path, ".master-key", text.as_bytes())
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
    fn creates_key_file_once_then_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let first = MasterKey::load_or_create(&path).unwrap();
        let again = MasterKey::load_or_create(&path).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file remains");
        assert_eq!(MasterKey::parse(&fs::read_to_string(&path).unwrap()).unwrap().fingerprint(), first.fingerprint());
    }

    #[test]
    fn never_replaces_existing_key_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let first = MasterKey::load_or_create(&path).unwrap();
        let refused = MasterKey::generate().store(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(MasterKey::load(&path).unwrap().fingerprint(), first.fingerprint());
    }

    #[test]
    fn refuses_key_file_readable_by_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        MasterKey::load_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = MasterKey::load_or_create(&path).unwrap_err();
            assert!(matches!(error, Error::KeyPermissions { .. }));
            assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        MasterKey::load_or_create(&path).unwrap();
    }

    #[test]
    fn refuses_wrong_length_and_invalid_base64() {
        let long = BASE64_STANDARD.encode([0; 33]);
        assert!(matches!(MasterKey::parse(&long), Err(Error::KeyLength { found: 33 })));
        assert!(matches!(MasterKey::parse(""), Err(Error::KeyLength { found: 0 })));
        assert!(matches!(MasterKey::parse("not base64!"), Err(Error::KeyNotBase64)));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(&[0xff; 40]).unwrap();
        assert!(matches!(MasterKey::load(&path), Err(Error::KeyNotBase64)));
        let nowhere = folder.path().join("none/master.key");
        assert!(matches!(MasterKey::load_or_create(&nowhere), Err(Error::KeyFile { action: "create", .. })));
    }

    #[test]
    fn derives_keys_by_label_and_debug_hides_key() {
        let key = MasterKey::parse(&BASE64_STANDARD.encode([7; 32])).unwrap();
        assert_eq!(key.derive("a"), key.derive("a"));
        assert_ne!(key.derive("a"), key.derive("b"));
        assert_ne!(key.derive("a"), MasterKey::generate().derive("a"));
        assert_eq!(format!("{key:?}"), "MasterKey(..)");
    }
}
