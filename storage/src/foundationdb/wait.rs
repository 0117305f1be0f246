//! Waiting for one future on a thread that may wait, but not for ever.
//!
//! Owns [`wait`]. FoundationDB's futures start when they are made and are woken from its network thread,
//! so many can be made first and waited for one after another.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What `future` gives, or `None` when it gives nothing within `limit`.
pub(super) fn wait<F: Future>(future: F, limit: Duration) -> Option<F::Output> {
    let deadline = Instant::now() + limit;
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // It may return for no reason: then the future is asked again.
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, poll_fn, ready};
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_future_is_waited_for_until_another_thread_wakes_it() {
        let done = Arc::new(AtomicBool::new(false));
        let mut started = false;
        let future = poll_fn(|context| {
            if done.load(Ordering::Acquire) {
                return Poll::Ready(7);
            }
            if !std::mem::replace(&mut started, true) {
                let (done, waker) = (done.clone(), context.waker().clone());
                thread::spawn(move || {
                    done.store(true, Ordering::Release);
                    waker.wake();
                });
            }
            Poll::Pending
        });
        assert_eq!(wait(future, Duration::from_secs(60)), Some(7));
        assert_eq!(wait(ready(8), Duration::ZERO), Some(8));
    }

    #[test]
    fn a_future_that_never_ends_is_given_up() {
        assert_eq!(wait(pending::<()>(), Duration::from_millis(20)), None);
    }
}
