//! The handlers of a server with several loops: they publish, collect, and reach for sessions of other loops.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::app::call::Call;
use crate::app::handler::Handler;
use crate::context::loop_state::ServerRef;
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::flow::shared_flow::SharedFlow;
use crate::session::Session;
use crate::words::close::{CloseCode, CloseInfo};
use crate::words::error::{AskError, HandlerResult, NameError};
use crate::words::message::Message;

use crate::testing::simulation::choices::Choices;

use super::ledger::{APPLICATION, CollectedBook, Ledger, MemberBook, Port, Publisher};

/// Flows that come and go.
pub(super) const ROOMS: [&str; 2] = ["blue room", "red room"];

/// Names that sessions give themselves.
pub(super) const NAMES: [&str; 3] = ["door", "gate", "lamp"];

/// Keys that the publishers of each loop set.
pub(super) const KEYS_OF_A_LOOP: usize = 2;

/// The handler of one session.
pub(super) struct Member {
    ledger: Rc<RefCell<Ledger>>,
    flows: Rc<[SharedFlow]>,
    number: usize,
    port: Port,
}

impl Member {
    /// On the loop of that number, which has these flows.
    pub(super) fn join(
        ledger: &Rc<RefCell<Ledger>>,
        flows: &Rc<[SharedFlow]>,
        number: usize,
        call: &Call,
    ) -> Self {
        let port = call.header("x-port").and_then(|port| port.parse().ok()).unwrap_or(0);
        Self { ledger: Rc::clone(ledger), flows: Rc::clone(flows), number, port }
    }

    fn choose<R>(&self, act: impl FnOnce(&mut Choices) -> R) -> R {
        act(&mut self.ledger.borrow_mut().choices)
    }

    fn violation(&self, what: &str) {
        self.ledger.borrow_mut().violations.push(format!("session {}: {what}", self.port));
    }

    fn member<R>(&self, act: impl FnOnce(&mut MemberBook) -> R) -> Option<R> {
        self.ledger.borrow_mut().members.get_mut(&self.port).map(act)
    }

    /// Whether it leaves flows again.
    fn is_restless(&self) -> bool {
        self.port % 8 == 1
    }

    fn act(&self, session: &mut Session<'_>) {
        match self.choose(|choices| choices.below(26)) {
            0..=8 => self.publish(session, 1),
            9 => {
                let count = self.choose(|choices| choices.pick(&[4, 4, 12, 12, 12, 40, 40, 300]));
                self.publish(session, count);
            }
            10..=12 => self.collect(session),
            13 if self.is_restless() => self.leave(session),
            14..=16 => self.send(session),
            17 | 18 => self.ask(session),
            19 => self.close_another(session),
            20 => self.take_name(session),
            21 => self.pause_another(session),
            22 => self.remove_key(),
            23 if self.choose(|choices| choices.one_in(30)) => {
                self.ledger.borrow_mut().stops = true;
                session.server().shutdown(Duration::from_secs(5));
            }
            24 | 25 => self.use_room(session),
            _ => {}
        }
    }
}

/// Flows.
impl Member {
    fn pick_flow(&self) -> usize {
        self.choose(|choices| choices.size_below(self.flows.len()))
    }

    fn publish(&self, session: &mut Session<'_>, count: usize) {
        let which = self.pick_flow();
        let by_application = self.choose(|choices| choices.one_in(6));
        let own = Publisher::try_from(self.number).unwrap_or(0);
        let publisher = if by_application { APPLICATION + own } else { self.port };
        for _ in 0..count {
            self.publish_one(session, which, publisher);
        }
    }

