//! The handlers of a simulation: they do by chance whatever a hook may do, and note all that
//! happens to them.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::app::call::Call;
use crate::app::handler::Handler;
use crate::flow::published::Published;
use crate::flow::shared_flow::SharedFlow;
use crate::session::Session;
use crate::structures::ids::TimerId;
use crate::words::close::{CloseCode, CloseInfo, CloseReason};
use crate::words::error::{HandlerResult, ProtocolError, SessionError};
use crate::words::message::Message;

use super::choices::Choices;
use super::content::{self, FROM_CLIENT, FROM_CLIENT_PACKED, FROM_FLOW, FROM_OTHER, FROM_SESSION};
use super::losses::Fault;
use super::order::Told;
use super::sequence::Arriving;
#[cfg(feature = "client")]
use super::uplinks::Uplink;
use super::world::{Log, Mood, Tally, Wants, World};

/// What panics on purpose says.
pub(crate) const PLANNED: &str = "planned by the simulation";

/// The handler of one session.
pub(crate) struct Actor {
    world: Rc<RefCell<World>>,
    pub(super) link: usize,
    /// Of a session that takes messages in pieces, what has come of one.
    pub(super) arriving: Option<Arriving>,
    /// Whose session it is, if it was dialled.
    #[cfg(feature = "client")]
    pub(super) uplink: Option<Uplink>,
}

impl Actor {
    /// The request names the link it came over.
    pub(crate) fn join(world: &Rc<RefCell<World>>, call: &Call) -> Self {
        let link = call.header("x-link").and_then(|link| link.parse().ok()).unwrap_or(usize::MAX);
        let actor = Self {
            world: Rc::clone(world),
            link,
            arriving: None,
            #[cfg(feature = "client")]
            uplink: None,
        };
        let panics = {
            let mut world = world.borrow_mut();
            world.mood.panics && world.choices.one_in(20)
        };
        assert!(!panics, "{PLANNED}");
        let log = Log { timeout: world.borrow().timeout, ..Log::default() };
        if world.borrow_mut().sessions.insert(link, log).is_some() {
            actor.violation("two sessions on one link");
        }
        actor
    }

    /// The same for a session that takes messages in pieces.
    pub(crate) fn join_in_pieces(world: &Rc<RefCell<World>>, call: &Call) -> Self {
        Self { arriving: Some(Arriving::default()), ..Self::join(world, call) }
    }

    /// The other side, where that is a server of this code.
    fn peer(&self) -> Option<Rc<RefCell<World>>> {
        let peer = self.world.borrow().peer.as_ref().and_then(Weak::upgrade);
        peer.filter(|peer| peer.borrow().sessions.contains_key(&self.link))
    }

    /// A message of the client is the next one, whole, and within the limit.
    fn check_message(&self, number: usize, bytes: &[u8]) {
        if let Some(peer) = self.peer() {
            self.check_message_of(&mut peer.borrow_mut(), bytes);
            return self.check_length(bytes);
        }
        self.check_length(bytes);
        let world = &mut *self.world.borrow_mut();
        let read = content::read(bytes);
        if matches!(read, Some((FROM_CLIENT_PACKED, _))) {
            world.tally.packed_in += 1;
        }
        let is_next = matches!(read,
            Some((FROM_CLIENT | FROM_CLIENT_PACKED, read)) if read == number);
        if !is_next && !world.spoiled.contains(&self.link) {
            let start = bytes.get(..20).unwrap_or(bytes).escape_ascii();
            world.violations.push(format!("link {}: {start} for message {number}", self.link));
        }
    }

    fn check_length(&self, bytes: &[u8]) {
        if bytes.len() > self.world.borrow().max_message_size {
            self.violation(&format!("a message of {} bytes", bytes.len()));
        }
    }

    /// A message of a session of another server is what that one has sent.
    fn check_message_of(&self, peer: &mut World, bytes: &[u8]) {
        let World { sessions, drops, tally, publishers, .. } = peer;
        let Some(log) = sessions.get(&self.link) else { return };
        let mut told = Told { log: None, drops: *drops, publishers, tally };
        let taken = self.log(|own| own.heard.take(self.link, bytes, log, &mut told));
        if let Err(what) = taken {
            self.violation(&what);
        }
    }

