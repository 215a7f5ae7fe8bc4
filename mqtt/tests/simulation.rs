//! Several boxes and a broker in one virtual time, from a seed: what is sent, dropped, delivered and missed
//! are the same in all books afterwards. `WIREWHEEL_SEEDS` runs more of them, `WIREWHEEL_SEED` that one.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::{Broker, Site};
use wirewheel::flow::{BufferOverflow, FlowOptions};
use wirewheel_mqtt::Link;

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 40;

/// Steele, Lea and Flood's splitmix64.
struct Choices(u64);

impl Choices {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A box, and what it has said.
struct Player {
    site: Site,
    name: u64,
    said: u64,
    /// Of each box the last number that was heard, how many were, and what was missed in all.
    heard: BTreeMap<u64, (u64, u64)>,
    missed: u64,
}

impl Player {
    fn new(choices: &mut Choices, name: u64, confirmed: bool) -> Self {
        let policy = [BufferOverflow::DropOldest, BufferOverflow::Suspend];
        let policy = policy[usize::try_from(choices.below(2)).unwrap()];
        let behind = 1 + usize::try_from(choices.below(40)).unwrap();
        let options = FlowOptions::new().extra_buffer(behind).on_buffer_overflow(policy);
        let waiting = 1 << (10 + choices.below(4));
        let site = Site::with(options, |link: Link| {
            link.max_waiting(waiting).at_least_once(confirmed).keep_alive(Duration::from_secs(5))
        });
        Self { site, name, said: 0, heard: BTreeMap::new(), missed: 0 }
    }

    fn say(&mut self) {
        if !self.site.room.would_suspend() {
            self.said += 1;
            self.site.say(format!("{} {}", self.name, self.said).as_str());
        }
    }

    /// Takes down what was heard; each box is heard in its own order.
    fn note(&mut self) {
        for (message, missed) in self.site.heard.take() {
            let text = support::text_of(&message);
            let (from, number) = text.split_once(' ').unwrap();
            let (from, number): (u64, u64) = (from.parse().unwrap(), number.parse().unwrap());
            let (last, count) = self.heard.entry(from).or_default();
            assert!(number > *last, "{number} of box {from} after {last}");
            (*last, *count) = (number, *count + 1);
            self.missed += missed;
        }
    }
}

fn run(seed: u64) -> (u64, u64) {
    let mut choices = Choices(seed);
    let mut broker = Broker { repeats: choices.one_in(2), ..Broker::default() };
    if choices.one_in(2) {
        broker.receive_maximum = Some(1 + u16::try_from(choices.below(20)).unwrap());
    }
    let boxes = 2 + choices.below(3);
    let player = |name| {
        let confirmed = choices.one_in(2);
        Player::new(&mut choices, name, confirmed)
    };
    let mut players: Vec<Player> = (0..boxes).map(player).collect();
    let settle = |broker: &mut Broker, players: &[Player], time| {
        let sites: Vec<&Site> = players.iter().map(|player| &player.site).collect();
        broker.advance(&sites, Duration::from_millis(time));
    };
    settle(&mut broker, &players, 10_000);
    // The first word of each is heard by all: what is known of it begins there.
    players.iter_mut().for_each(Player::say);
    settle(&mut broker, &players, 100);
    for _ in 0..60 {
        match choices.below(12) {
            0 => broker.kill(),
            1 | 2 => broker.is_down = false,
            3 if !broker.clients.is_empty() => {
                let at = usize::try_from(choices.below(broker.clients.len() as u64)).unwrap();
                broker.clients[at].is_stalled ^= true;
            }
            4 if !broker.clients.is_empty() => {
                let at = usize::try_from(choices.below(broker.clients.len() as u64)).unwrap();
                broker.clients[at].is_over = true;
            }
            5 => {
                let time = choices.below(4_000);
                settle(&mut broker, &players, time);
            }
            _ => {
                let at = usize::try_from(choices.below(boxes)).unwrap();
                for _ in 0..choices.below(120) {
                    players[at].say();
                }
                if choices.one_in(2) {
                    settle(&mut broker, &players, 0);
                }
            }
        }
        players.iter_mut().for_each(Player::note);
    }
    // All is well again, and each says a last word.
    broker.is_down = false;
    broker.clients.iter_mut().for_each(|client| client.is_stalled = false);
    settle(&mut broker, &players, 20_000);
    assert!(players.iter().all(|player| player.site.link.is_up()), "seed {seed}");
    for player in &mut players {
        assert!(!player.site.room.would_suspend(), "seed {seed}: nobody waits any more");
        player.say();
    }
    settle(&mut broker, &players, 1_000);
    players.iter_mut().for_each(Player::note);
    books(seed, &players)
}

/// What was delivered to other boxes and missed there, if all books agree.
fn books(seed: u64, players: &[Player]) -> (u64, u64) {
    let said: Vec<u64> = players.iter().map(|player| player.said).collect();
    let (mut delivered, mut missed) = (0, 0);
    for player in players {
        let mut remote = 0;
        for (from, said) in (0..).zip(&said) {
            let (last, count) = player.heard.get(&from).copied().unwrap_or_default();
            assert_eq!(
                last, *said,
                "seed {seed}: box {} heard the last of box {from}",
                player.name
            );
            if from == player.name {
                assert_eq!(count, *said, "seed {seed}: what is said here is heard here");
            } else {
                remote += *said - count;
                delivered += count;
            }
        }
        let counts = player.site.link.counts();
        assert_eq!(
            player.missed, remote,
            "seed {seed}: box {} missed what it did not get",
            player.name
        );
        assert_eq!(counts.missed, remote, "seed {seed}: and its link knows");
        assert_eq!(counts.sent + counts.dropped, player.said, "seed {seed}: box {}", player.name);
        missed += remote;
    }
    (delivered, missed)
}

/// Runs all seeds: the sums of what each says. None where one was asked for, which is printed.
#[allow(clippy::print_stdout, reason = "the figures that are asked for")]
fn over_seeds(run: fn(u64) -> (u64, u64)) -> Option<(u64, u64)> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("WIREWHEEL_SEED") {
        println!("{:?}", run(seed));
        return None;
    }
    let runs = (0..number("WIREWHEEL_SEEDS").unwrap_or(SEEDS)).map(run);
    Some(runs.fold((0, 0), |(a, b), (more_a, more_b)| (a + more_a, b + more_b)))
}

