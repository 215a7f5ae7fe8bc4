//! Logins that an authority takes its time for, beside an honest client: what they do to its round trips.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use wirewheel::defer::Pending;
use wirewheel::{Accept, Call, Response, Routing, on_message};

use super::{Anything, Honest, Served, connect, frames, read_head, verdict};

const A_SECOND: u32 = 2_000;
/// Threads that make them.
const LOADERS: u32 = 4;
/// How long the authority takes for each.
const TAKES: Duration = Duration::from_millis(50);
/// More than wait for it at once: a hundred, and those of a moment in which it had no processor.
pub(super) const DEFERRED_MAX: usize = 1_000;
/// How much they may lengthen the others' median round trip.
const STRETCH_MAX: f64 = 1.1;
const WINDOW: Duration = Duration::from_millis(1_500);
const ROUNDS: u32 = 6;

/// `/asked` is let in by the authority, `/at-once` by nobody's leave.
pub(super) fn add_routes(route: &mut Routing<'_>) {
    let (asks, asked) = channel();
    thread::spawn(move || authority(&asked));
    let echo = |_: &Call| on_message(|session, message| session.send(message));
    route.web_socket("/at-once", echo).on_upgrade(|_call| Ok(Accept::new()));
    route.web_socket("/asked", echo).on_upgrade(move |call| Err(ask(&asks, call)));
}

fn ask(authority: &Sender<(Instant, Pending)>, call: &Call) -> Response {
    match authority.send((Instant::now() + TAKES, call.defer())) {
        Ok(()) => Response::deferred(),
        Err(_) => Response::new(503),
    }
}

/// Each waits its time, and none for another.
fn authority(asked: &Receiver<(Instant, Pending)>) {
    for (due, pending) in asked {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        pending.accept(Accept::new());
    }
}

/// Whether the median of an honest client stays what it is alone.
pub(super) fn logins() -> Anything<bool> {
    let served = Served::start()?;
    let mut honest = Honest::connect(served.addr)?;
    honest.trips(WINDOW)?; // all is warm
    let mut trips = [const { Vec::new() }; 3];
    let mut let_in = 0;
    for _ in 0..ROUNDS {
        for (path, trips) in [None, Some("/at-once"), Some("/asked")].into_iter().zip(&mut trips) {
            let (found, count) = window(&mut honest, served.addr, path)?;
            trips.extend(found);
            let_in += if path == Some("/asked") { count } else { 0 };
        }
    }
    let [alone, at_once, asked] = trips.map(|mut trips| {
        trips.sort_unstable();
        trips[trips.len() / 2]
    });
    let stretch = asked.as_secs_f64() / alone.as_secs_f64();
    let met = stretch <= STRETCH_MAX;
    let rate = let_in as f64 / (WINDOW * ROUNDS).as_secs_f64();
    println!(
        "logins: median round trip {} us alone, {} us beside {A_SECOND} upgrades a second, {} us beside \
         {rate:.0} deferred ones that wait {} ms: {stretch:.2} times, limit {STRETCH_MAX}: {}",
        alone.as_micros(),
        at_once.as_micros(),
        asked.as_micros(),
        TAKES.as_millis(),
        verdict(met)
    );
    Ok(met)
}

/// The round trips of a while, and how many were let in beside them.
fn window(
    honest: &mut Honest<TcpStream>,
    addr: SocketAddr,
    path: Option<&str>,
) -> Anything<(Vec<Duration>, usize)> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = path.into_iter().flat_map(|path| [path; LOADERS as usize]);
        let load = load.map(|path| scope.spawn(|| self::load(addr, path, &over)));
        let load: Vec<_> = load.collect();
        let trips = honest.trips(WINDOW);
        over.store(true, Ordering::SeqCst);
        let counts = load
            .into_iter()
            .map(|load| load.join().unwrap_or_else(|_| Err("the clients panicked".into())));
        let count = counts.sum::<Anything<usize>>();
        Ok((trips?, count?))
    })
}

/// A part of so many upgrades a second, each of which is over once it is let in: how many were.
fn load(addr: SocketAddr, path: &str, over: &AtomicBool) -> Anything<usize> {
    let request = frames::upgrade_request(path, "");
    let (began, mut waiting, mut count) = (Instant::now(), VecDeque::new(), 0);
    for number in 0.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let mut stream = connect(addr)?;
        std::io::Write::write_all(&mut stream, request.as_bytes())?;
        waiting.push_back((Instant::now() + TAKES * 2, stream));
        while waiting.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            count += take(&mut waiting)?;
        }
        let due = Duration::from_secs(1) * number * LOADERS / A_SECOND;
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    while !waiting.is_empty() {
        count += take(&mut waiting)?;
    }
    Ok(count)
}

fn take(waiting: &mut VecDeque<(Instant, TcpStream)>) -> Anything<usize> {
    let Some((_, mut stream)) = waiting.pop_front() else { return Ok(0) };
    read_head(&mut stream)?;
    // By a reset, or the ports of those that were there would be taken for a minute.
    set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(1)
}
