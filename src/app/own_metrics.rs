//! The figures of an application itself, beside those of the server.

use std::fmt;

/// What the statistics page asks of them. A trait, so that a program without any is linked without them.
pub(crate) trait OwnMetrics: fmt::Debug {
    /// The first mistake that was made in setting them up.
    fn check(&self) -> Result<(), String>;

    /// Writes them as Prometheus text.
    fn write_to(&self, text: &mut String);
}
