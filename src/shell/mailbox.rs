//! The mailbox from other threads to the loop: bounded, and never waiting.

use std::fmt;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use mio::{Registry, Token, Waker};

use crate::context::commands::StopRequest;
use crate::context::loop_state::ServerRef;
use crate::words::network::ClientKey;

/// Orders that may be pending.
const ORDERS_MAX: usize = 1024;
/// Bytes that the pending orders may carry.
const ORDER_BYTES_MAX: usize = 4 << 20;

/// What is run on the loop.
type Action = Box<dyn FnOnce(&mut ServerRef<'_>) + Send>;

struct Order {
    action: Action,
    bytes: usize,
}

/// The side of the other threads.
#[derive(Clone)]
pub(crate) struct Mailbox {
    orders: SyncSender<Order>,
    shared: Arc<Shared>,
}

/// The side of the loop.
pub(crate) struct Inbox {
    orders: Receiver<Order>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Set when the loop is there; what was sent before waits in the channel.
    waker: OnceLock<Waker>,
    /// The loop was woken and has not looked yet.
    woken: AtomicBool,
    /// Bytes that the pending orders carry.
    bytes: AtomicUsize,
    /// Beside the channel, so that a full one cannot hold up a stop.
    stop: Mutex<Option<StopRequest>>,
    /// Beside it too: the clients of detached connections that are over, one for each.
    returned: Mutex<Vec<Option<ClientKey>>>,
}

/// The way by which detached connections are given back: never full, since there are at most as many as
/// there were connections.
#[derive(Clone)]
pub(crate) struct Returns(Arc<Shared>);

impl Returns {
    /// A connection of that client is over.
    pub(crate) fn send(&self, client: Option<ClientKey>) {
        let mut returned = self.0.returned.lock().unwrap_or_else(PoisonError::into_inner);
        returned.push(client);
        drop(returned);
        self.0.wake();
    }
}

/// Why an order was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Stopped,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// Both sides of a new mailbox.
pub(crate) fn mailbox() -> (Mailbox, Inbox) {
    let (sender, receiver) = sync_channel(ORDERS_MAX);
    let shared = Arc::new(Shared::default());
    let inbox = Inbox { orders: receiver, shared: Arc::clone(&shared) };
    (Mailbox { orders: sender, shared }, inbox)
}

impl Mailbox {
    /// Sends what is to be run on the loop and carries `bytes`.
    pub(crate) fn send(
        &self,
        bytes: usize,
        action: impl FnOnce(&mut ServerRef<'_>) + Send + 'static,
    ) -> Result<(), Refused> {
        if !self.shared.reserve(bytes) {
            return Err(Refused::Full);
        }
        match self.orders.try_send(Order { action: Box::new(action), bytes }) {
            Ok(()) => {
                self.shared.wake();
                Ok(())
            }
            Err(refused) => {
                self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
                Err(match refused {
                    TrySendError::Full(_) => Refused::Full,
                    TrySendError::Disconnected(_) => Refused::Stopped,
                })
            }
        }
    }

    /// Asks for a stop.
    pub(crate) fn stop(&self, request: StopRequest) {
        let mut stop = self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner);
        *stop = Some(request.after(stop.as_ref()));
        drop(stop);
        self.shared.wake();
    }
}

impl Shared {
    /// Takes room for the bytes of an order, if there is any. What is refused never counts, not even
    /// for the moment of asking: it would be in the way of other threads' orders.
    fn reserve(&self, bytes: usize) -> bool {
        let with = |held: usize| {
            held.checked_add(bytes).filter(|&sum| bytes == 0 || sum <= ORDER_BYTES_MAX)
        };
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok()
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            if let Some(waker) = self.waker.get() {
                // It fails only where the loop is gone, and with it the need.
                let _ = waker.wake();
            }
        }
    }
}

