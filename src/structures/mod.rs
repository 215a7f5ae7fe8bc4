//! The room `structures`: the timer wheel, the slab, the outbox. Standard library only.

pub(crate) mod assembled;
#[cfg(feature = "client")]
pub(crate) mod backoff;
pub(crate) mod byte_queue;
pub(crate) mod counter;
pub(crate) mod cursors;
pub(crate) mod footprint;
pub(crate) mod ids;
pub(crate) mod outbox;
pub(crate) mod places;
pub(crate) mod produced;
pub(crate) mod progress;
pub(crate) mod roster;
pub(crate) mod slab;
pub(crate) mod spare_buffers;
pub(crate) mod sync;
pub(crate) mod token_bucket;
pub(crate) mod wheel;
#[cfg(all(repository, any(test, fuzzing)))]
pub(crate) mod wheel_model;
pub(crate) mod wire;
