//! What breaks a rule at present. The list only shrinks: an exception that is no longer needed fails the
//! test.

/// The rule, and where it does not hold.
pub(crate) const EXCEPTIONS: &[(&str, &str)] = &[];
