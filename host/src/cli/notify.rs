//! Notifies systemd of state changes (sd_notify(3), `Type=notify`): one datagram to the socket named by
//! `NOTIFY_SOCKET`. Does nothing if the variable is not set.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// All listeners accept requests.
pub(super) const READY: &str = "READY=1";
/// The host is shutting down.
pub(super) const STOPPING: &str = "STOPPING=1";

/// The status line of `systemctl status`.
pub(super) fn status(text: &str) -> String {
    format!("STATUS={}", text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Sends the state. A failure is logged and otherwise ignored.
pub(super) fn tell(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, state, "systemd notification failed");
    }
}

/// A leading `@` selects the abstract namespace.
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("setgate-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, to) in [(&by_path, path.as_os_str()), (&by_name, OsStr::new(&format!("@{name}")))] {
            send(to, READY).unwrap();
            let mut told = [0; 32];
            let bytes = socket.recv(&mut told).unwrap();
            assert_eq!(&told[..bytes], READY.as_bytes());
        }
        assert!(send(OsStr::new("/nowhere/notify"), READY).is_err());
    }

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(status("one\n  two"), "STATUS=one two");
    }
}
