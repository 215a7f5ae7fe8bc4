//! The order of what a session has sent, as whoever receives it has to find it.

#[cfg(feature = "client")]
use super::content::NEWS_KEYS;
use super::content::{self, FROM_FLOW, FROM_OTHER, FROM_SESSION};
use super::sequence::Sequence;
use super::world::{Log, Tally, Wants};

/// What the side says that has sent.
pub(crate) struct Told<'a> {
    pub(crate) log: Option<&'a Log>,
    /// Messages may be dropped on the way.
    pub(crate) drops: bool,
    /// Who published each message of the flow.
    pub(crate) publishers: &'a [Option<usize>],
    /// Where to count.
    pub(crate) tally: &'a mut Tally,
}

impl Sequence {
    /// Messages of the session come in the order of its sends, those of the flow in the flow's; what
    /// others sent has no number. `id` is the session's.
    pub(super) fn take(
        &mut self,
        id: usize,
        whole: &[u8],
        log: &Log,
        told: &mut Told<'_>,
    ) -> Result<(), String> {
        let drops = told.drops;
        let read = content::read(whole);
        match read {
            Some((FROM_OTHER, _)) => Ok(()),
            #[cfg(feature = "client")]
            Some((content::FROM_NEWS, number)) => self.take_news(number, told),
            Some((FROM_FLOW, number)) if number >= self.next_of_flow || log.collects_anew => {
                self.next_of_flow = number + 1;
                if log.collects_anew {
                    return Ok(()); // it may have wanted something else when that came
                }
                match log.wants {
                    Some(Wants::All) => return Ok(()),
                    Some(Wants::Even) if number % 2 == 0 => {}
                    Some(Wants::Others) if told.publishers.get(number) != Some(&Some(id)) => {}
                    wants => return Err(format!("number {number} of the flow for {wants:?}")),
                }
                told.tally.filtered += 1;
                Ok(())
            }
            Some((FROM_SESSION, number))
                if number == self.received || (drops && number > self.received) =>
            {
                self.received = number + 1;
                self.arrived += 1;
                told.tally.arrived += 1;
                told.tally.longest = told.tally.longest.max(self.arrived);
                match log.sent.get(number) {
                    Some(&len) if len == whole.len() => Ok(()),
                    other => Err(format!("message {number}: {} bytes, not {other:?}", whole.len())),
                }
            }
            _ => {
                let start = whole.get(..20).unwrap_or(whole).escape_ascii();
                Err(format!("after {} comes {read:?}: {start}", self.received))
            }
        }
    }

    /// The news of a key get newer and newer.
    #[cfg(feature = "client")]
    fn take_news(&mut self, number: usize, told: &mut Told<'_>) -> Result<(), String> {
        let newest = &mut self.news[number % NEWS_KEYS];
        if *newest > number {
            return Err(format!("number {number} of the news after {}", *newest - 1));
        }
        *newest = number + 1;
        told.tally.news += 1;
        Ok(())
    }
}