impl Inbox {
    /// Ties it to the loop; what was sent before is looked at in its first turn.
    pub(crate) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let waker = Waker::new(registry, token)?;
        waker.wake()?;
        let _ = self.shared.waker.set(waker); // an inbox is registered once
        Ok(())
    }

    /// The orders of one turn: those that are there, and no more than could be pending, so that who
    /// keeps sending does not keep the loop. From here on, who sends has to wake the loop again.
    pub(crate) fn turn(&self) -> impl Iterator<Item = Action> {
        // A swap and not a store: what was sent before the flag was set is seen from here on.
        self.shared.woken.swap(false, Ordering::AcqRel);
        let mut left = ORDERS_MAX;
        std::iter::from_fn(move || {
            if left == 0 {
                self.shared.wake(); // the rest is for the next turn
                return None;
            }
            left -= 1;
            let order = self.orders.try_recv().ok()?;
            self.shared.bytes.fetch_sub(order.bytes, Ordering::Relaxed);
            Some(order.action)
        })
    }

    /// How threads give detached connections back.
    pub(crate) fn returns(&self) -> Returns {
        Returns(Arc::clone(&self.shared))
    }

    /// The clients of detached connections that are over since this was asked last.
    pub(crate) fn take_returned(&self) -> Vec<Option<ClientKey>> {
        mem::take(&mut *self.shared.returned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn take_stop(&self) -> Option<StopRequest> {
        self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_counts_no_more() {
        let (mailbox, inbox) = mailbox();
        assert_eq!(mailbox.send(ORDER_BYTES_MAX, |_| ()), Ok(()));
        assert_eq!(mailbox.send(1, |_| ()), Err(Refused::Full));
        assert_eq!(mailbox.send(0, |_| ()), Ok(()));
        assert!(inbox.turn().next().is_some());
        assert_eq!(mailbox.send(1, |_| ()), Ok(()));
        let more = (0..2 * ORDERS_MAX).filter(|_| mailbox.send(0, |_| ()).is_ok()).count();
        assert_eq!(more, ORDERS_MAX - 2);
        // While one keeps sending, a turn ends all the same, and the next one is asked for.
        let sends_again = |_: Action| assert_eq!(mailbox.send(0, |_| ()), Ok(()));
        assert_eq!(inbox.turn().map(sends_again).count(), ORDERS_MAX);
        assert!(inbox.shared.woken.load(Ordering::Relaxed));
        drop(inbox);
        assert_eq!(mailbox.send(0, |_| ()), Err(Refused::Stopped));
    }

    /// Not even for the moment in which it is refused.
    #[test]
    fn what_never_fits_is_in_nobodys_way() {
        let (mailbox, inbox) = mailbox();
        let (done, large) = (Arc::new(AtomicBool::new(false)), mailbox.clone());
        let stop = Arc::clone(&done);
        let refused = std::thread::Builder::new()
            .spawn(move || {
                let mut refused = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(large.send(ORDER_BYTES_MAX + 1, |_| ()), Err(Refused::Full));
                    refused += 1;
                }
                refused
            })
            .unwrap();
        for _ in 0..200_000 {
            assert_eq!(mailbox.send(10, |_| ()), Ok(()));
            assert!(inbox.turn().next().is_some());
        }
        done.store(true, Ordering::Relaxed);
        assert!(refused.join().unwrap() > 0);
    }

    #[test]
    fn a_stop_has_room_in_a_full_mailbox_and_the_shorter_grace_counts() {
        let (mailbox, inbox) = mailbox();
        while mailbox.send(0, |_| ()).is_ok() {}
        for seconds in [5, 1, 9] {
            let code = crate::words::close::CloseCode::GOING_AWAY;
            mailbox.stop(StopRequest { code, grace: Duration::from_secs(seconds) });
        }
        assert_eq!(inbox.take_stop().unwrap().grace, Duration::from_secs(1));
        assert!(inbox.take_stop().is_none());
    }
}
