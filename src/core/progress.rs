//! One connection's turn where a deadline depends on progress: what the peer takes, what it sends of what
//! it began, and whether it is there at all.
//!
//! "Given to the system" is not "delivered": what the peer took is what was written less what its system
//! has not acknowledged. Asking for that is a system call, so it is asked only when a deadline looks.

use std::time::Duration;

use crate::protocol::frame::OpCode;
use crate::protocol::frame_reader::PartialFrame;
use crate::session::state::{Phase, PingBehind};
use crate::structures::outbox::frame_len;
use crate::structures::progress::{Least, Window};
use crate::words::error::SessionError;
use crate::words::limits::Limits;
use crate::words::options::SessionOptions;
use crate::words::time::Time;

use crate::core::connection::{Connection, Disposal, Stage};
use crate::core::ending::Loss;
use crate::core::turn::Turn;

/// An answer of so many bytes may be on its way for longer than the next request is waited for.
pub(super) const LONG_ANSWER_BYTES: usize = 64 << 10;

/// A wait that begins with an empty queue looks for that in so many parts of its length.
const LOOKS_OF_WAIT: u32 = 8;

/// What became of the bytes that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// The peer's system has them all.
    Empty,
    /// They wait, and the peer takes them fast enough.
    Moving,
    /// They wait, and it does not.
    Stuck,
}

impl Connection {
    /// When it has to be looked at whether the peer takes what waits in the outbox.
    pub(super) fn write_look(&self, least: Least) -> Option<Time> {
        let extra = self.state.extra.as_deref().filter(|extra| !extra.outbox.is_empty())?;
        Some(extra.window?.next_look(least))
    }

    /// When it has to be looked at whether the peer has the last answer, with which the wait for the next
    /// request begins.
    pub(super) fn answer_look(&self, limits: &Limits, least: Least) -> Option<Time> {
        let window = self.state.extra.as_deref()?.window?;
        let part = part_of(limits.handshake_timeout);
        Some(window.looked().after(part).min(window.next_look(least)))
    }

    /// When the wait for the peer's Close or hang-up is over, or has to be looked at since it has not
    /// begun.
    pub(super) fn leave_look(&self, limits: &Limits, least: Least) -> Option<Time> {
        let extra = self.state.extra.as_deref()?;
        let deadline = extra.deadline?;
        match extra.window.filter(|_| extra.unacknowledged) {
            _ if !extra.unacknowledged => Some(deadline),
            _ if !extra.outbox.is_empty() => None, // `write_look` says when
            None => Some(deadline),
            Some(window) => {
                let part = part_of(self.wait(limits));
                Some(window.looked().after(part).min(window.next_look(least)))
            }
        }
    }

    /// How long the wait lasts.
    fn wait(&self, limits: &Limits) -> Duration {
        match self.stage {
            Stage::Session(_) => limits.close_timeout,
            Stage::Http(_) | Stage::Finishing | Stage::Closed(_) => limits.linger_timeout,
        }
    }

    /// When the time for what the peer began is over; `None` while it is not read.
    pub(super) fn unfinished_deadline(&self, options: &SessionOptions) -> Option<Time> {
        if self.state.is_read_paused() {
            return None;
        }
        self.state.unfinished_since().map(|since| since.after(options.write_timeout))
    }

    /// When the wait for a pong is over, or has to be looked at since it has not begun.
    pub(super) fn pong_deadline(&self, options: &SessionOptions, least: Least) -> Time {
        let behind = self.state.extra.as_deref().and_then(|extra| extra.ping.as_deref());
        behind.map_or_else(
            || self.pong_wait_ends(options),
            |behind| {
                let least = Least { window: options.timeout, ..least };
                let (window, looked) = (behind.window, behind.window.looked());
                match looked < window.since().after(least.window) {
                    true => window.next_look(least),
                    false => looked.after(least.between_looks()), // it has a longer window
                }
            },
        )
    }

    pub(super) fn pong_wait_ends(&self, options: &SessionOptions) -> Time {
        self.state.ping_base.after_millis(self.state.heard_millis).after(options.timeout)
    }
}

