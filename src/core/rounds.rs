//! The rounds of a flush: each over all sessions that are to be offered one thing, which may take several
//! turns.

use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;

use crate::flow::inner::FlowInner;

/// Sessions of one round that follow each other before the next round has its turn.
pub(super) const TOGETHER: usize = 16;

/// Vectors that are kept for the next rounds, and the sessions for which all of them have room at most.
const SPARE_MAX: usize = 8;
const SPARE_SESSIONS_MAX: usize = 32 << 10;

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
            self.keep(round.left);
            if let Some(flow) = round.flow {
                return NextRound::Over(flow);
            }
        }
        NextRound::Nothing
    }

    /// Keeps a list that is empty for the next round, as far as such lists may take memory for ever.
    fn keep(&mut self, list: Vec<u32>) {
        let kept =
            self.spare.iter().map(Vec::capacity).fold(list.capacity(), usize::saturating_add);
        if self.spare.len() < SPARE_MAX && kept <= SPARE_SESSIONS_MAX {
            self.spare.push(list);
        }
    }
}

impl Round {
    /// It is to be written to once more.
    pub(super) fn repeat(&mut self, index: u32) {
        self.again.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes through a round over so many sessions: the room of the list that the next one begins with.
    fn room_after(rounds: &mut Rounds, sessions: u32) -> usize {
        rounds.begin(None, |left| left.extend(0..sessions));
        let mut seen = 0;
        while matches!(rounds.go_on(), NextRound::Sessions) {
            seen += std::iter::from_fn(|| rounds.next()).count();
        }
        assert_eq!(seen, sessions as usize);
        rounds.spare.last().map_or(0, Vec::capacity)
    }

    #[test]
    fn lists_are_kept_as_far_as_all_of_them_are_small() {
        let mut rounds = Rounds::default();
        assert!(room_after(&mut rounds, 10_000) >= 10_000, "a broadcast to many allocates no list");
        rounds.spare.clear();
        assert_eq!(room_after(&mut rounds, 100_000), 0, "one to all keeps none for ever");
        for _ in 0..20 {
            rounds.begin(None, |left| left.extend(0..3_000));
        }
        while !matches!(rounds.go_on(), NextRound::Nothing) {
            while rounds.next().is_some() {}
        }
        let kept: usize = rounds.spare.iter().map(Vec::capacity).sum();
        assert!(rounds.spare.len() > 1 && kept <= SPARE_SESSIONS_MAX, "{kept}");
    }
}
