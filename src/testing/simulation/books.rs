//! The books of a simulation: whatever was accepted arrives, or it is lost for exactly one of a few
//! reasons, and what that says of the peer is true.
//!
//! Accepted is a message for which `send` returned `Ok`, and a page that was answered. Who keeps taking
//! bytes loses none of them.

use std::time::Duration;

use crate::core::Disposal;
use crate::testing::network::{Link, Transit};
use crate::words::close::CloseInfo;
use crate::words::time::Time;

use super::losses::{Fault, FaultKind, LossCause};
use super::player::Player;
use super::world::{Log, World};

/// A peer that takes less than this in the time of a deadline, in bytes a second, may be ended by it.
const MIN_RATE: usize = 256;

/// A ping or a pong.
const CONTROL_FRAME_BYTES: usize = 127;

/// A connection that is over, and all that is known of it.
pub(super) struct Account<'a> {
    pub(super) player: &'a Player,
    pub(super) link: &'a Link,
    pub(super) log: Option<&'a Log>,
    pub(super) world: &'a World,
    /// Connections were ended because `process_bytes` was spent, since this was asked last.
    pub(super) over_budget: bool,
    /// When the peer's system took a ping that its program never read.
    pub(super) ping_taken_at: Option<Time>,
    pub(super) now: Time,
}

impl Account<'_> {
    /// Why something is missing; `None` if nothing is.
    pub(super) fn settle(&self) -> Result<Option<LossCause>, String> {
        let pages = self.world.pages.get(&self.player.id).copied().unwrap_or(0);
        let lost_pages = pages - self.player.pages.min(pages);
        let sent = self.log.map_or(0, |log| log.sent.len());
        let lost = sent - self.player.heard.arrived.min(sent);
        let dropped = self.log.map_or(0, |log| log.dropped);
        if self.log.is_some_and(|log| self.is_complete(log)) && lost != dropped {
            let id = self.player.id;
            return Err(format!("link {id}: of {sent} messages {lost} are missing, not {dropped}"));
        }
        let fault = self.log.and_then(|log| log.fault);
        let is_lossless = lost + lost_pages == 0;
        // Whoever is ended as dead has to be, whether or not that has cost anything.
        let is_judged = |fault: Fault| fault.is_of_progress() && self.player.has_joined(fault.at);
        if is_lossless && !fault.is_some_and(is_judged) {
            return Ok(None);
        }
        if lost_pages == 0 && lost > 0 && lost <= dropped {
            return Ok(Some(LossCause::Overflow));
        }
        self.reason().map(|loss| (!is_lossless).then_some(loss)).map_err(|why| {
            let id = self.player.id;
            format!(
                "link {id}: of {sent} messages {lost} did not arrive ({dropped} dropped), of {pages} \
                 pages {lost_pages}: {why}; fault {fault:?}"
            )
        })
    }

    /// Whether a session has sent all that it was to send, and none of it were messages of others, each of
    /// which counts as dropped too.
    fn is_complete(&self, log: &Log) -> bool {
        let mood = self.world.mood;
        let is_clean = log.end.as_ref().is_some_and(CloseInfo::is_clean);
        let has_ended = self.link.socket.is_end_seen() && !self.is_cut_by_stop();
        is_clean && has_ended && !mood.has_other_drops() && !self.world.prompted
    }

    /// Whether the grace of a stop was over: the system delivers in order what it has, and its end.
    fn is_cut_by_stop(&self) -> bool {
        self.world.stops_at.is_some_and(|at| at <= self.now)
    }

    /// The one reason for all that is missing beyond what a policy dropped.
    fn reason(&self) -> Result<LossCause, String> {
        let fault = self.log.and_then(|log| log.fault);
        let transit = self.link.socket.transit();
        if self.log.is_some_and(|log| log.aborted) {
            return Ok(LossCause::Aborted);
        }
        if self.player.has_ended || self.link.socket.is_broken() {
            return Ok(LossCause::Gone);
        }
        match fault.map(|fault| fault.kind) {
            Some(FaultKind::Overloaded) if self.world.closes_when_full => {
                return Ok(LossCause::Overflow);
            }
            Some(FaultKind::Overloaded) => return Ok(LossCause::OverBudget),
            Some(FaultKind::Network) => return Err("nothing broke".into()),
            _ => {}
        }
        if self.is_cut_by_stop() {
            return Ok(LossCause::Stopped);
        }
        if self.over_budget && self.link.socket.gone == Some(Disposal::Reset) {
            return Ok(LossCause::OverBudget); // no session any more: who it was is not told
        }
        if self.is_left_unread() {
            return Ok(LossCause::Stalled);
        }
        if transit.is_none_or(Transit::is_stopped) && self.player.has_stalled {
            return Ok(LossCause::Stalled);
        }
        self.deadline(fault)
    }

    /// Whether the peer's system had everything for the time that a hang-up is waited for, and its
    /// program had not read it when it sent once more, behind our end, which a reset answers.
    fn is_left_unread(&self) -> bool {
        let transit = self.link.socket.transit();
        let ended = transit.and_then(Transit::ended_at);
        // RFC 6455 section 7.1.1: who has dialled does not end its side first.
        let taken = transit.filter(|_| self.player.is_server).and_then(Transit::all_taken_at);
        let (had, reset) = (taken.or(ended), transit.and_then(Transit::reset_at));
        // It is looked at in parts of the wait whether that has begun.
        let wait = self.world.linger_timeout * 7 / 8;
        had.zip(reset).is_some_and(|(had, reset)| had.after(wait) <= reset)
    }

    /// Whether the deadline that ended it was right.
    fn deadline(&self, fault: Option<Fault>) -> Result<LossCause, String> {
        let timeout = self.log.map_or(Duration::ZERO, |log| log.timeout);
        let (at, time, loss) = match fault {
            Some(Fault { kind: FaultKind::PingTimeout, .. }) if !self.player.answers_pings => {
                return Ok(LossCause::Gone);
            }
            // What was taken behind the ping does not count: the pong was what was waited for.
            Some(Fault { at, kind: FaultKind::PingTimeout })
                if self.ping_taken_at.is_some_and(|taken| taken.after(timeout) <= at) =>
            {
                return Ok(LossCause::Stalled);
            }
            Some(Fault { at, kind: FaultKind::PingTimeout }) => (at, timeout, LossCause::Stalled),
            Some(Fault { at, kind: FaultKind::WriteTimeout }) => {
                (at, self.world.write_timeout, LossCause::Stalled)
            }
            _ => (self.now, self.world.write_timeout, LossCause::Stalled),
        };
        let Some(transit) = self.link.socket.transit() else {
            return Err("the peer takes all at once".into());
        };
        let at = transit.reset_at().unwrap_or(at).min(at);
        // What was taken in the very moment of the first look or of the end may have been taken before the
        // one, or behind the other.
        let moment = Duration::from_micros(1);
        let taken = transit.taken_between(at.before(time).after(moment), at.before(moment));
        let least = MIN_RATE * usize::try_from(time.as_millis()).unwrap_or(usize::MAX) / 1_000;
        // The peer's system takes the ping whether or not its program reads.
        let is_ping = fault.is_some_and(|fault| fault.kind == FaultKind::PingTimeout);
        let least = least + if is_ping { CONTROL_FRAME_BYTES } else { 0 };
        if taken <= least {
            return Ok(loss);
        }
        Err(format!("the peer took {taken} bytes in the {time:?} before {at:?}"))
    }
}
