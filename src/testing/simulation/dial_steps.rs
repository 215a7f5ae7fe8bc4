//! The steps of a simulation that concern dialers, and what must hold of them after every step.

use std::time::Duration;

use crate::context::loop_state::ServerRef;
use crate::core::audit::Audit;
use crate::testing::network::far_servers::{FarName, FarPort};
use crate::testing::network::{HostId, Hosts, LinkId, Pace};
use crate::words::close::CloseCode;

use super::Simulation;
use super::content::{self, FROM_OTHER, NEWS_KEYS};
use super::player::Player;
use super::upstream::{CORE, FIRST_DIALLED, NAMES, OWN, Upstream, restore};
use super::world::Mood;

/// More dialers than these are not made.
const DIALERS_MAX: usize = 6;

/// What happens.
impl Simulation {
    /// One more thing that concerns dialers.
    pub(super) fn dial_step(&mut self, mood: Mood) {
        match self.choose(|choices| choices.below(18)) {
            0..=2 => self.publish_news(),
            3 | 4 => self.command_uplink(),
            5 if mood.faults => self.change_path(),
            6 => {
                let delay = self.choose(|choices| choices.pick(&[0, 0, 1, 50, 3_000]));
                self.note(format!("bytes are {delay} ms under way"));
                self.set_delay(Duration::from_millis(delay));
            }
            7 if self.choose(|choices| choices.one_in(3)) => self.end_or_start_far(mood),
            8 | 9 if mood.faults => self.change_far_server(),
            10..=12 if mood.faults || mood.buffers => self.change_pipe(mood),
            13..=15 => self.prompt(),
            16 if self.choose(|choices| choices.one_in(4)) => self.dial_one_more(),
            _ => self.advance_to_next_event(),
        }
        self.hosts.settle();
    }

    fn publish_news(&mut self) {
        let count = self.choose(|choices| choices.pick(&[1, 1, 2, 5, 30]));
        for _ in 0..count {
            let key = self.choose(|choices| choices.size_below(NEWS_KEYS));
            self.upstream.iter_mut().for_each(|upstream| upstream.publish(key));
        }
        self.note(format!("{count} news"));
        self.network().run(|_| ()); // the loop hears of what was published outside of it
    }

    /// A session between both servers gets something to act on, from this side or the other.
    fn prompt(&mut self) {
        let far = self.hosts.host(CORE).filter(|_| self.choose(|choices| choices.one_in(2)));
        let (which, n) = self.choose(|choices| (choices.size_below(12), choices.size_below(12)));
        let network = &mut self.hosts.networks[far.unwrap_or(0)];
        if network.stopped {
            return;
        }
        self.world.borrow_mut().prompted = true;
        network.run(|server| {
            let all: Vec<_> = server.sessions().collect();
            if let Some(to) = all.get(which % all.len().max(1)) {
                let _ = server.send_to(*to, content::message(FROM_OTHER, n, 10 * n));
            }
        });
        self.note(format!("session {which} of server {far:?} gets a message"));
    }

    fn command_uplink(&mut self) {
        let Some(upstream) = &self.upstream else { return };
        let uplinks = upstream.uplinks.borrow().clone();
        let which = self.choose(|choices| choices.size_below(uplinks.len()));
        let what = self.choose(|choices| choices.below(8));
        let Some(uplink) = uplinks.get(which) else { return };
        match what {
            0 => uplink.stop(),
            1 => {
                // Whatever was wanted before it, the last wish counts.
                uplink.stop();
                self.hosts.settle();
                uplink.reconnect_now();
                self.hosts.settle();
                uplink.stop();
            }
            2 => {
                uplink.stop();
                self.hosts.settle();
                uplink.reconnect_now();
            }
            _ => uplink.reconnect_now(),
        }
        self.note(format!("dialer {which}: command {what}"));
    }

    pub(super) fn set_delay(&mut self, delay: Duration) {
        if let (Some(one), Some(other)) = (self.hosts.host(OWN), self.hosts.host(CORE)) {
            self.hosts.pipes.path(one, other).delay = delay;
        }
    }

    pub(super) fn set_cut(&mut self, cut: bool) {
        if let (Some(one), Some(other)) = (self.hosts.host(OWN), self.hosts.host(CORE)) {
            let Hosts { pipes, networks, .. } = &mut self.hosts;
            pipes.set_cut(networks, one, other, cut);
        }
    }

