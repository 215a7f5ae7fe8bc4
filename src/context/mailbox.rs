//! The mailbox from other threads to the loop: bounded, and never waiting. `A` is what is run on the loop.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::{Arc, OnceLock, PoisonError};

use crate::context::adoptions::{Adopted, Adoptions};
use crate::context::commands::{Refused, StopRequest};
use crate::context::parcels::Parcel;
use crate::structures::sync::{AtomicBool, Mutex, MutexGuard, Ordering};
use crate::words::network::ClientKey;

/// Orders that may be pending.
const ORDERS_MAX: usize = 1024;
/// Bytes that the pending orders may carry.
const ORDER_BYTES_MAX: usize = 4 << 20;

/// Ends the wait of the loop.
pub(crate) type Waker = Box<dyn Fn() + Send + Sync>;

struct Order<A> {
    action: A,
    bytes: usize,
}

/// The side of whoever sends: other threads, and code on the loop that hands it to them.
pub(crate) struct Mailbox<A>(Arc<Shared<A>>);

/// The side of the loop. Once it is dropped nothing is taken any more.
pub(crate) struct Inbox<A>(Arc<Shared<A>>);

struct Shared<A> {
    /// Set when the loop is there; what was sent before waits in the queue.
    waker: OnceLock<Waker>,
    /// The loop was woken and has not looked yet.
    woken: AtomicBool,
    orders: Mutex<Orders<A>>,
    /// Beside the queue, so that a full one cannot hold up a stop.
    stop: Mutex<Option<StopRequest>>,
    /// Beside it too: the clients of detached connections that are over, one for each.
    returned: Mutex<Vec<Option<ClientKey>>>,
    /// Certificates are to be read again, or were by another loop. Beside the queue as well.
    #[cfg(feature = "tls")]
    certificates: AtomicBool,
    /// Connections that somebody else has accepted.
    adoptions: Adoptions,
    /// And parts of flows that other loops send; those bound it, since each waits for answers.
    parcels: Mutex<Parcels<A>>,
}

struct Parcels<A> {
    waiting: Vec<Parcel<A>>,
    /// The loop is gone.
    closed: bool,
}

struct Orders<A> {
    queue: VecDeque<Order<A>>,
    /// Bytes that those in the queue carry.
    bytes: usize,
    /// The loop is gone.
    closed: bool,
}

/// The way by which detached connections are given back: never full, since there are at most as many as
/// there were connections.
pub(crate) struct Returns<A>(Arc<Shared<A>>);

impl<A> Clone for Returns<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A> Returns<A> {
    /// A connection of that client is over.
    pub(crate) fn send(&self, client: Option<ClientKey>) {
        locked(&self.0.returned).push(client);
        self.0.wake();
    }
}

impl<A> Default for Mailbox<A> {
    fn default() -> Self {
        Self(Arc::new(Shared {
            waker: OnceLock::new(),
            woken: AtomicBool::new(false),
            orders: Mutex::new(Orders { queue: VecDeque::new(), bytes: 0, closed: false }),
            stop: Mutex::default(),
            returned: Mutex::default(),
            #[cfg(feature = "tls")]
            certificates: AtomicBool::new(false),
            adoptions: Adoptions::default(),
            parcels: Mutex::new(Parcels { waiting: Vec::new(), closed: false }),
        }))
    }
}

