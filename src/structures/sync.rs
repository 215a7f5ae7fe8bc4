//! The locks and atomics of what crosses threads: those of the standard library. Whoever checks every
//! interleaving (`loom/`) compiles the same files with others.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard};