    pub(super) fn reset_path(&mut self) {
        self.upstream.iter().for_each(Upstream::disturb_all);
        if let (Some(one), Some(other)) = (self.hosts.host(OWN), self.hosts.host(CORE)) {
            let Hosts { pipes, networks, .. } = &mut self.hosts;
            pipes.reset(networks, one, other);
        }
    }

    fn change_path(&mut self) {
        let what = self.choose(|choices| choices.below(6));
        self.note(format!("path: {what}"));
        match what {
            0 | 1 => {
                self.upstream.iter().for_each(Upstream::disturb_all);
                self.set_cut(true);
            }
            2 => self.reset_path(),
            _ => self.set_cut(false),
        }
    }

    /// The second server ends, in one way or the other, or is started again.
    fn end_or_start_far(&mut self, mood: Mood) {
        let Some(id) = self.hosts.host(CORE) else { return };
        let is_stopped = self.hosts.networks[id].stopped;
        let kills = mood.faults && self.choose(|choices| choices.one_in(3));
        if is_stopped || kills {
            return self.start_far();
        }
        if mood.is_long {
            return;
        }
        let grace = Duration::from_millis(self.choose(|choices| choices.below(20_000)));
        self.note(format!("the server that is dialled shuts down within {grace:?}"));
        self.stop_far(grace);
    }

    pub(super) fn start_far(&mut self) {
        self.note("the server that is dialled is started anew".into());
        let Some(upstream) = &mut self.upstream else { return };
        upstream.note_restart();
        let network = upstream.build_far();
        upstream.far = self.hosts.start(CORE, network);
    }

    pub(super) fn stop_far(&mut self, grace: Duration) {
        let (Some(id), Some(upstream)) = (self.hosts.host(CORE), &self.upstream) else { return };
        let network = &mut self.hosts.networks[id];
        upstream.far_world.borrow_mut().note_stop(network.now.after(grace));
        network.shut_down(CloseCode::GOING_AWAY, grace);
        self.hosts.settle();
    }

    /// A name or an address of a server that is played does something else from now on.
    fn change_far_server(&mut self) {
        let (name, addresses) = self.choose(|choices| choices.pick(NAMES));
        let address = self.choose(|choices| choices.pick(addresses));
        let what = self.choose(|choices| choices.below(8));
        self.note(format!("{name}, {address}: {what}"));
        let Ok(address) = address.parse() else { return };
        let far = &mut self.network().sockets.far;
        match what {
            0 => drop(far.ports.insert(address, FarPort::Refuses)),
            1 => drop(far.ports.insert(address, FarPort::Silent)),
            2 => drop(far.names.insert(name.to_owned(), FarName::Unknown)),
            3 => drop(far.names.insert(name.to_owned(), FarName::Silent)),
            4 => far.sockets.clear(),
            _ => restore(self.network()),
        }
    }

    /// One end of a connection between both servers is slow from now on, or breaks.
    fn change_pipe(&mut self, mood: Mood) {
        let ends: Vec<_> = self.hosts.pipes.links().flatten().collect();
        let which = self.choose(|choices| choices.size_below(ends.len()));
        let Some(&(host, id)) = ends.get(which) else { return };
        let what = self.choose(|choices| choices.below(if mood.faults { 10 } else { 6 }));
        let bytes = self.choose(|choices| choices.size_below(300));
        self.note(format!("end {which} of the connections: {what}, {bytes}"));
        if what >= 7 {
            self.disturb(host, id);
        }
        let pieces = [1, 2, 50, usize::MAX];
        let link = self.hosts.networks[host].link(id);
        match what {
            0 => link.set_pace(Pace::All),
            1..=3 => link.set_pace(Pace::Steadily {
                bytes: 100 * (1 + bytes),
                every: Duration::from_millis([50, 500, 1_000][bytes % 3]),
            }),
            4 => link.read_piece = pieces[bytes % 4],
            5 => link.socket.write_piece = pieces[bytes % 4],
            6 => link.receive_buffer = 1_000 + bytes,
            7 => link.set_pace(Pace::Nothing),
            8 => link.breaks_after_in = Some(bytes),
            _ => link.socket.breaks_after_out = Some(bytes),
        }
    }

