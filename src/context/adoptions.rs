//! Connections that somebody else has accepted, on their way to the loop that is to serve them.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::PoisonError;

use crate::context::commands::Refused;
use crate::structures::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};

/// Connections that may wait, as in the backlog of a listener.
const CONNECTIONS_MAX: usize = 1024;
/// Bytes that may have been read from them.
const BYTES_MAX: usize = 4 << 20;

/// A connection that somebody else has accepted.
pub(crate) struct Adopted {
    pub(crate) fd: OwnedFd,
    /// What was read from it.
    pub(crate) received: Vec<u8>,
    pub(crate) peer: SocketAddr,
    /// What the loop that accepted it has found out, if that was another one of this server.
    pub(crate) handed: Option<Handed>,
}

/// A connection that one loop hands to another: it is let in, and counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handed {
    /// Its listener, by number, and the address that it was made to, where that is known.
    pub(crate) listener: Option<usize>,
    pub(crate) local: Option<SocketAddr>,
    /// It counts for its client.
    pub(crate) counted: bool,
}

impl fmt::Debug for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adopted").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Those that wait until the loop has room for them. Any thread may add one.
#[derive(Default)]
pub(crate) struct Adoptions {
    /// How many wait: most turns have none, and look no further.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    connections: VecDeque<Adopted>,
    /// Bytes that they keep, as the allocator has them.
    bytes: usize,
    /// The loop is gone.
    closed: bool,
}

impl Adoptions {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, adopted: Adopted) -> Result<(), Refused> {
        self.push_if(adopted, |connections, bytes| {
            connections < CONNECTIONS_MAX && bytes <= BYTES_MAX
        })
    }

    /// The same of one that is counted elsewhere: the server's limits are its bounds.
    pub(crate) fn push_counted(&self, adopted: Adopted) -> Result<(), Refused> {
        self.push_if(adopted, |_, _| true)
    }

    fn push_if(
        &self,
        adopted: Adopted,
        has_room: impl FnOnce(usize, usize) -> bool,
    ) -> Result<(), Refused> {
        let mut queue = self.queue();
        let bytes = queue.bytes.saturating_add(adopted.received.capacity());
        if queue.closed {
            return Err(Refused::Stopped);
        }
        if !has_room(queue.connections.len(), bytes) {
            return Err(Refused::Full);
        }
        queue.bytes = bytes;
        queue.connections.push_back(adopted);
        self.waiting.store(queue.connections.len(), Ordering::Release);
        Ok(())
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn pop(&self) -> Option<Adopted> {
        if self.is_empty() {
            return None;
        }
        let mut queue = self.queue();
        let adopted = queue.connections.pop_front()?;
        queue.bytes = queue.bytes.saturating_sub(adopted.received.capacity());
        if queue.connections.is_empty() {
            queue.connections = VecDeque::new(); // what was needed once is not kept for ever
        }
        self.waiting.store(queue.connections.len(), Ordering::Release);
        Some(adopted)
    }

    /// Hangs up on those that wait, and takes no more.
    pub(crate) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        let rest = mem::take(&mut queue.connections);
        self.waiting.store(0, Ordering::Release);
        drop(queue); // before descriptors are closed
        drop(rest);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn adopted(received: Vec<u8>) -> (Adopted, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = SocketAddr::from(([192, 0, 2, 1], 1));
        (Adopted { fd: ours.into(), received, peer, handed: None }, theirs)
    }

    #[test]
    fn what_does_not_fit_is_hung_up_on_and_counts_no_more() {
        let adoptions = Adoptions::default();
        assert_eq!(adoptions.push(adopted(vec![0; BYTES_MAX]).0), Ok(()));
        let (too_much, mut theirs) = adopted(vec![0]);
        assert_eq!(adoptions.push(too_much), Err(Refused::Full));
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        assert_eq!(adoptions.pop().map(|it| it.received.len()), Some(BYTES_MAX));
        assert!(adoptions.is_empty() && adoptions.pop().is_none());
        let taken = (0..2 * CONNECTIONS_MAX)
            .filter(|_| adoptions.push(adopted(Vec::new()).0).is_ok())
            .count();
        assert_eq!(taken, CONNECTIONS_MAX);
    }

    #[test]
    fn the_end_of_the_loop_hangs_up_on_who_waits() {
        let adoptions = Adoptions::default();
        let (waiting, mut theirs) = adopted(Vec::new());
        assert_eq!(adoptions.push(waiting), Ok(()));
        adoptions.close();
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        assert_eq!(adoptions.push(adopted(Vec::new()).0), Err(Refused::Stopped));
        assert!(adoptions.is_empty());
    }
}
