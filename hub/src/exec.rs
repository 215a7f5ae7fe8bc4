//! A program for each session at /exec, whose lines are the messages.

mod environment;
mod events;
mod lines;
mod output;
mod process;
mod session;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::Level;
use rustix::process::{Pid, Signal};
use wirewheel::flow::{FlowOptions, SharedFlow};
use wirewheel::watch::{Ready, Watch};
use wirewheel::{
    Accept, Application, Call, CloseCode, CloseReason, Response, ServerRef, SessionId,
};

use crate::config::Command;
use crate::signals::{Signals, is_ignored, reap};
use crate::sparing::{Sparing, now};
pub(crate) use environment::is_variable;
use events::{Events, Source};
use lines::Line;
pub(crate) use lines::{LineOptions, LongLine};
use process::{Process, Stage, Written};
use session::Attached;

/// The shortest time between SIGTERM and SIGKILL.
const TERM_TO_KILL_MIN: Duration = Duration::from_secs(1);
/// How long SIGKILL may take to work, at the end of the hub. It takes longer where a program waits for
/// a disk, and nothing helps then.
const KILL_TO_END: Duration = Duration::from_millis(1500);
/// So many lines a second are logged about programs that start and end.
const LINES_LOGGED: u32 = 50;

/// How programs are started and ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExecOptions {
    pub(crate) command: Command,
    pub(crate) max: usize,
    /// How long a program has between the end of its input and SIGTERM, and between that and SIGKILL.
    pub(crate) grace: Duration,
    /// How long all have when the hub is told to end.
    pub(crate) stop_grace: Duration,
    /// SIGHUP tells it so too.
    pub(crate) ends_at_hup: bool,
    pub(crate) lines: LineOptions,
    /// The hub's own variables that they get.
    pub(crate) pass_env: Vec<String>,
}

/// What is started for each session, and what runs.
#[derive(Debug)]
pub(crate) struct Processes {
    options: ExecOptions,
    events: Events,
    children: Signals,
    /// In the order of their numbers, which never come again.
    running: RefCell<Vec<Process>>,
    next: Cell<u64>,
    stop: RefCell<Option<Stop>>,
    refused: Sparing,
    told: Sparing,
    odd: Sparing,
}

/// The end of the hub, once it has begun.
#[derive(Debug)]
struct Stop {
    /// Signals to stop that come from now on: nobody wants to wait any longer.
    again: Option<Signals>,
    kill_at: Instant,
    give_up_at: Instant,
}

/// The server's sessions, as long as there is a server.
trait Peers {
    fn close(&mut self, session: SessionId, reason: CloseReason);
    fn resume(&mut self, session: SessionId);
}

impl Peers for ServerRef<'_> {
    fn close(&mut self, session: SessionId, reason: CloseReason) {
        // Fails where the session is over, and then there is nobody to tell.
        let _ = ServerRef::close(self, session, reason);
    }

    fn resume(&mut self, session: SessionId) {
        let _ = ServerRef::resume(self, session);
    }
}

/// When the server has ended.
struct Nobody;

impl Peers for Nobody {
    fn close(&mut self, _session: SessionId, _reason: CloseReason) {}
    fn resume(&mut self, _session: SessionId) {}
}

/// The one descriptor that the server's loop watches.
struct Watched(Rc<Processes>);

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.events.descriptor()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if !self.running.borrow().is_empty() {
            self.finish();
        }
    }
}

impl Processes {
    pub(crate) fn new(options: ExecOptions) -> io::Result<Self> {
        let events = Events::new()?;
        let children = Signals::of(&[Signal::CHILD])?;
        events.add(&children, Source::Children)?;
        Ok(Self {
            options,
            events,
            children,
            running: RefCell::default(),
            next: Cell::default(),
            stop: RefCell::default(),
            refused: Sparing::new(1),
            told: Sparing::new(LINES_LOGGED),
            odd: Sparing::new(1),
        })
    }

