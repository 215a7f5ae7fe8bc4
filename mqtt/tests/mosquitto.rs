//! Links over a real mosquitto: at a pace, through its death, behind a cable that is pulled, and with
//! certificates. Where it is not installed nothing is tested, but in the step of the gate that installs it.

#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/network.rs"]
mod network;

use std::cell::Cell;
use std::fs;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use mosquitto::{PATIENCE, prepare_at, start};
use network::Network;
use wirewheel::flow::{BufferOverflow, FlowKey, FlowOptions, Taken};
use wirewheel::{Application, Handle, Server};
use wirewheel_mqtt::{Change, Link};

/// What a box tells the test.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Up,
    Down,
    /// A message, and how many were missed before it.
    Heard(String, u64),
}

struct Box1 {
    server: Handle,
    told: Receiver<Told>,
    room: FlowKey<str>,
}

/// A box that shares `room`, and tells what it hears of it.
fn a_box(url: String, change: impl FnOnce(Link) -> Link + Send + 'static) -> Box1 {
    a_box_with(FlowOptions::new().extra_buffer(64), url, change)
}

/// One whose room keeps all that a test says, however long a busy broker takes to read it.
fn a_patient_box(url: String, change: impl FnOnce(Link) -> Link + Send + 'static) -> Box1 {
    a_box_with(FlowOptions::new().extra_buffer(100_000).max_bytes(16 << 20), url, change)
}

fn a_box_with(
    options: FlowOptions,
    url: String,
    change: impl FnOnce(Link) -> Link + Send + 'static,
) -> Box1 {
    let (tell, told) = channel();
    let (tell_key, key) = channel();
    let server = Server::without_listener(move |app: &mut Application| {
        let room = app.flow(options.on_buffer_overflow(BufferOverflow::DropOldest));
        tell_key.send(app.flow_key(&room)).unwrap();
        let heard: Sender<Told> = tell.clone();
        app.read_flow(&room, move |_, batch| {
            for offered in batch {
                let text = offered.message().text().unwrap().to_owned();
                heard.send(Told::Heard(text, offered.missed())).unwrap();
            }
            Taken::Yes
        });
        let link = change(Link::to(url)).share(&room, "room");
        let changed = move |change: &Change| match change {
            Change::Up => Told::Up,
            Change::Down(_) => Told::Down,
        };
        link.on_change(move |_, change| tell.send(changed(change)).unwrap()).start(app).unwrap();
    });
    let server = server.spawn().unwrap();
    let room = key.recv_timeout(PATIENCE).unwrap();
    Box1 { server, told, room }
}

impl Box1 {
    #[track_caller]
    fn expect(&self, what: &Told) {
        assert_eq!(self.told.recv_timeout(PATIENCE).as_ref(), Ok(what));
    }

    /// Counts what it tells until it tells this, within a minute.
    #[track_caller]
    fn await_change(&self, what: &Told, heard: &mut Heard) {
        let begun = heard.count;
        while heard.hear(&self.told) != *what {
            assert!(heard.count - begun < 60_000, "it does not tell {what:?}");
        }
    }

    /// Says a thousand numbers a second until it has said so many, and then the last word.
    fn say(&self, count: u64) {
        self.say_until(move |said| said >= count);
    }

    /// The same until what is returned says so.
    fn say_on(&self) -> Arc<AtomicBool> {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        self.say_until(move |_| over.load(Ordering::Relaxed));
        is_over
    }

    fn say_until(&self, is_over: impl Fn(u64) -> bool + Send + 'static) {
        let room = self.room;
        let begin = self.server.defer(move |server| {
            let next = Rc::new(Cell::new(Some(0)));
            let tick = Duration::from_micros(8_192);
            let _ = server.every(tick, move |server| {
                let Some(room) = server.find_flow(room) else { return };
                for _ in 0..8 {
                    let Some(n) = next.get() else { return };
                    next.set(if is_over(n) { None } else { Some(n + 1) });
                    let text = next.get().map_or_else(|| "last".to_owned(), |_| n.to_string());
                    room.emit(&text).unwrap();
                }
            });
        });
        begin.unwrap();
    }

    fn stop(self) {
        self.server.shutdown(Duration::from_secs(1));
        self.server.join().unwrap();
    }
}

