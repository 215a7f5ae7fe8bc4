//! What a flow gives up where memory is short: the pool of its server asks one after the other.

use crate::flow::inner::FlowInner;
use crate::flow::options::BufferOverflow;
use crate::flow::pool::{FlowPool, GaveWay, Gives, GivesWay, Rank};

impl GivesWay for FlowInner {
    fn bytes(&self) -> usize {
        self.state.borrow().bytes()
    }

    fn drop_awaited(&self, is_needed: impl Fn() -> bool) -> bool {
        let mut dropped = false;
        // Under `Suspend` nothing that somebody awaits is lost: its publishers are not read instead.
        while self.options.on_buffer_overflow != BufferOverflow::Suspend && is_needed() {
            let is_empty = self.change(|state| {
                if !state.forget_all_removed() {
                    state.drop_oldest();
                }
                state.log.len() == 0
            });
            dropped = true;
            if is_empty {
                break;
            }
        }
        dropped
    }

    fn give_way(&self, pool: &FlowPool<Self>, rank: Rank, is_short: impl Fn() -> bool) -> GaveWay {
        let mut gave = GaveWay { messages: 0, rank: Some(rank), asks: false, in_vain: false };
        // It is this flow that makes room for its own message, with its state borrowed.
        let Ok(mut state) = self.state.try_borrow_mut() else {
            gave.asks = true;
            return gave;
        };
        // Published in since it was listed: others have been idle for longer.
        if state.used > rank.used && rank.gives != Gives::Encodings {
            gave.rank = Some(Rank { used: state.used, ..rank });
        } else {
            gave.messages = state.give_way(pool, rank.gives, &is_short);
            gave.in_vain = gave.messages == 0 && rank.gives != Gives::Encodings;
            let now = Rank { gives: state.gives(), ..rank };
            let last = Rank { used: pool.next_stamp(), ..now };
            // Short still, it has given all that it could.
            // Behind all that have not been asked, so that the next search does not begin with it.
            let rank = if is_short() && now.gives == Gives::Replay { last } else { now };
            gave.rank = (state.log.len() > 0).then_some(rank);
        }
        self.rank.set(gave.rank);
        gave
    }

    fn unlist(&self) {
        self.state.borrow_mut().listed = false;
    }
}
