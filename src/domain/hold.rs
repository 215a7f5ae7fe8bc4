//! Owns what a session has read and does not take yet, because reading is paused.

use crate::protocol::frame::{FrameHeader, FrameRules, OpCode, apply_mask};
use crate::words::time::Time;

/// A pause, and the bytes that arrived before it took hold: at most one read buffer.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    /// The application asked for it.
    paused: bool,
    /// Flows that wait for their slowest subscriber.
    suspended: u32,
    /// There is no token for a message before this time.
    until: Option<Time>,
    /// Reading was stopped, and with it pings; else only the rest of one read waits for others.
    pub(crate) stops_reading: bool,
    /// As they came from the socket, still masked.
    bytes: Vec<u8>,
    /// Bytes that were taken; the rest is held.
    taken: usize,
    /// Where the next frame header begins that was not looked at; `None` where that is not known.
    scanned: Option<usize>,
    /// The peer has shut its side behind what is held.
    pub(crate) peer_shut: bool,
}

/// A control frame that came while reading is paused.
pub(crate) struct HeldControl {
    pub(crate) opcode: OpCode,
    pub(crate) payload: Vec<u8>,
}

impl Hold {
    /// False if it is paused already.
    pub(super) fn pause(&mut self) -> bool {
        self.stops_reading = true;
        !std::mem::replace(&mut self.paused, true)
    }

    /// The application wants to be read for again.
    pub(super) fn unpause(&mut self) {
        self.paused = false;
    }

    /// One more flow wants it. (A flow lists a publisher as often as it suspends it.)
    pub(super) fn suspend(&mut self) {
        self.suspended = self.suspended.saturating_add(1);
        self.stops_reading = true;
    }

    /// The rate of messages wants it, up to this time.
    pub(crate) fn wait_until(&mut self, time: Time) {
        self.until = Some(time);
        self.stops_reading = true;
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
        self.paused = false;
        self.suspended = 0;
        self.until = None;
    }

    pub(crate) fn is_over(&self) -> bool {
        !self.paused && self.suspended == 0 && self.until.is_none()
    }

    /// Keeps bytes; `into_frame` is how many of them belong to a frame that has begun, if known.
    pub(crate) fn keep(&mut self, bytes: &[u8], into_frame: Option<usize>) {
        if self.held() == 0 {
            self.bytes = bytes.to_vec();
            self.taken = 0;
            self.scanned = into_frame;
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Gives the held bytes out to be taken; what is left of them comes back by `put_back`.
    pub(crate) fn take(&mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.bytes), std::mem::take(&mut self.taken))
    }

    pub(crate) fn put_back(&mut self, bytes: Vec<u8>, taken: usize, into_frame: Option<usize>) {
        if taken < bytes.len() {
            self.scanned = into_frame.map(|rest| taken + rest);
            (self.bytes, self.taken) = (bytes, taken);
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.bytes.len() - self.taken
    }

    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }

    /// Takes the next ping or pong out of what is held, wherever it stands between the frames: a
    /// paused session still answers. Data frames and a Close stay in their order; what is behind a
    /// Close or a fault is not looked at.
    pub(crate) fn next_control(&mut self, rules: &FrameRules) -> Option<HeldControl> {
        loop {
            let at = self.scanned?;
            let Ok(header) = FrameHeader::read(self.bytes.get(at..)?, rules) else {
                self.scanned = None; // said when its turn comes
                return None;
            };
            let header = header?;
            let end = at.checked_add(header.header_len)?.checked_add(header.payload_len)?;
            match header.opcode {
                OpCode::Close => {
                    self.scanned = None;
                    return None;
                }
                OpCode::Ping | OpCode::Pong => {
                    let mut payload = self.bytes.get(at + header.header_len..end)?.to_vec();
                    apply_mask(&mut payload, header.mask, 0);
                    self.bytes.drain(at..end);
                    return Some(HeldControl { opcode: header.opcode, payload });
                }
                OpCode::Continuation | OpCode::Text | OpCode::Binary => self.scanned = Some(end),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: FrameRules = FrameRules {
        max_frame_size: 1_000,
        max_message_size: 1_000,
        max_fragments: 10,
        accept_unmasked: false,
        allowed_rsv: 0,
        claimed_rsv: 0,
    };

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = 0x80 | u8::try_from(payload.len()).unwrap();
        let mut frame = vec![first, length, 1, 2, 3, 4];
        frame.extend_from_slice(payload);
        apply_mask(&mut frame[6..], [1, 2, 3, 4], 0);
        frame
    }

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
            let mut hold = Hold::default();
            let mut pings = Vec::new();
            for piece in stream.chunks(size) {
                hold.keep(piece, Some(0));
                while let Some(control) = hold.next_control(&RULES) {
                    pings.push(String::from_utf8(control.payload).unwrap());
                }
            }
            assert_eq!(pings, ["ping 1", "ping 2"], "in pieces of {size}");
            assert_eq!(hold.take().0, left);
        }
    }

    #[test]
    fn it_is_over_when_nobody_wants_it_any_more() {
        let mut hold = Hold::default();
        assert!(hold.pause() && !hold.pause());
        hold.suspend();
        hold.unpause();
        assert!(!hold.is_over());
        hold.flow_goes_on();
        assert!(hold.is_over());
    }
}
