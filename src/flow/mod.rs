//! Layer 3, flow: messages that are kept once and sent to many sessions.

pub(crate) mod emission;
pub(crate) mod inner;
pub(crate) mod key;
pub(crate) mod log;
pub(crate) mod options;
pub(crate) mod pool;
pub(crate) mod shared_flow;
pub(crate) mod state;
