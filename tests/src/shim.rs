//! Libraries of `tests/shims`, preloaded into the host: a disk that fails and a clock that is set, both on command.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::Host;
use crate::place;

/// What one library does, told through its control file.
pub struct Shim {
    control: PathBuf,
}

impl Shim {
    /// A disk below the host's ledger that does as it should until it [is told](Shim::tell), from the next start on.
    pub fn disk(host: &mut Host) -> Self {
        let folder = std::fs::canonicalize(host.path("")).expect("the host's folder is there").join("data/ledger");
        host.set_env("SETGATE_DISK_DIR", &text(&folder));
        Self::preload(host, "disk", "SETGATE_DISK_CONTROL")
    }

    /// A system's clock that is right until it [is told](Shim::tell) by how many milliseconds it is off, from the next
    /// start on.
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

    /// Has it do something else from now on; what it can do stands at the head of its source. Empty: as it should.
    pub fn tell(&self, what: &str) {
        // Put in its place whole: the host reads it at any moment.
        let new = self.control.with_extension("new");
        std::fs::write(&new, what).expect("a file in the host's folder");
        std::fs::rename(&new, &self.control).expect("a file in the host's folder");
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a temporary folder's name is text").to_owned()
}
