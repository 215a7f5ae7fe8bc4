//! The handshakes of dialled connections: the requests that go out, and what follows from their answers.

use std::io;
use std::rc::Rc;

use crate::app::call::{Between, Call};
use crate::app::connector::NO_TLS;
use crate::app::endpoint::Endpoint;
use crate::protocol::client_handshake::{Asked, is_credential};
use crate::protocol::connect_error::ConnectError;
use crate::protocol::head::{HeadLimits, HeadStatus, parse_head};
use crate::protocol::response_head::ResponseHead;
use crate::session::agreement::Agreed;
use crate::session::extensions::Pipeline;
use crate::session::state::{NO_ADDR, Phase};
use crate::structures::wire::{NoWire, Wire};
use crate::words::connect::{ConnectStep, DialerState};
use crate::words::network::canonical;
use crate::words::time::Time;

use crate::core::connection::{Disposal, Stage};
#[cfg(feature = "tls")]
use crate::core::dial_tls::DialTls;
use crate::core::dialling::{Answered, Dialling};
use crate::core::dials::Dials;
use crate::core::http_stage::HttpStage;
use crate::core::http_turn::HttpTurn;
use crate::core::panics::{Panicked, caught, drop_caught};
use crate::core::session_input::SessionTurn;
use crate::core::turn::Turn;

/// Lines of our own request, whose number is the application's.
const OWN_LINES_MAX: usize = 256;

/// In place of the request that a byte stream does not have.
const NO_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: -\r\n\r\n";

/// Requests.
impl Dials<'_> {
    /// A connection was made and has its socket: the first request goes out.
    pub(super) fn ready(&mut self, now: Time, slot: u32, wire: &mut dyn Wire) {
        let Some(&index) = self.core.dial_table.by_slot.get(&slot) else { return };
        let Some(dial) = self.core.dial_table.dial(index) else { return };
        let Some(progress) = dial.progress.as_deref() else { return };
        match &dial.connector.proxy {
            // RFC 6455 section 4.1 item 3: the proxy is asked to open a connection to the server, in
            // clear text and with its own credentials.
            Some(proxy) => {
                let mut request = Vec::new();
                proxy.write_connect(&mut request, &progress.url.place);
                self.core.dial_table.set_step(index, ConnectStep::Tunnel);
                self.core.turn(now, slot, wire, |turn| DialTurn { turn }.send_request(&request));
            }
            None => self.begin_handshake(now, index, slot, wire),
        }
        self.core.after_turn(now);
    }

    /// The connection leads to the server.
    fn begin_handshake(&mut self, now: Time, index: u32, slot: u32, wire: &mut dyn Wire) {
        #[cfg(feature = "tls")]
        if self.core.dial_table.is_secure(index) {
            return DialTls { core: self.core }.begin(now, index, slot);
        }
        self.send_handshake(now, index, slot, wire);
    }

    pub(super) fn send_handshake(&mut self, now: Time, index: u32, slot: u32, wire: &mut dyn Wire) {
        self.core.dial_table.set_step(index, ConnectStep::Handshake);
        let Some(dial) = self.core.dial_table.dial(index) else { return };
        if let Some(encoder) = &dial.connector.bytes {
            let pipeline = Pipeline::for_events(Rc::clone(encoder));
            return self.open_bytes(now, index, slot, pipeline, wire);
        }
        let Some(progress) = dial.progress.as_deref() else { return };
        let (settings, mut url) = (Rc::clone(&dial.connector.settings), (*progress.url).clone());
        let (is_elsewhere, delivery) = (progress.is_elsewhere, dial.connector.delivery);
        // The application makes headers and offers: what it gets wrong is an error of the attempt.
        let made = caught(|| {
            Ok((settings.request_headers()?, Agreed::offer(&settings.extensions, delivery)?))
        });
        let (mut headers, offer) = match made {
            Ok(Ok(made)) => made,
            Ok(Err(mistake)) => {
                return self.fail(now, index, ConnectError::Request(mistake), None);
            }
            Err(Panicked(text)) => {
                self.core.shared.warnings.last_panic = Some(text.clone());
                return self.fail(now, index, ConnectError::Panic(text), None);
            }
        };
        // A redirect must not make this program tell its secrets to whoever is named in it.
        if is_elsewhere {
            headers.retain(|(name, _)| !is_credential(name));
            url.authorization = None;
        }
        let mut request = Vec::new();
        let asked = Asked::write(&mut request, &url, &settings.protocols, &offer, &headers);
        self.core.turn(now, slot, wire, |turn| DialTurn { turn }.send_request(&request));
        // Kept until the answer has come, which is checked against it; then the session has it as its call.
        if let Some(dialling) = self.dialling(slot) {
            dialling.asked = Some((asked, request.into()));
        }
    }

    pub(super) fn http(&mut self, slot: u32) -> Option<&mut HttpStage> {
        match &mut self.core.connections.slab.at_mut(slot)?.stage {
            Stage::Http(http) => Some(http),
            Stage::Session(_) | Stage::Finishing | Stage::Closed(_) => None,
        }
    }

    pub(super) fn dialling(&mut self, slot: u32) -> Option<&mut Dialling> {
        self.http(slot)?.dialling.as_deref_mut()
    }
}