impl<A> Clone for Mailbox<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A> fmt::Debug for Mailbox<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl<A> fmt::Debug for Inbox<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// What a panic left half done here is whole: each lock is held for single steps.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<A> Mailbox<A> {
    /// Whether both lead to one loop.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The side of the loop; there is one.
    pub(crate) fn inbox(&self) -> Inbox<A> {
        Inbox(Arc::clone(&self.0))
    }

    /// How threads give detached connections back.
    pub(crate) fn returns(&self) -> Returns<A> {
        Returns(Arc::clone(&self.0))
    }

    /// Sends what is to be run on the loop and carries `bytes`.
    pub(crate) fn send(&self, bytes: usize, action: A) -> Result<(), Refused> {
        let pushed = locked(&self.0.orders).push(Order { action, bytes });
        // The lock is free again where the order is dropped: what it holds may send in its drop.
        pushed.map_err(|(refused, _order)| refused)?;
        self.0.wake();
        Ok(())
    }

    /// Sends a connection that is to be served as if the loop had accepted it.
    pub(crate) fn adopt(&self, adopted: Adopted) -> Result<(), Refused> {
        self.0.adoptions.push(adopted)?;
        self.0.wake();
        Ok(())
    }

    /// Sends a connection that another loop of the server has accepted, and has room for.
    pub(crate) fn hand_over(&self, adopted: Adopted) -> Result<(), Refused> {
        self.0.adoptions.push_counted(adopted)?;
        self.0.wake();
        Ok(())
    }

    /// Certificates are to be read again; or another loop has read them.
    #[cfg(feature = "tls")]
    pub(crate) fn note_certificates(&self) {
        self.0.certificates.store(true, Ordering::Release);
        self.0.wake();
    }

    /// Sends a part of a flow, or an answer; false if the loop is gone.
    pub(crate) fn send_parcel(&self, parcel: Parcel<A>) -> bool {
        let mut parcels = locked(&self.0.parcels);
        if parcels.closed {
            return false;
        }
        parcels.waiting.push(parcel);
        drop(parcels);
        self.0.wake();
        true
    }

    /// Whether the loop is gone.
    pub(crate) fn is_closed(&self) -> bool {
        locked(&self.0.parcels).closed
    }

    /// Has the loop look whether there is something to do.
    pub(crate) fn wake(&self) {
        self.0.wake();
    }

    /// The connections that wait to be adopted. The loop's own mailbox has them too, since code on the
    /// loop adopts as other threads do.
    #[inline]
    pub(crate) fn adoptions(&self) -> &Adoptions {
        &self.0.adoptions
    }

    /// Sends what has to arrive, however full the queue is: the number of those is bounded elsewhere.
    pub(crate) fn send_owed(&self, action: A) {
        let refused = locked(&self.0.orders).push_owed(Order { action, bytes: 0 });
        if refused.is_none() {
            self.0.wake();
        }
    }

    /// Asks for a stop.
    pub(crate) fn stop(&self, request: StopRequest) {
        let mut stop = locked(&self.0.stop);
        *stop = Some(request.after(stop.as_ref()));
        drop(stop);
        self.0.wake();
    }
}

/// For tests that ask after every step.
#[cfg(all(repository, test))]
impl<A> Mailbox<A> {
    pub(crate) fn for_each_parcel(&self, act: impl FnMut(&Parcel<A>)) {
        locked(&self.0.parcels).waiting.iter().for_each(act);
    }
}

impl<A> Orders<A> {
    /// Takes an order, or gives it back.
    fn push(&mut self, order: Order<A>) -> Result<(), (Refused, Order<A>)> {
        let bytes = self.bytes.saturating_add(order.bytes);
        let is_full =
            self.queue.len() >= ORDERS_MAX || (order.bytes > 0 && bytes > ORDER_BYTES_MAX);
        if self.closed {
            return Err((Refused::Stopped, order));
        }
        if is_full {
            return Err((Refused::Full, order));
        }
        self.bytes = bytes;
        self.queue.push_back(order);
        Ok(())
    }

    /// Takes it however many there are; given back, the loop is gone.
    fn push_owed(&mut self, order: Order<A>) -> Option<Order<A>> {
        if self.closed {
            return Some(order);
        }
        self.queue.push_back(order);
        None
    }

    fn pop(&mut self) -> Option<A> {
        let order = self.queue.pop_front();
        if order.is_none() {
            self.queue = VecDeque::new(); // what was needed once is not kept for ever
        }
        let order = order?;
        self.bytes = self.bytes.saturating_sub(order.bytes);
        Some(order.action)
    }
}

impl<A> Shared<A> {
    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            if let Some(wake) = self.waker.get() {
                wake();
            }
        }
    }
}

impl<A> Inbox<A> {
    /// Ties it to the loop; what was sent before is looked at in its first turn.
    pub(crate) fn register(&self, waker: Waker) {
        waker();
        let _ = self.0.waker.set(waker); // an inbox is registered once
    }

    /// Whether something was sent that was not looked at.
    #[allow(dead_code, reason = "for the test kit: the shell is woken")]
    pub(crate) fn has_orders(&self) -> bool {
        self.0.woken.load(Ordering::Acquire)
    }

    /// The orders of one turn: those that are there, and no more than could be pending, so that who
    /// keeps sending does not keep the loop. From here on, who sends has to wake the loop again.
    pub(crate) fn turn(&self) -> impl Iterator<Item = A> {
        // A swap and not a store: what was sent before the flag was set is seen from here on.
        self.0.woken.swap(false, Ordering::AcqRel);
        let mut left = ORDERS_MAX;
        std::iter::from_fn(move || {
            if left == 0 {
                self.0.wake(); // the rest is for the next turn
                return None;
            }
            left = left.saturating_sub(1);
            locked(&self.0.orders).pop()
        })
    }

