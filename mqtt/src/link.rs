//! The link while it runs: what is shared, what goes to the broker, and what is counted.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use wirewheel::flow::{Batch, Taken};
use wirewheel::message::MessageBuf;
use wirewheel::{Application, CloseCode, ServerRef, SessionId};

use crate::link_state::{AWAITED_MAX, Gathered, State, encode};
use crate::numbers::{Number, Verdict};
use crate::options::{Change, Link, LinkError};
use crate::packet::{self, Outgoing, Publish};
use crate::running_link::Counts;
use crate::share::{Share, Wanted};
use crate::window::Window;

/// What the parts of a link share.
pub(crate) struct Inner {
    pub(crate) options: Link,
    pub(crate) client_id: String,
    pub(crate) presence: Option<String>,
    pub(crate) state: RefCell<State>,
    /// How often the broker has refused this box since it last took it.
    refusals: Cell<u32>,
}

/// Sharing.
impl Inner {
    /// Whether messages go to and fro.
    pub(crate) fn is_up(&self) -> bool {
        self.state.borrow().is_up
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state.borrow().counts
    }

    pub(crate) fn new(options: Link) -> Self {
        let client_id = options.drawn_client_id();
        let state = State::new(options.max_waiting, options.at_least_once);
        Self {
            presence: options.presence_topic(&client_id),
            client_id,
            options,
            state: RefCell::new(state),
            refusals: Cell::new(0),
        }
    }

    pub(crate) fn share_from_start(
        self: &Rc<Self>,
        app: &mut Application,
    ) -> Result<(), LinkError> {
        for wanted in &self.options.shares {
            let topic = self.enter(wanted)?;
            let reader = wanted.flow.read_from_start(app, self.read_of(&topic));
            self.note_reader(&topic, reader);
        }
        let shares = &mut self.state.borrow_mut().shares;
        shares.iter_mut().for_each(|share| share.is_from_start = true);
        Ok(())
    }

    pub(crate) fn share_now(
        self: &Rc<Self>,
        server: &mut ServerRef<'_>,
        wanted: &Wanted,
    ) -> Result<(), LinkError> {
        let topic = self.enter(wanted)?;
        let reader = wanted.flow.read(server, self.read_of(&topic));
        self.note_reader(&topic, reader);
        let mut out = Vec::new();
        let session = {
            let state = &mut *self.state.borrow_mut();
            if state.session.is_some() {
                state.subscribe(state.shares.len() - 1, false, &mut out);
            }
            state.session
        };
        self.send(server, session, out);
        Ok(())
    }

    fn enter(&self, wanted: &Wanted) -> Result<String, LinkError> {
        let topic = Link::topic_of(&self.options.prefix, wanted)?;
        let state = &mut *self.state.borrow_mut();
        if state.by_topic.contains_key(&topic) {
            return Err(LinkError(format!("topic {topic:?} is shared already")));
        }
        state.by_topic.insert(topic.clone(), state.shares.len());
        state.shares.push(Share::new(wanted, topic.clone()));
        Ok(topic)
    }

    fn note_reader(&self, topic: &str, reader: wirewheel::flow::ReaderId) {
        if let Some(share) = self.state.borrow_mut().share_of(topic) {
            share.reader = Some(reader);
        }
    }

    pub(crate) fn unshare(&self, server: &mut ServerRef<'_>, topic: &str) -> bool {
        let topic = format!("{}{topic}", self.options.prefix);
        let mut out = Vec::new();
        let (share, session) = {
            let state = &mut *self.state.borrow_mut();
            let Some(place) = state.by_topic.remove(&topic) else { return false };
            let share = state.shares.swap_remove(place);
            state.share_bytes -= share.bytes();
            if let Some(moved) = state.shares.get(place) {
                state.by_topic.insert(moved.topic.clone(), place);
            }
            state.unsubscribe(&share.filter(), &mut out);
            (share, state.session)
        };
        if let Some(reader) = share.reader {
            server.stop_reading(reader);
        }
        self.send(server, session, out);
        true
    }

    /// Sends what is no message, beyond the window: there is little of it. False if it was not sent.
    fn send(&self, server: &mut ServerRef<'_>, session: Option<SessionId>, out: Vec<u8>) -> bool {
        let bytes = out.len();
        // Full is what only a loop has that is at its limits: the next connection subscribes to all.
        let session = session.filter(|_| bytes > 0);
        let is_sent = session.is_some_and(|session| server.send_to(session, out).is_ok());
        if is_sent {
            self.state.borrow_mut().window.note_sent(bytes);
        }
        is_sent
    }
}

/// From the flows to the broker.
impl Inner {
    fn read_of(self: &Rc<Self>, topic: &str) -> Box<crate::share::Read> {
        let (link, topic) = (Rc::downgrade(self), topic.to_owned());
        Box::new(move |server, batch| match link.upgrade() {
            Some(link) => link.offered(server, batch, &topic),
            None => Taken::Stop,
        })
    }