    /// Has the server's loop look after the programs.
    pub(crate) fn attach_to(self: &Rc<Self>, app: &mut Application) {
        app.watch(Watched(Rc::clone(self)), Ready::READABLE, |server, watched, _| {
            watched.0.serve(server, false);
            Watch::For(Ready::READABLE)
        });
        // Of who had ended before there was a handler nothing tells.
        self.reap();
        let processes = Rc::clone(self);
        app.on_shutdown(move |_| processes.stop());
    }

    /// Whether one more may be started.
    pub(crate) fn admit(&self, call: &Call) -> Result<Accept, Response> {
        if environment::path_info(call).is_none() {
            return Err(Response::text("400 Bad Request: a path with a NUL\n").status(400));
        }
        if self.running.borrow().len() < self.options.max {
            return Ok(Accept::new());
        }
        let max = self.options.max;
        self.refused
            .say(Level::Warn, &format_args!("--max-children {max} reached: a client gets 503"));
        let refusal = Response::text("503 Service Unavailable: too many processes\n").status(503);
        Err(refusal.header("Retry-After", "5"))
    }

    pub(crate) fn handler(self: &Rc<Self>) -> Attached {
        Attached::new(Rc::clone(self))
    }

    /// Begins the end of all programs, at once.
    fn stop(&self) {
        let now = now();
        // Who ignores SIGHUP was told so by `nohup`, and is to go on doing so.
        let at_hup = self.options.ends_at_hup && !is_ignored(Signal::HUP);
        let signals = [Signal::INT, Signal::TERM, Signal::HUP];
        let again = Signals::of(if at_hup { &signals } else { &signals[..2] }).ok();
        if let Some(again) = &again {
            // Without it they are waited for.
            let _ = self.events.add(again, Source::Stop);
        }
        let kill_at = now + self.options.stop_grace;
        let stop = Stop { again, kill_at, give_up_at: kill_at + KILL_TO_END };
        self.stop.replace(Some(stop));
        for process in self.running.borrow_mut().iter_mut() {
            self.end_input(process, now);
        }
        self.set_alarm();
    }

    /// When the server has ended, however that came, waits for the programs to do so.
    fn finish(&self) {
        if self.stop.borrow().is_none() {
            self.stop(); // it ended by an error
        }
        loop {
            let give_up_at = self.stop.borrow().as_ref().map(|stop| stop.give_up_at);
            let left = self.running.borrow().len();
            if left == 0 {
                return;
            }
            if give_up_at.is_none_or(|time| time <= now()) {
                return log::warn!("{left} programs are left, which SIGKILL did not end");
            }
            self.serve(&mut Nobody, true);
        }
    }

    /// Does what has become possible or due.
    fn serve(&self, peers: &mut dyn Peers, waits: bool) {
        for source in self.events.take(waits) {
            match source {
                Source::Alarm => self.events.silence_alarm(),
                Source::Children => {
                    self.children.take();
                    self.reap();
                }
                Source::Stop => self.kill_all(),
                Source::Input(number) => self.write_on(number, peers),
                Source::Output(number) => self.read_on(number),
            }
        }
        self.look_after(peers);
    }

    fn start(&self, session: SessionId, call: &Call) -> io::Result<(u64, SharedFlow<Line>)> {
        let environment = environment::environment(call, &self.options.pass_env);
        let largest = self.options.lines.largest_message().clamp(1 << 20, 1 << 30);
        let lines = SharedFlow::with(FlowOptions::new().max_bytes(largest)).unwrap_or_default();
        let number = self.next.replace(self.next.get() + 1);
        let command = &self.options.command;
        let process = Process::start(number, command, environment, session, lines.clone());
        // What it is that is not there, or not now, stands in no error of the system.
        let process = process.map_err(|error| {
            let text = format!("--exec {}: {error}", Path::new(&command.program).display());
            io::Error::new(error.kind(), text)
        })?;
        self.told.say(Level::Info, &format_args!("{session}: process {} started", process.pid));
        self.watch_output(&process);
        self.running.borrow_mut().push(process);
        Ok((number, lines))
    }