#[test]
fn everything_arrives_in_order_and_nothing_comes_back() {
    let Some(broker) = start("order", "") else { return };
    for at_least_once in [false, true] {
        let [one, two] = [(); 2]
            .map(|()| a_patient_box(broker.url(), move |it| it.at_least_once(at_least_once)));
        one.expect(&Told::Up);
        two.expect(&Told::Up);
        one.say(2_000);
        for site in [&two, &one] {
            assert_eq!(Heard::default().up_to_the_last(site), (2_000, 0));
        }
        one.stop();
        two.stop();
    }
}

#[test]
fn a_broker_at_a_unix_socket_is_reached_too() {
    let lines = "allow_anonymous true\nlistener 0 FOLDER/socket";
    let Some(broker) = start("socket", lines) else { return };
    let url = format!("mqtt+unix:{}", broker.folder().join("socket").display());
    expect_to_hear([(); 2].map(|()| a_patient_box(url.clone(), |link| link)));
}

/// The second hears all that the first says.
#[track_caller]
fn expect_to_hear([one, two]: [Box1; 2]) {
    one.expect(&Told::Up);
    two.expect(&Told::Up);
    one.say(100);
    assert_eq!(Heard::default().up_to_the_last(&two), (100, 0));
    one.stop();
    two.stop();
}

/// What a box has heard: that it is in order, and how much it is.
#[derive(Default)]
struct Heard {
    count: u64,
    missed: u64,
    next: u64,
    is_down: bool,
}

impl Heard {
    fn hear(&mut self, told: &Receiver<Told>) -> Told {
        let told = told.recv_timeout(PATIENCE).expect("more");
        match &told {
            Told::Heard(text, lost) => {
                self.missed += lost;
                if let Ok(number) = text.parse::<u64>() {
                    assert!(number >= self.next, "{number} after {}", self.next);
                    self.next = number + 1;
                    self.count += 1;
                }
            }
            Told::Down => self.is_down = true,
            Told::Up => {}
        }
        told
    }

    /// At a thousand a second this tells the time.
    fn hear_up_to(&mut self, count: u64, site: &Box1) {
        while self.count < count {
            self.hear(&site.told);
        }
    }

    /// How many messages, and how many it missed.
    fn up_to_the_last(&mut self, site: &Box1) -> (u64, u64) {
        loop {
            if let Told::Heard(text, _) = self.hear(&site.told) {
                if text == "last" {
                    return (self.count, self.missed);
                }
            }
        }
    }
}

/// Runs a test of this file in a process where it is alone; true there.
fn is_alone(name: &str) -> bool {
    if std::env::var_os("WIREWHEEL_ALONE").is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture"]).env("WIREWHEEL_ALONE", "1");
    assert!(command.status().unwrap().success());
    false
}