    fn publish_one(&self, session: &mut Session<'_>, which: usize, publisher: Publisher) {
        let Some(flow) = self.flows.get(which) else { return };
        let size = self.choose(|choices| choices.pick(&[0, 5, 40, 300]));
        let key = self.choose(|choices| choices.size_below(KEYS_OF_A_LOOP));
        let key = format!("{}-{key}", self.number);
        let (policy, number) = {
            let ledger = self.ledger.borrow();
            (ledger.flows[which].policy, ledger.flows[which].next_of(publisher))
        };
        let text = format!("f{which}:{publisher}:{number}:{}", "x".repeat(size));
        let (keeps_newest, dropped) = (policy == BufferOverflow::Latest, flow.dropped());
        let taken = match (keeps_newest, publisher == self.port) {
            (true, true) => session.emit_latest(flow, &key, text.as_str()).is_ok(),
            (true, false) => flow.emit_latest(&key, text.as_str()).is_ok(),
            (false, true) => session.emit(flow, text.as_str()).is_ok(),
            (false, false) => flow.emit(text.as_str()).is_ok(),
        };
        if !taken {
            return;
        }
        let ledger = &mut *self.ledger.borrow_mut();
        let waits = publisher == self.port && flow.would_suspend();
        ledger.tally.suspended += usize::from(waits);
        let book = &mut ledger.flows[which];
        if policy == BufferOverflow::DropLatest && flow.dropped() > dropped {
            book.dropped_at_once[self.number] += 1;
            return;
        }
        book.note_published(publisher);
        if keeps_newest {
            book.newest.insert(key, Some(text));
        }
    }

    fn collect(&self, session: &mut Session<'_>) {
        let which = self.pick_flow();
        let Some(flow) = self.flows.get(which) else { return };
        let has = |member: &mut MemberBook| member.collected.contains_key(&which);
        if self.member(has) != Some(false) {
            return;
        }
        let replayed = flow.replay_cache().len() as u64;
        if session.collect(flow).is_err() {
            return;
        }
        let ledger = &mut *self.ledger.borrow_mut();
        let book = &ledger.flows[which];
        let dropped = dropped_for_all(flow, ledger, which, self.number);
        let on_their_way = book.total - accounted(flow, dropped);
        let collected = CollectedBook::new(book, on_their_way + replayed, dropped);
        if let Some(member) = ledger.members.get_mut(&self.port) {
            member.collected.insert(which, collected);
        }
    }

    /// What is said in rooms that come and go is in no book: what is counted of it is.
    fn use_room(&self, session: &mut Session<'_>) {
        let (name, what) = self.choose(|choices| (choices.pick(&ROOMS), choices.below(5)));
        if what == 0 {
            return session.server().forget_shared_flow(name);
        }
        let options = FlowOptions::new().replay(2).extra_buffer(4);
        let Ok(room) = session.server().shared_flow(name, options) else {
            return self.violation("a room cannot be opened");
        };
        match what {
            1 => _ = session.collect(&room),
            2 => session.stop_collecting(&room),
            _ => _ = session.emit(&room, "room"),
        }
    }

    fn leave(&self, session: &mut Session<'_>) {
        let which = self.pick_flow();
        if let Some(flow) = self.flows.get(which) {
            session.stop_collecting(flow);
            self.member(|member| {
                member.has_left = true;
                member.collected.remove(&which);
            });
        }
    }

    fn remove_key(&self) {
        let which = self.pick_flow();
        let key = self.choose(|choices| choices.size_below(KEYS_OF_A_LOOP));
        let key = format!("{}-{key}", self.number);
        let ledger = &mut *self.ledger.borrow_mut();
        let Some(flow) = self.flows.get(which) else { return };
        if flow.remove(&key) {
            ledger.flows[which].newest.insert(key, None);
        }
    }
}

/// What the log of a loop has dropped of the messages that others have published, for all who collect there.
pub(super) fn dropped_for_all(
    flow: &SharedFlow,
    ledger: &Ledger,
    which: usize,
    number: usize,
) -> u64 {
    let book = &ledger.flows[which];
    // Under the other policies each subscriber counts what it has missed.
    if book.policy != BufferOverflow::DropLatest {
        return 0;
    }
    flow.dropped() - book.dropped_at_once[number]
}

/// Of all messages, how many the log of a loop has or had, or knows that it never will.
pub(super) fn accounted(flow: &SharedFlow, dropped_for_all: u64) -> u64 {
    flow.inner.end() + flow.inner.skipped() + dropped_for_all
}

/// Other sessions.
impl Member {
    fn send(&self, session: &mut Session<'_>) {
        let Some((to, id)) = self.ledger.borrow_mut().pick_member() else { return };
        let pair = (self.port, to);
        let taken = self.ledger.borrow().directs.get(&pair).map_or(0, |(taken, _)| *taken);
        let text = format!("d{}:{taken}", self.port);
        if session.server().send_to(id, text).is_ok() {
            let ledger = &mut *self.ledger.borrow_mut();
            ledger.directs.entry(pair).or_default().0 += 1;
            ledger.tally.directs += 1;
        }
    }

