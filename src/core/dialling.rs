//! A connection that a dialer has made, until it is a session: the requests that go out on it, and what
//! becomes of their answers.

use std::io;
use std::rc::Rc;

use crate::app::call::{Between, Call};
use crate::app::endpoint::Endpoint;
use crate::protocol::client_handshake::{Asked, is_credential, read_body};
use crate::protocol::connect_error::ConnectError;
use crate::protocol::head::{HeadLimits, HeadStatus, parse_head};
use crate::protocol::response_head::{ResponseFault, ResponseHead, ResponseStatus, parse_response};
use crate::session::extensions::{Agreed, Pipeline};
use crate::session::state::{NO_ADDR, Phase};
use crate::structures::wire::Wire;
use crate::words::connect::{ConnectStep, DialerState};
use crate::words::network::canonical;
use crate::words::time::Time;

use crate::core::connection::{Disposal, Stage};
use crate::core::http_stage::HttpStage;
use crate::core::http_turn::HttpTurn;
use crate::core::panics::{Panicked, caught};
use crate::core::session_input::SessionTurn;
use crate::core::turn::{Reading, Turn};
use crate::core::turns::Core;

/// What is known of it beside the bytes that arrived.
#[derive(Debug, Default)]
pub(crate) struct Dialling {
    /// What the request to the server asked for, and the request; `None` while a proxy is asked.
    asked: Option<(Asked, Box<[u8]>)>,
    /// The head of an answer that refuses; its body is awaited.
    refusal: Option<ResponseHead>,
    /// Interim answers so far.
    interim: u8,
    /// Bytes have come that were not looked at.
    has_input: bool,
}

/// Interim answers (RFC 9110 section 15.2) are passed over, but not for ever.
const INTERIM_MAX: u8 = 16;
/// What may arrive of a refusal before its body is as long as it gets.
const REFUSAL_BYTES_MAX: usize = 16 << 10;
/// Lines of our own request, whose number is the application's.
const OWN_LINES_MAX: usize = 256;

/// What an answer made of the connection.
enum Answered {
    /// More is to come.
    Partial,
    /// The tunnel through the proxy is there.
    Tunnel,
    /// It becomes a session.
    Switched(ResponseHead),
    Redirect(ResponseHead),
    Failed(ConnectError),
}

/// Requests.
impl Core {
    /// A connection was made and has its socket: the first request goes out.
    pub(crate) fn handle_dial_ready(&mut self, now: Time, slot: u32, wire: &mut dyn Wire) {
        let Some(&index) = self.outgoing.by_slot.get(&slot) else { return };
        let Some(dial) = self.dial(index) else { return };
        let Some(progress) = dial.progress.as_deref() else { return };
        match &dial.connector.proxy {
            Some(proxy) => {
                let mut request = Vec::new();
                proxy.write_connect(&mut request, &progress.url.place);
                self.set_step(index, ConnectStep::Tunnel);
                self.turn(now, slot, wire, |turn| turn.send_request(&request));
            }
            None => self.send_handshake(now, index, slot, wire),
        }
        self.after_turn(now);
    }

    fn send_handshake(&mut self, now: Time, index: u32, slot: u32, wire: &mut dyn Wire) {
        self.set_step(index, ConnectStep::Handshake);
        let Some(dial) = self.dial(index) else { return };
        let Some(progress) = dial.progress.as_deref() else { return };
        let (settings, mut url) = (Rc::clone(&dial.connector.settings), (*progress.url).clone());
        let is_elsewhere = progress.is_elsewhere;
        let made =
            caught(|| Ok((settings.request_headers()?, Agreed::offer(&settings.extensions)?)));
        let (mut headers, offer) = match made {
            Ok(Ok(made)) => made,
            Ok(Err(mistake)) => {
                return self.fail_dial(now, index, ConnectError::Request(mistake), None);
            }
            Err(Panicked(text)) => {
                self.shared.last_panic = Some(text.clone());
                return self.fail_dial(now, index, ConnectError::Panic(text), None);
            }
        };
        if is_elsewhere {
            headers.retain(|(name, _)| !is_credential(name));
            url.authorization = None;
        }
        let mut request = Vec::new();
        let asked = Asked::write(&mut request, &url, &settings.protocols, &offer, &headers);
        self.turn(now, slot, wire, |turn| turn.send_request(&request));
        if let Some(dialling) = self.dialling(slot) {
            dialling.asked = Some((asked, request.into()));
        }
    }

    fn http(&mut self, slot: u32) -> Option<&mut HttpStage> {
        match &mut self.connections.slab.at_mut(slot)?.stage {
            Stage::Http(http) => Some(http),
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => None,
        }
    }

    fn dialling(&mut self, slot: u32) -> Option<&mut Dialling> {
        self.http(slot)?.dialling.as_deref_mut()
    }
}