    /// A message of the peer for a program; false if the program has to read before the next.
    fn message(&self, number: u64, bytes: &[u8]) -> bool {
        let mut running = self.running.borrow_mut();
        let Some(process) = find(&mut running, number) else { return true };
        process.take_message(bytes);
        self.write(process) == Written::All
    }

    /// Writes input, and waits for the program to read if it is too much.
    fn write(&self, process: &mut Process) -> Written {
        let written = process.write_input();
        if let (Written::Some, Some(stdin)) = (written, process.stdin()) {
            // It is there already if it was too much before.
            let _ = self.events.add(stdin, Source::Input(process.number));
        }
        written
    }

    fn write_on(&self, number: u64, peers: &mut dyn Peers) {
        let mut running = self.running.borrow_mut();
        let Some(process) = find(&mut running, number) else { return };
        if process.write_input() == Written::All {
            if let Some(stdin) = process.stdin() {
                self.events.remove(stdin);
            }
            peers.resume(process.session);
        }
    }

    /// Goes on with a program whose peer had to read first.
    fn drained(&self, number: u64) {
        let mut running = self.running.borrow_mut();
        let Some(process) = find(&mut running, number) else { return };
        if process.stalled && !process.lines.would_suspend() {
            self.go_on(process);
        }
        process.look_at = Some(now());
        drop(running);
        self.set_alarm();
    }

    fn reap(&self) {
        reap(|pid, status| self.reaped(pid, status));
    }

    /// A child has ended. What it leaves of its group is told to end too.
    fn reaped(&self, pid: Pid, status: ExitStatus) {
        let mut running = self.running.borrow_mut();
        let of_pid = |process: &&mut Process| process.pid == pid && process.exit.is_none();
        let Some(process) = running.iter_mut().find(of_pid) else {
            return log::debug!("process {pid}, inherited: {status}");
        };
        let session = process.session;
        self.told.say(Level::Info, &format_args!("{session}: process {pid}: {status}"));
        process.exit = Some(status);
        process.rest = process.output_waiting();
        process.look_at = Some(now());
        if process.has_group() && process.stage < Stage::Told {
            process.signal(Signal::TERM);
            process.stage = Stage::Told;
            process.due = Some(self.kill_time(now()));
        }
        if process.rest == 0 {
            self.conclude(process);
        }
    }

    /// Ends the session of a program that has ended and whose output is read; lets its pipes go.
    fn conclude(&self, process: &mut Process) {
        let Some(status) = process.exit else { return };
        if process.kept.is_none() {
            process.cutter.end();
            self.pass_on(process, &[]);
        }
        if process.kept.is_some() {
            return; // `go_on` concludes it, when all was passed on
        }
        process.close_pipes();
        let (code, text) = match status.success() {
            true => (CloseCode::NORMAL, ""),
            false => (CloseCode::INTERNAL_ERROR, "the process failed"),
        };
        if !std::mem::replace(&mut process.peer_gone, true) {
            process.close = CloseReason::new(code, text).ok();
        }
        process.look_at = Some(now());
    }

    /// The peer is gone: what it said is still written, then the input ends, and the program with it.
    fn peer_left(&self, number: u64) {
        let mut running = self.running.borrow_mut();
        let Some(process) = find(&mut running, number) else { return };
        process.close = None;
        self.end_input(process, now());
        drop(running);
        self.set_alarm();
    }

