//! The clients of a simulation: by chance they do what clients do, and what they should not.

mod arrivals;
mod play;
#[cfg(feature = "client")]
mod request;
#[cfg(feature = "client")]
mod server;

use std::collections::VecDeque;
use std::time::Duration;

pub(crate) use self::play::{Play, draw_reader};
use self::play::{byte, draw_pace, malformed};
use super::bodies;
use super::choices::Choices;
use super::codec::{Codec, draw_offer};
use super::content::{self, FROM_CLIENT, FROM_CLIENT_PACKED};
use super::deferrals;
use super::sequence::Sequence;
use super::world::Mood;
use crate::testing::event_source::EventParser;
use crate::testing::far_end::{RawFrame, frame_of};
use crate::testing::frames::UPGRADE;
use crate::testing::network::{LinkId, Network, Pace, PeerEnd};
use crate::words::time::Time;

/// A client, and what it knows of its connection.
#[derive(Debug)]
pub(crate) struct Player {
    pub(crate) id: LinkId,
    /// The session's name in the logs: its link, unless it was dialled.
    pub(crate) session: usize,
    /// It is no client, but a server that was dialled.
    pub(super) is_server: bool,
    /// What a server was asked for and has not answered.
    #[cfg(feature = "client")]
    request: Option<request::Request>,
    /// What one message or frame may have.
    message_limit: usize,
    stage: Stage,
    pub(super) answers_pings: bool,
    answers_close: bool,
    /// It takes little for a while, then all, by turns.
    lags: bool,
    is_behind: bool,
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
    /// The data frames that a raw session has not sent back yet.
    mirrored: VecDeque<RawFrame>,
    /// The payload of its own Close.
    said_close: Option<Vec<u8>>,
    /// What arrived of the session's messages.
    pub(crate) heard: Sequence,
    /// Pages that arrived.
    pub(super) pages: usize,
    /// It has shut its side behind a request with a body.
    ends_behind_body: bool,
    /// Not all that it sends are whole requests.
    sends_parts: bool,
    /// An answer has come that is a refusal.
    is_refused: bool,
    /// It has ended its side, or its machine is gone.
    pub(super) has_ended: bool,
    /// When it saw that it is in a session.
    joined_at: Option<Time>,
    /// When it sent frames last.
    sent_at: Option<Time>,
    /// It did not read for a while.
    pub(super) has_stalled: bool,
    arriving: Option<Arriving>,
    /// The payload of the server's Close.
    pub(crate) got_close: Option<Vec<u8>>,
    /// What came on its event stream.
    events: EventParser,
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
    /// A head is awaited, or has to be sent first.
    Http,
    /// A request is to be answered, or was refused.
    #[cfg(feature = "client")]
    Asked,
    Session,
    Events,
}

const WHOLE: usize = usize::MAX;

impl Player {
    pub(crate) fn new(id: LinkId, message_limit: usize, choices: &mut Choices, mood: Mood) -> Self {
        Self {
            id,
            session: id,
            is_server: false,
            #[cfg(feature = "client")]
            request: None,
            message_limit,
            stage: Stage::Http,
            answers_pings: !choices.one_in(5) || mood.is_long,
            answers_close: !choices.one_in(5) || mood.is_long,
            lags: mood.laggards && choices.one_in(2),
            is_behind: false,
            asked: false,
            offers: false,
            level: choices.pick(&[0, 1, 6, 9]),
            codec: None,
            sent: 0,
            open: None,
            is_spoiled: false,
            mirrored: VecDeque::new(),
            said_close: None,
            heard: Sequence::default(),
            pages: 0,
            ends_behind_body: false,
            sends_parts: false,
            is_refused: false,
            has_ended: false,
            joined_at: None,
            sent_at: None,
            has_stalled: false,
            arriving: None,
            got_close: None,
            events: EventParser::default(),
        }
    }