    /// What a flow has for the link.
    fn offered(&self, server: &mut ServerRef<'_>, batch: &mut Batch<'_>, topic: &str) -> Taken {
        loop {
            let (place, gathered) = {
                let state = &mut *self.state.borrow_mut();
                let Some(place) = state.by_topic.get(topic).copied() else { return Taken::Stop };
                if !state.is_up || state.session.is_none() {
                    return state.drop_all(place, batch);
                }
                (place, state.gather(place, batch))
            };
            let is_all = gathered.is_all;
            self.send_gathered(server, place, gathered);
            if is_all {
                break;
            }
        }
        self.ask_if_due(server);
        // Where the window is full nothing was taken in the end, and the answer of the broker has it go on.
        Taken::Yes
    }

    /// Sends what was gathered of a share; false if it was not sent.
    pub(crate) fn send_gathered(
        &self,
        server: &mut ServerRef<'_>,
        place: usize,
        mut gathered: Gathered,
    ) -> bool {
        let out = std::mem::take(&mut gathered.out);
        let (bytes, session) = (out.len(), self.state.borrow().session);
        let Some(session) = session.filter(|_| bytes > 0) else { return bytes == 0 };
        let is_sent = server.send_to(session, MessageBuf::from(out)).is_ok();
        let state = &mut *self.state.borrow_mut();
        match is_sent {
            true => state.window.note_sent(bytes),
            false => state.lose_gathered(place, &gathered),
        }
        is_sent
    }

    /// Asks the broker how far it has read, if that is due.
    pub(crate) fn ask_if_due(&self, server: &mut ServerRef<'_>) {
        if self.state.borrow().window.is_to_ask() {
            self.ask(server);
        }
    }

    /// Asks the broker. The answer is awaited only if the question has gone out: else it is asked when more
    /// is sent, or when nothing was heard of it for long enough.
    pub(crate) fn ask(&self, server: &mut ServerRef<'_>) {
        let mut out = Vec::new();
        encode(&Outgoing::Ping, &mut out);
        let session = self.state.borrow().session;
        if self.send(server, session, out) {
            self.state.borrow_mut().window.ask(server.now());
        }
    }
}

/// From the broker to the flows.
impl Inner {
    /// A message of the broker.
    pub(crate) fn heard(&self, message: &packet::Message<'_>) {
        let state = &mut *self.state.borrow_mut();
        let (place, key) = match state.by_topic.get(message.topic) {
            // The empty key is the topic itself.
            Some(place) => (*place, state.shares.get(*place).and_then(Share::empty_key)),
            None => match state.of_key(message.topic) {
                Some((place, key)) => (place, Some(key)),
                None => return, // it is shared no longer
            },
        };
        if message.retained {
            (state.has_kept, state.kept_values) = (true, state.kept_values.saturating_add(1));
        }
        let (before, connection) = (state.bytes_of(place), state.counts.connections);
        let Some(share) = state.shares.get_mut(place) else { return };
        let Some(reader) = share.reader else { return };
        let number = message.number.and_then(Number::parse);
        let own = number.filter(|number| share.own.has(*number));
        let verdict = number.map(|number| match (own, key) {
            (None, _) => share.others.hear(number, key, message.retained),
            (Some(_), Some(key)) => share.hear_own(key, number, connection),
            // A bridge brings back what went over it.
            (Some(_), None) => Verdict::Drop,
        });
        // What is kept comes once more; else this is the echo that each newest value has.
        let counts = u64::from(own.is_none() || message.retained);
        if let Some(key) = key.filter(|_| verdict != Some(Verdict::Drop)) {
            share.others.disown(key);
            share.again.cancel(key);
        }
        if let Some(key) = key {
            share.others.note_shown(key, connection);
        }
        state.account(place, before);
        let Some(share) = state.shares.get_mut(place) else { return };
        match verdict {
            Some(Verdict::Drop) => {
                state.counts.duplicates += counts;
                return;
            }
            Some(Verdict::Take { missed }) if missed > 0 => {
                share.flow.skip(reader, missed);
                state.counts.missed = state.counts.missed.saturating_add(missed);
            }
            _ => {}
        }
        let removed = key.filter(|_| message.payload.is_empty());
        let brought = match removed {
            Some(key) => {
                share.flow.remove(reader, key);
                Ok(())
            }
            None => share.flow.bring(reader, key, message.as_message()),
        };
        match brought {
            Ok(()) => {
                if let (Some(number), Some(key)) = (own, key) {
                    share.others.note_sent(key, number, connection);
                }
                state.counts.received += if removed.is_none() { counts } else { 0 };
            }
            Err(error) => {
                // There is no room for it: it never came, as far as those here are concerned.
                log::debug!(target: "wirewheel_mqtt", "{:?}: {error}", message.topic);
                share.flow.skip(reader, 1);
                state.counts.missed = state.counts.missed.saturating_add(1);
            }
        }
    }

