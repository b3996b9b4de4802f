//! Work on many threads whose results are taken in order, one at a time: what makes an output the same on every run.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::session::Session;

/// The steps of each task, in this order. `S` is a thread's scratch memory.
pub(super) trait Steps: Sync {
    type Task: Send;
    type Scratch;
    type Done;

    /// Memory of one thread, reused for each of its tasks.
    fn scratch(&self) -> Result<Self::Scratch>;

    /// Any number at once.
    fn work(&self, scratch: &mut Self::Scratch, task: &Self::Task) -> Result<Self::Done>;

    /// In the order of the tasks, never two at once, on the thread that did the work.
    fn in_turn(&self, scratch: &mut Self::Scratch, task: &Self::Task, done: Self::Done) -> Result<()>;
}

/// Takes every task that `next` gives through `steps` on up to `threads` threads. The first error stops all of it.
///
/// # Errors
/// The first that a step, `next` or the session's cancellation gave.
pub(super) fn run<P: Steps>(
    threads: usize,
    session: &Session,
    next: &mut (dyn FnMut() -> Result<Option<P::Task>> + Send),
    steps: &P,
) -> Result<()> {
    let shared = Shared { queue: Mutex::new(Queue { next, given: 0 }), turn: Mutex::default(), moved: Condvar::new() };
    std::thread::scope(|scope| {
        for number in 0..threads.max(1) {
            let worker = std::thread::Builder::new().name(format!("copy {number}"));
            let spawned = worker.spawn_scoped(scope, || {
                let _stop_others = OnPanic(&shared);
                if let Err(error) = shared.worker(session, steps) {
                    shared.stop(error);
                }
            });
            // One thread is enough; more that cannot be had are only missed.
            if let Err(error) = spawned
                && number == 0
            {
                shared.stop(Error::failed("convert.thread", "cannot start a thread").because(error));
            }
        }
    });
    let turn = shared.turn.into_inner().unwrap_or_else(PoisonError::into_inner);
    turn.error.map_or(Ok(()), Err)
}

struct Shared<'a, T> {
    queue: Mutex<Queue<'a, T>>,
    turn: Mutex<Turn>,
    moved: Condvar,
}

struct Queue<'a, T> {
    next: &'a mut (dyn FnMut() -> Result<Option<T>> + Send),
    /// Tasks given out so far.
    given: u64,
}

#[derive(Default)]
struct Turn {
    /// The number of the task whose turn it is.
    number: u64,
    error: Option<Error>,
}

impl<T> Shared<'_, T> {
    fn worker<P: Steps<Task = T>>(&self, session: &Session, steps: &P) -> Result<()> {
        let mut scratch = steps.scratch()?;
        while let Some((number, task)) = self.take()? {
            session.check()?;
            let done = steps.work(&mut scratch, &task)?;
            if !self.wait_for(number) {
                return Ok(());
            }
            // Nobody else has this number, so the lock is not needed to keep the turn, and the others can take tasks meanwhile.
            steps.in_turn(&mut scratch, &task, done)?;
            self.turn().number += 1;
            self.moved.notify_all();
        }
        Ok(())
    }

    /// The next task and its number; nothing once there was an error.
    fn take(&self) -> Result<Option<(u64, T)>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if self.turn().error.is_some() {
            return Ok(None);
        }
        let Some(task) = (queue.next)()? else { return Ok(None) };
        queue.given += 1;
        Ok(Some((queue.given - 1, task)))
    }

    /// Waits until it is the turn of task `number`, which never comes once there was an error.
    fn wait_for(&self, number: u64) -> bool {
        let turn = self.turn();
        let waiting = |turn: &mut Turn| turn.number != number && turn.error.is_none();
        self.moved.wait_while(turn, waiting).unwrap_or_else(PoisonError::into_inner).error.is_none()
    }

    fn stop(&self, error: Error) {
        self.turn().error.get_or_insert(error);
        self.moved.notify_all();
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops the others when its thread panics, so that they do not wait for a turn that never comes.
struct OnPanic<'a, 'b, T>(&'a Shared<'b, T>);

impl<T> Drop for OnPanic<'_, '_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(Error::failed("convert.thread", "a worker thread panicked"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Squares numbers; sleeps so that later tasks are often ready first.
    struct Squares {
        taken: Mutex<Vec<u64>>,
        fail_work: Option<u64>,
        fail_turn: Option<u64>,
        panic: Option<u64>,
    }

    impl Steps for Squares {
        type Task = u64;
        type Scratch = u64;
        type Done = u64;

        fn scratch(&self) -> Result<u64> {
            Ok(0)
        }

        fn work(&self, scratch: &mut u64, task: &u64) -> Result<u64> {
            *scratch += 1;
            std::thread::sleep(Duration::from_micros(task * 7919 % 300));
            assert_ne!(self.panic, Some(*task));
            if self.fail_work == Some(*task) { Err(Error::interrupted()) } else { Ok(task * task) }
        }

        fn in_turn(&self, _scratch: &mut u64, task: &u64, done: u64) -> Result<()> {
            if self.fail_turn == Some(*task) {
                return Err(Error::interrupted());
            }
            self.taken.try_lock().expect("one at a time").push(done);
            Ok(())
        }
    }

    fn squares() -> Squares {
        Squares { taken: Mutex::default(), fail_work: None, fail_turn: None, panic: None }
    }

    fn go(steps: &Squares, threads: usize) -> Result<()> {
        let mut numbers = 0..100;
        run(threads, &Session::with_defaults(), &mut || Ok(numbers.next()), steps)
    }

    #[test]
    fn results_are_taken_in_order() {
        for threads in [1, 2, 7] {
            let steps = squares();
            go(&steps, threads).unwrap();
            assert_eq!(*steps.taken.lock().unwrap(), (0..100).map(|n| n * n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_stops_all_of_it() {
        for at in [0, 1, 50, 99] {
            for steps in [Squares { fail_work: Some(at), ..squares() }, Squares { fail_turn: Some(at), ..squares() }] {
                assert!(go(&steps, 4).is_err());
                assert!(steps.taken.lock().unwrap().len() as u64 <= at);
            }
        }
    }

    #[test]
    fn an_error_of_the_queue_stops_all_of_it() {
        let steps = squares();
        let mut numbers = 0..9;
        let mut next = || numbers.next().map(Some).ok_or_else(Error::interrupted);
        assert!(run(3, &Session::with_defaults(), &mut next, &steps).is_err());
    }

    #[test]
    fn a_cancelled_session_stops_all_of_it() {
        let session = Session::with_defaults();
        session.cancel();
        let steps = squares();
        assert_eq!(run(3, &session, &mut || Ok(Some(1)), &steps).unwrap_err().code(), "session.interrupted");
    }

    #[test]
    fn a_panic_does_not_leave_the_others_waiting() {
        let steps = Squares { panic: Some(10), ..squares() };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| go(&steps, 4))).is_err());
    }
}