    /// What it does next.
    pub(crate) fn draw(&mut self, choices: &mut Choices, mood: Mood) -> Play {
        if self.lags && choices.one_in(8) {
            self.is_behind = !self.is_behind;
            return Play::Room(if self.is_behind { choices.pick(&[0, 50, 1_000]) } else { WHOLE });
        }
        if mood.buffers && choices.one_in(12) {
            return Play::Pace(draw_pace(choices, mood));
        }
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
        #[cfg(feature = "client")]
        if self.is_server && self.stage != Stage::Session {
            return self.draw_answer(choices, mood);
        }
        if self.stage == Stage::Http && !self.asked && mood.closes && choices.one_in(16) {
            return Play::SendLast(bodies::request(self.id, choices));
        }
        Play::Send(match self.stage {
            Stage::Session if mood.malformed && choices.one_in(40) => {
                self.is_spoiled = true;
                malformed(choices, self.is_server)
            }
            Stage::Session => self.frames(choices, mood),
            // Whatever it says, nobody listens.
            Stage::Events => (0..choices.below(40)).map(|_| byte(choices)).collect(),
            _ => {
                // It may be in a session already and not know: then this is no request.
                self.is_spoiled |= self.asked;
                self.request(choices, mood)
            }
        })
    }

    /// What it says, if it does no more than to send something.
    pub(crate) fn draw_message(&mut self, choices: &mut Choices, mood: Mood) -> Option<Vec<u8>> {
        (self.stage == Stage::Session).then(|| self.frames(choices, mood))
    }

    /// It is about to send this, at that time.
    pub(crate) fn note_sent(&mut self, at: Time) {
        // Nobody listens to what comes on an event stream.
        self.sent_at = (self.stage == Stage::Session).then_some(at);
    }

    /// Whether it has said something since that time, up to another.
    pub(super) fn has_spoken(&self, from: Time, until: Time) -> bool {
        self.sent_at.is_some_and(|at| from <= at && at <= until)
    }

    /// Whether it is a page of another server, under a name that was made to point at this one.
    pub(super) fn is_foreign(&self) -> bool {
        self.id % 16 == 6
    }

    /// Whether its session takes messages in pieces; which, is no choice, so that all else is as without.
    fn takes_pieces_of(&self, path: &str) -> bool {
        self.id % 8 == 5 && path == "/s"
    }

    /// Whether it only listens, to an event stream.
    pub(super) fn is_event_source(&self) -> bool {
        !self.is_server && self.id % 8 == 3
    }

    /// Whether what came ends within an event.
    pub(super) fn is_within_event(&self) -> bool {
        self.events.is_within_event()
    }

    /// Some name an event that nobody has sent.
    fn event_stream_request(&self) -> Vec<u8> {
        let last = if self.id % 16 == 3 { "Last-Event-ID: 00000001-1\r\n" } else { "" };
        let (id, defer) = (self.id, deferrals::header_of(self.id));
        format!("GET /e HTTP/1.1\r\nHost: h\r\nX-Link: {id}\r\n{defer}{last}\r\n").into_bytes()
    }

