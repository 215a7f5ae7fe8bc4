//! One connection to a broker: what comes on it is bad input until it is a packet that is due.

use std::rc::Rc;
use std::time::Duration;

use wirewheel::client::ByteHandler;
use wirewheel::error::{HandlerError, SessionError};
use wirewheel::{CloseInfo, HandlerResult, Session, TimerId};

use crate::flowsdk_codec::FlowSdk;
use crate::link::Inner;
use crate::link_state::encode;
use crate::packet::{Codec, Incoming, Outgoing, packet_bytes};

/// The session of a link.
pub(crate) struct Connection {
    link: Rc<Inner>,
    /// A packet that has come in part.
    partial: Vec<u8>,
    stage: Stage,
    keep_alive: Duration,
    timer: Option<TimerId>,
    /// It has answered a ping since it took this box.
    is_proven: bool,
    /// What went wrong, in words.
    fault: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// CONNECT is out.
    Connecting,
    /// What is shared is being subscribed to.
    Subscribing,
    Open,
}

impl Connection {
    pub(crate) fn new(link: Rc<Inner>) -> Self {
        let keep_alive = link.options.keep_alive;
        Self {
            link,
            partial: Vec::new(),
            stage: Stage::Connecting,
            keep_alive,
            timer: None,
            is_proven: false,
            fault: None,
        }
    }

    /// Takes what has come: of a packet that is not whole, it is kept.
    fn take_bytes(
        &mut self,
        session: &mut Session<'_>,
        bytes: &[u8],
        answers: &mut Vec<u8>,
    ) -> Result<(), String> {
        let has_partial = !self.partial.is_empty();
        let bytes = if has_partial { self.complete(session, bytes, answers)? } else { bytes };
        let taken = self.take_packets(session, bytes, answers)?;
        self.partial.extend_from_slice(bytes.get(taken..).unwrap_or_default());
        Ok(())
    }

