//! The pause of reading from one peer, and the input that was read before it took effect.

use crate::protocol::frame::{FrameHeader, FrameRules, OpCode, apply_mask};
use crate::structures::byte_queue::ByteQueue;
use crate::words::time::Time;

/// A pause, and the bytes that arrived before it took effect: at most one read buffer waits.
#[derive(Debug, Default)]
pub(crate) struct ReadPause {
    /// The application asked for it.
    paused: bool,
    /// Flows that wait for their slowest subscriber.
    suspended: u32,
    /// There is no token for a message before this time.
    until: Option<Time>,
    /// Since when reading is stopped; `None` where only the rest of one read waits for others.
    since: Option<Time>,
    input: UnreadInput,
    /// When the peer was found to have ended its side, or bytes of it were last taken after that.
    peer_ended: Option<Time>,
    /// That end was read: nothing comes behind what is held.
    pub(crate) read_end: Option<ReadEnd>,
}

/// How a peer's side ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadEnd {
    Shut,
    /// Over TLS, without a close_notify: there may have been more (RFC 8446 section 6.1).
    #[cfg(feature = "tls")]
    Truncated,
}

/// What was read and not taken.
#[derive(Debug, Default)]
pub(crate) struct UnreadInput {
    /// As they came from the socket, still masked.
    bytes: ByteQueue,
    scan: Scan,
    /// Bytes of control frames in front of the place that the scan has come to, which were taken.
    gap: usize,
}

/// How far control frames were looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Scan {
    /// Where the next frame begins is not known.
    #[default]
    Lost,
    /// Here begins the next frame, or will when it arrives.
    At(usize),
    /// Behind a Close or a fault nothing is looked for.
    Over,
}

/// A control frame that came while reading is paused.
pub(crate) struct UnreadControl {
    pub(crate) opcode: OpCode,
    pub(crate) payload: Vec<u8>,
}

/// Who wants the pause.
impl ReadPause {
    /// False if it is paused already.
    pub(crate) fn pause(&mut self, now: Time) -> bool {
        // `pause_timeout` counts from the first of all reasons on.
        self.since.get_or_insert(now);
        !std::mem::replace(&mut self.paused, true)
    }

    /// The application wants to be read for again.
    pub(crate) fn unpause(&mut self) {
        self.paused = false;
    }

    /// One more flow wants it. (A flow lists a publisher as often as it suspends it.)
    pub(crate) fn suspend(&mut self, now: Time) {
        self.suspended = self.suspended.saturating_add(1);
        self.since.get_or_insert(now);
    }

    /// The rate of messages wants it, up to this time.
    pub(crate) fn wait_until(&mut self, now: Time, time: Time) {
        self.until = Some(time);
        self.since.get_or_insert(now);
    }

    pub(crate) fn until(&self) -> Option<Time> {
        self.until
    }

    /// True if it waited for a time that has come.
    pub(crate) fn time_has_come(&mut self, now: Time) -> bool {
        self.until.take_if(|until| *until <= now).is_some()
    }

    pub(crate) fn flow_goes_on(&mut self) {
        self.suspended = self.suspended.saturating_sub(1);
    }

    /// Nothing is waited for any more: a closing session is read, and what comes is dropped.
    pub(crate) fn lift(&mut self) {
        // Publishers that flows still list are counted down to zero and not below it.
        self.paused = false;
        self.suspended = 0;
        self.until = None;
    }

    pub(crate) fn is_over(&self) -> bool {
        !self.paused && self.suspended == 0 && self.until.is_none()
    }

    /// Since when the session is not read: what it takes, it takes in turns of its own.
    pub(crate) fn since(&self) -> Option<Time> {
        self.since
    }
}

/// The peer's end behind what is held.
impl ReadPause {
    pub(crate) fn note_peer_end(&mut self, now: Time) {
        self.peer_ended.get_or_insert(now);
    }

    pub(crate) fn peer_ended(&self) -> Option<Time> {
        self.peer_ended
    }
}

/// The bytes.
impl ReadPause {
    /// Keeps bytes; `into_frame` is how many of them belong to a frame that has begun, if known.
    pub(crate) fn keep(&mut self, bytes: &[u8], into_frame: Option<usize>) {
        // Behind bytes that wait already the scan knows where it stands.
        if self.held() == 0 {
            self.input.scan = into_frame.map_or(Scan::Lost, Scan::At);
        }
        self.input.bytes.push(bytes);
    }

    /// Gives the held bytes out to be taken; what is left of them comes back by `put_back`.
    pub(crate) fn take(&mut self) -> UnreadInput {
        let mut input = std::mem::take(&mut self.input);
        // A hook for a pong may have ended the search behind it.
        if let Scan::At(at) = input.scan {
            input.looked_through(at, Scan::At(at));
        }
        input
    }

    pub(crate) fn put_back(&mut self, input: UnreadInput) {
        self.input = input;
    }

    pub(crate) fn held(&self) -> usize {
        self.input.bytes.len()
    }

    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.input.bytes.capacity()
    }

    /// Takes the next ping or pong out of what is held, wherever it stands between the frames: a
    /// paused session still answers. Data frames and a Close stay in their order; what is behind a
    /// Close or a fault is not looked at. To be called until there is none.
    pub(crate) fn next_control(&mut self, rules: &FrameRules) -> Option<UnreadControl> {
        self.input.next_control(rules)
    }
}