    /// Something happens to one connection.
    fn disturb(&mut self, host: HostId, id: LinkId) {
        let Some(upstream) = &self.upstream else { return };
        let Some(slot) = self.hosts.networks[host].slot_of(id) else { return };
        let world = if host == 0 { &upstream.world } else { &upstream.far_world };
        for (_, log) in world.borrow_mut().sessions.range_mut(FIRST_DIALLED..) {
            log.disturbed |= log.end.is_none() && log.slot == slot;
        }
    }

    fn dial_one_more(&mut self) {
        let Some(upstream) = &self.upstream else { return };
        if upstream.uplinks.borrow().len() >= DIALERS_MAX || self.network().stopped {
            return;
        }
        let Some(upstream) = &self.upstream else { return };
        let (url, options, uplink) = upstream.draw_dialer();
        let factory = upstream.factory(&uplink);
        // Before it is begun: its orders are noted from the first.
        upstream.uplinks.borrow_mut().push(uplink.clone());
        let note = |server: &mut ServerRef<'_>| {
            if let Ok(dialer) = server.connect(url, options, factory) {
                uplink.set_dialer(dialer);
            }
        };
        self.hosts.networks[0].run(note);
        self.note(format!("dials {url}"));
    }

    /// Those who were connected to and are played.
    pub(super) fn meet_dialled(&mut self) {
        if self.upstream.is_none() {
            return;
        }
        let (limit, mood) = (self.usual_bytes, self.world.borrow().mood);
        while let Some(id) = self.network().sockets.far.arrived.pop_front() {
            let player = self.choose(|choices| Player::server(id, limit, choices, mood));
            let is_gone = self.network().link(id).socket.gone.is_some();
            if mood.buffers && !is_gone {
                self.put_buffers_before(id, mood);
            }
            self.note(format!("was connected to: {id}"));
            self.players.insert(id, player);
        }
    }

    /// What must hold of dialers, and of whom they dial, after every step.
    pub(super) fn check_dialers(&mut self) -> Result<(), String> {
        let Some(upstream) = &mut self.upstream else { return Ok(()) };
        let drains = self.world.borrow().stops_at.is_some();
        for uplink in upstream.uplinks.borrow().iter() {
            uplink.check(drains)?;
        }
        let far = &self.hosts.networks[upstream.far];
        if !far.is_halted() {
            far.audit().map_err(|what| format!("the server that is dialled: {what}"))?;
        }
        if let Some(violation) = upstream.far_world.borrow().violations.first() {
            return Err(format!("the server that is dialled: {violation}"));
        }
        let over_budget = [0, upstream.far]
            .iter()
            .any(|id| self.hosts.networks[*id].core.stats().over_budget > 0);
        upstream.settle_between(&self.world, over_budget)
    }

    /// The second server stops too: everything is given back there, and all books are closed.
    pub(super) fn end_far(&mut self) -> Result<(), String> {
        let Some(id) = self.hosts.host(CORE).filter(|_| self.upstream.is_some()) else {
            return Ok(());
        };
        self.set_cut(false);
        if !self.hosts.networks[id].stopped {
            self.stop_far(Duration::ZERO);
        }
        self.hosts.advance(Duration::from_secs(30));
        self.check()?;
        let far = &mut self.hosts.networks[id];
        if !far.is_halted() {
            far.cut_all();
            Audit(&far.core).check_empty()?;
        }
        let Some(upstream) = &self.upstream else { return Ok(()) };
        for uplink in upstream.uplinks.borrow().iter() {
            let (opened, failed) = uplink.counts();
            let tally = &mut self.world.borrow_mut().tally;
            (tally.dialled, tally.failed) = (tally.dialled + opened, tally.failed + failed);
        }
        if upstream.news.subscription_count() > 0 {
            return Err("a session that is over still collects the news".into());
        }
        let far_world = upstream.far_world.borrow();
        let open = far_world
            .sessions
            .iter()
            .find(|(_, log)| !log.killed && log.connected != log.end.is_some());
        match open {
            Some((name, _)) => Err(format!("session {name} of the server had no on_close")),
            None => Ok(()),
        }
    }
}
