//! Names that are dead beside good ones, and who gives up.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use mio::{Events, Poll};

use super::*;

const TOKEN: Token = Token(7);

fn attempt(dial: u32) -> Attempt {
    Attempt { dial, round: 1 }
}

/// A loop that waits for answers.
struct Loop {
    poll: Poll,
    resolver: Resolver,
}

impl Loop {
    fn new(ask: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self { poll: Poll::new().unwrap(), resolver: Resolver::asking(ask) }
    }

    fn look_up(&mut self, dial: u32, host: &str) {
        let registry = self.poll.registry();
        self.resolver.look_up(registry, TOKEN, attempt(dial), host, 80).unwrap();
    }

    fn wait(&mut self, count: usize) -> Vec<(u32, Result<String, String>)> {
        let mut all = Vec::new();
        while all.len() < count {
            let mut events = Events::with_capacity(4);
            self.poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
            assert!(!events.is_empty(), "nothing wakes the loop");
            for (attempt, answer) in self.resolver.take_answers() {
                let first = answer.map(|addresses| addresses[0].to_string());
                all.push((attempt.dial, first.map_err(|error| error.to_string())));
            }
        }
        all.sort();
        all
    }
}

/// What a test sees of the names that are asked for, and what lets the dead ones go.
type Gate = (Receiver<String>, Sender<()>);

/// A resolver whose dead names are answered when the test says so.
fn gated() -> (Loop, Gate) {
    let (tell, asked) = channel();
    let (open, gate) = channel::<()>();
    let (tell, gate) = (Mutex::new(tell), Mutex::new(gate));
    let ask = move |host: &str| {
        tell.lock().unwrap().send(host.to_owned()).unwrap();
        if host.starts_with("dead") {
            // Until the test lets it go, as for a name server that is away.
            let _ = gate.lock().unwrap().recv();
        }
        Ok(vec!["192.0.2.1:0".parse().unwrap()])
    };
    (Loop::new(ask), (asked, open))
}

#[test]
fn a_dead_name_beside_twenty_good_ones_delays_none() {
    let (mut it, (_asked, open)) = gated();
    it.look_up(100, "dead.example");
    (0..20).for_each(|dial| it.look_up(dial, &format!("good{dial}.example")));
    let answers = it.wait(20);
    assert!(answers.iter().all(|(_, answer)| answer.as_deref() == Ok("192.0.2.1:80")));
    drop(open);
    assert_eq!(it.wait(1)[0].0, 100);
}

#[test]
fn equal_names_are_asked_once_also_when_who_asked_first_has_given_up() {
    let (mut it, (asked, open)) = gated();
    it.look_up(1, "dead.example");
    assert_eq!(asked.recv().unwrap(), "dead.example");
    it.resolver.abandon(attempt(1));
    (2..12).for_each(|dial| it.look_up(dial, "dead.example"));
    drop(open);
    let answers = it.wait(10);
    assert_eq!(
        answers.iter().map(|(dial, _)| *dial).collect::<Vec<_>>(),
        (2..12).collect::<Vec<_>>()
    );
    assert!(asked.try_recv().is_err(), "it was asked again");
}

#[test]
fn there_are_never_more_than_four_threads_and_none_once_all_is_answered() {
    let (mut it, (asked, open)) = gated();
    (0..10).for_each(|dial| it.look_up(dial, &format!("dead{dial}.example")));
    let running: Vec<String> = (0..THREADS_MAX).map(|_| asked.recv().unwrap()).collect();
    assert_eq!(it.resolver.shared.state().threads, THREADS_MAX);
    assert_eq!(running.len() + it.resolver.shared.state().queue.len(), 10);
    // Who gives up before a thread has its name is forgotten.
    it.resolver.abandon(attempt(9));
    assert_eq!(it.resolver.names.len(), 9);
    drop(open);
    assert_eq!(it.wait(9).len(), 9);
    assert!(it.resolver.names.is_empty() && it.resolver.by_dial.iter().all(Option::is_none));
    while it.resolver.shared.state().threads > 0 {
        thread::yield_now();
    }
    it.look_up(20, "good.example");
    assert_eq!(it.wait(1)[0].0, 20);
}

#[test]
fn a_name_that_is_none_is_an_error_for_each_who_waits() {
    let mut it = Loop::new(|host| match host {
        "empty.example" => Ok(Vec::new()),
        _ => Err(io::Error::new(ErrorKind::NotFound, "no such name")),
    });
    it.look_up(1, "none.example");
    it.look_up(2, "empty.example");
    let texts: Vec<String> =
        it.wait(2).into_iter().filter_map(|(_, answer)| answer.err()).collect();
    assert_eq!(texts, ["no such name", "the name has no address"]);
}