/// Answers.
impl Dials<'_> {
    /// Looks at what has arrived on a connection that was dialled, if that is one.
    pub(super) fn advance(&mut self, now: Time, slot: u32, wire: &mut dyn Wire) {
        loop {
            let limits = HeadLimits {
                max_bytes: self.core.shared.limits.max_head_bytes,
                max_lines: self.core.shared.limits.max_head_lines,
            };
            // It may have become a session, or have gone, since its bytes came.
            let Some(&index) = self.core.dial_table.by_slot.get(&slot) else { return };
            if self.core.dial_table.is_to_stop(index) {
                return; // it is stopped in this turn, and the application must not hear of a session before
            }
            let Some(dialling) = self.dialling(slot) else { return };
            #[cfg(feature = "tls")]
            if std::mem::take(&mut dialling.is_secured) {
                DialTls { core: self.core }.send_request(now, slot, wire);
                continue;
            }
            if !std::mem::take(&mut dialling.has_input) {
                return;
            }
            let may_redirect = self
                .core
                .dial_table
                .progress(index)
                .is_some_and(|progress| progress.redirects_left > 0);
            let Some(http) = self.http(slot) else { return };
            let HttpStage { dialling: Some(dialling), unread, scanned, .. } = http else { return };
            match dialling.read_answer(unread, scanned, &limits, may_redirect) {
                Answered::Partial => return,
                // From here the connection is the server's: nothing of the proxy's is left on it.
                Answered::Tunnel => {
                    if let Some(dialling) = self.dialling(slot) {
                        dialling.has_input = true; // the rest, if there is one
                    }
                    self.begin_handshake(now, index, slot, wire);
                }
                Answered::Switched(head) => return self.switched(now, index, slot, head, wire),
                Answered::Redirect(head) => return self.redirected(now, index, slot, &head),
                Answered::Failed(error) => {
                    return self.fail(now, index, error, wire.since_1970());
                }
            }
        }
    }

    /// The connection has ended, or failed, before it was a session; false if it is no such one.
    pub(super) fn ended(
        &mut self,
        now: Time,
        slot: u32,
        kind: Option<io::ErrorKind>,
        wire: &mut dyn Wire,
    ) -> bool {
        let index = match self.still_dialled(now, slot, wire) {
            Ok(index) => index,
            Err(is_over) => return is_over,
        };
        let Some(progress) = self.core.dial_table.progress(index) else { return false };
        let ended = ConnectError::Ended { step: progress.step, kind };
        // RFC 9112 section 6.3: a body without a length ends with the connection.
        let error = self.refusal_so_far(slot).unwrap_or(ended);
        self.fail(now, index, error, wire.since_1970());
        self.core.after_turn(now);
        true
    }

    /// The dialer in whose attempt the connection is, once what has come on it was looked at; the error says
    /// whether it is over.
    pub(super) fn still_dialled(
        &mut self,
        now: Time,
        slot: u32,
        wire: &mut dyn Wire,
    ) -> Result<u32, bool> {
        // Sessions and connections of others are in no attempt: they take the ordinary way.
        if !self.core.dial_table.by_slot.contains_key(&slot) {
            return Err(false);
        }
        // The answer may have come in the same turn as the end.
        self.advance(now, slot, wire);
        if let Some(&index) = self.core.dial_table.by_slot.get(&slot) {
            return Ok(index);
        }
        self.core.after_turn(now);
        let found = self.core.connections.slab.at(slot);
        Err(!found.is_some_and(|it| matches!(it.stage, Stage::Session(_))))
    }

    /// The refusal whose body was not complete.
    pub(super) fn refusal_so_far(&mut self, slot: u32) -> Option<ConnectError> {
        let http = self.http(slot)?;
        let bytes = std::mem::take(&mut http.unread);
        http.dialling.as_deref_mut()?.take_refusal(&bytes)
    }

    /// Drops a connection of an attempt that has ended.
    pub(super) fn drop_connection(&mut self, now: Time, slot: u32) {
        // First, so that its end is not taken for a failure of its own.
        self.core.dial_table.by_slot.remove(&slot);
        self.core.turn(now, slot, &mut NoWire, |turn| {
            turn.drop_socket(Disposal::Close);
        });
    }

    /// Follows a redirect, on a connection of its own.
    fn redirected(&mut self, now: Time, index: u32, slot: u32, head: &ResponseHead) {
        let Some(progress) = self.core.dial_table.progress(index) else { return };
        let location = head.header("location").unwrap_or_default();
        match progress.url.follow(location) {
            Ok(url) if url.secure && !cfg!(feature = "tls") => {
                self.fail(now, index, ConnectError::Redirect(NO_TLS.into()), None);
            }
            // The deadline of the attempt holds for all of its redirects together.
            Ok(url) => {
                progress.redirects_left = progress.redirects_left.saturating_sub(1);
                progress.is_elsewhere |= !progress.url.is_same_server(&url);
                progress.url = Rc::new(url);
                progress.slot = None;
                progress.connecting = 0;
                self.drop_connection(now, slot);
                self.look_up(now, index);
            }
            Err(mistake) => self.fail(now, index, ConnectError::Redirect(mistake), None),
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
        // Before the application hears of it: an answer that is not by the book makes no session.
        let (call, agreed) = match self.agree(slot, head, wire) {
            Ok(agreed) => agreed,
            Err(fault) => return self.fail(now, index, ConnectError::BadAnswer(fault), None),
        };
        let Some(dial) = self.core.dial_table.dial(index) else { return };
        let pipeline = Pipeline::for_session(dial.connector.delivery, agreed);
        self.open(now, index, slot, &call, pipeline, wire);
    }

    /// There is no handshake: the connection is the session.
    fn open_bytes(
        &mut self,
        now: Time,
        index: u32,
        slot: u32,
        pipeline: Box<Pipeline>,
        wire: &mut dyn Wire,
    ) {
        // Every handler is called with a request, of which one of bytes hears nothing.
        let limits = HeadLimits { max_bytes: NO_REQUEST.len().saturating_add(1), max_lines: 1 };
        let Ok(HeadStatus::Complete { head, .. }) = parse_head(NO_REQUEST, &limits, &mut 0) else {
            return;
        };
        let call = Call::new(head, Vec::new(), self.between(index, slot, wire), None);
        self.open(now, index, slot, &call, Some(pipeline), wire);
    }

    /// Makes the handler, and the session.
    fn open(
        &mut self,
        now: Time,
        index: u32,
        slot: u32,
        call: &Call,
        pipeline: Option<Box<Pipeline>>,
        wire: &mut dyn Wire,
    ) {
        // Made before the dialer has a session: where that fails, the attempt has.
        let Some(dial) = self.core.dial_table.dial(index) else { return };
        let (factory, cell) = (Rc::clone(&dial.connector.factory), Rc::clone(&dial.cell));
        let handler = match caught(|| factory(call, cell)) {
            Ok(handler) => handler,
            Err(Panicked(text)) => {
                self.core.shared.warnings.last_panic = Some(text.clone());
                return self.fail(now, index, ConnectError::Panic(text), None);
            }
        };
        if self.core.dial_table.is_to_stop(index) {
            return drop_caught("the handler of a dialer that has stopped", handler);
        }
        // The server's first bytes may be there already.
        let Some(rest) = self.http(slot).map(|http| std::mem::take(&mut http.unread)) else {
            return;
        };
        let Some(route) = self.note_open(now, index, slot) else { return };
        self.core.turn(now, slot, wire, |turn| {
            DialTurn { turn }.open_dialled(route, pipeline, handler, call, rest)
        });
        // What came behind the answer may wait for what a hook has asked of the server.
        self.core.finish_input(now, slot, wire, None);
    }

    /// Who is at the two ends of a connection.
    fn between(&mut self, index: u32, slot: u32, wire: &dyn Wire) -> Between {
        let remote =
            self.core.connections.slab.at(slot).map_or(NO_ADDR, |it| it.state.remote_addr());
        Between {
            remote,
            client: remote,
            local: canonical(wire.local_addr()),
            at: self.core.shared.now,
            secure: self.core.dial_table.is_secure(index),
            #[cfg(feature = "tls")]
            tls: wire.tls_peer(),
            host: None,
        }
    }

    /// What was agreed on with an answer; the error says what is wrong with it.
    fn agree(
        &mut self,
        slot: u32,
        head: ResponseHead,
        wire: &dyn Wire,
    ) -> Result<(Call, Agreed), String> {
        let gone = || "its request is gone".to_owned();
        let index = self.core.dial_table.by_slot.get(&slot).copied().ok_or_else(gone)?;
        let dial = self.core.dial_table.dial(index).ok_or_else(gone)?;
        let (settings, delivery) = (Rc::clone(&dial.connector.settings), dial.connector.delivery);
        let asked = self.dialling(slot).and_then(|dialling| dialling.asked.take());
        let (asked, request) = asked.ok_or_else(gone)?;
        let chosen = asked.check(&head)?;
        let made = caught(|| Agreed::answered(&settings.extensions, &chosen.extensions, delivery));
        let agreed = made.map_err(|Panicked(text)| text)??;
        let limits =
            HeadLimits { max_bytes: request.len().saturating_add(1), max_lines: OWN_LINES_MAX };
        let Ok(HeadStatus::Complete { head: own, .. }) = parse_head(&request, &limits, &mut 0)
        else {
            return Err(gone());
        };
        let between = self.between(index, slot, wire);
        Ok((Call::of_client(own, between, chosen.protocol, head), agreed))
    }

    /// The dialer has a session.
    fn note_open(&mut self, now: Time, index: u32, slot: u32) -> Option<u16> {
        self.core.dial_table.by_slot.remove(&slot);
        let id = self.core.connections.slab.at(slot)?.state.id;
        // From here the session has deadlines of its own.
        self.disarm(index);
        let dial = self.core.dial_table.dial(index)?;
        dial.progress = None;
        dial.since = now;
        dial.cell.heard.set(false);
        dial.cell.session.set(Some(id));
        dial.cell.set_state(DialerState::Open);
        Some(dial.route)
    }
}

/// The turn of a connection that was dialled, until it is a session.
struct DialTurn<'t, 'a> {
    turn: &'t mut Turn<'a>,
}

impl DialTurn<'_, '_> {
    fn send_request(&mut self, request: &[u8]) {
        self.turn.shared.tx.extend_from_slice(request);
        // Where it has to wait, it is no frame.
        self.turn.shared.opaque_prefix = self.turn.shared.tx.len();
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
        self.turn.connection.state.pipeline = pipeline;
        let name = self.turn.routes.name(route);
        HttpTurn { turn: self.turn }.open_session(route, name, handler);
        self.turn.call_and_act(|handler, session| handler.on_connect(session, call));
        // The hook may have closed or aborted it.
        if !rest.is_empty() && self.turn.connection.state.phase != Phase::Http {
            SessionTurn { turn: self.turn }.input(&mut rest);
        }
    }
}