#[test]
#[allow(clippy::print_stdout, reason = "the figures that are asked for")]
fn the_books_agree_after_every_run() {
    let Some((delivered, missed)) = over_seeds(run) else { return };
    println!("{delivered} messages were delivered and {missed} missed");
    assert!(delivered > 1_000 && missed > 1_000, "{delivered} {missed}");
}

/// What became of the keys of one run: how many values were said, and how many keys have one in the end.
fn run_newest(seed: u64) -> (u64, u64) {
    let mut choices = Choices(seed);
    let mut broker = Broker { repeats: choices.one_in(2), ..Broker::default() };
    if choices.one_in(2) {
        broker.receive_maximum = Some(1 + u16::try_from(choices.below(20)).unwrap());
    }
    if choices.one_in(2) {
        broker.in_flight = Some(1 + usize::try_from(choices.below(4)).unwrap());
    }
    let boxes = 2 + choices.below(3);
    // Messages of two QoS have no order among each other (MQTT 5 section 4.6).
    let confirmed = choices.one_in(2);
    let players = (0..boxes).map(|name| Player::new(&mut choices, name, confirmed));
    let players: Vec<Player> = players.collect();
    let sites: Vec<&Site> = players.iter().map(|player| &player.site).collect();
    broker.advance(&sites, Duration::from_secs(10));
    let (mut newest, mut said) = (BTreeMap::new(), 0);
    for _ in 0..80 {
        match choices.below(12) {
            0 => {
                broker.kill();
                if choices.one_in(2) {
                    broker.retained.clear(); // what it kept was in its memory alone
                }
            }
            1 | 2 => broker.is_down = false,
            3 | 4 if !broker.clients.is_empty() => {
                let at = usize::try_from(choices.below(broker.clients.len() as u64)).unwrap();
                match choices.one_in(2) {
                    true => broker.clients[at].is_stalled ^= true,
                    false => broker.clients[at].is_over = true,
                }
            }
            5 => broker.advance(&sites, Duration::from_millis(choices.below(4_000))),
            _ => {
                let name = choices.below(boxes);
                let site = sites[usize::try_from(name).unwrap()];
                for _ in 0..choices.below(20) {
                    // Some keys are one box's own; of others it is the broker who says which box was last.
                    let is_own = choices.one_in(2);
                    let owner = if is_own { name.to_string() } else { "all".to_owned() };
                    let key = format!("{owner}/{}", choices.below(8));
                    if choices.one_in(4) && site.value(&key).is_some() {
                        newest.remove(&key);
                        site.remove(&key);
                    } else {
                        said += 1;
                        site.set(&key, &said.to_string());
                        if is_own {
                            newest.insert(key, said.to_string());
                        }
                    }
                }
                if choices.one_in(2) {
                    broker.settle(&sites);
                }
            }
        }
    }
    broker.is_down = false;
    broker.clients.iter_mut().for_each(|client| client.is_stalled = false);
    broker.advance(&sites, Duration::from_secs(20));
    is_everywhere(seed, &newest, &broker, &players);
    (said, newest.len() as u64)
}

/// The broker keeps these and no others that are one box's own, and every box has what it keeps.
fn is_everywhere(
    seed: u64,
    newest: &BTreeMap<String, String>,
    broker: &Broker,
    players: &[Player],
) {
    let kept = broker.retained.iter().map(|(topic, message)| {
        let key = topic.strip_prefix("hall/gauges/").unwrap().to_owned();
        (key, String::from_utf8(message.payload.clone()).unwrap())
    });
    let kept: BTreeMap<_, _> = kept.collect();
    let own = kept.clone().into_iter().filter(|(key, _)| !key.starts_with("all/"));
    assert_eq!(own.collect::<BTreeMap<_, _>>(), *newest, "seed {seed}: what the broker keeps");
    for Player { site, name, .. } in players {
        assert!(site.link.is_up(), "seed {seed}");
        assert_eq!(site.values(), kept, "seed {seed}: box {name}");
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "the figures that are asked for")]
fn the_newest_of_each_key_is_everywhere_after_every_run() {
    let Some((said, kept)) = over_seeds(run_newest) else { return };
    println!("{said} values were said, {kept} keys have one");
    assert!(said > 1_000 && kept > 100, "{said} {kept}");
}