    #[cfg(feature = "client")]
    fn uplink(&self, act: impl FnOnce(&Uplink)) {
        if let Some(uplink) = &self.uplink {
            act(uplink);
        }
    }

    pub(super) fn tally(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.world.borrow_mut().tally);
    }

    pub(super) fn violation(&self, what: &str) {
        self.world.borrow_mut().violations.push(format!("session of link {}: {what}", self.link));
    }

    pub(super) fn log<R>(&self, act: impl FnOnce(&mut Log) -> R) -> R {
        act(self.world.borrow_mut().sessions.entry(self.link).or_default())
    }

    pub(super) fn choose<R>(&self, act: impl FnOnce(&mut Choices, Mood) -> R) -> R {
        let world = &mut *self.world.borrow_mut();
        act(&mut world.choices, world.mood)
    }

    /// A hook begins: it may.
    pub(super) fn enter(&self, hook: &str, session: &Session<'_>) {
        let (connected, ended) = self.log(|log| (log.connected, log.end.is_some()));
        if ended {
            self.violation(&format!("{hook} after on_close"));
        }
        if !connected && hook != "on_connect" {
            self.violation(&format!("{hook} before on_connect"));
        }
        let known = session.close_info().cloned();
        let before = self.log(|log| std::mem::replace(&mut log.known_end, known.clone()));
        if let (Some(before), Some(known)) = (before, known) {
            // Only whether it is clean may still be learned.
            if (before.code(), before.text()) != (known.code(), known.text()) {
                self.violation(&format!("the end changed from {before:?} to {known:?}"));
            }
        }
    }

    /// Does up to three things, sometimes many.
    pub(super) fn act(&self, session: &mut Session<'_>) -> HandlerResult {
        let count = self.choose(|choices, _| choices.pick(&[0, 1, 1, 2, 2, 3, 3, 20]));
        let result = (0..count).try_for_each(|_| self.act_once(session));
        self.note_dropped(session);
        result
    }

    /// Known also of a session that never hears of its end, since its server is killed.
    fn note_dropped(&self, session: &Session<'_>) {
        let dropped = usize::try_from(session.dropped()).unwrap_or(usize::MAX);
        self.log(|log| log.dropped = dropped);
    }

    fn act_once(&self, session: &mut Session<'_>) -> HandlerResult {
        let (what, mood) = self.choose(|choices, mood| (choices.below(30), mood));
        match what {
            0..=9 => self.send(session),
            10..=12 if mood.fragments => self.send_fragment(session),
            13 => {
                let len = self.choose(|choices, _| choices.size_below(130));
                let _ = session.ping(&vec![1; len]);
            }
            14 if mood.closes && self.rarely() => {
                let code = self.choose(|choices, _| choices.pick(&[1000, 1001, 3000, 4999]));
                let _ = session.close(CloseReason::new(CloseCode::new(code), "done")?);
            }
            15 if mood.aborts && self.rarely() => {
                self.log(|log| log.aborted = true);
                session.abort();
            }
            16 if mood.errors && self.rarely() => return Err(std::fmt::Error.into()),
            17 if mood.panics && self.rarely() => panic!("{PLANNED}"),
            18..=20 if mood.options => self.change_options(session),
            21..=25 if mood.flows => self.use_flow(session),
            26 | 27 if mood.reaches => self.reach(session),
            _ => {}
        }
        Ok(())
    }

    /// Acts on a message. What comes from another server of this code is answered so rarely that the two do
    /// not go on for ever.
    fn answer(
        &self,
        session: &mut Session<'_>,
        from: Option<u8>,
        is_of_server: bool,
    ) -> HandlerResult {
        let once_in = match from {
            Some(FROM_SESSION) if is_of_server => 4,
            Some(FROM_FLOW) if is_of_server => 16,
            _ => 1,
        };
        if once_in > 1 && !self.choose(|choices, _| choices.one_in(once_in)) {
            return Ok(());
        }
        self.act(session)
    }

    /// What ends a session: often enough, and not before it has said much.
    fn rarely(&self) -> bool {
        self.choose(|choices, _| choices.one_in(6))
    }

    fn change_options(&self, session: &mut Session<'_>) {
        let (what, n) = self.choose(|choices, _| (choices.below(4), choices.below(60_000)));
        let time = Duration::from_millis(n); // zero is refused, which is an answer too
        let _ = match what {
            0 => session.set_ping_period((n % 3 > 0).then_some(time)),
            1 => session.set_timeout(time).map(|()| {
                // What `on_error` sets had no part in the end that it is told of.
                self.log(|log| log.timeout = if log.fault.is_none() { time } else { log.timeout });
            }),
            2 => session.set_max_frame_size(125 + usize::try_from(n).unwrap_or(0)),
            _ => {
                session.set_masking(n % 2 == 0);
                Ok(())
            }
        };
    }

    fn use_flow(&self, session: &mut Session<'_>) {
        let (flow, number) = {
            let world = self.world.borrow();
            (world.flow.clone(), world.published)
        };
        let text = content::message(FROM_FLOW, number, self.size());
        let what = self.choose(|choices, _| choices.below(8));
        let taken = match what {
            0..=2 => return self.collect(session, &flow),
            3 => {
                // Whoever collects again gets the replay again.
                self.log(|log| (log.collects_anew, log.wants) = (true, None));
                return session.stop_collecting(&flow);
            }
            4 => session.emit(&flow, text.as_str()).is_ok(),
            5 => {
                let key = self.choose(|choices, _| choices.pick(&["a", "b", "c", "d"]));
                session.emit_latest(&flow, key, text.as_str()).is_ok()
            }
            6 => flow.emit(text.as_str()).is_ok(),
            _ => flow.try_emit(&text),
        };
        if taken {
            let world = &mut *self.world.borrow_mut();
            world.published += 1;
            world.publishers.push((4..=5).contains(&what).then_some(self.link));
        }
    }

    fn collect(&self, session: &mut Session<'_>, flow: &SharedFlow) {
        let what = self.choose(|choices, _| choices.below(4));
        let (done, wants) = match what {
            0 | 1 => (session.collect(flow), Wants::All),
            2 => (session.collect_others(flow), Wants::Others),
            _ => {
                let even = |published: &Published<'_>| {
                    let message = published.message();
                    content::read(message.bytes()).is_none_or(|(_, number)| number % 2 == 0)
                };
                (session.collect_if(flow, even), Wants::Even)
            }
        };
        if done.is_ok() {
            self.log(|log| log.wants = log.wants.or(Some(wants))); // what it collects already stays
        }
    }

    fn reach(&self, session: &mut Session<'_>) {
        let (what, n) = self.choose(|choices, _| (choices.below(12), choices.size_below(12)));
        let others: Vec<_> = session.server().sessions().collect();
        let other = others.get(n % others.len().max(1)).copied();
        match (what, other) {
            (0, _) => session.pause(),
            (1 | 2, _) => session.resume(),
            (3 | 4, _) => {
                let delay = Duration::from_millis(1 + 100 * n as u64);
                if let Ok(timer) = session.set_timer(delay) {
                    self.log(|log| log.timers.push(timer));
                }
            }
            (5, _) => {
                if let Some(timer) = self.log(|log| log.timers.pop()) {
                    session.cancel_timer(timer);
                }
            }
            (6 | 7, Some(other)) => {
                let text = content::message(FROM_OTHER, n, 10 * n);
                let count = if self.world.borrow().mood.is_slow { 20 } else { 1 };
                for _ in 0..count {
                    let _ = session.server().send_to(other, &text);
                }
            }
            (8, Some(other)) => {
                let _ = session.server().pause(other);
            }
            (9, Some(other)) => {
                let _ = session.server().resume(other);
            }
            (10, Some(other)) if n == 0 => {
                let reason = CloseReason::own(CloseCode::NORMAL, "by another");
                let _ = session.server().close(other, reason);
            }
            (11, _) if n == 0 && !self.world.borrow().mood.is_long => {
                let grace = Duration::from_secs(5);
                self.world.borrow_mut().note_stop(session.out.shared.now.after(grace));
                session.server().shutdown(grace);
            }
            _ => {}
        }
    }

    pub(super) fn size(&self) -> usize {
        self.choose(|choices, mood| {
            let most = if mood.big { choices.pick(&[10, 100, 2_000, 20_000]) } else { 200 };
            choices.size_below(most)
        })
    }

    fn send(&self, session: &mut Session<'_>) {
        let number = self.log(|log| log.sent.len());
        let text = content::message(FROM_SESSION, number, self.size());
        let result = if self.takes_pieces() && number % 3 == 0 {
            self.send_as_stream(session, number, &text)
        } else if self.choose(|choices, _| choices.one_in(2)) {
            session.send(&text)
        } else {
            session.send(text.as_bytes())
        };
        if result.is_ok() {
            if self.log(|log| log.open.is_some()) {
                self.violation("a message was taken inside another");
            }
            self.log(|log| log.sent.push(text.len()));
        }
    }
}

