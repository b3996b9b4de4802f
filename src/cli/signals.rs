//! SIGINT, SIGTERM and SIGHUP ask the session to stop; a second one ends the process at once.

use std::sync::{Arc, Weak};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};
use crate::session::Session;

/// Cancels `session` at the first signal; `also` is called then, too (to stop a server or an unmount).
pub(super) fn cancel_on_signal(session: &Arc<Session>, also: impl Fn() + Send + 'static) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|e| Error::failed("host.signals", "cannot wait for signals").because(e))?;
    let session: Weak<Session> = Arc::downgrade(session);
    std::thread::spawn(move || {
        for count in 0.. {
            if signals.forever().next().is_none() {
                return;
            }
            if count > 0 {
                std::process::exit(i32::from(crate::error::Kind::Interrupted.exit_code()));
            }
            if let Some(session) = session.upgrade() {
                session.cancel();
            }
            also();
        }
    });
    Ok(())
}
