//! The reader of a simulation's flow: it takes what it is offered by fits and starts, and what it has missed
//! is exactly what lies between.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::app::application::Application;
use crate::context::loop_state::ServerRef;
use crate::flow::options::BufferOverflow;
use crate::flow::reader::{Batch, Offered, Taken};
use crate::structures::ids::ReaderId;

use super::content::{self, FROM_FLOW};
use super::world::World;

/// Half of the runs have one.
pub(super) fn add_reader(application: &mut Application, world: &Rc<RefCell<World>>) {
    if !world.borrow_mut().choices.one_in(2) {
        return;
    }
    world.borrow_mut().readers += 1;
    let flow = world.borrow().flow.clone();
    let own: Rc<RefCell<Option<ReaderId>>> = Rc::default();
    let (id, shared) = (Rc::clone(&own), Rc::clone(world));
    // Of the messages of a flow that drops its newest some have no place in it, and nobody misses them.
    let is_exact = flow.inner.options().on_buffer_overflow != BufferOverflow::DropLatest;
    // Of a server that comes back after it was killed, the first is any of the replay.
    let next = (world.borrow().published == 0).then_some(0);
    let mut reader = Reader { next, is_exact };
    let made = application.read_flow(&flow, move |server, batch| {
        let wait = reader.read(&mut shared.borrow_mut(), batch);
        let (Some(wait), Some(id)) = (wait, *id.borrow()) else { return Taken::Yes };
        read_on_after(server, id, wait);
        Taken::Later
    });
    *own.borrow_mut() = Some(made);
}

fn read_on_after(server: &mut ServerRef<'_>, id: ReaderId, wait: u64) {
    let wait = Duration::from_millis(1 + wait);
    if server.after(wait, move |server| server.read_on(id)).is_err() {
        server.read_on(id);
    }
}

struct Reader {
    /// The number that the next message of the flow has if nothing is missed, as far as it is known.
    next: Option<u64>,
    is_exact: bool,
}

impl Reader {
    /// For how long it then takes no more, if it has not taken all.
    fn read(&mut self, world: &mut World, batch: &mut Batch<'_>) -> Option<u64> {
        if world.choices.one_in(6) {
            return Some(world.choices.below(3_000));
        }
        for offered in batch {
            let number = self.number_of(world, &offered);
            if world.choices.one_in(8) {
                return Some(world.choices.below(300)); // it is offered again
            }
            self.next = Some(number + 1);
            world.tally.read += 1;
            world.tally.unread += usize::try_from(offered.missed()).unwrap_or(usize::MAX);
        }
        None
    }

    fn number_of(&self, world: &mut World, offered: &Offered) -> u64 {
        let read = content::read(offered.message().bytes());
        let Some((FROM_FLOW, number)) = read else {
            world.violations.push(format!("a reader got {read:?}"));
            return 0;
        };
        let number = number as u64;
        let Some(next) = self.next else { return number };
        let expected = next + offered.missed();
        if number < expected || (self.is_exact && number > expected) {
            let missed = offered.missed();
            let what = format!("a reader got {number} after {next}, {missed} missed");
            world.violations.push(what);
        }
        number
    }
}
