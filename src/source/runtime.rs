//! The one asynchronous runtime of the data plane: private to the transports of remote sources, made when the first one is opened.
//!
//! The core is synchronous: a thread that wants bytes waits here for them. Whoever waits notices within [`NAP`] that the session
//! was cancelled.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::session::Session;

/// Threads that move bytes of all connections.
const THREADS: usize = 2;

/// How long a wait goes on before it looks whether the session was cancelled.
const NAP: Duration = Duration::from_millis(100);

/// The session's runtime.
#[derive(Debug, Default)]
pub(super) struct Runtime(OnceLock<std::io::Result<Owned>>);

/// A runtime that is left at once when it is dropped: what still waits for a name server is not waited for.
#[derive(Debug)]
struct Owned(Option<tokio::runtime::Runtime>);

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Runtime {
    /// The one of `session`.
    pub(super) fn of(session: &Session) -> Arc<Self> {
        session.shared(|_| Self::default())
    }

    fn runtime(&self) -> Option<&tokio::runtime::Runtime> {
        self.0.get_or_init(start).as_ref().ok().and_then(|owned| owned.0.as_ref())
    }

    /// Waits for `future`, which has an end of its own, also when the session is cancelled. Nothing when the system gives no threads.
    pub(super) fn finish<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.runtime().map(|runtime| runtime.block_on(future))
    }

    /// Waits for `future`, on the calling thread.
    ///
    /// # Errors
    /// `session.interrupted` once the session is cancelled, and `source.runtime` when the system gives no threads.
    pub(super) fn wait<T>(&self, session: &Session, future: impl Future<Output = T>) -> Result<T> {
        let runtime = self
            .runtime()
            .ok_or_else(|| Error::failed("source.runtime", "cannot start the threads that read remote sources"))?;
        runtime.block_on(async {
            let mut future = pin!(future);
            loop {
                session.check()?;
                if let Ok(done) = tokio::time::timeout(NAP, &mut future).await {
                    return Ok(done);
                }
            }
        })
    }
}

fn start() -> std::io::Result<Owned> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(THREADS).thread_name("remote").enable_all();
    builder.build().map(|runtime| Owned(Some(runtime)))
}

/// Waits for `future` for at most `limit`; nothing when that was too short.
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_its_session() {
        let session = Session::with_defaults();
        let runtime = Runtime::of(&session);
        assert_eq!(runtime.wait(&session, async { 7 }).unwrap(), 7);
        assert_eq!(runtime.wait(&session, within(Duration::ZERO, std::future::pending::<()>())).unwrap(), None);
        let other = Arc::clone(&session);
        let canceller = std::thread::spawn(move || other.cancel());
        assert_eq!(runtime.wait(&session, std::future::pending::<()>()).unwrap_err().code(), "session.interrupted");
        canceller.join().unwrap();
    }
}
