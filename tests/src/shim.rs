//! Libraries of `tests/shims`, preloaded into the host: a failing disk and an adjustable clock, both controlled by the
//! test.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::Host;
use crate::place;

/// A preloaded library and its control file.
pub struct Shim {
    control: PathBuf,
}

impl Shim {
    /// Preloads a disk for the host's ledger from the next start on. It works normally until [`Shim::tell`] is called.
    pub fn disk(host: &mut Host) -> Self {
        let folder = std::fs::canonicalize(host.path("")).expect("the host has a directory").join("data/ledger");
        host.set_env("SETGATE_DISK_DIR", &text(&folder));
        Self::preload(host, "disk", "SETGATE_DISK_CONTROL")
    }

    /// Preloads a system clock from the next start on. It is correct until [`Shim::tell`] sets its offset in
    /// milliseconds.
    pub fn clock(host: &mut Host) -> Self {
        Self::preload(host, "clock", "SETGATE_CLOCK_CONTROL")
    }

    fn preload(host: &mut Host, name: &str, variable: &str) -> Self {
        let library = host.path(&format!("{name}.so"));
        let source = place::root().join(format!("tests/shims/{name}.c"));
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&library).arg(&source);
        let built = cc.output().expect("`cc` can be started");
        assert!(built.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&built.stderr));
        let control = host.path(&format!("{name}.control"));
        host.set_env(variable, &text(&control));
        host.set_env("LD_PRELOAD", &text(&library));
        Self { control }
    }

    /// Sets the behaviour; the head of each library's source lists the commands. Empty: normal.
    pub fn tell(&self, what: &str) {
        // Replaced atomically, because the host may read it at any time.
        let new = self.control.with_extension("new");
        std::fs::write(&new, what).expect("a file in the host's folder");
        std::fs::rename(&new, &self.control).expect("a file in the host's folder");
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a temporary folder's name is text").to_owned()
}
