//! The servers that a simulation plays: by chance they answer a handshake as servers do, and as they should
//! not.

use super::request::Request;
use super::{Play, Player, Stage, WHOLE, byte};
use crate::protocol::handshake::AcceptKey;
use crate::testing::far_end::FarEnd;
use crate::testing::network::{LinkId, Network, PeerEnd};
use crate::testing::simulation::choices::Choices;
use crate::testing::simulation::codec::Codec;
use crate::testing::simulation::world::Mood;

/// Where a redirect leads.
const LOCATIONS: &[&str] = &[
    "/s",
    "ws://played.example/r",
    "http://raced.example/s",
    "http://core.example/s",
    "http://unknown.example/",
    "ftp://nowhere/",
];

impl Player {
    /// A server that was dialled.
    pub(crate) fn server(
        id: LinkId,
        message_limit: usize,
        choices: &mut Choices,
        mood: Mood,
    ) -> Self {
        Self { is_server: true, ..Self::new(id, message_limit, choices, mood) }
    }

    pub(crate) fn is_server(&self) -> bool {
        self.is_server
    }

    /// Takes a whole request, which has to be one.
    pub(super) fn take_request(&mut self, network: &mut Network) -> Result<bool, String> {
        let got = &mut network.link(self.id).socket.got;
        let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(false);
        };
        let head: Vec<u8> = got.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let lines: Vec<_> = head.lines().skip(1).filter_map(|line| line.split_once(": ")).collect();
        let value = |name: &str| {
            let mut all = lines.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
            all.next().map(|(_, value)| *value)
        };
        let is_tunnel = head.starts_with("CONNECT ");
        let key = value("sec-websocket-key").filter(|key| key.len() == 24);
        let session = value("x-link").and_then(|link| link.parse().ok());
        let is_whole = head.starts_with("GET /")
            && value("sec-websocket-version") == Some("13")
            && value("upgrade") == Some("websocket");
        match (session, key) {
            (Some(session), Some(key)) if is_whole => {
                self.session = session;
                self.request = Some(Request {
                    accept: Some(AcceptKey::of(key).as_str().to_owned()),
                    offer: value("sec-websocket-extensions").map(str::to_owned),
                    rest: Vec::new(),
                });
            }
            (None, None) if is_tunnel && value("host").is_some() => {
                self.request = Some(Request { accept: None, offer: None, rest: Vec::new() });
            }
            _ => return Err(format!("link {}: that is no handshake: {head:?}", self.id)),
        }
        self.stage = Stage::Asked;
        Ok(true)
    }

    /// What it does before there is a session.
    pub(super) fn draw_answer(&mut self, choices: &mut Choices, mood: Mood) -> Play {
        let Some(mut request) = self.request.take() else {
            return match choices.below(8) {
                0 if mood.closes => Play::End(PeerEnd::Shut),
                1 if mood.junk => {
                    Play::Send((0..choices.below(40)).map(|_| byte(choices)).collect())
                }
                _ => Play::ReadPiece(WHOLE),
            };
        };
        if !request.rest.is_empty() {
            return Play::Switch(std::mem::take(&mut request.rest));
        }
        let Some(accept) = &request.accept else { return self.draw_tunnel(choices) };
        match choices.below(20) {
            0 | 1 => Play::Send(draw_refusal(choices)),
            2 => Play::Send(draw_redirect(choices)),
            3 if mood.malformed => {
                let answer = switching("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", None);
                Play::Send(answer)
            }
            4 if mood.junk => Play::Send((0..choices.below(40)).map(|_| byte(choices)).collect()),
            5 | 6 => {
                let mut answer = switching(accept, None);
                request.rest = answer.split_off(choices.size_below(answer.len()));
                self.request = Some(request);
                Play::Send(answer)
            }
            7 => {
                self.request = Some(request); // an interim answer, or nothing for a while
                Play::Send(
                    choices.pick(&[&b""[..], b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"]).into(),
                )
            }
            8 if mood.faults => Play::End(choices.pick(&[PeerEnd::Shut, PeerEnd::Reset])),
            _ => Play::Switch(self.draw_switch(choices, mood, &request)),
        }
    }

    /// The right answer, with frames behind it or without.
    fn draw_switch(&mut self, choices: &mut Choices, mood: Mood, request: &Request) -> Vec<u8> {
        let accept = request.accept.as_deref().unwrap_or_default();
        let offer = request.offer.as_deref().filter(|_| !choices.one_in(3));
        let answer = offer.map(|offer| draw_agreement(choices, offer));
        self.codec = answer.as_deref().and_then(|answer| Codec::of_server(answer, self.level).ok());
        let mut bytes = switching(accept, answer.as_deref());
        if choices.one_in(4) {
            bytes.extend(self.frames(choices, mood));
        }
        bytes
    }

    fn draw_tunnel(&mut self, choices: &mut Choices) -> Play {
        if choices.one_in(4) {
            return Play::Send(b"HTTP/1.1 407 x\r\nContent-Length: 0\r\n\r\n".into());
        }
        self.stage = Stage::Http;
        Play::Send(b"HTTP/1.1 200 Connection established\r\n\r\n".into())
    }

    /// From here on it speaks WebSocket.
    pub(super) fn switch(&mut self, bytes: &[u8], network: &mut Network) {
        let now = network.now;
        let mut far_end = FarEnd::server();
        (far_end.answers_pings, far_end.answers_close) = (self.answers_pings, self.answers_close);
        network.link(self.id).far_end = Some(far_end);
        (self.stage, self.joined_at) = (Stage::Session, Some(now));
        network.send(self.id, bytes);
    }

    /// What a server does that has nothing against anybody; `None` if there is nothing to do.
    pub(crate) fn draw_welcome(&mut self) -> Option<Play> {
        let request = self.request.take()?;
        let Some(accept) = request.accept else {
            self.stage = Stage::Http;
            return Some(Play::Send(b"HTTP/1.1 200 OK\r\n\r\n".into()));
        };
        let whole = switching(&accept, None);
        Some(Play::Switch(if request.rest.is_empty() { whole } else { request.rest }))
    }
}

fn switching(accept: &str, agreement: Option<&str>) -> Vec<u8> {
    let extensions = agreement
        .map_or(String::new(), |agreement| format!("Sec-WebSocket-Extensions: {agreement}\r\n"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{extensions}\r\n"
    )
    .into_bytes()
}

fn draw_refusal(choices: &mut Choices) -> Vec<u8> {
    let status = choices.pick(&[200, 401, 403, 404, 410, 426, 500, 503]);
    let wait = choices.below(100);
    let retry = if choices.one_in(2) { format!("Retry-After: {wait}\r\n") } else { String::new() };
    // Its body is all there, or never comes.
    let length = choices.pick(&[0, 4, 4, 4_000]);
    format!("HTTP/1.1 {status} x\r\n{retry}Content-Length: {length}\r\n\r\nbody").into_bytes()
}

fn draw_redirect(choices: &mut Choices) -> Vec<u8> {
    let location = choices.pick(LOCATIONS);
    let status = choices.pick(&[301, 302, 303, 307, 308]);
    format!("HTTP/1.1 {status} x\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// One of the answers to an offer of permessage-deflate that RFC 7692 allows.
fn draw_agreement(choices: &mut Choices, offer: &str) -> String {
    let has = |name: &str| offer.split(';').any(|parameter| parameter.trim() == name);
    let bits = |name: &str| {
        let mut all = offer.split(';').filter_map(|parameter| parameter.trim().split_once('='));
        all.find(|(known, _)| *known == name).and_then(|(_, bits)| bits.parse::<u64>().ok())
    };
    let mut agreement = "permessage-deflate".to_owned();
    if has("server_no_context_takeover") || choices.one_in(4) {
        agreement.push_str("; server_no_context_takeover");
    }
    if choices.one_in(4) {
        agreement.push_str("; client_no_context_takeover");
    }
    // Section 7.1.2.1: no larger window than was asked for.
    let most = bits("server_max_window_bits");
    if most.is_some() || choices.one_in(4) {
        let bits = 9 + choices.below(most.unwrap_or(15) - 8);
        agreement.push_str(&format!("; server_max_window_bits={bits}"));
    }
    let most = bits("client_max_window_bits");
    let may_limit = most.is_some() || has("client_max_window_bits");
    if may_limit && choices.one_in(2) {
        let bits = 9 + choices.below(most.unwrap_or(15) - 8);
        agreement.push_str(&format!("; client_max_window_bits={bits}"));
    }
    agreement
}
