//! Owns connections that are held open, on command or to answer pings.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use rustix::event::Timespec;

use crate::measure::Window;
use crate::swarm::{Ready, Swarm};
use crate::traffic::{READ_BYTES, masked, parse, payload};
use crate::{Outcome, Plan};

/// Messages under way at once.
const PARALLEL: usize = 50;
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Connections whose incoming frames are counted, and whose pings are answered.
struct Held {
    swarm: Swarm,
    courses: Vec<Course>,
    buffer: Vec<u8>,
    ready: Vec<Ready>,
    pongs: u64,
    messages: usize,
}

/// One connection's place in what comes and goes.
#[derive(Default)]
struct Course {
    /// What came of a header, or of a control frame.
    begun: Vec<u8>,
    /// Bytes of a data frame's payload that are still to come.
    skip: usize,
    unsent: Vec<u8>,
}

impl Held {
    fn new(plan: &Plan) -> Outcome<Self> {
        Ok(Self {
            swarm: Swarm::new(plan, false)?,
            courses: Vec::new(),
            buffer: vec![0; READ_BYTES],
            ready: Vec::new(),
            pongs: 0,
            messages: 0,
        })
    }

    fn open(&mut self, count: usize) -> Outcome {
        // Those that stand open are not read meanwhile: it takes less than a ping period.
        self.swarm.open(count)?;
        self.courses.resize_with(self.swarm.clients.len(), Course::default);
        Ok(())
    }

    /// Takes what comes within a tick.
    fn turn(&mut self) -> Outcome {
        let mut ready = std::mem::take(&mut self.ready);
        self.swarm.wait_for(&mut ready, TICK)?;
        for event in &ready {
            if event.writable {
                self.pump(event.index)?;
            }
            if event.readable {
                self.receive(event.index)?;
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn send(&mut self, index: usize, frame: &[u8]) -> Outcome {
        self.courses[index].unsent.extend_from_slice(frame);
        self.pump(index)
    }

    fn pump(&mut self, index: usize) -> Outcome {
        let unsent = &mut self.courses[index].unsent;
        let sent = self.swarm.send(index, unsent)?;
        unsent.drain(..sent);
        if unsent.is_empty() {
            *unsent = Vec::new();
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> Outcome {
        let n = self.swarm.receive(index, &mut self.buffer)?;
        let mut from = 0;
        while from < n {
            let course = &mut self.courses[index];
            let skipped = course.skip.min(n - from);
            if skipped > 0 {
                course.skip -= skipped;
                from += skipped;
                self.messages += usize::from(course.skip == 0);
                continue;
            }
            course.begun.push(self.buffer[from]);
            from += 1;
            let Some((header, length)) = parse(&course.begun) else { continue };
            let control = course.begun[0] & 8 != 0;
            if !control {
                course.begun.clear();
                course.skip = length;
            } else if course.begun.len() == header + length {
                let frame = std::mem::take(&mut course.begun);
                match frame[0] & 15 {
                    9 => {
                        self.pongs += 1;
                        self.send(index, &masked(0x8a, &frame[header..]))?;
                    }
                    8 => return Err(format!("closed: {:?}", &frame[header..]).into()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// One message on each, and its echo.
    fn send_to_all(&mut self, size: usize) -> Outcome {
        let frame = masked(0x82, &payload(size));
        let (mut started, all) = (0, self.courses.len());
        self.messages = 0;
        while self.messages < all {
            while started < all && started < self.messages + PARALLEL {
                self.send(started, &frame)?;
                started += 1;
            }
            self.turn()?;
        }
        Ok(())
    }
}

/// Obeys commands on stdin, answering each with a line.
pub(crate) fn run(plan: &Plan) -> Outcome {
    let mut held = Held::new(plan)?;
    let commands = commands();
    loop {
        let command = match commands.try_recv() {
            Ok(command) => command,
            Err(TryRecvError::Empty) => {
                held.turn()?;
                continue;
            }
            Err(TryRecvError::Disconnected) => return Ok(()),
        };
        match command.split_once(' ').unwrap_or((&command, "")) {
            ("open", count) => held.open(count.parse()?)?,
            ("send", size) => held.send_to_all(size.parse()?)?,
            ("close", _) => held = Held::new(plan)?,
            ("quit", _) => return Ok(()),
            _ => return Err(format!("no such command: {command}").into()),
        }
        println!("done");
    }
}

fn commands() -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Holds connections until each was pinged so often.
pub(crate) fn answer_pings(plan: &Plan) -> Outcome {
    let mut held = Held::new(plan)?;
    held.open(plan.connections)?;
    let mut window = Window::new(plan);
    window.begin(0)?;
    let wanted = plan.total.unwrap_or(1) * plan.connections as u64;
    while held.pongs < wanted {
        held.turn()?;
    }
    window.print("pings", held.pongs, None)
}
