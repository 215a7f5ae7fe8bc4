//! The flows that one session collects, and the order of their messages with those that are sent to it
//! directly.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::structures::outbox::{ends_message, is_whole_message};
use crate::structures::roster::Roster;
use crate::words::message_buf::MessageBuf;

use crate::flow::inner::FlowInner;
use crate::flow::subscription::Subscription;
use crate::session::message_stream::OutgoingStream;

/// A direct message behind flow messages that were not taken yet.
#[derive(Debug)]
pub(crate) enum Direct {
    /// As it goes out.
    Frames(Vec<u8>),
    /// For a session with extensions, which encode in the order in which is written.
    Message(MessageBuf),
    /// Of others too, as it goes out.
    Shared(Rc<[u8]>),
    /// For an event stream, as it goes out.
    Event(Vec<u8>),
    /// The end of an event stream.
    End,
    /// A piece of a message, which is encoded in the order in which is written too.
    Piece { message: MessageBuf, first: bool, last: bool },
    /// A message that is made while it is sent. It goes out piece by piece, from here.
    Stream(Box<dyn OutgoingStream>),
}

impl Direct {
    fn len(&self) -> usize {
        match self {
            Self::Frames(frames) | Self::Event(frames) => frames.len(),
            Self::Shared(frames) => frames.len(),
            Self::Message(message) | Self::Piece { message, .. } => {
                message.as_message().bytes().len()
            }
            Self::End => 0,
            Self::Stream(_) => 1, // how long it will be nobody knows, but something waits
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Frames(frames) | Self::Event(frames) => frames.capacity(),
            Self::Message(_) | Self::Shared(_) | Self::Piece { .. } | Self::End => self.len(),
            Self::Stream(stream) => size_of_val(&**stream),
        }
    }

    /// Of the first frame, where it is frames.
    fn opcode_bits(&self) -> Option<u8> {
        match self {
            Self::Frames(frames) => Some(frames.first().map_or(0, |first| first & 0x0f)),
            Self::Message(_)
            | Self::Shared(_)
            | Self::Event(_)
            | Self::End
            | Self::Piece { .. }
            | Self::Stream(_) => None,
        }
    }

    /// Whether it is the rest of a message.
    pub(crate) fn continues(&self) -> bool {
        match self {
            Self::Piece { first, .. } => !first,
            Self::Stream(stream) => stream.has_begun(),
            _ => self.opcode_bits() == Some(0),
        }
    }

    /// Whether it is a message from its start to its end.
    fn is_whole_message(&self) -> bool {
        match self {
            Self::Frames(frames) => is_whole_message(frames),
            Self::Message(_) | Self::Shared(_) | Self::Event(_) => true,
            Self::End | Self::Piece { .. } | Self::Stream(_) => false,
        }
    }

    /// Whether it is a message, or the last part of one.
    pub(crate) fn ends_message(&self) -> bool {
        match self {
            Self::Frames(frames) => ends_message(frames),
            Self::Message(_) | Self::Shared(_) | Self::Event(_) | Self::Stream(_) => true,
            Self::Piece { last, .. } => *last,
            Self::End => false,
        }
    }

    pub(crate) fn is_close(&self) -> bool {
        matches!(self, Self::End) || self.opcode_bits() == Some(8)
    }
}

/// The flows of a session. Absent in a session that collects none.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) subscriptions: Vec<Subscription>,
    /// With their stamps.
    direct: VecDeque<(u64, Direct)>,
    direct_bytes: usize,
    /// Bytes of messages among them that others get too, and that the socket was not offered: they are there
    /// once, and are no reason to end anybody, as in the outbox.
    unoffered: usize,
    /// Streams among them.
    pub(crate) streams: u32,
    /// One was asked for its first piece, and is not whole.
    pub(crate) is_within_stream: bool,
    /// Something was refused because of one: whoever sent it waits to be told that there is room.
    pub(crate) has_refused: bool,
    /// Flow messages that were dropped or replaced before this session had taken them, as far as it
    /// has come past them.
    pub(crate) missed: u64,
}

/// What comes next in the order in which everything was sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Direct,
    /// Of the subscription of that number, as long as the stamps stay below `before`.
    Flow {
        subscription: usize,
        before: u64,
    },
}

impl Collected {
    /// While a message is on its way in fragments (`fragments_open`), no other may come between.
    pub(crate) fn next(&self, fragments_open: bool) -> Option<Next> {
        match self.direct.front() {
            // Also where its last fragment waits here already, and a replay is older than all.
            Some((_, direct)) if direct.continues() => return Some(Next::Direct),
            // The message that is open will never end: nothing but the Close can follow.
            Some((_, direct)) if fragments_open && direct.is_close() => return Some(Next::Direct),
            None if fragments_open => return None,
            _ => {}
        }
        // The lowest stamp is first; `before` is the second lowest, up to which its flow may go on.
        let mut first: Option<(u64, Next)> = None;
        let mut before = u64::MAX;
        let direct = self.direct.front().map(|(stamp, _)| (*stamp, Next::Direct));
        let flows = self.subscriptions.iter().enumerate().filter_map(|(number, of)| {
            let stamp = of.next_stamp()?;
            Some((stamp, Next::Flow { subscription: number, before: 0 }))
        });
        for (stamp, next) in flows.chain(direct) {
            match &first {
                Some((lowest, _)) if *lowest <= stamp => before = before.min(stamp),
                Some((lowest, _)) => {
                    before = before.min(*lowest);
                    first = Some((stamp, next));
                }
                None => first = Some((stamp, next)),
            }
        }
        first.map(|(_, next)| match next {
            Next::Direct => Next::Direct,
            // Two flows may share a stamp only before any server had either: then both are first.
            Next::Flow { subscription, .. } => Next::Flow { subscription, before: before.max(1) },
        })
    }

