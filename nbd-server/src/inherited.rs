//! Sockets that systemd opened for this process (sd_listen_fds(3)): the only place of this crate with `unsafe`.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::SockRef;

/// The first descriptor that systemd hands over.
const FIRST: RawFd = 3;

/// More sockets than any unit file has.
const MAX_INHERITED: RawFd = 64;

/// The sockets that systemd hands to this process, for [`crate::Builder::inherited`]; none if it was not started that way. Only
/// the first call gets them.
///
/// # Errors
/// If `LISTEN_FDS` is not a small number, or if what lies there are no sockets.
pub fn systemd_sockets() -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let count =
        number("LISTEN_FDS").and_then(|count| RawFd::try_from(count).ok()).filter(|&count| count <= MAX_INHERITED);
    let count = count.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "LISTEN_FDS is not a small number"))?;
    (FIRST..FIRST + count).map(take).collect()
}

fn take(fd: RawFd) -> io::Result<OwnedFd> {
    if !std::path::Path::new(&format!("/proc/self/fd/{fd}")).exists() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("LISTEN_FDS names descriptor {fd}, which is not open"),
        ));
    }
    #[allow(unsafe_code, reason = "descriptors come as numbers in the environment")]
    // SAFETY: the descriptor is open, and LISTEN_PID says that this process is its owner. `systemd_sockets` hands out each once.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    SockRef::from(&fd).set_cloexec(true)?;
    SockRef::from(&fd).local_addr()?;
    Ok(fd)
}