    /// For a session, a stream, a page, or what is none of them.
    fn request(&mut self, choices: &mut Choices, mood: Mood) -> Vec<u8> {
        if self.is_event_source() && !choices.one_in(4) {
            self.asked = true;
            return self.event_stream_request();
        }
        let path = choices.pick(&["/s", "/s", "/s", "/s", "/raw"]);
        let path = if self.takes_pieces_of(path) { "/p" } else { path };
        let mut bytes = self.upgrade_to(path, choices, mood);
        match choices.below(14) {
            0 | 1 => self.page_request(),
            12 | 13 => bodies::request(self.id, choices),
            2 => self.page_request().repeat(choices.size_below(40)),
            // Of several, only the first is answered later.
            7 => {
                let further = self.page_request_with("").repeat(choices.size_below(20));
                [self.page_request(), further].concat()
            }
            3 if mood.junk => {
                self.sends_parts = true;
                bytes.truncate(choices.size_below(bytes.len()));
                bytes
            }
            4 if mood.junk => {
                self.sends_parts = true;
                (0..choices.below(40)).map(|_| byte(choices)).collect()
            }
            5 if mood.junk => {
                b"POST /page HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello".into()
            }
            6 if path != "/raw" => {
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

    /// Some are pages: of this server, or of another.
    fn upgrade_to(&mut self, path: &str, choices: &mut Choices, mood: Mood) -> Vec<u8> {
        let from = match self.id % 16 {
            5 => "Host: 127.0.0.1\r\nOrigin: http://127.0.0.1",
            _ if self.is_foreign() => "Host: evil.example\r\nOrigin: http://evil.example",
            _ => "Host: h",
        };
        let (id, defer) = (self.id, deferrals::header_of(self.id));
        let mut request =
            format!("GET {path} HTTP/1.1\r\n{from}\r\n{UPGRADE}{defer}X-Link: {id}\r\n");
        if mood.deflate && !choices.one_in(3) {
            self.offers = true;
            request.push_str(&format!("Sec-WebSocket-Extensions: {}\r\n", draw_offer(choices)));
        }
        request.push_str("\r\n");
        request.into_bytes()
    }

    fn page_request(&self) -> Vec<u8> {
        self.page_request_with(deferrals::header_of(self.id))
    }

    fn page_request_with(&self, lines: &str) -> Vec<u8> {
        let id = self.id;
        format!("GET /page HTTP/1.1\r\nHost: h\r\n{lines}X-Link: {id}\r\n\r\n").into_bytes()
    }

    /// Messages and fragments, mostly one, and perhaps a control frame.
    fn frames(&mut self, choices: &mut Choices, mood: Mood) -> Vec<u8> {
        let mut bytes = Vec::new();
        if choices.one_in(6) {
            let payload = vec![b'p'; choices.size_below(126)];
            bytes.extend(frame_of(self.is_server, choices.pick(&[0x89, 0x8a]), &payload));
        }
        // In a long life nobody leaves.
        if choices.one_in(if mood.closes { 50 } else { 400 }) {
            let code: u16 = choices.pick(&[1000, 1001, 3000, 4000]);
            let payload = [&code.to_be_bytes()[..], b"bye"].concat();
            let payload = if choices.one_in(4) { Vec::new() } else { payload };
            bytes.extend(frame_of(self.is_server, RawFrame::CLOSE, &payload));
            self.said_close.get_or_insert(payload);
            return bytes;
        }
        for _ in 0..choices.pick(&[1, 1, 1, 1, 1, 2, 5, 9]) {
            let frame = self.data_frame(choices, mood);
            bytes.extend(frame_of(self.is_server, frame.first, &frame.payload));
            if self.said_close.is_none() {
                self.mirrored.push_back(frame);
            }
        }
        bytes
    }

    /// A message, or a fragment of one.
    fn data_frame(&mut self, choices: &mut Choices, mood: Mood) -> RawFrame {
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
                payload.push_str(&content::text(number, begun..begun + size));
                self.open = (!fin).then_some(Open::Plain(begun + size));
                return RawFrame { first, payload: payload.into_bytes() };
            }
        };
        if !fin {
            let later = packed.split_off(size.min(packed.len()));
            self.open = Some(Open::Packed(later));
        }
        RawFrame { first, payload: packed }
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

    pub(crate) fn perform(&mut self, play: Play, network: &mut Network) {
        let (id, now) = (self.id, network.now);
        let link = network.link(id);
        match play {
            Play::Send(bytes) => return network.send(id, &bytes),
            Play::SendLast(bytes) => {
                (self.has_ended, self.ends_behind_body) = (true, true);
                link.send(&bytes);
                return network.end(id, PeerEnd::Shut);
            }
            #[cfg(feature = "client")]
            Play::Switch(bytes) => return self.switch(&bytes, network),
            Play::End(end) => {
                self.has_ended = true;
                return network.end(id, end);
            }
            Play::ReadPiece(bytes) => link.read_piece = bytes,
            Play::WritePiece(bytes) => link.socket.write_piece = bytes,
            Play::Room(bytes) => {
                self.has_stalled |= bytes != WHOLE;
                link.socket.room = bytes;
            }
            Play::Pace(pace) => {
                self.has_stalled |= pace == Pace::Nothing;
                self.has_ended |= pace == Pace::Vanished;
                link.set_pace(pace);
            }
            Play::Block(time) => {
                self.has_stalled = true;
                link.socket.blocked_until = Some(now.after(time));
            }
            Play::BreakIn(bytes) => link.breaks_after_in = Some(bytes),
            Play::BreakOut(bytes) => link.socket.breaks_after_out = Some(bytes),
        }
        network.pump();
    }

    /// Whether it knew before that time that it is in a session: until then it answers nothing.
    pub(super) fn has_joined(&self, at: Time) -> bool {
        self.joined_at.is_some_and(|joined| joined < at)
    }

    /// Whether it waits for the answer to a body, behind which it has shut its side.
    pub(super) fn waits_for_answer(&self) -> bool {
        self.ends_behind_body && !self.is_refused
    }

    /// It answers nothing any more, and reads on.
    pub(crate) fn fall_silent(&mut self, network: &mut Network) {
        (self.answers_pings, self.answers_close) = (false, false);
        if let Some(far_end) = &mut network.link(self.id).far_end {
            (far_end.answers_pings, far_end.answers_close) = (false, false);
        }
    }
}