    /// The cursor of its first subscription.
    pub(crate) fn first_cursor(&self) -> Option<u64> {
        self.subscriptions.first().map(Subscription::cursor)
    }

    /// Its one subscription, if it has one and nothing beside.
    #[inline]
    pub(crate) fn only_subscription(&mut self) -> Option<&mut Subscription> {
        match (self.subscriptions.as_mut_slice(), self.direct.is_empty()) {
            ([only], true) => Some(only),
            _ => None,
        }
    }

    /// The stamp of the direct message that came last.
    pub(crate) fn last_direct_stamp(&self) -> Option<u64> {
        self.direct.back().map(|(stamp, _)| *stamp)
    }

    /// Whether a direct message of that stamp would come behind something.
    pub(crate) fn is_behind(&self, stamp: u64) -> bool {
        let is_before = |first: u64| first < stamp;
        self.holds_direct()
            || self.subscriptions.iter().any(|of| of.next_stamp().is_some_and(is_before))
    }

    pub(crate) fn holds_direct(&self) -> bool {
        !self.direct.is_empty()
    }

    pub(crate) fn push_direct(&mut self, stamp: u64, direct: Direct) {
        self.direct_bytes += direct.len();
        self.streams += u32::from(matches!(direct, Direct::Stream(_)));
        self.direct.push_back((stamp, direct));
    }

    /// The same for a message that others get too, before the socket was offered anything.
    pub(crate) fn push_unoffered(&mut self, stamp: u64, direct: Direct) {
        self.unoffered += direct.memory();
        self.push_direct(stamp, direct);
    }

    /// The socket is offered all: what it does not take is held for this session.
    pub(crate) fn note_offered(&mut self) {
        self.unoffered = 0;
    }

    /// Puts a stream back of which there is more.
    pub(crate) fn go_on_with(&mut self, stamp: u64, stream: Box<dyn OutgoingStream>) {
        let direct = Direct::Stream(stream);
        self.direct_bytes += direct.len();
        self.streams += 1;
        self.direct.push_front((stamp, direct));
    }

    /// Whether nothing is collected, and nothing waits.
    pub(crate) fn is_unused(&self) -> bool {
        self.subscriptions.is_empty() && self.direct.is_empty()
    }

    /// The next direct message, with its stamp.
    pub(crate) fn pop_direct(&mut self) -> Option<(u64, Direct)> {
        let (stamp, direct) = self.direct.pop_front()?;
        self.note_offered();
        self.direct_bytes -= direct.len();
        self.streams -= u32::from(matches!(direct, Direct::Stream(_)));
        Some((stamp, direct))
    }

    /// Where the direct messages stand that are whole, from the oldest, and their lengths.
    pub(crate) fn droppable(&self) -> impl Iterator<Item = (usize, usize)> {
        let whole = self.direct.iter().enumerate().filter(|(_, (_, it))| it.is_whole_message());
        whole.map(|(place, (_, direct))| (place, direct.len()))
    }

    /// Drops the oldest direct message that is whole; false if there is none.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let Some((place, bytes)) = self.droppable().next() else { return false };
        self.direct_bytes -= bytes;
        self.note_offered(); // the bytes may have been among those
        self.direct.remove(place).is_some()
    }

    pub(crate) fn direct_messages(&self) -> usize {
        self.direct.len()
    }

    pub(crate) fn direct_bytes(&self) -> usize {
        self.direct_bytes
    }

    /// All messages that were missed, also those that the cursors have yet to come past.
    pub(crate) fn missed_in_all(&self) -> u64 {
        self.missed + self.subscriptions.iter().map(Subscription::missed_since).sum::<u64>()
    }

    /// Where the session stands in a flow.
    pub(crate) fn cursor_in(&self, flow: &Rc<FlowInner>) -> Option<u64> {
        self.subscriptions.iter().find(|of| of.is_of(flow)).map(Subscription::cursor)
    }

    /// Whether there is something before `number` of a flow that it has not taken.
    pub(crate) fn is_before(&self, flow: &Rc<FlowInner>, number: u64) -> bool {
        self.subscriptions.iter().any(|of| of.is_of(flow) && of.is_before(number))
    }

    /// Messages published before the direct one of that stamp that can be sent no more.
    pub(crate) fn undelivered(&self, before: u64) -> u64 {
        self.subscriptions.iter().map(|of| of.undelivered(before)).sum()
    }

    /// Bytes held beyond the flows' own.
    pub(crate) fn memory(&self) -> usize {
        // The messages are the flows', and are counted there once, however many sessions collect them.
        size_of::<Self>()
            + self.subscriptions.capacity() * (size_of::<Subscription>() + Roster::MEMBER_BYTES)
            + self.direct.capacity() * size_of::<(u64, Direct)>()
            + self.direct.iter().map(|(_, direct)| direct.memory()).sum::<usize>()
            - self.unoffered
    }
}
