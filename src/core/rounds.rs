//! The rounds of a flush: each over all sessions that are to be offered one thing, which may take several
//! turns.

use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;

use crate::flow::inner::FlowInner;

/// Sessions of one round that follow each other before the next round has its turn.
pub(super) const TOGETHER: usize = 16;

/// Vectors that are kept for the next rounds, and their size at most.
const SPARE_MAX: usize = 8;
const SPARE_SESSIONS_MAX: usize = 4096;

/// All rounds that are not over.
#[derive(Default)]
pub(super) struct Rounds {
    waiting: VecDeque<Round>,
    /// The one of which `present` are. Invariant: there is one while there are some.
    current: Option<Round>,
    /// Those who are written to next.
    present: Vec<u32>,
    spare: Vec<Vec<u32>>,
}

/// Those who are still to be written to, last first.
pub(super) struct Round {
    /// What they are offered; `None` where each was sent something of its own.
    pub(super) flow: Option<Rc<FlowInner>>,
    left: Vec<u32>,
    /// Those of whom only a part of the work was done.
    again: Vec<u32>,
}

/// What comes next.
pub(super) enum NextRound {
    /// The sessions of [`Rounds::present`].
    Sessions,
    /// The round of this flow is over: all were offered what it had.
    Over(Rc<FlowInner>),
    Nothing,
}

impl Rounds {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.current.is_none()
    }

    /// Begins a round; `list` names its sessions.
    pub(super) fn begin(&mut self, flow: Option<Rc<FlowInner>>, list: impl FnOnce(&mut Vec<u32>)) {
        let mut left = self.spare.pop().unwrap_or_default();
        list(&mut left);
        self.waiting.push_back(Round { flow, left, again: Vec::new() });
    }

    /// The next session.
    #[inline]
    pub(super) fn next(&mut self) -> Option<u32> {
        self.present.pop()
    }

    /// Those who are written to next, last first.
    pub(super) fn present(&self) -> &[u32] {
        &self.present
    }

    /// The round of the session that was named last, to which it may come again.
    pub(super) fn current(&mut self) -> Option<&mut Round> {
        self.current.as_mut()
    }

    /// Goes on to the next round once nobody is present any more.
    pub(super) fn go_on(&mut self) -> NextRound {
        if let Some(round) = self.current.take() {
            self.waiting.push_back(round);
        }
        while let Some(mut round) = self.waiting.pop_front() {
            if round.left.is_empty() && !round.again.is_empty() {
                mem::swap(&mut round.left, &mut round.again);
            }
            if !round.left.is_empty() {
                // From the end: nothing is moved.
                let from = round.left.len().saturating_sub(TOGETHER);
                self.present.extend(round.left.drain(from..));
                self.current = Some(round);
                return NextRound::Sessions;
            }
            // One broadcast to all must not keep its list for ever.
            if self.spare.len() < SPARE_MAX && round.left.capacity() <= SPARE_SESSIONS_MAX {
                self.spare.push(round.left);
            }
            if let Some(flow) = round.flow {
                return NextRound::Over(flow);
            }
        }
        NextRound::Nothing
    }
}

impl Round {
    /// It is to be written to once more.
    pub(super) fn repeat(&mut self, index: u32) {
        self.again.push(index);
    }
}
