//! The pages of a simulation's application: most are short, some longer than a share of a turn.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

use crate::app::response::Response;

use super::world::World;

/// One in so many pages is long.
const LONG_IN: u64 = 8;

/// A page of any length: whole, or made while the client takes it, so that there is always memory for it.
pub(super) fn draw(world: &Rc<RefCell<World>>) -> Response {
    let choices = &mut world.borrow_mut().choices;
    if !choices.one_in(LONG_IN) {
        return "x".repeat(choices.size_below(500)).into();
    }
    let (length, piece) = (choices.size_below(30_000), choices.pick(&[700, 5_000]));
    // What is more than the length is not sent.
    let page =
        Response::stream_sized(length as u64, move |part| part.write_all(&vec![b'x'; piece]));
    page.header("Content-Type", "text/plain")
}