    fn end_input(&self, process: &mut Process, now: Instant) {
        process.peer_gone = true;
        process.kept = None;
        if std::mem::take(&mut process.stalled) {
            self.watch_output(process); // or it would wait for its own output
        }
        let kill_at = self.kill_time(now);
        let due = match process.stage {
            Stage::Runs => {
                process.stage = Stage::NoInput;
                self.write(process);
                self.term_time(now)
            }
            Stage::NoInput => self.term_time(now),
            Stage::Told | Stage::Killed => kill_at,
        };
        process.due = Some(process.due.map_or(due, |earlier| earlier.min(due)));
        if process.exit.is_some() {
            process.close_pipes();
            process.look_at = Some(now);
        }
    }

    /// When SIGTERM is due of a program whose input ends now.
    fn term_time(&self, now: Instant) -> Instant {
        let time = now + self.options.grace;
        let half = self.options.stop_grace / 2;
        self.stop.borrow().as_ref().map_or(time, |stop| time.min(stop.kill_at - half))
    }

    /// When SIGKILL is due of one that was told just now.
    fn kill_time(&self, now: Instant) -> Instant {
        let time = now + self.options.grace.max(TERM_TO_KILL_MIN);
        self.stop.borrow().as_ref().map_or(time, |stop| time.min(stop.kill_at))
    }

    /// Somebody has asked twice for the end of the hub.
    fn kill_all(&self) {
        let mut stop = self.stop.borrow_mut();
        let Some(stop) = stop
            .as_mut()
            .filter(|stop| stop.again.as_ref().is_some_and(|signals| signals.take() > 0))
        else {
            return;
        };
        let now = now();
        stop.kill_at = now;
        stop.give_up_at = now + KILL_TO_END;
        for process in self.running.borrow_mut().iter_mut() {
            if process.stage != Stage::Killed {
                process.stage = Stage::Told;
                process.due = Some(now);
            }
        }
    }

    /// Does what is due, and sets the alarm for what will be.
    fn look_after(&self, peers: &mut dyn Peers) {
        let now = now();
        self.running.borrow_mut().retain_mut(|process| {
            if process.due.is_some_and(|due| due <= now) {
                self.advance(process, now);
            }
            if process.look_at.is_none_or(|look_at| look_at > now) {
                return true;
            }
            process.look_at = None;
            if process.stalled && !process.lines.would_suspend() {
                self.go_on(process);
            }
            if !process.lines.would_suspend() {
                if let Some(reason) = process.close.take() {
                    peers.close(process.session, reason);
                }
            }
            let over = process.exit.is_some() && process.peer_gone;
            let group = over && process.stage != Stage::Killed && process.has_group();
            if over && !group && process.close.is_none() {
                return false;
            }
            let waits = group || process.stalled || process.close.is_some();
            if waits && process.look_at.is_none() {
                process.look_later(now);
            }
            true
        });
        self.set_alarm();
    }

    /// Takes a program one stage further to its end.
    fn advance(&self, process: &mut Process, now: Instant) {
        process.due = None;
        match process.stage {
            Stage::NoInput => {
                process.signal(Signal::TERM);
                process.stage = Stage::Told;
                process.due = Some(self.kill_time(now));
            }
            // What it had started has ended by itself.
            Stage::Told if process.exit.is_some() && !process.has_group() => {}
            Stage::Told => {
                let (session, pid) = (process.session, process.pid);
                let text = "ignores SIGTERM: SIGKILL";
                self.told.say(Level::Warn, &format_args!("{session}: process {pid} {text}"));
                process.signal(Signal::KILL);
                process.stage = Stage::Killed;
                process.look_at = Some(now);
            }
            Stage::Runs | Stage::Killed => {}
        }
    }

    fn set_alarm(&self) {
        let next = self.running.borrow().iter().filter_map(Process::next).min();
        let give_up_at = self.stop.borrow().as_ref().map(|stop| stop.give_up_at);
        let next = next.into_iter().chain(give_up_at).min();
        self.events.set_alarm(next, now());
    }
}

/// The program of a number, if it is there still.
fn find(running: &mut [Process], number: u64) -> Option<&mut Process> {
    let place = running.binary_search_by_key(&number, |process| process.number).ok()?;
    running.get_mut(place)
}
