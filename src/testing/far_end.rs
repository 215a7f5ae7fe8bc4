//! The far end of a link that speaks WebSocket: frames out of bytes, and what a well-behaved
//! client does of its own.

use std::collections::VecDeque;

use super::frames::{masked, unmasked};

/// A client that is connected, from the upgrade on.
#[derive(Debug)]
pub(crate) struct FarEnd {
    frames: VecDeque<RawFrame>,
    /// Pings are answered and not shown.
    pub(crate) answers_pings: bool,
    /// A Close is answered, and the server's hang-up with one's own.
    pub(crate) answers_close: bool,
    /// A Close was sent: there is no second one.
    pub(crate) close_sent: bool,
    hung_up: bool,
    /// It is a server: its frames have no mask.
    pub(crate) is_server: bool,
    /// What no correct client sends, if it came.
    pub(crate) violation: Option<&'static str>,
}

/// What a far end does of its own.
#[derive(Debug, Default)]
pub(crate) struct Reaction {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hangs_up: bool,
}

/// A frame from the server as it came: its first byte (FIN, reserved bits, opcode), and the payload
/// without a mask.
///
/// ```
/// use wirewheel::testing::{RawFrame, TestClient};
/// fn is_compressed(client: &mut TestClient) -> bool {
///     let frame: RawFrame = client.receive_frame().expect("a frame has arrived");
///     frame.first & 0x40 != 0 && !frame.payload.is_empty() // RSV1
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// FIN, RSV1 to RSV3 and the opcode (RFC 6455 section 5.2).
    pub first: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl RawFrame {
    pub(crate) const CLOSE: u8 = 0x88;
    pub(crate) const PING: u8 = 0x89;
    pub(crate) const PONG: u8 = 0x8a;

    /// The frame at the start of `bytes`, and how long it is there.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let &[first, second, ref rest @ ..] = bytes else { return None };
        let (len, extended) = match (second & 127, rest) {
            (126, &[a, b, ..]) => (usize::from(u16::from_be_bytes([a, b])), 2),
            (127, &[a, b, c, d, e, f, g, h, ..]) => {
                let len = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                (usize::try_from(len).ok()?, 8)
            }
            (126 | 127, _) => return None,
            (short, _) => (usize::from(short), 0),
        };
        let mask_len = if second & 0x80 == 0 { 0 } else { 4 };
        let start: usize = extended + mask_len;
        let mut payload = rest.get(start..start.checked_add(len)?)?.to_vec();
        if let Some(&[a, b, c, d]) = rest.get(extended..start) {
            let mask = [a, b, c, d].into_iter().cycle();
            payload.iter_mut().zip(mask).for_each(|(byte, key)| *byte ^= key);
        }
        Some((Self { first, payload }, 2 + start + len))
    }
}

/// A frame as a server or a client sends it.
pub(crate) fn frame_of(is_server: bool, first: u8, payload: &[u8]) -> Vec<u8> {
    if is_server { unmasked(first, payload) } else { masked(first, payload) }
}

impl FarEnd {
    pub(crate) fn new() -> Self {
        Self {
            frames: VecDeque::new(),
            answers_pings: true,
            answers_close: true,
            close_sent: false,
            hung_up: false,
            is_server: false,
            violation: None,
        }
    }

    /// The far end of what the application has dialled.
    #[cfg(feature = "client")]
    pub(crate) fn server() -> Self {
        Self { is_server: true, ..Self::new() }
    }

    /// Takes what arrived and says what it makes the client do. `ended`: nothing more comes.
    pub(crate) fn react(&mut self, got: &mut Vec<u8>, ended: bool) -> Reaction {
        let mut reaction = Reaction::default();
        let mut taken = 0;
        while let Some((frame, len)) = RawFrame::read(got.get(taken..).unwrap_or_default()) {
            // RFC 6455 section 5.1: a client "MUST mask all frames".
            let is_masked = got.get(taken + 1).is_some_and(|second| second & 0x80 != 0);
            if self.is_server && !is_masked {
                self.violation = Some("a frame of a client without a mask");
            }
            taken += len;
            match frame.first {
                RawFrame::PING if self.answers_pings => {
                    if !self.close_sent {
                        let pong = frame_of(self.is_server, RawFrame::PONG, &frame.payload);
                        reaction.bytes.extend(pong);
                    }
                    continue;
                }
                RawFrame::CLOSE if self.answers_close && !self.close_sent => {
                    self.close_sent = true;
                    let close = frame_of(self.is_server, RawFrame::CLOSE, &frame.payload);
                    reaction.bytes.extend(close);
                    // RFC 6455 section 7.1.1: the server closes first.
                    reaction.hangs_up |= self.is_server;
                }
                _ => {}
            }
            self.frames.push_back(frame);
        }
        got.drain(..taken);
        if ended && self.answers_close && !self.hung_up {
            self.hung_up = true;
            reaction.hangs_up = true;
        }
        reaction
    }

    /// The next frame that arrived.
    pub(crate) fn next(&mut self) -> Option<RawFrame> {
        self.frames.pop_front()
    }

    /// What arrived and was not asked for.
    pub(crate) fn rest(&self) -> &VecDeque<RawFrame> {
        &self.frames
    }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_a_client_without_a_mask_is_noticed() {
        for (is_server, frame, noticed) in [
            (true, unmasked(0x81, b"x"), true),
            (true, masked(0x81, b"x"), false),
            (false, unmasked(0x81, b"x"), false),
        ] {
            let mut end = if is_server { FarEnd::server() } else { FarEnd::new() };
            end.react(&mut frame.clone(), false);
            assert_eq!(end.violation.is_some(), noticed, "server: {is_server}, {frame:?}");
        }
    }
}
