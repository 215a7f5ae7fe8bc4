//! What must hold of a connection that is over: its books agree, what arrived is whole, and nobody was ended
//! who lives.

use std::time::Duration;

use crate::core::Disposal;
use crate::testing::network::{Link, Network};
use crate::words::close::CloseCode;

use super::books::Account;
use super::losses::{Fault, FaultKind, GivenUp};
use super::player::Player;
use super::world::{Log, World};

/// What must hold of a connection that is over.
pub(super) fn check_over(
    player: &Player,
    network: &mut Network,
    world: &mut World,
    over_budget: bool,
) -> Result<(), String> {
    let id = player.id;
    let log = world.sessions.get(&player.session);
    if log.is_some_and(|log| log.connected && log.end.is_none()) {
        return Err(format!("link {id} is over and its session had no on_close"));
    }
    let now = network.now;
    let fault = log.and_then(|log| log.fault);
    let ping_taken_at = fault
        .filter(|fault| fault.kind == FaultKind::PingTimeout)
        .and_then(|_| network.link(id).unread_ping_taken_at(now));
    let link = network.link(id);
    let loss = Account { player, link, log, world, over_budget, ping_taken_at, now }.settle()?;
    check_end(player, link, log, world)?;
    check_alive(player, link, log)?;
    check_silent(player, link, log, world)?;
    // Nobody tells the time where a handler is dropped, but to dialers; and whose body went for want of
    // memory may not have read the 503.
    if cfg!(feature = "client") && network.core.stats().over_budget == 0 {
        check_body(player, network.link(id), world)?;
    }
    if let Some(loss) = loss {
        world.tally.losses.count(loss);
    }
    Ok(())
}

/// Nobody is ended as dead who takes all at once and answers.
fn check_alive(player: &Player, link: &Link, log: Option<&Log>) -> Result<(), String> {
    let Some(fault) = log.and_then(|log| log.fault) else { return Ok(()) };
    let Fault { at, kind } = fault;
    let answers = player.answers_pings && player.has_joined(at);
    let hinders = player.has_stalled || player.has_ended || player.is_spoiled;
    let is_healthy = answers && !hinders && !link.socket.is_broken();
    if fault.is_of_progress() && is_healthy && link.socket.transit().is_none() {
        return Err(format!("link {}: {kind:?}, and it takes all and answers", player.id));
    }
    Ok(())
}

/// Nobody is ended as silent who has said something.
fn check_silent(
    player: &Player,
    link: &Link,
    log: Option<&Log>,
    world: &World,
) -> Result<(), String> {
    let Some(log) = log else { return Ok(()) };
    let Some(Fault { at, kind }) = log.fault else { return Ok(()) };
    let silent_since = match kind {
        // Since when something was heard is known to a millisecond.
        FaultKind::PingTimeout => at.before(log.timeout).after(Duration::from_millis(2)),
        FaultKind::IdleTimeout => at,
        _ => return Ok(()),
    };
    // Of a session that is not read, only what its peer takes counts.
    let is_unread = link.socket.transit().is_some() && world.mood.has_pauses();
    let hinders = player.has_stalled || player.has_ended || link.socket.is_broken();
    if !hinders && !is_unread && player.has_spoken(silent_since, at) {
        return Err(format!("link {}: {kind:?}, and it has said something since", player.id));
    }
    Ok(())
}

/// Who has shut its side behind a body gets its answer as long as the application goes on taking it.
fn check_body(player: &Player, link: &Link, world: &World) -> Result<(), String> {
    let Some(&GivenUp { at, paused_at }) = world.given_up.get(&player.id) else { return Ok(()) };
    let was_waited_for = at.since(paused_at) >= world.patience;
    let is_stopped = world.stops_at.is_some_and(|stop| stop <= at);
    let is_in_order = link.socket.gone == Some(Disposal::Close) && !link.socket.is_broken();
    if player.waits_for_answer() && is_in_order && !was_waited_for && !is_stopped {
        let waited = at.since(paused_at);
        return Err(format!("link {}: its body was given up after {waited:?}", player.id));
    }
    Ok(())
}

/// What arrived of a connection whose side was shut in order is whole, and ends with a Close.
fn check_end(player: &Player, link: &Link, log: Option<&Log>, world: &World) -> Result<(), String> {
    let (id, socket) = (player.id, &link.socket);
    if !socket.shut || socket.is_broken() || !socket.is_end_seen() {
        return Ok(());
    }
    // Our side was shut in order: what went out is whole.
    if !socket.got.is_empty() || player.is_within_event() {
        return Err(format!("link {id} ended inside a frame: {:?}", socket.got));
    }
    let Some((log, end)) = log.and_then(|log| log.end.as_ref().map(|end| (log, end))) else {
        return Ok(());
    };
    // A peer that ended its side without a Close gets none either, but what was sent before.
    let has_no_close = player.is_event_source(); // the end says it
    if player.got_close.is_none() && !has_no_close && end.code() != CloseCode::ABNORMAL {
        return Err(format!("link {id} ended in order without a Close: {end:?}"));
    }
    // A Close of the peer ends what is made while it is sent, and all behind it, which counts as dropped; our
    // own Close may wait behind it by then.
    let is_cut = log.streams && end.remote_code().is_some();
    let may_miss = if is_cut { log.dropped } else { 0 };
    let (received, sent) = (player.heard.received, log.sent.len());
    if end.is_clean() && !world.drops && sent.abs_diff(received) > may_miss {
        return Err(format!("link {id} ended cleanly; {received} of {sent} messages arrived"));
    }
    Ok(())
}