/// Answers.
impl Core {
    /// Looks at what has arrived on a connection that was dialled, if that is one.
    pub(super) fn advance_dial(&mut self, now: Time, slot: u32, wire: &mut dyn Wire) {
        loop {
            let limits = HeadLimits {
                max_bytes: self.shared.limits.max_head_bytes,
                max_lines: self.shared.limits.max_head_lines,
            };
            let Some(dialling) = self.dialling(slot) else { return };
            if !std::mem::take(&mut dialling.has_input) {
                return;
            }
            let Some(&index) = self.outgoing.by_slot.get(&slot) else { return };
            let may_redirect =
                self.progress(index).is_some_and(|progress| progress.redirects_left > 0);
            let Some(http) = self.http(slot) else { return };
            match http.read_answer(&limits, may_redirect) {
                Answered::Partial => return,
                Answered::Tunnel => {
                    if let Some(dialling) = self.dialling(slot) {
                        dialling.has_input = true; // the rest, if there is one
                    }
                    self.send_handshake(now, index, slot, wire);
                }
                Answered::Switched(head) => return self.switched(now, index, slot, head, wire),
                Answered::Redirect(head) => return self.redirected(now, index, slot, &head),
                Answered::Failed(error) => {
                    return self.fail_dial(now, index, error, wire.since_1970());
                }
            }
        }
    }

    /// The connection has ended, or failed, before it was a session; false if it is no such one.
    pub(super) fn dialling_ended(
        &mut self,
        now: Time,
        slot: u32,
        kind: Option<io::ErrorKind>,
        since_1970: Option<std::time::Duration>,
    ) -> bool {
        let Some(&index) = self.outgoing.by_slot.get(&slot) else { return false };
        let Some(progress) = self.progress(index) else { return false };
        let ended = ConnectError::Ended { step: progress.step, kind };
        let error = self.refusal_so_far(slot).unwrap_or(ended);
        self.fail_dial(now, index, error, since_1970);
        self.after_turn(now);
        true
    }

    /// The refusal whose body was not complete.
    pub(super) fn refusal_so_far(&mut self, slot: u32) -> Option<ConnectError> {
        let http = self.http(slot)?;
        let bytes = std::mem::take(&mut http.unread);
        let dialling = http.dialling.as_deref_mut()?;
        let head = dialling.refusal.take()?;
        Some(dialling.refused(head, &bytes))
    }

    /// Drops a connection of an attempt that has ended.
    pub(super) fn drop_dialling(&mut self, now: Time, slot: u32) {
        self.outgoing.by_slot.remove(&slot);
        self.turn(now, slot, &mut crate::structures::wire::NoWire, |turn| {
            turn.drop_socket(Disposal::Close);
        });
    }

    /// Follows a redirect, on a connection of its own.
    fn redirected(&mut self, now: Time, index: u32, slot: u32, head: &ResponseHead) {
        let Some(progress) = self.progress(index) else { return };
        let location = head.header("location").unwrap_or_default();
        match progress.url.follow(location) {
            Ok(url) => {
                progress.redirects_left = progress.redirects_left.saturating_sub(1);
                progress.is_elsewhere |= !progress.url.is_same_server(&url);
                progress.url = Rc::new(url);
                progress.slot = None;
                self.drop_dialling(now, slot);
                self.look_up(now, index);
            }
            Err(mistake) => self.fail_dial(now, index, ConnectError::Redirect(mistake), None),
        }
    }

    /// The server has switched: if its answer is what was asked for, there is a session.
    fn switched(
        &mut self,
        now: Time,
        index: u32,
        slot: u32,
        head: ResponseHead,
        wire: &mut dyn Wire,
    ) {
        let (call, agreed) = match self.agree(slot, head, wire) {
            Ok(agreed) => agreed,
            Err(fault) => return self.fail_dial(now, index, ConnectError::BadAnswer(fault), None),
        };
        let Some(dial) = self.dial(index) else { return };
        let (factory, cell) = (Rc::clone(&dial.connector.factory), Rc::clone(&dial.cell));
        let handler = match caught(|| factory(&call, cell)) {
            Ok(handler) => handler,
            Err(Panicked(text)) => {
                self.shared.last_panic = Some(text.clone());
                return self.fail_dial(now, index, ConnectError::Panic(text), None);
            }
        };
        let Some(rest) = self.http(slot).map(|http| std::mem::take(&mut http.unread)) else {
            return;
        };
        let Some((route, raw)) = self.note_open(now, index, slot) else { return };
        let pipeline = Pipeline::for_session(raw, agreed);
        self.turn(now, slot, wire, |turn| turn.open_dialled(route, pipeline, handler, &call, rest));
    }

