//! Owns the clients of a simulation: by chance they do what clients do, and what they should not.

use std::fmt;
use std::time::Duration;

use super::actors::{Log, Mood, Tally};
use super::choices::Choices;
use super::codec::{Codec, draw_offer};
use super::content::{self, FROM_CLIENT, FROM_CLIENT_PACKED, FROM_FLOW, FROM_OTHER, FROM_SESSION};
use crate::testing::far_end::{FarEnd, RawFrame};
use crate::testing::network::{LinkId, Network, PeerEnd};

/// What the server's side says of a client's session.
pub(crate) struct Told<'a> {
    pub(crate) log: Option<&'a Log>,
    /// Messages may be dropped on the way.
    pub(crate) drops: bool,
    /// Where to count.
    pub(crate) tally: &'a mut Tally,
}

/// A client, and what it knows of its connection.
#[derive(Debug)]
pub(crate) struct Player {
    pub(crate) id: LinkId,
    /// What one message or frame may have.
    message_limit: usize,
    stage: Stage,
    answers_pings: bool,
    answers_close: bool,
    /// It has asked for a session.
    asked: bool,
    /// It has asked for compression.
    offers: bool,
    /// How hard it compresses.
    level: u32,
    codec: Option<Codec>,
    /// Messages that were sent whole, while all before was well formed.
    sent: usize,
    open: Option<Open>,
    /// It sent what may be anything: its messages are no longer those that it counts.
    pub(crate) is_spoiled: bool,
    /// Messages that arrived.
    pub(crate) received: usize,
    next_of_flow: usize,
    arriving: Option<Arriving>,
    /// The payload of the server's Close.
    pub(crate) got_close: Option<Vec<u8>>,
}

/// A message that is being sent in fragments.
#[derive(Debug)]
enum Open {
    /// So much of its text is sent.
    Plain(usize),
    /// This is left of it.
    Packed(Vec<u8>),
}

/// A message that is arriving in fragments.
#[derive(Debug)]
struct Arriving {
    packed: bool,
    payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Http,
    Session { raw: bool },
}

/// Something that a client does.
pub(crate) enum Play {
    Send(Vec<u8>),
    ReadPiece(usize),
    WritePiece(usize),
    Room(usize),
    Block(Duration),
    BreakIn(usize),
    BreakOut(usize),
    End(PeerEnd),
}

impl fmt::Debug for Play {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(bytes) => {
                let start = bytes.get(..30).unwrap_or(bytes).escape_ascii();
                write!(f, "sends {} bytes, {start}", bytes.len())
            }
            Self::ReadPiece(bytes) => write!(f, "is read in pieces of {bytes}"),
            Self::WritePiece(bytes) => write!(f, "is written in pieces of {bytes}"),
            Self::Room(bytes) => write!(f, "takes {bytes}"),
            Self::Block(time) => write!(f, "takes nothing for {time:?}"),
            Self::BreakIn(bytes) => write!(f, "breaks after sending {bytes}"),
            Self::BreakOut(bytes) => write!(f, "breaks after taking {bytes}"),
            Self::End(end) => write!(f, "ends: {end:?}"),
        }
    }
}

const WHOLE: usize = usize::MAX;

impl Player {
    pub(crate) fn new(id: LinkId, message_limit: usize, choices: &mut Choices) -> Self {
        Self {
            id,
            message_limit,
            stage: Stage::Http,
            answers_pings: !choices.one_in(5),
            answers_close: !choices.one_in(5),
            asked: false,
            offers: false,
            level: choices.pick(&[0, 1, 6, 9]),
            codec: None,
            sent: 0,
            open: None,
            is_spoiled: false,
            received: 0,
            next_of_flow: 0,
            arriving: None,
            got_close: None,
        }
    }