/// What the peer takes.
impl Turn<'_> {
    pub(super) fn least(&self) -> Least {
        let window = self.connection.state.options(self.options()).write_timeout;
        Least { window, min_rate: self.shared.limits.min_rate }
    }

    /// Bytes that the peer's system has taken of all that were written, modulo 2^32, and those it has
    /// not.
    fn taken(&self) -> (u32, u32) {
        let unsent = self.wire.unsent().map_or(0, saturated);
        (self.wire.written().wrapping_sub(unsent), unsent)
    }

    /// Bytes that wait in the outbox.
    fn outbox_bytes(&self) -> u32 {
        let outbox = self.connection.state.extra.as_deref().map(|extra| &extra.outbox);
        outbox.map_or(0, |it| saturated(it.buffered_bytes().saturating_add(it.control_bytes())))
    }

    /// Looks how what was written gets on.
    pub(super) fn look_at_queue(&mut self) -> Queue {
        let (least, now) = (self.least(), self.shared.now);
        let (taken, unsent) = self.taken();
        let waiting = unsent.saturating_add(self.outbox_bytes());
        self.connection.state.timing_changed = true;
        let extra = self.connection.state.extra();
        if waiting == 0 {
            extra.window = None;
            return Queue::Empty;
        }
        let window = extra.window.get_or_insert_with(|| Window::begin(now));
        if window.look(now, taken, waiting, least) { Queue::Moving } else { Queue::Stuck }
    }

    /// Whether a look is due at what waits in the outbox, and the peer does not take it.
    pub(super) fn is_stuck(&mut self) -> bool {
        let look = self.connection.write_look(self.least());
        look.is_some_and(|at| at <= self.shared.now) && self.look_at_queue() == Queue::Stuck
    }

    /// The deadline of a session that closes, or of a connection that is finishing, may have come.
    pub(super) fn leaving_timeout(&mut self) {
        let now = self.shared.now;
        if self.is_stuck() {
            return self.leave(Queue::Stuck);
        }
        let look = self.connection.leave_look(&self.shared.limits, self.least());
        if look.is_none_or(|at| now < at) {
            return;
        }
        let lasts = self.connection.wait(&self.shared.limits);
        let queue = self.look_at_queue();
        let extra = self.connection.state.extra();
        if extra.unacknowledged && queue == Queue::Moving {
            extra.deadline = Some(now.after(lasts));
            return;
        }
        extra.unacknowledged = false;
        if queue == Queue::Stuck || extra.deadline.is_some_and(|at| at <= now) {
            self.leave(queue);
        }
    }

    /// Waits no longer for the peer.
    fn leave(&mut self, queue: Queue) {
        if matches!(self.connection.stage, Stage::Session(_)) {
            return self.closing_is_over(queue == Queue::Empty);
        }
        self.shared.stats.timeouts_linger += 1;
        if queue == Queue::Empty {
            // What arrived there stays there: a reset might take it away again.
            self.drop_socket(Disposal::Close);
        } else {
            self.lose(Loss::Stalled);
            self.drop_socket(Disposal::Reset);
        }
    }

    /// An answer was so long that it may be on its way for a while.
    pub(super) fn watch_answer(&mut self) {
        let now = self.shared.now;
        self.connection.state.timing_changed = true;
        self.connection.state.extra().window.get_or_insert_with(|| Window::begin(now));
    }

    /// Whether the peer still takes the last answer, whose end begins the wait for the next request. A
    /// peer that takes nothing is hung up on.
    pub(super) fn answer_is_on_its_way(&mut self) -> bool {
        let now = self.shared.now;
        match self.look_at_queue() {
            Queue::Empty => {
                self.connection.state.release_idle();
                false
            }
            Queue::Moving => {
                if let Stage::Http(http) = &mut self.connection.stage {
                    http.since = now;
                }
                true
            }
            Queue::Stuck => {
                self.shared.stats.timeouts_write += 1;
                self.lose(Loss::Stalled);
                self.drop_socket(Disposal::Reset);
                true
            }
        }
    }
}