impl Handler for Actor {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        self.enter("on_connect", session);
        if self.log(|log| std::mem::replace(&mut log.connected, true)) {
            self.violation("on_connect twice");
        }
        let slot = session.id().0.index;
        self.log(|log| log.slot = slot);
        #[cfg(feature = "client")]
        self.uplink(|uplink| uplink.collect(session));
        self.act(session)
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        self.enter("on_message", session);
        #[cfg(feature = "client")]
        self.uplink(Uplink::note_heard);
        let number = self.log(|log| {
            log.received += 1;
            log.received - 1
        });
        self.check_message(number, message.bytes());
        if session.close_info().is_some() {
            self.violation("a message after the end was known");
        }
        let is_of_server = self.peer().is_some();
        self.answer(session, message.bytes().first().copied(), is_of_server)
    }

    fn on_ping(&mut self, session: &mut Session<'_>, _payload: &[u8]) -> HandlerResult {
        self.enter("on_ping", session);
        self.act(session)
    }

    fn on_pong(&mut self, session: &mut Session<'_>, _rtt: Duration) -> HandlerResult {
        self.enter("on_pong", session);
        #[cfg(feature = "client")]
        self.uplink(Uplink::note_heard);
        self.act(session)
    }

    fn on_own_pong(&mut self, session: &mut Session<'_>, _payload: &[u8]) -> HandlerResult {
        self.enter("on_own_pong", session);
        #[cfg(feature = "client")]
        self.uplink(Uplink::note_heard);
        self.act(session)
    }

    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        self.enter("on_drain", session);
        self.act(session)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult {
        self.enter("on_timer", session);
        // Those that were taken back must not ring; those that rang are over.
        if self.log(|log| log.timers.iter().position(|known| *known == timer)).is_none() {
            self.violation("a timer rang that was taken back, or twice");
        }
        self.log(|log| log.timers.retain(|known| *known != timer));
        self.act(session)
    }

    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        self.enter("on_error", session);
        let fault = Fault { at: session.out.shared.now, kind: error.into() };
        self.log(|log| log.fault = Some(fault));
        if session.extensions().next().is_some() {
            let tally = &mut self.world.borrow_mut().tally;
            match error {
                SessionError::Protocol(ProtocolError::MessageTooBig { .. }) => tally.too_big += 1,
                SessionError::Extension(_) => tally.corrupt += 1,
                _ => {}
            }
        }
        if self.log(|log| {
            log.errors += 1;
            log.errors > 1
        }) {
            self.violation("on_error twice");
        }
        if session.send("late").is_ok() {
            self.violation("a message was taken in on_error");
        }
        let _ = self.act(session);
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        self.enter("on_close", session);
        if session.close_info() != Some(close) {
            self.violation("close_info says something else than on_close");
        }
        if session.send("late").is_ok() {
            self.violation("a message was taken in on_close");
        }
        self.note_dropped(session);
        self.log(|log| log.end = Some(close.clone()));
        #[cfg(feature = "client")]
        self.uplink(|uplink| uplink.note_end(close));
        let _ = self.act(session);
    }
}