impl UnreadInput {
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.as_mut_slice()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes from the front were taken; the next frame begins `into_frame` behind them, if known.
    pub(crate) fn consume(&mut self, count: usize, into_frame: Option<usize>) {
        // Dropped in place: the buffer shrinks by powers of two, so that the heap does not fill with holes.
        self.bytes.consume(count);
        // What was looked through once is not looked through again for each message.
        self.scan = match self.scan {
            Scan::At(at) if at >= count => Scan::At(at - count),
            Scan::Over => Scan::Over,
            Scan::At(_) | Scan::Lost => into_frame.map_or(Scan::Lost, Scan::At),
        };
    }

    fn next_control(&mut self, rules: &FrameRules) -> Option<UnreadControl> {
        let Scan::At(mut at) = self.scan else { return None };
        loop {
            let rest = self.bytes.as_slice().get(at + self.gap..).unwrap_or_default();
            let header = match FrameHeader::read(rest, rules) {
                Ok(Some(header)) if header.opcode != OpCode::Close => header,
                Ok(None) => return self.looked_through(at, Scan::At(at)),
                // RFC 6455 section 5.5.1: nothing counts that comes behind a Close.
                // What is wrong with it is said when its turn comes.
                Ok(Some(_)) | Err(_) => return self.looked_through(at, Scan::Over),
            };
            let end = header.header_len.saturating_add(header.payload_len);
            // RFC 6455 section 5.5.2: a ping is answered as soon as is practical, so not behind the pause.
            if header.opcode.is_control() {
                let Some(payload) = rest.get(header.header_len..end) else {
                    return self.looked_through(at, Scan::At(at));
                };
                let mut payload = payload.to_vec();
                apply_mask(&mut payload, header.mask, 0);
                self.gap += end;
                self.scan = Scan::At(at);
                return Some(UnreadControl { opcode: header.opcode, payload });
            }
            if end > rest.len() {
                return self.looked_through(at, Scan::At(at.saturating_add(end)));
            }
            // The data frame closes up over the control frames that were taken from before it.
            if self.gap > 0 {
                self.bytes.move_forward(at + self.gap, end, at);
            }
            at += end;
        }
    }

    /// Takes out what was taken, once for all of it: a flood of pings costs what its bytes cost.
    fn looked_through(&mut self, at: usize, scan: Scan) -> Option<UnreadControl> {
        if self.gap > 0 {
            self.bytes.remove(at, std::mem::take(&mut self.gap));
        }
        self.scan = scan;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame::Masking;
    use crate::testing::frames::masked;

    const RULES: FrameRules = FrameRules {
        max_frame_size: 1_000,
        max_coded_frame_size: 1_000,
        max_message_size: 1_000,
        max_fragments: 10,
        masking: Masking::Required,
        allowed_rsv: 0,
        claimed_rsv: 0,
    };

    #[test]
    fn pings_are_taken_out_from_between_data_in_any_pieces() {
        let stream = [
            masked(0x81, b"one"),
            masked(0x89, b"ping 1"),
            masked(0x01, b"two"),
            masked(0x89, b"ping 2"),
            masked(0x80, b"three"),
            masked(0x88, b"\x03\xe8"),
            masked(0x89, b"behind the Close"),
        ]
        .concat();
        let left = [
            masked(0x81, b"one"),
            masked(0x01, b"two"),
            masked(0x80, b"three"),
            masked(0x88, b"\x03\xe8"),
            masked(0x89, b"behind the Close"),
        ]
        .concat();
        for size in 1..stream.len() {
            let mut pause = ReadPause::default();
            let mut pings = Vec::new();
            for piece in stream.chunks(size) {
                pause.keep(piece, Some(0));
                while let Some(control) = pause.next_control(&RULES) {
                    pings.push(String::from_utf8(control.payload).unwrap());
                }
            }
            assert_eq!(pings, ["ping 1", "ping 2"], "in pieces of {size}");
            assert_eq!(pause.take().as_mut_slice(), left);
        }
    }

    /// However much is taken one message at a time while as much comes.
    #[test]
    fn what_was_taken_is_given_back_and_pings_behind_it_are_still_found() {
        let mut pause = ReadPause::default();
        let (text, ping) = (masked(0x81, b"one"), masked(0x89, b"?"));
        pause.keep(&text.repeat(100), Some(0));
        for round in 0..10_000 {
            assert!(pause.next_control(&RULES).is_none(), "in round {round}");
            let mut input = pause.take();
            assert!(input.as_mut_slice().starts_with(&text));
            input.consume(text.len(), Some(0));
            pause.put_back(input);
            pause.keep(&[&ping[..], &text].concat(), None);
            assert_eq!(pause.next_control(&RULES).unwrap().payload, b"?");
            assert!(pause.memory() <= 8_000, "{} held in round {round}", pause.memory());
        }
        assert_eq!(pause.held(), 100 * text.len() + ping.len(), "the gap is closed at the end");
        assert!(pause.next_control(&RULES).is_none());
        assert_eq!(pause.take().as_mut_slice(), text.repeat(100));
    }

    #[test]
    fn it_is_over_when_nobody_wants_it_any_more() {
        let mut pause = ReadPause::default();
        assert!(pause.pause(Time::ZERO) && !pause.pause(Time::ZERO));
        pause.suspend(Time::ZERO);
        pause.unpause();
        assert!(!pause.is_over());
        pause.flow_goes_on();
        assert!(pause.is_over());
    }
}