    fn ask(&self, session: &mut Session<'_>) {
        let (whom, question) = {
            let ledger = &mut *self.ledger.borrow_mut();
            (ledger.pick_member(), ledger.questions.len() as u64)
        };
        let Some((_, id)) = whom else { return };
        let time = self.choose(|choices| choices.pick(&[10, 900, 9_000]));
        let (ledger, correlation) = (Rc::clone(&self.ledger), question.to_string());
        let expected = format!("a{question}");
        let then = move |_: &mut ServerRef<'_>, answer: Result<Message<'_>, AskError>| {
            let ledger = &mut *ledger.borrow_mut();
            *ledger.questions.entry(question).or_default() += 1;
            match answer {
                Ok(message) if message.bytes() == expected.as_bytes() => ledger.tally.answers += 1,
                Ok(message) => ledger.violations.push(format!("{expected} is {message:?}")),
                Err(_) => ledger.tally.unanswered += 1,
            }
        };
        let text = format!("q{question}");
        let time = Duration::from_millis(time);
        let asked = session.server().ask(id, &correlation, text, time, then);
        // A question that was not taken is settled by that.
        let settled = u32::from(asked.is_err());
        self.ledger.borrow_mut().questions.insert(question, settled);
    }

    fn close_another(&self, session: &mut Session<'_>) {
        let Some((_, id)) = self.ledger.borrow_mut().pick_member() else { return };
        if self.choose(|choices| choices.one_in(4)) {
            let _ = session.server().close(id, CloseCode::new(4_000));
        }
    }

    fn pause_another(&self, session: &mut Session<'_>) {
        let Some((_, id)) = self.ledger.borrow_mut().pick_member() else { return };
        if session.server().pause(id).is_ok() {
            self.ledger.borrow_mut().paused.push(id);
        }
    }

    fn take_name(&self, session: &mut Session<'_>) {
        let (name, takes) = self.choose(|choices| (choices.pick(&NAMES), choices.one_in(2)));
        let own = session.id();
        let result = match takes {
            true => session.server().take_name(own, name).map(|other| {
                let known = self.ledger.borrow().names.get(name).copied();
                let id_of = |port| self.ledger.borrow().members.get(&port).map(|it| it.id);
                let expected = known.filter(|port| *port != self.port).and_then(id_of);
                if other != expected {
                    self.violation(&format!("{name} was {other:?}, not {expected:?}"));
                }
            }),
            false => session.server().name(own, name),
        };
        let ledger = &mut *self.ledger.borrow_mut();
        if result.is_ok() {
            ledger.names.retain(|_, port| *port != self.port);
            ledger.names.insert(name, self.port);
        } else if result == Err(NameError::Taken) && !ledger.names.contains_key(name) {
            ledger.violations.push(format!("{name} is nobody's, and {} cannot have it", self.port));
        }
    }
}

impl Handler for Member {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        let (id, number) = (session.id(), self.number);
        let member = MemberBook {
            id,
            number,
            is_over: false,
            has_left: false,
            missed: None,
            collected: BTreeMap::new(),
        };
        let ledger = &mut *self.ledger.borrow_mut();
        ledger.tally.sessions += 1;
        ledger.tally.handed_over += usize::from(number > 0);
        if ledger.members.insert(self.port, member).is_some() {
            ledger.violations.push(format!("client {} has two sessions", self.port));
        }
        Ok(())
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        if self.member(|member| member.is_over) != Some(false) {
            self.violation("a message before or behind its life");
        }
        let text = message.text().unwrap_or_default();
        match text.split_at_checked(1) {
            Some(("a", correlation)) => _ = session.answer(correlation, text),
            Some(("m", _)) => {
                let missed = session.missed();
                self.member(|member| member.missed = Some(missed));
            }
            _ => {
                let count = self.choose(|choices| choices.pick(&[1, 1, 2, 3, 6]));
                (0..count).for_each(|_| self.act(session));
            }
        }
        Ok(())
    }

    fn on_close(&mut self, _session: &mut Session<'_>, _close: &CloseInfo) {
        if self.member(|member| std::mem::replace(&mut member.is_over, true)) != Some(false) {
            self.violation("on_close before on_connect, or twice");
        }
        let port = self.port;
        self.ledger.borrow_mut().names.retain(|_, holder| *holder != port);
    }
}
