//! The reader of a flow that is no session: a link to a broker, a serial port, another loop.

use std::fmt;
use std::rc::Rc;

use crate::flow::emission::{Emission, Origin};
use crate::flow::inner::{FlowInner, Flows, Member};
use crate::flow::subscription::{Filter, Subscription};
use crate::structures::ids::{ReaderId, SessionId};
use crate::words::message::Message;

/// What became of the messages of a [`Batch`].
///
/// ```
/// use std::fs::File;
/// use std::io::Write;
/// use wirewheel::ServerRef;
/// use wirewheel::flow::{Batch, Taken};
/// /// Writes a log of a room; for `ServerRef::read_flow`.
/// fn write(_server: &mut ServerRef<'_>, batch: &mut Batch<'_>, log: &mut File) -> Taken {
///     for offered in batch {
///         if writeln!(log, "{:?}", offered.message()).is_err() {
///             return Taken::Stop;
///         }
///     }
///     Taken::Yes
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All that the batch gave out. What it has not given out is offered again in the next turn; if it gave
    /// out nothing, this is [`Later`](Self::Later).
    Yes,
    /// All but the message that it gave out last, which is offered again, and all that follows, after
    /// [`ServerRef::read_on`](crate::ServerRef::read_on). Until then the reader lags, and the flow's
    /// [`BufferOverflow`](crate::flow::BufferOverflow) applies as for a slow session.
    Later,
    /// It reads no more: the flow is left, and the callback dropped.
    Stop,
}

/// Messages of a flow that are offered to a reader, up to 128 at a time: an iterator, from which as many
/// are taken as there is room for. What the reader itself has published is not among them.
///
/// ```
/// use wirewheel::ServerRef;
/// use wirewheel::flow::{Batch, Taken};
/// /// Gathers what one write can take.
/// fn gather(_server: &mut ServerRef<'_>, batch: &mut Batch<'_>, out: &mut Vec<u8>) -> Taken {
///     while let Some(key) = batch.next_removed() {
///         out.extend_from_slice(format!("{key} is no more\n").as_bytes());
///     }
///     for offered in batch {
///         if out.len() > 64 << 10 {
///             return Taken::Later; // this one is offered again
///         }
///         out.extend_from_slice(offered.message().bytes());
///     }
///     Taken::Yes
/// }
/// ```
pub struct Batch<'a> {
    reading: &'a mut Reading,
    left: usize,
    /// What was given out last, and is not gone past yet.
    given: Option<Given>,
    has_progress: bool,
    /// What it was asked for.
    asked_messages: bool,
    asked_removed: bool,
}

/// A message of a [`Batch`].
///
/// ```
/// use wirewheel::flow::Offered;
/// fn line(offered: &Offered) -> String {
///     let from = (offered.publisher(), offered.key());
///     format!("{from:?}: {:?}, {} missed before it", offered.message().text(), offered.missed())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Offered {
    emission: Emission,
    missed: u64,
}

/// A reader's place in its flow.
#[derive(Debug)]
pub(crate) struct Reading {
    id: ReaderId,
    subscription: Subscription,
    /// Messages that were missed before some that are no business of the reader.
    unreported: u64,
}

/// What to count once a message is gone past.
struct Given {
    number: u64,
    skipped: u64,
    own_dropped: u64,
}

/// Offered at a time: others have their turn between two batches.
const BATCH_MESSAGES: usize = 128;

impl Reading {
    pub(crate) fn new(id: ReaderId, flow: &Rc<FlowInner>, pool: &Rc<Flows>) -> Self {
        let subscription = Subscription::new(flow, Filter::All, pool, Member::Reader(id), None);
        Self { id, subscription, unreported: 0 }
    }

    pub(crate) fn batch(&mut self) -> Batch<'_> {
        Batch {
            reading: self,
            left: BATCH_MESSAGES,
            given: None,
            has_progress: false,
            asked_messages: false,
            asked_removed: false,
        }
    }

    /// The number of what it takes next.
    pub(crate) fn cursor(&self) -> u64 {
        self.subscription.cursor()
    }

    /// Whether there is something for it before that number; that messages are gone is something too, of
    /// which it would else hear with the next one, if there is one.
    pub(crate) fn has_before(&self, number: u64) -> bool {
        self.cursor() < number || self.subscription.flow().has_removed(self.id)
    }

    /// The same of messages alone.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn has_message_before(&self, number: u64) -> bool {
        self.subscription.is_before(number)
    }

    /// Goes past the message of that number: how many before it are gone.
    fn pass(&mut self, number: u64, own_dropped: u64) -> u64 {
        let gone = self.subscription.pass(number);
        let passed = self.subscription.cursor();
        self.subscription.flow().note_passed(self.id, passed, own_dropped);
        gone
    }

    /// How many messages have never come to the flow, but for those of which the reader has said so itself.
    fn skipped(&mut self) -> u64 {
        // Its other end knows of those: told again, it would count them twice.
        let own = self.subscription.flow().take_own_skipped(self.id);
        self.subscription.count_skipped(own);
        self.subscription.skipped()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // The subscription leaves after this, and may be what publishers waited for.
        self.subscription.flow().forget_reader(self.id);
    }
}