    /// What was agreed on with an answer; the error says what is wrong with it.
    fn agree(
        &mut self,
        slot: u32,
        head: ResponseHead,
        wire: &dyn Wire,
    ) -> Result<(Call, Agreed), String> {
        let gone = || "its request is gone".to_owned();
        let index = self.outgoing.by_slot.get(&slot).copied().ok_or_else(gone)?;
        let settings =
            self.dial(index).map(|dial| Rc::clone(&dial.connector.settings)).ok_or_else(gone)?;
        let asked = self.dialling(slot).and_then(|dialling| dialling.asked.take());
        let (asked, request) = asked.ok_or_else(gone)?;
        let chosen = asked.check(&head)?;
        let made = caught(|| Agreed::answered(&settings.extensions, &chosen.extensions));
        let agreed = made.map_err(|Panicked(text)| text)??;
        let limits =
            HeadLimits { max_bytes: request.len().saturating_add(1), max_lines: OWN_LINES_MAX };
        let Ok(HeadStatus::Complete { head: own, .. }) = parse_head(&request, &limits, &mut 0)
        else {
            return Err(gone());
        };
        let remote = self.connections.slab.at(slot).map_or(NO_ADDR, |it| it.state.remote_addr());
        let local = canonical(wire.local_addr());
        let between = Between { remote, client: remote, local, secure: false, host: None };
        Ok((Call::of_client(own, between, chosen.protocol, head), agreed))
    }

    /// The dialer has a session.
    fn note_open(&mut self, now: Time, index: u32, slot: u32) -> Option<(u16, bool)> {
        self.outgoing.by_slot.remove(&slot);
        let id = self.connections.slab.at(slot)?.state.id;
        self.disarm_dial(index);
        let dial = self.dial(index)?;
        dial.progress = None;
        dial.since = now;
        dial.cell.heard.set(false);
        dial.cell.session.set(Some(id));
        dial.cell.state.set(DialerState::Open);
        Some((dial.route, dial.connector.raw))
    }
}

impl HttpStage {
    /// Reads what has arrived of an answer.
    fn read_answer(&mut self, limits: &HeadLimits, may_redirect: bool) -> Answered {
        let Some(dialling) = self.dialling.as_deref_mut() else { return Answered::Partial };
        loop {
            if dialling.refusal.is_some() {
                return dialling.read_refusal(&self.unread);
            }
            let (head, length) = match parse_response(&self.unread, limits, &mut self.scanned) {
                Ok(ResponseStatus::Complete(head, length)) => (head, length),
                Ok(ResponseStatus::Partial) => return Answered::Partial,
                Err(fault) => return Answered::Failed(ConnectError::BadAnswer(words_of(fault))),
            };
            self.unread.drain(..length.min(self.unread.len()));
            self.scanned = 0;
            match (head.status(), &dialling.asked) {
                (200..=299, None) => return Answered::Tunnel,
                (101, Some(_)) => return Answered::Switched(head),
                (100..=199, _) if dialling.interim < INTERIM_MAX => {
                    dialling.interim = dialling.interim.saturating_add(1);
                }
                (301 | 302 | 303 | 307 | 308, Some(_)) if may_redirect => {
                    return Answered::Redirect(head);
                }
                _ => dialling.refusal = Some(head),
            }
        }
    }
}

impl Dialling {
    /// The refusal, once its body is complete or as long as it gets.
    fn read_refusal(&mut self, bytes: &[u8]) -> Answered {
        let Some(head) = self.refusal.take() else { return Answered::Partial };
        let body = read_body(&head, bytes);
        if body.is_whole || bytes.len() >= REFUSAL_BYTES_MAX {
            return Answered::Failed(self.refused(head, bytes));
        }
        self.refusal = Some(head);
        Answered::Partial
    }

    fn refused(&self, head: ResponseHead, bytes: &[u8]) -> ConnectError {
        let body = read_body(&head, bytes).bytes;
        let head = Box::new(head);
        match &self.asked {
            None => ConnectError::Proxy { head, body },
            Some(_) => ConnectError::Refused { head, body },
        }
    }
}

fn words_of(fault: ResponseFault) -> String {
    match fault {
        ResponseFault::Malformed => "it is no HTTP/1.1: is this the port of another protocol?",
        ResponseFault::TooLarge => "its head is over max_head_bytes or max_head_lines",
    }
    .into()
}

/// The turn of such a connection.
impl Turn<'_> {
    /// Bytes of an answer: they are looked at where the dialer is known.
    pub(super) fn dialling_input(&mut self, rx: &[u8]) -> Reading {
        if let Stage::Http(http) = &mut self.connection.stage {
            http.unread.extend_from_slice(rx);
            if let Some(dialling) = http.dialling.as_deref_mut() {
                dialling.has_input = true;
            }
            self.shared.has_deferred_work = true;
        }
        Reading::Continue
    }

    fn send_request(&mut self, request: &[u8]) {
        self.shared.tx.extend_from_slice(request);
        // Where it has to wait, it is no frame.
        self.shared.opaque_prefix = self.shared.tx.len();
    }

    /// The connection is a session from here.
    fn open_dialled(
        &mut self,
        route: u16,
        pipeline: Option<Box<Pipeline>>,
        handler: Box<dyn Endpoint>,
        call: &Call,
        mut rest: Vec<u8>,
    ) {
        self.connection.state.pipeline = pipeline;
        let name = self.routes.name(route);
        HttpTurn { turn: self }.open_session(route, name, handler);
        self.call_and_act(|handler, session| handler.on_connect(session, call));
        if !rest.is_empty() && self.connection.state.phase != Phase::Http {
            SessionTurn { turn: self }.input(&mut rest);
        }
    }
}
