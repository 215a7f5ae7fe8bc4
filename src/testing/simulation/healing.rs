//! The test that dialers come back: once nothing is in their way any more, each of them has a session in
//! bounded time, and the newest of the news is where it has to be.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::testing::network::PeerEnd;
use crate::words::time::Time;

use super::Simulation;
use super::content::NEWS_KEYS;
use super::upstream::restore;
use super::world::Mood;

/// Attempts and delays until all are back: the hooks may refuse a few, and servers may panic.
const ROUNDS_MAX: usize = 600;

impl Simulation {
    /// Takes all that is wrong out of the way, and waits for a session of each dialer.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        if self.upstream.is_none() || self.hosts.networks[0].stopped {
            return Ok(());
        }
        if self.world.borrow().stops_at.is_some() {
            return Ok(());
        }
        self.note("nothing is in the way of dialers any more".into());
        let mood = self.world.borrow().mood;
        // Handlers that pause, suspend or leave a message open keep news back, as they should.
        let calm = Mood { fragments: false, flows: false, reaches: false, ..mood.calmed() };
        self.set_mood(calm);
        let before = self.opened();
        self.clear_ways();
        self.check()?;
        let outcome = self.await_sessions(&before);
        self.set_mood(mood);
        outcome
    }

    fn set_mood(&self, mood: Mood) {
        let Some(upstream) = &self.upstream else { return };
        self.world.borrow_mut().mood = mood;
        upstream.far_world.borrow_mut().mood = mood;
    }

    fn await_sessions(&mut self, before: &[usize]) -> Result<(), String> {
        for _ in 0..ROUNDS_MAX {
            if self.waiting_for(before).is_empty() {
                return self.check_news();
            }
            self.welcome();
            self.check()?;
            let Some(next) = self.next_of(before) else { continue };
            let now = self.network().now;
            if next > now {
                self.hosts.advance(next.since(now));
            } else {
                self.advance_to_next_event(); // the wheel is late
            }
            self.check()?;
            if self.world.borrow().stops_at.is_some() {
                return Ok(()); // out of a hook
            }
            self.start_far_again();
        }
        let missing = self.waiting_for(before);
        let Some(upstream) = &self.upstream else { return Ok(()) };
        let uplinks = upstream.uplinks.borrow();
        let stands: Vec<_> = missing.iter().filter_map(|which| uplinks.get(*which)).collect();
        Err(format!("dialers {missing:?} have no session, and nothing is in their way: {stands:?}"))
    }

    fn clear_ways(&mut self) {
        self.set_cut(false);
        self.set_delay(Duration::ZERO);
        self.reset_path();
        self.start_far();
        restore(self.network());
        let network = &mut self.hosts.networks[0];
        for player in self.players.values_mut() {
            player.has_ended = true;
            network.end(player.id, PeerEnd::Reset);
        }
        self.hosts.settle();
    }

    fn start_far_again(&mut self) {
        let far = self.hosts.host(super::upstream::CORE);
        if far.is_some_and(|far| self.hosts.networks[far].stopped) {
            self.start_far();
            self.hosts.settle();
        }
    }

    /// Servers that are played do what they are asked.
    fn welcome(&mut self) {
        let network = &mut self.hosts.networks[0];
        for player in self.players.values_mut().filter(|player| player.is_server()) {
            if let Some(play) = player.draw_welcome() {
                player.perform(play, network);
            }
        }
        self.hosts.settle();
    }

    /// How many sessions each dialer has had.
    fn opened(&self) -> Vec<usize> {
        let Some(upstream) = &self.upstream else { return Vec::new() };
        upstream.uplinks.borrow().iter().map(|uplink| uplink.counts().0).collect()
    }

    fn waiting_for(&self, before: &[usize]) -> Vec<usize> {
        let Some(upstream) = &self.upstream else { return Vec::new() };
        let uplinks = upstream.uplinks.borrow();
        let all = uplinks.iter().zip(before).enumerate();
        let missing = all
            .filter(|(_, (uplink, before))| uplink.counts().0 <= **before && !uplink.is_stopped());
        missing.map(|(which, _)| which).collect()
    }

    /// When something happens next to those who have no session yet.
    fn next_of(&self, before: &[usize]) -> Option<Time> {
        let missing = self.waiting_for(before);
        let uplinks = self.upstream.as_ref()?.uplinks.borrow();
        missing.iter().filter_map(|which| uplinks.get(*which)?.next()).min()
    }

    /// The newest of each key is at the other side of each session that is open, if all of it was taken.
    fn check_news(&mut self) -> Result<(), String> {
        self.note("news for all".into());
        let Some(upstream) = &mut self.upstream else { return Ok(()) };
        (0..NEWS_KEYS).for_each(|key| upstream.publish(key));
        self.network().run(|_| ());
        self.hosts.settle();
        self.check()?;
        let Some(upstream) = &self.upstream else { return Ok(()) };
        if self.hosts.networks[0].core.stats().given_up > 0 {
            return Ok(()); // for want of memory
        }
        let newest = upstream.newest();
        let played: BTreeMap<usize, _> =
            self.players.values().map(|player| (player.session, player.heard.news)).collect();
        let far_world = upstream.far_world.borrow();
        for uplink in upstream.uplinks.borrow().iter() {
            let Some(name) = uplink.session() else { continue };
            let far = far_world.sessions.get(&name);
            let is_open = far.is_none_or(|log| log.end.is_none() && log.fault.is_none());
            let got = far.map(|log| log.heard.news).or_else(|| played.get(&name).copied());
            if is_open && got != Some(newest) {
                return Err(format!("session {name} has {got:?} of the news, and not {newest:?}"));
            }
        }
        Ok(())
    }
}
