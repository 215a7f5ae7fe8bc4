//! Owns the handshake load: connect, upgrade, close, and again.

use crate::measure::Window;
use crate::swarm::Swarm;
use crate::{Outcome, Plan};

pub(crate) fn run(plan: &Plan) -> Outcome {
    let mut swarm = Swarm::new(plan, false)?;
    swarm.open(plan.connections)?;
    for index in 0..plan.connections {
        swarm.replace(index)?;
    }
    let mut window = Window::new(plan);
    let mut done = 0;
    if plan.total.is_some() {
        window.begin(0)?;
    }
    let mut ready = Vec::new();
    while plan.total.is_none_or(|total| done < total) {
        swarm.wait(&mut ready)?;
        for event in &ready {
            if swarm.advance(*event)? {
                done += 1;
                swarm.replace(event.index)?;
            }
        }
        if plan.total.is_none() && window.is_over(done)? {
            break;
        }
    }
    window.print("handshake", done, None)
}
