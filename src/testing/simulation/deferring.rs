//! Answers that a simulation's application defers: given on the loop or from elsewhere, late, never, or to
//! nobody.

use std::cell::RefCell;
use std::rc::Rc;

use crate::app::call::Call;
use crate::app::response::{Accept, Response};
use crate::testing::network::Network;

use super::actors::PLANNED;
use super::deferrals::{Deferral, Fate};
use super::pages;
use super::world::World;

/// What an upgrade hook says.
pub(super) fn admit(world: &Rc<RefCell<World>>, call: &Call) -> Result<Accept, Response> {
    match begin(world, call, true) {
        Some(response) => Err(response),
        None => Ok(Accept::new()),
    }
}

/// What a request gets that asks for a deferred answer; `None` for the others.
pub(super) fn begin(world: &Rc<RefCell<World>>, call: &Call, is_upgrade: bool) -> Option<Response> {
    call.header("x-defer")?;
    let link = call.header("x-link")?.parse().ok()?;
    let pending = call.defer();
    let World { choices, deferrals, .. } = &mut *world.borrow_mut();
    if pending.is_cancelled() {
        deferrals.refused += 1;
        return Some(Response::deferred());
    }
    deferrals.begun += 1;
    match choices.below(10) {
        0 => drop(pending),
        1 => return Some(Response::text("after all").status(403)),
        _ => deferrals.open.push(Deferral { link, is_upgrade, pending }),
    }
    Some(Response::deferred())
}

/// Settles one, as its fate is.
pub(super) fn settle(
    deferral: Deferral,
    fate: Fate,
    world: &Rc<RefCell<World>>,
    network: &mut Network,
) {
    let Deferral { link, is_upgrade, pending } = deferral;
    match fate {
        Fate::OnLoop if is_upgrade => pending.accept(Accept::new()),
        Fate::OnLoop => {
            let world = Rc::clone(world);
            let page = Response::with_server(move |_call, _server| {
                *world.borrow_mut().pages.entry(link).or_default() += 1;
                pages::draw(&world)
            });
            network.run(move |server| pending.answer_on(server, page));
        }
        Fate::Elsewhere if is_upgrade => pending.accept_with(|call| {
            call.attach(1_u8);
            Ok(Accept::new().header("X-Attached", "1"))
        }),
        Fate::Elsewhere => {
            pending.answer_with(|call, _server| Response::text(call.path()).status(203));
        }
        Fate::Refused => pending.answer(Response::new(401)),
        Fate::Panics => pending.answer_with(|_call, _server| -> Response { panic!("{PLANNED}") }),
        Fate::Dropped => drop(pending),
    }
}
