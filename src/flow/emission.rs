//! One message of a flow: its frame, the other encodings that were made of it, and what it
//! costs to keep.

use std::iter;
use std::rc::Rc;

use crate::protocol::frame::{HEADER_BYTES_MAX, OpCode, write_header};
use crate::protocol::text::checked_text;
use crate::structures::footprint::footprint;
use crate::words::message::{Message, Payload};

use crate::structures::ids::{ReaderId, SessionId};

/// The counters before the bytes of an `Rc`.
const RC_BYTES: usize = 2 * size_of::<usize>();
/// What an encoding costs beside its bytes: its place in two lists that may be half empty.
const ENCODING_BYTES: usize = 2 * (size_of::<(u64, Rc<[u8]>)>() + size_of::<u64>());
/// What a key costs beside its bytes: its place in a hash table, which is two thirds full on average.
const KEY_BYTES: usize = (size_of::<(Rc<str>, u64)>() + 1) * 3 / 2;

/// Who published a message, and may want all but its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The application.
    Application,
    Session(SessionId),
    Reader(ReaderId),
}

/// One message of a log.
#[derive(Clone, Debug)]
pub(crate) struct Emission {
    /// Its place among all that this server sends.
    pub(crate) stamp: u64,
    pub(crate) origin: Origin,
    /// Only in flows that keep the newest of each.
    pub(crate) key: Option<Rc<str>>,
    text: bool,
    may_compress: bool,
    header_len: u8,
    /// The whole message as one unmasked frame.
    pub(crate) frame: Rc<[u8]>,
    /// The same in other encodings, each for the sessions of one share key. Made when first asked
    /// for.
    encodings: Option<Rc<Encodings>>,
}

/// By share keys. The first lies apart: mostly it is the only one, and every delivery looks for it.
#[derive(Clone, Debug)]
struct Encodings {
    first: (u64, Rc<[u8]>),
    others: Vec<(u64, Rc<[u8]>)>,
}

/// One allocation of the right size, however many will share it.
fn joined(header: &[u8], payload: &[u8]) -> Rc<[u8]> {
    // Filled and copied over: taken byte by byte from a chain of both, a byte costs 20 instructions.
    let mut joined: Rc<[u8]> =
        iter::repeat_n(0, header.len().saturating_add(payload.len())).collect();
    let bytes = Rc::get_mut(&mut joined).unwrap_or_default();
    let (start, end) = bytes.split_at_mut(header.len().min(bytes.len()));
    start.copy_from_slice(header);
    end.copy_from_slice(payload);
    joined
}

impl Emission {
    pub(crate) fn new(message: Message<'_>, key: Option<&str>, origin: Origin) -> Self {
        let text = matches!(message.payload(), Payload::Text(_));
        let opcode = if text { OpCode::Text } else { OpCode::Binary };
        let payload = message.bytes();
        // RFC 6455 section 5.1: a server masks nothing, so one frame serves every session.
        let mut header = Vec::with_capacity(HEADER_BYTES_MAX);
        write_header(&mut header, true, opcode, payload.len(), None);
        let frame = joined(&header, payload);
        let header_len = header.len().try_into().unwrap_or_default();
        let key = key.map(Into::into);
        let may_compress = message.may_compress();
        Self { stamp: 0, origin, key, text, may_compress, header_len, frame, encodings: None }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        self.frame.get(usize::from(self.header_len)..).unwrap_or_default()
    }

    /// The message again, for a filter to look at.
    pub(crate) fn message(&self) -> Message<'_> {
        let text = if self.text { checked_text(self.payload()).ok() } else { None };
        let message: Message<'_> = text.map_or_else(|| self.payload().into(), Into::into);
        message.compressed(self.may_compress)
    }

    /// What frame and key take, beside the entry of the log.
    pub(crate) fn bytes(&self) -> usize {
        let key = self.key.as_deref().map_or(0, |key| footprint(key.len() + RC_BYTES) + KEY_BYTES);
        footprint(self.frame.len() + RC_BYTES) + key
    }

    /// Its encoding for sessions of a share key, if one was made.
    #[inline]
    pub(crate) fn encoded_for(&self, key: u64) -> Option<Rc<[u8]>> {
        let Encodings { first: (first, frames), others } = self.encodings.as_deref()?;
        if *first == key {
            return Some(Rc::clone(frames));
        }
        others.iter().find(|(known, _)| *known == key).map(|(_, frames)| Rc::clone(frames))
    }

    /// What keeping an encoding takes.
    pub(crate) fn encoding_bytes(frames: &[u8]) -> usize {
        footprint(frames.len() + RC_BYTES) + ENCODING_BYTES
    }

    /// How many encodings were made of it and are kept.
    pub(crate) fn encodings(&self) -> usize {
        self.encodings.as_deref().map_or(0, |encodings| encodings.others.len().saturating_add(1))
    }

    /// True if it is the first.
    pub(crate) fn keep_encoding(&mut self, key: u64, frames: &Rc<[u8]>) -> bool {
        let encoding = (key, Rc::clone(frames));
        // Whoever looks at the message meanwhile has what there was.
        if let Some(encodings) = &mut self.encodings {
            Rc::make_mut(encodings).others.push(encoding);
            return false;
        }
        self.encodings = Some(Rc::new(Encodings { first: encoding, others: Vec::new() }));
        true
    }

    /// Gives its encodings up, which can be made again: what they took.
    pub(crate) fn drop_encodings(&mut self) -> usize {
        let Some(encodings) = self.encodings.take() else { return 0 };
        let Encodings { first, others } = &*encodings;
        let bytes = |(_, frames): &(u64, Rc<[u8]>)| Self::encoding_bytes(frames);
        bytes(first).saturating_add(others.iter().map(bytes).sum())
    }
}