    /// Takes packets from the start of `bytes`: how much that is.
    fn take_packets(
        &mut self,
        session: &mut Session<'_>,
        bytes: &[u8],
        answers: &mut Vec<u8>,
    ) -> Result<usize, String> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let Some(length) = self.length_of(rest)? else { break };
            let Some(packet) = rest.get(..length) else { break };
            taken += length;
            self.take(session, FlowSdk.decode(packet)?, answers)?;
        }
        Ok(taken)
    }

    /// How long the packet is that begins there, once its header has come: one that may not be is refused
    /// by that, before anything of it is kept.
    fn length_of(&self, bytes: &[u8]) -> Result<Option<usize>, String> {
        // CONNACK or DISCONNECT: else what follows could be waited for without end.
        if self.stage == Stage::Connecting && !matches!(bytes.first(), Some(0x20 | 0xe0)) {
            self.link.note_refusal();
            return Err("its first packet is no CONNACK: is this the port of MQTT?".into());
        }
        let (length, most) = (packet_bytes(bytes)?, self.link.options.max_packet);
        match length.filter(|length| *length > most) {
            Some(length) => Err(format!("a packet of {length} bytes, over max_packet ({most})")),
            None => Ok(length),
        }
    }

    /// Takes the packet that has come in part if its rest is there: what follows it.
    fn complete<'b>(
        &mut self,
        session: &mut Session<'_>,
        bytes: &'b [u8],
        answers: &mut Vec<u8>,
    ) -> Result<&'b [u8], String> {
        let (mut partial, mut rest) = (std::mem::take(&mut self.partial), bytes);
        loop {
            let length = self.length_of(&partial)?;
            // Of its header a byte at a time: only that says how much more is to come.
            let missing = length.map_or(1, |length| length.saturating_sub(partial.len()));
            if missing == 0 {
                self.take(session, FlowSdk.decode(&partial)?, answers)?;
                return Ok(rest);
            }
            let (part, behind) = rest.split_at(missing.min(rest.len()));
            partial.extend_from_slice(part);
            rest = behind;
            if part.len() < missing {
                self.partial = partial;
                return Ok(rest);
            }
        }
    }

    fn take(
        &mut self,
        session: &mut Session<'_>,
        packet: Incoming<'_>,
        answers: &mut Vec<u8>,
    ) -> Result<(), String> {
        match (packet, self.stage) {
            (Incoming::Refused(code, words), _) => Err(self.refused(code, &words)),
            (packet @ Incoming::Connected { .. }, Stage::Connecting) => {
                self.connected(session, &packet, answers)
            }
            (_, Stage::Connecting) => Err("its first packet is no CONNACK".into()),
            (Incoming::Connected { .. }, _) => Err("it connects twice".into()),
            (Incoming::Subscribed { id, granted }, _) => {
                self.link.state.borrow_mut().subscribed(id, &granted)?;
                self.open(session)
            }
            (Incoming::Message(message), _) => {
                self.link.heard(&message);
                if let Some(id) = message.id {
                    encode(&Outgoing::Acknowledge(id), answers);
                }
                Ok(())
            }
            (Incoming::Acknowledged { id, is_taken }, _) => {
                if !self.link.acknowledged(id, is_taken) {
                    return Err("it acknowledges what was not sent".into());
                }
                self.link.read_on(&mut session.server());
                Ok(())
            }
            (Incoming::Pong, _) => {
                self.ponged(session, answers);
                Ok(())
            }
            (Incoming::Unsubscribed, _) => Ok(()),
        }
    }

    fn connected(
        &mut self,
        session: &mut Session<'_>,
        packet: &Incoming<'_>,
        answers: &mut Vec<u8>,
    ) -> Result<(), String> {
        let Incoming::Connected {
            receive_maximum,
            keep_alive_seconds,
            max_packet_bytes,
            max_at_least_once,
            retains,
        } = *packet
        else {
            return Ok(());
        };
        // From here whatever ends the connection is a refusal, also if it is this box's.
        self.stage = Stage::Subscribing;
        if self.link.options.at_least_once && !max_at_least_once {
            return Err("it has no QoS 1: link without at_least_once".into());
        }
        if self.link.state.borrow().shares_latest() && !retains {
            return Err("it keeps no messages (retain), which newest values need".into());
        }
        if let Some(seconds) = keep_alive_seconds.filter(|seconds| *seconds > 0) {
            self.keep_alive = self.keep_alive.min(Duration::from_secs(seconds.into()));
            self.wait(session).map_err(|error| error.to_string())?;
        }
        self.link.connected(session.id(), receive_maximum, max_packet_bytes);
        self.link.state.borrow_mut().subscribe(0, true, answers);
        self.open(session)
    }

    /// Messages go to and fro once all is subscribed to.
    fn open(&mut self, session: &mut Session<'_>) -> Result<(), String> {
        if self.stage != Stage::Subscribing {
            return Ok(());
        }
        let is_subscribed = self.link.state.borrow().is_subscribed();
        if is_subscribed.inspect_err(|_| self.link.note_refusal())? {
            self.stage = Stage::Open;
            let id = session.id();
            self.link.up(&mut session.server(), id);
        }
        Ok(())
    }

    /// It has read what was sent before the ping.
    fn ponged(&mut self, session: &mut Session<'_>, answers: &mut Vec<u8>) {
        let (asks, is_beginning) = self.link.answered(session.now());
        if !is_beginning {
            self.is_proven = true;
            self.link.note_alive();
        }
        if asks {
            encode(&Outgoing::Ping, answers);
        }
        self.link.read_on(&mut session.server());
    }

    fn refused(&self, code: u8, words: &str) -> String {
        // Of a stop or a restart (MQTT 5 section 3.14.2.1) it is back as soon as it can.
        if !matches!(code, 0 | 0x89 | 0x8b) {
            self.link.note_refusal();
        }
        let meaning = match code {
            0x84 => "it does not speak MQTT 5",
            0x86 => "user name or password is wrong",
            0x87 => "not authorized",
            0x88 | 0x89 => "it is not available now",
            0x8b => "it shuts down",
            0x8d => "it heard nothing in time",
            0x8e => "another client has taken this one's name",
            0x95 => "a packet was too large",
            0x97 => "over a quota",
            0x9a => "it keeps no messages (retain), among them who is there",
            0x9b => "it does not know that QoS",
            _ => "it ends the connection",
        };
        let mut why = format!("{meaning} (reason {code:#04x})");
        if !words.is_empty() {
            // They may hold what ends a line of the log, or acts on who reads it.
            why += &format!(": {words:?}");
        }
        why
    }

    /// Until the broker is next looked at.
    fn wait(&mut self, session: &mut Session<'_>) -> HandlerResult {
        if let Some(timer) = self.timer.take() {
            session.cancel_timer(timer);
        }
        self.timer = Some(session.set_timer(self.keep_alive)?);
        Ok(())
    }

    fn fail(&mut self, fault: String) -> HandlerError {
        self.fault = Some(fault.clone());
        fault.into()
    }
}