    /// What it does next.
    pub(crate) fn draw(&mut self, choices: &mut Choices, mood: Mood) -> Play {
        if mood.faults && choices.one_in(4) {
            return match choices.below(16) {
                0..=2 => Play::ReadPiece(choices.pick(&[1, 2, 7, WHOLE])),
                3..=5 => Play::WritePiece(choices.pick(&[1, 2, 50, WHOLE])),
                6..=10 => Play::Room(choices.pick(&[0, 30, 5_000, WHOLE, WHOLE, WHOLE])),
                11 => Play::Block(Duration::from_millis(choices.below(20_000))),
                12 => Play::BreakIn(choices.size_below(300)),
                13 => Play::BreakOut(choices.size_below(300)),
                14 => Play::End(PeerEnd::Shut),
                _ => Play::End(PeerEnd::Reset),
            };
        }
        Play::Send(match self.stage {
            Stage::Http => {
                // It may be in a session already and not know: then this is no request.
                self.is_spoiled |= self.asked;
                self.request(choices, mood)
            }
            Stage::Session { .. } if mood.malformed && choices.one_in(40) => {
                self.is_spoiled = true;
                malformed(choices)
            }
            Stage::Session { .. } => self.frames(choices, mood),
        })
    }

    fn request(&mut self, choices: &mut Choices, mood: Mood) -> Vec<u8> {
        let path = choices.pick(&["/s", "/s", "/s", "/s", "/raw"]);
        let mut bytes = format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             X-Link: {}\r\n",
            self.id
        )
        .into_bytes();
        if mood.deflate && !choices.one_in(3) {
            self.offers = true;
            let offer = draw_offer(choices);
            bytes.extend_from_slice(format!("Sec-WebSocket-Extensions: {offer}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        match choices.below(12) {
            0 | 1 => b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
            2 => b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n".repeat(choices.size_below(40)),
            3 if mood.junk => {
                bytes.truncate(choices.size_below(bytes.len()));
                bytes
            }
            4 if mood.junk => (0..choices.below(40)).map(|_| byte(choices)).collect(),
            5 if mood.junk => {
                b"POST /page HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello".into()
            }
            6 if path == "/s" => {
                // The first messages right behind the request.
                self.asked = true;
                bytes.extend(self.frames(choices, mood));
                bytes
            }
            _ => {
                self.asked = true;
                bytes
            }
        }
    }

    /// One message or fragment, and perhaps a control frame.
    fn frames(&mut self, choices: &mut Choices, mood: Mood) -> Vec<u8> {
        let mut bytes = Vec::new();
        if choices.one_in(6) {
            let payload = vec![b'p'; choices.size_below(126)];
            bytes.extend(RawFrame::masked(choices.pick(&[0x89, 0x8a]), &payload));
        }
        if choices.one_in(50) {
            let code: u16 = choices.pick(&[1000, 1001, 3000, 4000]);
            let payload = [&code.to_be_bytes()[..], b"bye"].concat();
            let payload = if choices.one_in(4) { &[] } else { payload.as_slice() };
            bytes.extend(RawFrame::masked(0x88, payload));
            return bytes;
        }
        bytes.extend(self.data_frame(choices, mood));
        bytes
    }

    /// A message, or a fragment of one.
    fn data_frame(&mut self, choices: &mut Choices, mood: Mood) -> Vec<u8> {
        const RSV1: u8 = 0x40;
        let (size, fin, number) = (self.size(choices, mood), choices.one_in(2), self.sent);
        let kind = if self.open.is_some() { 0 } else { choices.pick(&[1, 2]) };
        let first = kind | if fin { 0x80 } else { 0 };
        self.sent += usize::from(fin);
        let (first, mut packed) = match self.open.take() {
            Some(Open::Packed(rest)) => (first, rest),
            None if self.codec.is_some() && !choices.one_in(3) => {
                (first | RSV1, self.packed_message(choices, mood, number, size))
            }
            open => {
                let (start, begun) = match open {
                    Some(Open::Plain(begun)) => (String::new(), begun),
                    _ => (content::start(FROM_CLIENT, number), 0),
                };
                let mut payload = start;
                payload.extend(content::text(number, begun..begun + size));
                self.open = (!fin).then_some(Open::Plain(begun + size));
                return RawFrame::masked(first, payload.as_bytes());
            }
        };
        if !fin {
            let later = packed.split_off(size.min(packed.len()));
            self.open = Some(Open::Packed(later));
        }
        RawFrame::masked(first, &packed)
    }

    /// So many bytes; only sometimes more than a message may have.
    fn size(&self, choices: &mut Choices, mood: Mood) -> usize {
        let most = if mood.big { choices.pick(&[10, 200, 3_000, 70_000]) } else { 100 };
        let size = choices.size_below(most);
        let begun = if let Some(Open::Plain(begun)) = self.open { begun } else { 0 };
        let room = self.message_limit.saturating_sub(content::START_BYTES + begun);
        if choices.one_in(30) { size } else { size.min(room) }
    }

    /// A compressed message: sometimes a bomb, sometimes corrupt.
    fn packed_message(
        &mut self,
        choices: &mut Choices,
        mood: Mood,
        number: usize,
        size: usize,
    ) -> Vec<u8> {
        let Some(codec) = &mut self.codec else { return Vec::new() };
        // A bomb is over every limit, so its number need not be the right one: this one's text is
        // a single letter.
        let (number, size) = if choices.one_in(24) { (0, 300_000) } else { (number, size) };
        let message = content::message(FROM_CLIENT_PACKED, number, size);
        let mut packed = codec.pack(message.as_bytes(), choices.one_in(8));
        if mood.malformed && choices.one_in(6) {
            self.is_spoiled = true;
            let at = choices.size_below(packed.len());
            if let Some(byte) = packed.get_mut(at) {
                *byte ^= 1 << choices.below(8);
            }
        }
        packed
    }

    pub(crate) fn perform(&self, play: Play, network: &mut Network) {
        let (id, now) = (self.id, network.now);
        let link = network.link(id);
        match play {
            Play::Send(bytes) => return network.send(id, &bytes),
            Play::End(end) => return network.end(id, end),
            Play::ReadPiece(bytes) => link.read_piece = bytes,
            Play::WritePiece(bytes) => link.socket.write_piece = bytes,
            Play::Room(bytes) => link.socket.room = bytes,
            Play::Block(time) => link.socket.blocked_until = Some(now.after(time)),
            Play::BreakIn(bytes) => link.breaks_after_in = Some(bytes),
            Play::BreakOut(bytes) => link.socket.breaks_after_out = Some(bytes),
        }
        network.pump();
    }

    /// It answers nothing any more, and reads on.
    pub(crate) fn fall_silent(&mut self, network: &mut Network) {
        (self.answers_pings, self.answers_close) = (false, false);
        if let Some(far_end) = &mut network.link(self.id).far_end {
            (far_end.answers_pings, far_end.answers_close) = (false, false);
        }
    }

    /// Looks at what arrived; whether that may have moved something.
    pub(crate) fn look(
        &mut self,
        network: &mut Network,
        mut told: Told<'_>,
    ) -> Result<bool, String> {
        let mut moved = false;
        while self.stage == Stage::Http && self.take_answer(network)? {
            moved = true;
        }
        while let Some(far_end) = &mut network.link(self.id).far_end {
            let Some(frame) = far_end.next() else { break };
            self.take_frame(frame, &mut told)
                .map_err(|what| format!("client {}: {what}", self.id))?;
        }
        Ok(moved)
    }

    /// Takes a whole answer; after a 101, frames follow.
    fn take_answer(&mut self, network: &mut Network) -> Result<bool, String> {
        let link = network.link(self.id);
        let got = &mut link.socket.got;
        let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(false);
        };
        let head = String::from_utf8_lossy(&got[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
        let Some(status) = status.filter(|_| head.starts_with("HTTP/1.1 ")) else {
            return Err(format!("client {}: that is no answer: {head:?}", self.id));
        };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(Ok(0), str::parse).map_err(|_| "a bad length")?;
        if got.len() < end + 4 + length {
            return Ok(false);
        }
        got.drain(..end + 4 + length);
        if status == 101 {
            // Which of the routes it was: only the raw one has no log.
            let mut far_end = FarEnd::new();
            (far_end.answers_pings, far_end.answers_close) =
                (self.answers_pings, self.answers_close);
            link.far_end = Some(far_end);
            self.stage = Stage::Session { raw: false };
            let agreed = head.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Extensions: "));
            if let Some(agreed) = agreed {
                if !self.offers {
                    return Err(format!("client {}: agreed without an offer: {agreed}", self.id));
                }
                self.codec = Some(Codec::agreed(agreed, self.level)?);
            }
            network.react(self.id);
        }
        Ok(true)
    }

    fn take_frame(&mut self, frame: RawFrame, told: &mut Told<'_>) -> Result<(), String> {
        let Some(log) = told.log else {
            // A raw session answers with whatever it is sent.
            self.stage = Stage::Session { raw: true };
            return Ok(());
        };
        let RawFrame { first, payload } = frame;
        if self.got_close.is_some() {
            return Err(format!("a frame behind the Close: {first:#04x}"));
        }
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        match (opcode, first & 0x70) {
            (0..=2, 0) => {}
            (1 | 2, 0x40) if self.codec.is_some() => {}
            (8..=10, 0) if fin && payload.len() <= 125 => {
                if opcode == 8 {
                    self.got_close = Some(payload);
                }
                return Ok(());
            }
            _ => return Err(format!("an illegal frame: {first:#04x}, {}", payload.len())),
        }
        let whole = match (opcode, self.arriving.take()) {
            (0, Some(mut begun)) => {
                begun.payload.extend(payload);
                begun
            }
            (1 | 2, None) => Arriving { packed: first & 0x40 != 0, payload },
            _ => {
                let start = payload.get(..20).unwrap_or(&payload).escape_ascii();
                return Err(format!("a frame out of order: {first:#04x} {start}"));
            }
        };
        if !fin {
            self.arriving = Some(whole);
            return Ok(());
        }
        let payload = match &mut self.codec {
            Some(codec) if whole.packed => codec.unpack(&whole.payload)?,
            _ => whole.payload,
        };
        self.take_message(&payload, log, told.drops)?;
        match (payload.first(), whole.packed) {
            (Some(&FROM_FLOW), true) => told.tally.packed_of_flow += 1,
            (Some(&FROM_FLOW), false) => told.tally.plain_of_flow += 1,
            (_, true) => told.tally.packed_out += 1,
            _ => {}
        }
        Ok(())
    }

    /// Messages of the session come in the order of its sends, those of the flow in the flow's; what
    /// others sent has no number.
    fn take_message(&mut self, whole: &[u8], log: &Log, drops: bool) -> Result<(), String> {
        let read = content::read(whole);
        match read {
            Some((FROM_OTHER, _)) => Ok(()),
            Some((FROM_FLOW, number)) if number >= self.next_of_flow || log.collects_anew => {
                self.next_of_flow = number + 1;
                Ok(())
            }
            Some((FROM_SESSION, number))
                if number == self.received || (drops && number > self.received) =>
            {
                self.received = number + 1;
                match log.sent.get(number) {
                    Some(&len) if len == whole.len() => Ok(()),
                    other => Err(format!("message {number}: {} bytes, not {other:?}", whole.len())),
                }
            }
            _ => {
                let start = whole.get(..20).unwrap_or(whole).escape_ascii();
                Err(format!("after {} comes {read:?}: {start}", self.received))
            }
        }
    }
}

fn byte(choices: &mut Choices) -> u8 {
    u8::try_from(choices.below(256)).unwrap_or(0)
}

fn malformed(choices: &mut Choices) -> Vec<u8> {
    match choices.below(7) {
        0 => vec![0x83, 0x80, 0, 0, 0, 0],
        1 => vec![0x81, 0x01, b'x'],
        2 => RawFrame::masked(0x81, b"\xff\xfe"),
        3 => RawFrame::masked(0x88, &[3]),
        4 => RawFrame::masked(0x80, b"continuation of nothing"),
        5 => RawFrame::masked(0xc9, b"a compressed ping"),
        _ => (0..=choices.below(20)).map(|_| byte(choices)).collect(),
    }
}
