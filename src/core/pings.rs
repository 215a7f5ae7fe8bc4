//! The server's own pings to one peer: when one goes out, when its pong is late, and what stands for a pong.
//! Those of the peer are answered by `SessionTurn::control`, and while reading is paused in `pause`.

use std::time::Duration;

use crate::protocol::frame::OpCode;
use crate::protocol::frame_reader::PartialFrame;
use crate::session::send_event::EventOutput;
use crate::session::state::Phase;
use crate::structures::outbox::frame_len;
use crate::structures::progress::Least;
use crate::words::error::SessionError;

use crate::core::connection::Stage;
use crate::core::turn::Turn;

/// What tells the server's own pings from those of the application, which may carry times too.
const OWN_PING: u64 = 0x9e37_79b9_7f4a_7c15;

/// A session's turn as far as its pings and their pongs go.
pub(super) struct Pings<'t, 'a> {
    pub(super) turn: &'t mut Turn<'a>,
}

/// What goes out.
impl Pings<'_, '_> {
    /// A ping period, or the wait for a pong, is over.
    pub(super) fn ping_due(&mut self) {
        if self.turn.connection.state.awaiting_pong {
            self.pong_due();
        } else {
            self.ping();
        }
    }

    fn ping(&mut self) {
        let now = self.turn.shared.now;
        let waits = self.turn.progress().outbox_bytes() > 0
            || self.turn.wire.unsent().is_some_and(|bytes| bytes > 0);
        let state = &mut self.turn.connection.state;
        state.ping_base = now;
        // What was heard before the ping does not count for it.
        state.heard_millis = 0;
        state.timing_changed = true;
        // The payload is the time it went out: nothing to store, and no other pong fits.
        let payload = (now.as_micros() ^ OWN_PING).to_be_bytes();
        if !self.send_ping(&payload) {
            return; // no room behind what the peer does not take: no pong can be asked for
        }
        self.turn.connection.state.awaiting_pong = true;
        self.turn.shared.stats.pings_out += 1;
        self.turn.flush();
        if (waits || self.is_unread()) && matches!(self.turn.connection.stage, Stage::Session(_)) {
            self.turn.progress().watch_ping();
        }
    }

    /// A frame, or on an event stream a comment: false if it is not sent, as other bytes wait.
    fn send_ping(&mut self, payload: &[u8]) -> bool {
        let mut out = self.turn.outgoing();
        if out.state.is_event_stream() {
            return EventOutput { out: &mut out }.heartbeat();
        }
        out.send_control(OpCode::Ping, payload)
    }

    fn pong_due(&mut self) {
        let now = self.turn.shared.now;
        let options = self.turn.connection.state.options(self.turn.options());
        let (timeout, write_timeout) = (options.timeout, options.write_timeout);
        let heard_lately = self.turn.connection.pong_wait_ends(options) > now;
        let behind =
            self.turn.connection.state.extra.as_deref_mut().and_then(|extra| extra.ping.take());
        let is_unread = self.is_unread() || self.turn.connection.state.is_event_stream();
        let Some(mut behind) = behind else {
            if is_unread {
                self.check_unread_ping();
            } else if !heard_lately {
                self.lost_peer();
            }
            return;
        };
        let (taken, unsent) = self.turn.progress().wire.taken();
        let waiting = unsent.saturating_add(self.turn.progress().outbox_bytes());
        self.turn.connection.state.timing_changed = true;
        let full = self.turn.wire.peer_is_full();
        if taken.wrapping_sub(behind.end) <= u32::MAX / 2 {
            if is_unread {
                return self.ping_was_taken();
            }
            if full {
                // The ping is in a full buffer before the peer, which reads if that takes more.
                behind.end = taken.wrapping_add(waiting);
                behind.full = true;
                self.turn.connection.state.extra().ping = Some(behind);
                return;
            }
            // The peer's system has the ping: from here the peer has its time. It has twice that if its
            // buffer was full a moment ago, and the ping is at the end of it.
            self.wait_for_pong_anew(if behind.full { timeout } else { Duration::ZERO });
            self.turn.connection.state.release_idle();
            return;
        }
        behind.full = full;
        // A buffer that is full opens by large steps; one that is cut off has bytes on their way.
        let window = if full { timeout.max(write_timeout) } else { timeout };
        let least = Least { window, min_rate: self.turn.shared.limits.min_rate };
        if behind.window.look(now, taken, waiting, least) || heard_lately {
            self.turn.connection.state.extra().ping = Some(behind);
        } else {
            self.lost_peer();
        }
    }

    /// Whether the pong that is awaited may have come and not been read.
    fn is_unread(&self) -> bool {
        self.turn.connection.state.read_pause().is_some_and(|pause| pause.since().is_some())
    }

    /// No pong can have come: that the peer's system has the ping is enough.
    fn check_unread_ping(&mut self) {
        if self.turn.progress().wire.taken().1 == 0 && self.turn.progress().outbox_bytes() == 0 {
            self.ping_was_taken();
        } else {
            self.turn.progress().watch_ping();
        }
    }

    /// The peer's system is there. Whether its program is, only a pong shows, which is read later, or
    /// never on an event stream.
    fn ping_was_taken(&mut self) {
        let options = self.turn.connection.state.options(self.turn.options());
        let next =
            options.ping_period.map(|period| self.turn.connection.state.ping_base.after(period));
        self.turn.connection.state.awaiting_pong = false;
        self.turn.connection.state.timing_changed = true;
        if next.is_some_and(|next| next <= self.turn.shared.now) {
            self.ping();
        }
    }

    fn lost_peer(&mut self) {
        debug_assert!(self.turn.connection.state.phase == Phase::Open, "others are not pinged");
        self.turn.fail(SessionError::PingTimeout);
    }
}

/// What comes in.
impl Pings<'_, '_> {
    /// A pong counts only if it carries exactly the payload of the ping that awaits it; any other is the
    /// application's, but for those of pings that nobody awaits any more: they went out while reading was
    /// paused, or before `ping_period` was set.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        let now = self.turn.shared.now.as_micros();
        let state = &mut self.turn.connection.state;
        let sent = payload.try_into().map(|payload| u64::from_be_bytes(payload) ^ OWN_PING);
        match sent.ok().filter(|sent| *sent <= now) {
            Some(sent) if state.awaiting_pong && sent == state.ping_base.as_micros() => {}
            Some(_) => return,
            // RFC 6455 section 5.5.3: an unsolicited pong is allowed, and answers nothing.
            None => {
                return self
                    .turn
                    .call_and_act(|handler, session| handler.on_own_pong(session, payload));
            }
        }
        let rtt = self.turn.shared.now.since(state.ping_base);
        state.rtt_micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX - 1);
        self.turn.shared.stats.pongs_in += 1;
        self.turn.shared.stats.rtt_micros += u64::from(state.rtt_micros);
        state.awaiting_pong = false;
        state.ping_base = self.turn.shared.now;
        state.timing_changed = true;
        if let Some(extra) = state.extra.as_deref_mut() {
            extra.ping = None;
        }
        self.turn.call_and_act(|handler, session| handler.on_pong(session, rtt));
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
        let now = self.turn.shared.now.after(later);
        let waited = now.since(self.turn.connection.state.ping_base).as_millis();
        let waited = u32::try_from(waited).unwrap_or(u32::MAX);
        // A wait that was given more time keeps it: the wheel is not armed anew for signs of life.
        let heard = &mut self.turn.connection.state.heard_millis;
        *heard = waited.max(*heard);
    }

    fn brings_only_pongs(&self, rx: &[u8]) -> bool {
        let open = self.turn.connection.state.partial_frame();
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
}