/// A size of this process that the system knows by that name, in KiB.
fn resident(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Both boxes and this test are one process, whose memory is that of all three.
#[test]
#[allow(clippy::print_stdout, reason = "the figure that is asked for")]
fn a_broker_that_is_killed_for_two_seconds_costs_what_is_counted_and_nobody_waits() {
    let name = "a_broker_that_is_killed_for_two_seconds_costs_what_is_counted_and_nobody_waits";
    if !is_alone(name) {
        return;
    }
    let Some(mut broker) = start("killed", "") else { return };
    let (one, two) = (a_box(broker.url(), |link| link), a_box(broker.url(), |link| link));
    one.expect(&Told::Up);
    two.expect(&Told::Up);
    let is_over = one.say_on();
    let (mut at_one, mut at_two) = (Heard::default(), Heard::default());
    at_one.hear_up_to(2_000, &one);
    at_two.hear_up_to(1_900, &two);
    fs::write("/proc/self/clear_refs", "5").unwrap(); // the peak begins anew
    let before = resident("VmRSS");
    broker.kill();
    one.await_change(&Told::Down, &mut at_one);
    // What is said from here on has no link.
    at_one.hear_up_to(at_one.count + 2_000, &one);
    broker.start();
    let restarted_at = at_one.count;
    one.await_change(&Told::Up, &mut at_one);
    // An attempt every two seconds, and what a loaded machine takes.
    assert!(at_one.count - restarted_at <= 10_000, "back after {} ms", at_one.count - restarted_at);
    two.await_change(&Told::Up, &mut at_two);
    is_over.store(true, Ordering::Relaxed);
    assert!(at_one.is_down && at_two.is_down);
    let (said, lost) = at_one.up_to_the_last(&one);
    assert_eq!((said, lost), (at_one.next, 0), "local delivery");
    let (heard, missed) = at_two.up_to_the_last(&two);
    let grown = resident("VmHWM").saturating_sub(before);
    println!("{heard} heard, {missed} missed; {grown} KiB more memory at most");
    assert_eq!(heard + missed, said, "{heard} heard, {missed} missed");
    assert!(heard > 1_900 && missed >= 2_000, "{missed} missed");
    assert!(grown < 1 << 10, "{grown} KiB");
    one.stop();
    two.stop();
}

/// Packets are lost, so that neither end is told anything.
#[test]
fn a_broker_behind_a_cable_that_is_pulled_is_noticed_by_its_silence_and_nobody_waits() {
    let Some(network) = Network::new() else { return };
    let network = Rc::new(network);
    let inside = Rc::clone(&network);
    let run = move |program: &std::path::Path| inside.command(program.to_str().unwrap());
    let Some(mut broker) = prepare_at("half-open", "", &network.host(), run) else { return };
    broker.start();
    let quick = |link: Link| link.keep_alive(Duration::from_secs(1));
    let (one, two) = (a_box(broker.url(), quick), a_box(broker.url(), quick));
    one.expect(&Told::Up);
    two.expect(&Told::Up);
    let is_over = one.say_on();
    let (mut at_one, mut at_two) = (Heard::default(), Heard::default());
    at_one.hear_up_to(1_000, &one);
    network.cut();
    let cut_at = at_one.count;
    one.await_change(&Told::Down, &mut at_one);
    two.await_change(&Told::Down, &mut at_two);
    // A keep-alive until it is asked, one for its answer, and what a loaded machine takes.
    assert!(at_one.count - cut_at <= 10_000, "noticed after {} ms", at_one.count - cut_at);
    // What was sent before it was noticed may come through yet: the system goes on trying after the end. What
    // is said from here on has no link.
    at_one.hear_up_to(at_one.count + 500, &one);
    network.mend();
    one.await_change(&Told::Up, &mut at_one);
    two.await_change(&Told::Up, &mut at_two);
    is_over.store(true, Ordering::Relaxed);
    let (said, lost) = at_one.up_to_the_last(&one);
    assert_eq!((said, lost), (at_one.next, 0), "local delivery");
    let (heard, missed) = at_two.up_to_the_last(&two);
    assert_eq!(heard + missed, said, "{heard} heard, {missed} missed");
    assert!(missed >= 500, "{missed} missed");
    one.stop();
    two.stop();
}

#[cfg(feature = "tls")]
#[test]
fn a_broker_that_wants_certificates_takes_who_shows_one_that_it_trusts() {
    use wirewheel::client::ConnectOptions;
    use wirewheel::tls::Roots;
    let file = |name: &str| format!("{}/../tests/certificates/{name}", env!("CARGO_MANIFEST_DIR"));
    let lines = format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nallow_anonymous true",
        file("clients.pem"),
        file("box.pem"),
        file("box.key")
    );
    let Some(broker) = start("certificates", &lines) else { return };
    let url = format!("mqtts://127.0.0.1:{}", broker.port);
    let showing = |name: Option<&'static str>| {
        let shown = name.map(|name| (file(&format!("{name}.pem")), file(&format!("{name}.key"))));
        let trusted = file("authority.pem");
        a_patient_box(url.clone(), move |link| {
            let options = ConnectOptions::new().roots(Roots::pem(trusted));
            link.connect_options(match shown {
                Some((chain, key)) => options.client_certificate(chain, key),
                None => options,
            })
        })
    };
    let log = || fs::read_to_string(broker.folder().join("log")).unwrap();
    for (name, why) in
        [(None, "peer did not return a certificate"), (Some("stranger"), "verify failed")]
    {
        let refused = showing(name);
        while !log().contains(why) {
            std::thread::yield_now();
        }
        assert!(refused.told.try_recv().is_err(), "{name:?} was never up");
        refused.stop();
    }
    expect_to_hear([(); 2].map(|()| showing(Some("client"))));
}
