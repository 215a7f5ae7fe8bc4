//! The simulation of a server with several loops: turns of its loops in any order, mail between them that
//! comes when the seed says, and books that are closed whenever all is quiet.

mod closing;
mod group;
mod ledger;
mod member;
mod post;
mod setup;
mod visitor;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::context::commands::StopRequest;
use crate::core::panics::caught;
use crate::words::close::CloseCode;

use super::Failure;
use super::choices::Choices;

use self::group::Group;
pub(super) use self::ledger::LoopTally;
use self::ledger::{Ledger, Port};
use self::setup::Setup;
use self::visitor::Visitor;

/// A run, and how far it has come.
struct Life {
    setup: Setup,
    ledger: Rc<RefCell<Ledger>>,
    group: Group,
    visitors: Vec<Visitor>,
    next_port: Port,
    visitors_max: usize,
    /// How many turns there were when all was checked last: nothing but a turn changes a loop.
    checked: usize,
    trail: Vec<String>,
}

/// Runs a whole life: `Ok` says what it had.
pub(super) fn run(mut choices: Choices) -> Result<LoopTally, Failure> {
    let setup = Setup::draw(&mut choices);
    let (steps, visitors_max) = (40 + choices.size_below(160), choices.pick(&[3, 8, 20]));
    let ledger = Rc::new(RefCell::new(setup.ledger(choices)));
    let group = Group::new(&setup, &ledger);
    let trail = vec![format!("{setup:?}")];
    let mut life = Life {
        setup,
        ledger,
        group,
        visitors: Vec::new(),
        next_port: 1,
        visitors_max,
        checked: 0,
        trail,
    };
    let mut step = 0;
    let mut outcome = Ok(());
    while outcome.is_ok() && step < steps && !life.ledger.borrow().stops {
        step += 1;
        outcome = life.guarded(|life| {
            life.step()?;
            life.check()
        });
    }
    outcome = outcome.and_then(|()| life.guarded(Life::end));
    let Life { mut trail, ledger, group, .. } = life;
    trail.drain(1..trail.len().saturating_sub(60).max(1));
    let mut tally = ledger.borrow().tally;
    tally.turns = group.turns;
    outcome.map(|()| tally).map_err(|what| Failure { step, what, trail })
}

impl Life {
    fn guarded(&mut self, act: impl FnOnce(&mut Self) -> Result<(), String>) -> Result<(), String> {
        caught(|| act(self)).unwrap_or_else(|panic| Err(panic.0))
    }

    fn choose<R>(&self, act: impl FnOnce(&mut Choices) -> R) -> R {
        act(&mut self.ledger.borrow_mut().choices)
    }

    fn note(&mut self, what: &str) {
        self.trail.push(format!("{:?} {what}", self.group.now));
    }

    fn step(&mut self) -> Result<(), String> {
        let (what, number) =
            self.choose(|choices| (choices.below(64), choices.size_below(self.group.count())));
        match what {
            0..=5 if self.visitors.len() < self.visitors_max => self.connect(),
            6..=25 => self.play(),
            26..=47 => {
                self.note(&format!("turn {number}"));
                self.group.turn(number);
            }
            48 => {
                self.note(&format!("turn {number} for nothing"));
                self.group.turn_for_nothing(number);
            }
            49..=58 => {
                self.note(&format!("mail to {number}"));
                self.group.deliver(number, &mut self.ledger.borrow_mut().choices);
            }
            59 | 60 => self.let_time_pass()?,
            61 => self.settle()?,
            62 if self.choose(|choices| choices.one_in(4)) => self.close_books()?,
            63 if self.choose(|choices| choices.one_in(24)) => self.stop_from_outside(),
            _ => {}
        }
        Ok(())
    }

    fn connect(&mut self) {
        let (port, host) = (self.next_port, self.choose(|choices| choices.below(4)));
        self.next_port += 1;
        self.note(&format!("connect {port}"));
        let visitor = Visitor::connect(&mut self.group, port, u8::try_from(host).unwrap_or(0));
        self.visitors.push(visitor);
    }

    fn play(&mut self) {
        let which = self.choose(|choices| choices.size_below(self.visitors.len()));
        let Some(visitor) = self.visitors.get_mut(which) else { return };
        let line = format!("{:?} {visitor:?} plays", self.group.now);
        self.trail.push(line);
        // Drawn apart: nothing of the server runs before the next turn.
        visitor.play(&mut self.group, &mut self.ledger.borrow_mut().choices);
    }

    /// Mail that waits goes on waiting, or is delivered before.
    fn let_time_pass(&mut self) -> Result<(), String> {
        let (millis, at_once) =
            self.choose(|choices| (choices.pick(&[1, 30, 1_000, 8_000]), choices.one_in(2)));
        self.note(&format!("{millis} ms, at once: {at_once}"));
        let time = Duration::from_millis(millis);
        if at_once {
            self.group.pass(time);
            return Ok(());
        }
        self.group.advance(time)
    }

    fn stop_from_outside(&mut self) {
        self.note("a stop");
        self.ledger.borrow_mut().stops = true;
        let grace = Duration::from_millis(self.choose(|choices| choices.below(9_000)));
        self.group.stop(StopRequest { code: CloseCode::GOING_AWAY, grace });
    }

    /// Everything happens that can happen at this moment, with all clients.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            self.group.settle()?;
            if !self.look()? {
                return self.group.settle();
            }
        }
    }

    fn look(&mut self) -> Result<bool, String> {
        let ledger = &mut *self.ledger.borrow_mut();
        let mut moved = false;
        for visitor in &mut self.visitors {
            moved |= visitor.look(&mut self.group, ledger)?;
        }
        Ok(moved)
    }

    /// What must hold after every step.
    fn check(&mut self) -> Result<(), String> {
        if std::mem::replace(&mut self.checked, self.group.turns) == self.group.turns {
            return Ok(());
        }
        self.look()?;
        self.check_limits()?;
        let most = self.group.check()?;
        let ledger = &mut *self.ledger.borrow_mut();
        ledger.tally.most_on_the_way = ledger.tally.most_on_the_way.max(most);
        match ledger.violations.first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    /// The books are closed, the server stops, and nothing is left of it.
    fn end(&mut self) -> Result<(), String> {
        self.note("the end");
        if !self.ledger.borrow().stops {
            self.close_books()?;
            self.stop_from_outside();
        }
        self.settle()?;
        self.group.advance(Duration::from_secs(9))?;
        self.settle()?;
        self.check()?;
        if !self.group.is_stopped() {
            return Err("the grace is over, and a loop has not stopped".into());
        }
        let members = self.ledger.borrow().members.len();
        if self.group.drained() > members {
            return Err(format!("{} of {members} sessions have ended", self.group.drained()));
        }
        self.group.end();
        if self.group.places[0].connections() > 0 {
            return Err(format!("{} connections are left", self.group.places[0].connections()));
        }
        let ledger = self.ledger.borrow();
        match ledger.members.iter().find(|(_, member)| !member.is_over) {
            Some((port, _)) => Err(format!("the session of client {port} had no on_close")),
            None => Ok(()),
        }
    }
}
