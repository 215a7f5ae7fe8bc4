//! A message of a flow as a filter sees it.

use crate::flow::emission::{Emission, Origin};
use crate::structures::ids::SessionId;
use crate::words::message::Message;

/// A message that was published in a flow, as the filter of
/// [`Session::collect_if`](crate::Session::collect_if) sees it.
///
/// ```
/// use wirewheel::flow::{Published, SharedFlow};
/// use wirewheel::{HandlerResult, Session};
/// fn join(session: &mut Session<'_>, gauges: &SharedFlow) -> HandlerResult {
///     let me = session.id();
///     session.collect_if(gauges, move |published: &Published<'_>| {
///         let is_wanted = published.key().is_none_or(|key| key.starts_with("cellar/"));
///         is_wanted && published.message().is_text() && published.publisher() != Some(me)
///     })
/// }
/// ```
#[derive(Debug)]
pub struct Published<'a>(&'a Emission);

impl<'a> Published<'a> {
    pub(crate) fn new(emission: &'a Emission) -> Self {
        Self(emission)
    }

    /// The message.
    pub fn message(&self) -> Message<'a> {
        self.0.message()
    }

    /// The session that published it, if one did.
    pub fn publisher(&self) -> Option<SessionId> {
        match self.0.origin {
            Origin::Session(id) => Some(id),
            Origin::Application | Origin::Reader(_) => None,
        }
    }

    /// The key of which it is the newest value, in flows that keep these.
    pub fn key(&self) -> Option<&'a str> {
        self.0.key.as_deref()
    }
}