impl ByteHandler for Connection {
    fn on_connect(&mut self, session: &mut Session<'_>) -> HandlerResult {
        let options = &self.link.options;
        let mut out = Vec::new();
        let connect = Outgoing::Connect {
            client_id: &self.link.client_id,
            user: options.user.as_deref(),
            password: options.password.as_deref(),
            keep_alive_seconds: u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX),
            will_topic: self.link.presence.as_deref(),
            at_least_once: options.at_least_once,
            max_packet_bytes: u32::try_from(options.max_packet).unwrap_or(u32::MAX),
        };
        if !encode(&connect, &mut out) {
            return Err(self.fail("client id, user name or password cannot be sent".into()));
        }
        self.wait(session)?;
        session.send(&out)
    }

    fn on_bytes(&mut self, session: &mut Session<'_>, bytes: &[u8]) -> HandlerResult {
        let mut answers = Vec::new();
        if let Err(fault) = self.take_bytes(session, bytes, &mut answers) {
            return Err(self.fail(fault));
        }
        if !answers.is_empty() {
            self.link.with_window(|window| window.note_sent(answers.len()));
            session.send(&answers)?;
        }
        Ok(())
    }

    fn on_timer(&mut self, session: &mut Session<'_>, _timer: TimerId) -> HandlerResult {
        if self.stage != Stage::Open {
            return Err(self.fail("it does not answer".into()));
        }
        let (now, keep_alive) = (session.now(), self.keep_alive);
        let asked_at = self.link.with_window(|window| window.asked_at());
        match asked_at {
            Some(at) if now.saturating_sub(at) + TICK >= keep_alive => {
                return Err(self.fail("it does not answer pings".into()));
            }
            Some(_) => {}
            None => {
                let mut out = Vec::new();
                encode(&Outgoing::Ping, &mut out);
                session.send(&out)?;
                self.link.with_window(|window| {
                    window.ask(now);
                    window.note_sent(out.len());
                });
            }
        }
        self.wait(session)
    }

    fn bytes_held(&self) -> usize {
        self.partial.capacity().saturating_add(self.link.bytes_held())
    }

    fn on_error(&mut self, _session: &mut Session<'_>, error: &SessionError) {
        if self.fault.is_none() {
            self.fault = Some(error.to_string());
        }
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        let why = self.fault.take().unwrap_or_else(|| match u16::from(close.code()) {
            1005 => "it has ended the connection".into(),
            1000 | 1001 => "this server stops".into(),
            _ => "the connection is lost".into(),
        });
        // Two clients of one name would else end each other without a pause.
        if self.stage != Stage::Connecting && !self.is_proven {
            self.link.note_refusal();
        }
        self.link.down(&mut session.server(), &why);
    }
}

/// A timer is up to two ticks of the loop late, and a question may have gone out as much later.
const TICK: Duration = Duration::from_millis(17);