/// What the peer sends.
impl Turn<'_> {
    /// Begins the window of what is unfinished, or begins it anew as soon as enough came.
    #[inline]
    pub(super) fn note_unfinished(&mut self) {
        let state = &self.connection.state;
        if state.partial.is_some() || state.pipeline.is_some() {
            self.look_at_unfinished();
        }
    }

    /// False if it is out of time.
    fn look_at_unfinished(&mut self) -> bool {
        let (least, now) = (self.least(), self.shared.now);
        let state = &mut self.connection.state;
        let Some((window, came, rest)) = state.unfinished() else { return true };
        match window {
            Some(window) => window.look(now, came, rest, least),
            None => {
                *window = Some(Window::begin_at(now, came, rest));
                state.timing_changed = true;
                true
            }
        }
    }

    /// Whether the time of what the peer began is over, and too little of it came.
    pub(super) fn is_left_unfinished(&mut self) -> bool {
        let options = self.connection.state.options(self.options());
        let deadline = self.connection.unfinished_deadline(options);
        deadline.is_some_and(|at| at <= self.shared.now) && !self.look_at_unfinished()
    }

    /// Bytes came while a pong is awaited: those of any other frame show that the peer is there.
    #[cold]
    pub(super) fn note_sign_of_life(&mut self, rx: &[u8]) {
        if !self.brings_only_pongs(rx) {
            self.wait_for_pong_anew(Duration::ZERO);
        }
    }

    /// The wait for the pong begins now, or so much later.
    fn wait_for_pong_anew(&mut self, later: Duration) {
        let now = self.shared.now.after(later);
        let waited = now.since(self.connection.state.ping_base).as_millis();
        let waited = u32::try_from(waited).unwrap_or(u32::MAX);
        // A wait that was given more time keeps it: the wheel is not armed anew for signs of life.
        let heard = &mut self.connection.state.heard_millis;
        *heard = waited.max(*heard);
    }

    fn brings_only_pongs(&self, rx: &[u8]) -> bool {
        let open = self.connection.state.partial_frame();
        let until_end = open.map_or(Some(0), PartialFrame::until_pong_ends);
        let Some(mut at) = until_end else { return false };
        while let Some(first) = rx.get(at) {
            if first & 0x0f != 0x0a {
                return false;
            }
            at = at.saturating_add(frame_len(rx, at).max(1));
        }
        true
    }

    /// A ping period, or the wait for a pong, is over.
    pub(super) fn ping_due(&mut self) {
        if self.connection.state.awaiting_pong {
            self.pong_due();
        } else {
            self.ping();
        }
    }

    fn ping(&mut self) {
        let now = self.shared.now;
        let waits = self.outbox_bytes() > 0 || self.wire.unsent().is_some_and(|bytes| bytes > 0);
        let state = &mut self.connection.state;
        state.ping_base = now;
        state.heard_millis = 0;
        state.timing_changed = true;
        // The payload is the time it went out: nothing to store, and no other pong fits.
        let payload = now.as_micros().to_be_bytes();
        if !self.outgoing().send_control(OpCode::Ping, &payload) {
            return; // no room behind what the peer does not take: no pong can be asked for
        }
        self.connection.state.awaiting_pong = true;
        self.shared.stats.pings_out += 1;
        self.flush();
        if (waits || self.is_unread()) && matches!(self.connection.stage, Stage::Session(_)) {
            self.watch_ping();
        }
    }

    /// Notes where the ping ends in what is written, so that it can be told when the peer's system has it.
    fn watch_ping(&mut self) {
        let (taken, unsent) = self.taken();
        let waiting = unsent.saturating_add(self.outbox_bytes());
        let (now, written) = (self.shared.now, self.wire.written());
        self.connection.state.timing_changed = true;
        let extra = self.connection.state.extra();
        let before_end = saturated(extra.outbox.bytes_to_control_end());
        extra.ping = Some(Box::new(PingBehind {
            end: written.wrapping_add(before_end),
            window: Window::begin_at(now, taken, waiting),
            full: false,
        }));
    }

    fn pong_due(&mut self) {
        let now = self.shared.now;
        let options = self.connection.state.options(self.options());
        let (timeout, write_timeout) = (options.timeout, options.write_timeout);
        let heard_lately = self.connection.pong_wait_ends(options) > now;
        let behind = self.connection.state.extra.as_deref_mut().and_then(|extra| extra.ping.take());
        let is_unread = self.is_unread();
        let Some(mut behind) = behind else {
            if is_unread {
                self.judge_unread_ping();
            } else if !heard_lately {
                self.lost_peer();
            }
            return;
        };
        let (taken, unsent) = self.taken();
        let waiting = unsent.saturating_add(self.outbox_bytes());
        self.connection.state.timing_changed = true;
        let full = self.wire.peer_is_full();
        if taken.wrapping_sub(behind.end) <= u32::MAX / 2 {
            if is_unread {
                return self.ping_was_taken();
            }
            if full {
                // The ping is in a full buffer before the peer, which reads if that takes more.
                behind.end = taken.wrapping_add(waiting);
                behind.full = true;
                self.connection.state.extra().ping = Some(behind);
                return;
            }
            // The peer's system has the ping: from here the peer has its time. It has twice that if its
            // buffer was full a moment ago, and the ping is at the end of it.
            self.wait_for_pong_anew(if behind.full { timeout } else { Duration::ZERO });
            self.connection.state.release_idle();
            return;
        }
        behind.full = full;
        // A buffer that is full opens by large steps; one that is cut off has bytes on their way.
        let window = if full { timeout.max(write_timeout) } else { timeout };
        let least = Least { window, min_rate: self.shared.limits.min_rate };
        if behind.window.look(now, taken, waiting, least) || heard_lately {
            self.connection.state.extra().ping = Some(behind);
        } else {
            self.lost_peer();
        }
    }

    /// Whether the pong that is awaited may have come and not been read.
    fn is_unread(&self) -> bool {
        self.connection.state.read_pause().is_some_and(|hold| hold.since().is_some())
    }

    /// Reading was paused after a ping went out: that the peer's system has it is enough.
    fn judge_unread_ping(&mut self) {
        if self.taken().1 == 0 && self.outbox_bytes() == 0 {
            self.ping_was_taken();
        } else {
            self.watch_ping();
        }
    }

    /// The peer's system is there. Whether its program is, only a pong shows, which is read later.
    fn ping_was_taken(&mut self) {
        let options = self.connection.state.options(self.options());
        let next = options.ping_period.map(|period| self.connection.state.ping_base.after(period));
        self.connection.state.awaiting_pong = false;
        self.connection.state.timing_changed = true;
        if next.is_some_and(|next| next <= self.shared.now) {
            self.ping();
        }
    }

    fn lost_peer(&mut self) {
        debug_assert!(self.connection.state.phase == Phase::Open, "others are not pinged");
        self.fail(SessionError::PingTimeout);
    }
}

fn part_of(wait: Duration) -> Duration {
    wait.checked_div(LOOKS_OF_WAIT).unwrap_or(wait)
}

fn saturated(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