    /// The clients of detached connections that are over since this was asked last.
    pub(crate) fn take_returned(&self) -> Vec<Option<ClientKey>> {
        mem::take(&mut *locked(&self.0.returned))
    }

    /// What other loops have sent of flows.
    pub(crate) fn take_parcels(&self) -> Vec<Parcel<A>> {
        mem::take(&mut locked(&self.0.parcels).waiting)
    }

    #[cfg(feature = "tls")]
    pub(crate) fn take_certificates(&self) -> bool {
        self.0.certificates.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn take_stop(&self) -> Option<StopRequest> {
        locked(&self.0.stop).take()
    }
}

impl<A> Drop for Inbox<A> {
    fn drop(&mut self) {
        let mut orders = locked(&self.0.orders);
        orders.closed = true;
        let rest = mem::take(&mut orders.queue);
        self.0.adoptions.close();
        let closed = Parcels { waiting: Vec::new(), closed: true };
        let parcels = mem::replace(&mut *locked(&self.0.parcels), closed);
        drop(orders); // before what actions hold is dropped, which may send
        drop((rest, parcels));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_counts_no_more() {
        let mailbox = Mailbox::<u32>::default();
        let inbox = mailbox.inbox();
        assert_eq!(mailbox.send(ORDER_BYTES_MAX, 0), Ok(()));
        assert_eq!(mailbox.send(1, 0), Err(Refused::Full));
        assert_eq!(mailbox.send(0, 0), Ok(()));
        assert!(inbox.turn().next().is_some());
        assert_eq!(mailbox.send(1, 0), Ok(()));
        let more = (0..2 * ORDERS_MAX).filter(|_| mailbox.send(0, 0).is_ok()).count();
        assert_eq!(more, ORDERS_MAX - 2);
        // While one keeps sending, a turn ends all the same, and the next one is asked for.
        let sends_again = |_| assert_eq!(mailbox.send(0, 0), Ok(()));
        assert_eq!(inbox.turn().map(sends_again).count(), ORDERS_MAX);
        assert!(inbox.0.woken.load(Ordering::Relaxed));
        drop(inbox);
        assert_eq!(mailbox.send(0, 0), Err(Refused::Stopped));
    }

    /// Not even for the moment in which it is refused.
    #[test]
    fn what_never_fits_is_in_nobodys_way() {
        let mailbox = Mailbox::<u32>::default();
        let inbox = mailbox.inbox();
        std::thread::scope(|scope| {
            let honest = scope.spawn(|| {
                for _ in 0..200_000 {
                    assert_eq!(mailbox.send(10, 0), Ok(()));
                    assert!(inbox.turn().next().is_some());
                }
            });
            while !honest.is_finished() {
                assert_eq!(mailbox.send(ORDER_BYTES_MAX + 1, 0), Err(Refused::Full));
            }
        });
    }

    /// Sends something itself when it is dropped.
    struct SendsAgain(Mailbox<Option<Self>>);

    impl Drop for SendsAgain {
        fn drop(&mut self) {
            let _ = self.0.send(0, None);
            self.0.send_owed(None);
        }
    }

    /// A refused order is dropped where nothing is locked.
    #[test]
    fn what_is_refused_may_send_in_its_drop() {
        let mailbox = Mailbox::<Option<SendsAgain>>::default();
        let inbox = mailbox.inbox();
        while mailbox.send(0, None).is_ok() {}
        let again = || Some(SendsAgain(mailbox.clone()));
        assert_eq!(mailbox.send(0, again()), Err(Refused::Full));
        assert_eq!(locked(&mailbox.0.orders).queue.len(), ORDERS_MAX + 1);
        mailbox.send_owed(again());
        drop(inbox);
        assert_eq!(mailbox.send(0, again()), Err(Refused::Stopped));
        mailbox.send_owed(again());
    }

    #[test]
    fn a_stop_has_room_in_a_full_mailbox_and_the_shorter_grace_counts() {
        let mailbox = Mailbox::<u32>::default();
        let inbox = mailbox.inbox();
        while mailbox.send(0, 0).is_ok() {}
        for seconds in [5, 1, 9] {
            let code = crate::words::close::CloseCode::GOING_AWAY;
            mailbox.stop(StopRequest { code, grace: Duration::from_secs(seconds) });
        }
        assert_eq!(inbox.take_stop().unwrap().grace, Duration::from_secs(1));
        assert!(inbox.take_stop().is_none());
    }
}
