//! A loop whose memory is spent, and what other loops send it.

use super::*;
use crate::context::mailbox::{Inbox, Mailbox};
use crate::flow::inner::{Flows, Member};
use crate::flow::options::FlowOptions;
use crate::structures::slab::Key;
use crate::words::message_buf::MessageBuf;

/// The memory of a loop.
const BYTES: usize = 3_000;

/// A flow of two loops on the first one, whose memory is spent but for one small message.
struct Full {
    flow: Rc<FlowInner>,
    pool: Rc<Flows>,
    bridge: Rc<Bridge<()>>,
    other: Inbox<()>,
    count: u64,
}

impl Full {
    fn new(policy: BufferOverflow) -> Self {
        let mailboxes = vec![Mailbox::default(), Mailbox::default()];
        let other = mailboxes[1].inbox();
        let places = Place::all(mailboxes);
        let options = FlowOptions::new().extra_buffer(9).max_bytes(BYTES);
        let options = options.on_buffer_overflow(policy);
        let flow = Rc::new(FlowInner::new(options));
        let bridge = Bridges::default().add(&"flow".into(), 1, &flow, places.first()).unwrap();
        let (pool, reader) = (Rc::new(Flows::new(BYTES)), Key { index: 0, generation: 0 });
        flow.join(&pool, Member::Reader(ReaderId(reader)), None);
        bridge.read_by(ReaderId(reader));
        let mut full = Self { flow, pool, bridge, other, count: 0 };
        assert!(full.publish(10));
        full.pool.account(0, full.pool.room() - 400);
        full
    }

    fn publish(&mut self, bytes: usize) -> bool {
        let emitted = self.flow.emit("x".repeat(bytes).as_str(), None, Origin::Application);
        self.count += u64::from(emitted.is_ok());
        emitted.is_ok()
    }

    /// The other loop has sent what there is no room for: whether it is published, and answered.
    fn receive(&self) -> bool {
        let message = MessageBuf::from("y".repeat(600));
        let sent = Bridged::Message { message, key: None, missed: 0 };
        self.bridge.receive(1, 1, [sent].into());
        self.is_done()
    }

    fn is_done(&self) -> bool {
        // The reader of this loop has sent nothing yet.
        let waits = self.bridge.publish(0);
        let is_done = self
            .other
            .take_parcels()
            .iter()
            .any(|parcel| matches!(parcel.content, Content::Done(1, _)));
        assert_eq!(is_done, !waits);
        is_done
    }
}

/// Both loops may be so, and each wait for the other.
#[test]
fn what_comes_does_not_wait_for_what_waits_here_for_other_loops() {
    let full = Full::new(BufferOverflow::Suspend);
    assert!(full.receive());
    assert_eq!((full.flow.end(), full.flow.skipped()), (full.count + 1, 0), "it is lost");
    assert!(full.flow.beyond_limits() > 600 && full.pool.bytes() > BYTES);
}

/// Else what other loops have accepted might never come, while they keep more and more of what this one
/// sends.
#[test]
fn what_waits_for_those_who_collect_comes_before_what_is_new() {
    let mut full = Full::new(BufferOverflow::Suspend);
    let session = full.flow.join(&full.pool, Member::Session(0), Some(full.flow.end()));
    assert!(full.publish(10));
    assert!(!full.receive(), "somebody has not taken all");
    assert!(!full.publish(10) && !full.is_done());
    full.flow.advance(session.cursor, full.flow.end());
    assert!(full.is_done());
    assert!(full.flow.beyond_limits() > 600);
    assert_eq!(full.flow.skipped(), 0);
}

#[test]
fn what_may_be_dropped_is_dropped_and_counted() {
    let full = Full::new(BufferOverflow::DropOldest);
    assert!(full.receive());
    assert_eq!((full.flow.end(), full.flow.skipped()), (full.count, 1));
    assert!(full.pool.bytes() <= BYTES);
}
