//! What a client of a simulation makes of what arrives: each answer and frame is what it has to be.

use super::{Arriving, Player, Stage};
use crate::testing::far_end::{FarEnd, RawFrame};
use crate::testing::network::Network;
use crate::testing::simulation::codec::Codec;
use crate::testing::simulation::content::{self, FROM_FLOW, FROM_OTHER};
use crate::testing::simulation::order::Told;

impl Player {
    /// Looks at what arrived; whether that may have moved something.
    pub(crate) fn look(
        &mut self,
        network: &mut Network,
        mut told: Told<'_>,
    ) -> Result<bool, String> {
        let mut moved = false;
        while self.stage == Stage::Http && self.take_head(network)? {
            moved = true;
        }
        if self.stage == Stage::Events {
            self.take_events(network, &mut told)
                .map_err(|what| format!("client {}: {what}", self.id))?;
        }
        while let Some(far_end) = &mut network.link(self.id).far_end {
            if let Some(violation) = far_end.violation {
                return Err(format!("client {}: {violation}", self.id));
            }
            let Some(frame) = far_end.next() else { break };
            self.take_frame(frame, &mut told)
                .map_err(|what| format!("client {}: {what}", self.id))?;
        }
        Ok(moved)
    }

    /// Takes a whole head: of an answer, or of a request.
    fn take_head(&mut self, network: &mut Network) -> Result<bool, String> {
        match self.is_server {
            #[cfg(feature = "client")]
            true => self.take_request(network),
            _ => self.take_answer(network),
        }
    }

    /// Takes a whole answer; after a 101, frames follow.
    fn take_answer(&mut self, network: &mut Network) -> Result<bool, String> {
        let now = network.now;
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
        let is_event_stream = head.contains("text/event-stream");
        self.pages += usize::from(status == 200 && !is_event_stream);
        self.is_refused |= status >= 300;
        if status == 408 && !self.sends_parts && !self.is_spoiled {
            return Err(format!("client {}: its whole request is out of time", self.id));
        }
        // With a length it is a refusal, to come back from.
        if is_event_stream && !head.contains("Content-Length") {
            (self.stage, self.joined_at) = (Stage::Events, Some(now));
        }
        if status == 101 {
            if self.is_foreign() {
                return Err(format!("client {}: a page of another server was let in", self.id));
            }
            // Which of the routes it was: only the raw one has no log.
            let mut far_end = FarEnd::new();
            (far_end.answers_pings, far_end.answers_close) =
                (self.answers_pings, self.answers_close);
            link.far_end = Some(far_end);
            (self.stage, self.joined_at) = (Stage::Session, Some(now));
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

    fn take_events(&mut self, network: &mut Network, told: &mut Told<'_>) -> Result<(), String> {
        let Some(log) = told.log else { return Err("a stream without a session".into()) };
        self.events.take(&std::mem::take(&mut network.link(self.id).socket.got));
        while let Some(event) = self.events.events.pop_front() {
            if event.name == "message" {
                self.heard.take(self.session, &content::from_event(&event.data), log, told)?;
                told.tally.events += 1;
            } else if event.name != "missed" || self.id % 16 != 3 {
                return Err(format!("an event of another name: {event:?}"));
            }
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: RawFrame, told: &mut Told<'_>) -> Result<(), String> {
        let Some(log) = told.log else {
            return self.take_mirrored(frame, told);
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
        self.heard.take(self.session, &payload, log, told)?;
        match (payload.first(), whole.packed) {
            (Some(&FROM_FLOW), true) => told.tally.packed_of_flow += 1,
            (Some(&FROM_FLOW), false) => told.tally.plain_of_flow += 1,
            (_, true) => told.tally.packed_out += 1,
            _ => {}
        }
        Ok(())
    }

    /// A raw session sends back every frame as it was, in order, and our Close behind them; what
    /// others send comes in between.
    fn take_mirrored(&mut self, frame: RawFrame, told: &mut Told<'_>) -> Result<(), String> {
        if self.is_spoiled {
            return Ok(());
        }
        match frame.first & 0x0f {
            1 if matches!(content::read(&frame.payload), Some((FROM_OTHER, _))) => Ok(()),
            0..=2 => {
                while let Some(sent) = self.mirrored.pop_front() {
                    if sent == frame {
                        told.tally.mirrored += 1;
                        return Ok(());
                    }
                    if !told.drops {
                        break;
                    }
                }
                let RawFrame { first, payload } = frame;
                let start = payload.get(..20).unwrap_or(&payload).escape_ascii();
                Err(format!("{first:#04x} of {} was not sent: {start}", payload.len()))
            }
            8 if self.said_close.as_ref() == Some(&frame.payload) && !told.drops => {
                match self.mirrored.len() {
                    0 => Ok(()),
                    left => Err(format!("the Close came before {left} frames")),
                }
            }
            _ => Ok(()),
        }
    }
}