impl Batch<'_> {
    /// The next key that was removed since this was last asked, in flows that keep the newest of each; see
    /// [`SharedFlow::remove`](crate::flow::SharedFlow::remove). To be asked before the messages: one that
    /// was published anew is among them, and of one that this reader has brought anew nothing is told. A
    /// reader that asks for messages alone is not told of removals. For one that lags no more of them are
    /// kept than the flow's buffer has messages.
    pub fn next_removed(&mut self) -> Option<Rc<str>> {
        self.asked_removed = true;
        let key = self.reading.subscription.flow().take_removed(self.reading.id)?;
        self.has_progress = true;
        Some(key)
    }

    /// How many messages were missed behind the last that was offered, once there is no more: with the next
    /// one they would be told too, but that may never come.
    pub(crate) fn take_missed(&mut self) -> u64 {
        self.pass_given();
        if !self.pass_gone() {
            return 0; // what lies before the next message is told with it
        }
        let reading = &mut *self.reading;
        let flow = reading.subscription.flow();
        let missed = std::mem::take(&mut reading.unreported);
        let own_dropped = flow.own_dropped(reading.id).min(missed);
        flow.note_passed(reading.id, reading.subscription.cursor(), own_dropped);
        missed - own_dropped
    }

    /// Goes past the last ones that are gone themselves, removed before anybody came to them. False if
    /// something follows.
    fn pass_gone(&mut self) -> bool {
        let reading = &mut *self.reading;
        let end = reading.subscription.flow().end();
        if reading.subscription.is_before(end) {
            return false;
        }
        if reading.subscription.cursor() < end {
            reading.unreported += reading.subscription.missed_before(end);
            reading.subscription.pass_all(end);
            reading.subscription.flow().note_passed(reading.id, end, 0);
            self.has_progress = true;
        }
        true
    }

    /// Goes past the message that was given out last.
    fn pass_given(&mut self) {
        if let Some(given) = self.given.take() {
            self.reading.pass(given.number, given.own_dropped);
            self.reading.subscription.count_skipped(given.skipped);
            self.reading.unreported = 0;
            self.has_progress = true;
        }
    }

    /// After the reader has had it: how many messages were looked at, and what follows.
    pub(crate) fn end(mut self, taken: Taken) -> (usize, Taken) {
        if taken == Taken::Yes {
            self.pass_given();
            self.pass_gone();
            if !self.has_progress && self.asked_messages && !self.asked_removed {
                // It has nothing to do with what is left, which would be offered for ever or never again.
                self.reading.subscription.flow().forget_removed(self.reading.id);
                self.has_progress = true;
            }
        }
        let follows = match taken {
            // It would be offered the same again and again, and the loop never sleep.
            Taken::Yes if !self.has_progress => Taken::Later,
            other => other,
        };
        (BATCH_MESSAGES.saturating_sub(self.left), follows)
    }
}

impl Iterator for Batch<'_> {
    type Item = Offered;

    fn next(&mut self) -> Option<Offered> {
        self.asked_messages = true;
        // Who asks for the next one has taken the last.
        self.pass_given();
        while let Some(left) = self.left.checked_sub(1) {
            let reading = &mut *self.reading;
            let (number, emission) = reading.subscription.at(reading.subscription.cursor())?;
            self.left = left;
            // What it brought itself would go in circles between the two ends of a link.
            if emission.origin == Origin::Reader(reading.id) {
                reading.unreported += reading.pass(number, 0);
                self.has_progress = true;
                continue;
            }
            let skipped = reading.skipped();
            let gone = reading.unreported + reading.subscription.missed_before(number);
            // Where they lay between the others is not known: in the end as many are counted as were missed.
            let own_dropped = reading.subscription.flow().own_dropped(reading.id).min(gone);
            let missed = gone - own_dropped + skipped;
            self.given = Some(Given { number, skipped, own_dropped });
            return Some(Offered { emission, missed });
        }
        None
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Offered {
    /// The message.
    pub fn message(&self) -> Message<'_> {
        self.emission.message()
    }

    /// The key of which it is the newest value, in flows that keep these.
    pub fn key(&self) -> Option<&str> {
        self.emission.key.as_deref()
    }

    /// The session that published it, if one did.
    pub fn publisher(&self) -> Option<SessionId> {
        match self.emission.origin {
            Origin::Session(id) => Some(id),
            Origin::Application | Origin::Reader(_) => None,
        }
    }

    /// How many messages the reader has missed before this one, since the last that it took: dropped,
    /// replaced by newer ones of their keys, or [skipped](crate::flow::SharedFlow::skip).
    pub fn missed(&self) -> u64 {
        self.missed
    }
}