    /// What is kept of publishers on other boxes, and of what is to be sent again.
    pub(crate) fn bytes_held(&self) -> usize {
        self.state.borrow().share_bytes
    }

    /// An acknowledgement; false if none was awaited.
    pub(crate) fn acknowledged(&self, id: u16, is_taken: bool) -> bool {
        let state = &mut *self.state.borrow_mut();
        let Some(messages) = state.awaited.remove(&id) else { return false };
        if !is_taken {
            state.count_dropped(messages);
        }
        true
    }
}

/// The broker comes and goes.
impl Inner {
    /// It has taken this box: what it says of itself.
    pub(crate) fn connected(&self, session: SessionId, receive_maximum: u16, max_packet: usize) {
        let state = &mut *self.state.borrow_mut();
        // What is shared from here on is subscribed to on its own.
        state.session = Some(session);
        state.awaited_max = usize::from(receive_maximum.clamp(1, AWAITED_MAX));
        state.max_packet = max_packet;
        // What is kept may come before the subscription is acknowledged (MQTT 5 section 3.8.4).
        (state.has_kept, state.kept_values) = (false, 0);
        state.counts.connections += 1;
    }

    /// And its subscriptions: messages go to and fro.
    pub(crate) fn up(&self, server: &mut ServerRef<'_>, session: SessionId) {
        self.state.borrow_mut().is_up = true;
        if let Some(topic) = &self.presence {
            self.send(server, Some(session), presence_packet(topic, b"up"));
        }
        log::info!(target: "wirewheel_mqtt", "the broker is there");
        self.tell(server, &Change::Up);
        self.begin_to_join(server);
        self.read_on(server);
    }

    /// The connection is over.
    pub(crate) fn down(&self, server: &mut ServerRef<'_>, why: &str) {
        let was_up = {
            let state = &mut *self.state.borrow_mut();
            state.session = None;
            state.lose_removals();
            state.window.begin_anew();
            state.awaited.clear();
            std::mem::take(&mut state.is_up)
        };
        log::warn!(target: "wirewheel_mqtt", "the broker is away: {why}");
        if was_up {
            self.tell(server, &Change::Down(why.to_owned()));
        }
        // What waited for the broker passes: nobody here is to wait for it.
        self.read_on(server);
    }

    fn tell(&self, server: &mut ServerRef<'_>, change: &Change) {
        if let Some(hook) = &self.options.on_change {
            hook(server, change);
        }
    }

    /// There is room: those who waited for it go on.
    pub(crate) fn read_on(&self, server: &mut ServerRef<'_>) {
        {
            let state = self.state.borrow();
            let readers = state.shares.iter().filter_map(|share| share.reader);
            readers.for_each(|reader| server.read_on(reader));
        }
        self.send_again(server);
    }

    /// The window, to be asked and told.
    pub(crate) fn with_window<R>(&self, act: impl FnOnce(&mut Window) -> R) -> R {
        act(&mut self.state.borrow_mut().window)
    }

    /// The broker has refused this box, or has ended the connection for a reason that will not go away soon.
    pub(crate) fn note_refusal(&self) {
        self.refusals.set(self.refusals.get().saturating_add(1));
    }

    /// It goes on answering, so that it has not just taken this box to end it again.
    pub(crate) fn note_alive(&self) {
        self.refusals.set(0);
    }

    /// How long to wait then.
    pub(crate) fn wait_after_refusal(&self) -> Option<Duration> {
        match self.refusals.get() {
            // Once is nothing: it may be what a restart looks like.
            0 | 1 => None,
            // 2 s, 4 s and so on, up to a minute.
            count => Some(Duration::from_secs(1 << count.min(7).saturating_sub(1)).min(MINUTE)),
        }
    }

    /// The server stops: the broker is told, so that it publishes no Will.
    pub(crate) fn say_goodbye(&self, server: &mut ServerRef<'_>) {
        let Some(session) = self.state.borrow_mut().session.take() else { return };
        let mut out = Vec::new();
        if let Some(topic) = &self.presence {
            out = presence_packet(topic, b"");
        }
        encode(&Outgoing::Disconnect, &mut out);
        self.state.borrow_mut().is_up = false;
        let _ = server.send_to(session, out);
        let _ = server.close(session, CloseCode::NORMAL);
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn presence_packet(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let message = Publish { topic, id: None, retain: true, is_text: true, number: None, payload };
    encode(&Outgoing::Publish(message), &mut out);
    out
}
