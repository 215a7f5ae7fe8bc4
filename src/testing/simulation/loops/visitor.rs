//! The clients of a server with several loops.

use std::net::SocketAddr;

use crate::testing::far_end::{FarEnd, RawFrame};
use crate::testing::frames::{masked, upgrade_request};
use crate::testing::network::PeerEnd;
use crate::testing::simulation::choices::Choices;

use super::group::Group;
use super::ledger::{Ledger, Port};

/// A client.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) port: Port,
    /// The last byte of its address.
    pub(super) host: u8,
    pub(super) stage: Stage,
    /// It takes little, or nothing.
    stalls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has asked for nothing.
    Silent,
    Asked,
    Open,
    /// It has said its Close.
    Closing,
    Refused,
    Over,
}

const TEXT: u8 = 0x81;

impl Visitor {
    /// It connects, from one of a few addresses.
    pub(super) fn connect(group: &mut Group, port: Port, host: u8) -> Self {
        group.knock(SocketAddr::from(([10, 0, 0, host], port)));
        Self { port, host, stage: Stage::Silent, stalls: false }
    }

    /// It does something.
    pub(super) fn play(&mut self, group: &mut Group, choices: &mut Choices) {
        match self.stage {
            Stage::Silent => self.ask(group),
            Stage::Open => self.play_open(group, choices),
            Stage::Asked | Stage::Refused | Stage::Closing if choices.one_in(8) => {
                self.end(group, PeerEnd::Reset);
            }
            _ => {}
        }
    }

    pub(super) fn ask(&mut self, group: &mut Group) {
        let request = upgrade_request("/s", &format!("X-Port: {}\r\n", self.port));
        group.link(self.port, |link| link.send(request.as_bytes()));
        self.stage = Stage::Asked;
    }

    fn play_open(&mut self, group: &mut Group, choices: &mut Choices) {
        match choices.below(40) {
            0..=4 => self.take_at_most(group, choices.pick(&[0, 20, 300, 3_000])),
            5..=9 => self.take_at_most(group, usize::MAX),
            10 => self.end(group, choices.pick(&[PeerEnd::Shut, PeerEnd::Reset])),
            11 => {
                self.say(group, 0x88, &1_000_u16.to_be_bytes());
                self.stage = Stage::Closing;
            }
            _ => {
                let count = choices.pick(&[1, 1, 2, 5]);
                (0..count).for_each(|_| self.say(group, TEXT, b"go"));
            }
        }
    }

    /// From now on it takes so many bytes.
    pub(super) fn take_at_most(&mut self, group: &mut Group, bytes: usize) {
        self.stalls = bytes != usize::MAX;
        group.link(self.port, |link| link.socket.room = bytes);
    }

    /// It is asked how much its session has missed.
    pub(super) fn ask_missed(&self, group: &mut Group) {
        self.say(group, TEXT, b"m");
    }

    fn say(&self, group: &mut Group, first: u8, payload: &[u8]) {
        group.link(self.port, |link| {
            if let Some(far_end) = &mut link.far_end {
                far_end.close_sent |= first == RawFrame::CLOSE;
            }
            link.send(&masked(first, payload));
        });
    }

    fn end(&mut self, group: &mut Group, end: PeerEnd) {
        group.link(self.port, |link| link.end_by_peer(end));
        self.stage = Stage::Over;
    }

    /// Looks at what has arrived: whether that makes something move.
    pub(super) fn look(&mut self, group: &mut Group, ledger: &mut Ledger) -> Result<bool, String> {
        if self.stage == Stage::Asked {
            self.take_answer(group, ledger)?;
        }
        let mut moved = false;
        while let Some(frame) =
            group.link(self.port, |link| link.far_end.as_mut().and_then(FarEnd::next)).flatten()
        {
            match frame.first {
                TEXT => moved |= self.take_text(&frame.payload, group, ledger)?,
                RawFrame::CLOSE => self.stage = Stage::Over,
                first => return Err(format!("client {}: {first:x}", self.port)),
            }
        }
        if group.link(self.port, |link| link.socket.gone.is_some()) == Some(true) {
            self.stage = Stage::Over;
        }
        Ok(moved)
    }

    fn take_answer(&mut self, group: &mut Group, ledger: &mut Ledger) -> Result<(), String> {
        let head = group.link(self.port, |link| {
            let got = &mut link.socket.got;
            let end = got.windows(4).position(|four| four == b"\r\n\r\n")?;
            let head: Vec<u8> = got.drain(..end + 4).collect();
            String::from_utf8(head).ok()
        });
        let Some(head) = head.flatten() else { return Ok(()) };
        match head.get(9..12) {
            Some("101") => {
                group.link(self.port, |link| {
                    link.far_end = Some(FarEnd::new());
                    link.look();
                });
                self.stage = Stage::Open;
                Ok(())
            }
            Some("503" | "429") => {
                self.stage = Stage::Refused;
                ledger.tally.refused += 1;
                group.link(self.port, |link| link.end_by_peer(PeerEnd::Shut));
                Ok(())
            }
            _ => Err(format!("client {}: {head}", self.port)),
        }
    }

    fn take_text(
        &self,
        payload: &[u8],
        group: &mut Group,
        ledger: &mut Ledger,
    ) -> Result<bool, String> {
        let text = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
        let Some(question) = text.strip_prefix('q') else {
            ledger.take(self.port, text)?;
            return Ok(false);
        };
        let answers = !ledger.choices.one_in(4);
        if answers {
            self.say(group, TEXT, format!("a{question}").as_bytes());
        }
        Ok(answers)
    }
}
