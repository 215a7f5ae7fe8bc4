//! Panics in the application's code, which become an error value: they end one session, or one request
//! with 500, while everything else runs on.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use log::error;

use crate::words::quoted::on_one_line;

/// What a panic said.
#[derive(Debug)]
pub(crate) struct Panicked(pub(crate) String);

/// Runs code that may be the application's. With `panic = "abort"` a panic ends the process before
/// it comes back here.
///
/// Asserted to be unwind safe: whoever gets the error ends the session, or the request, that was
/// running, and uses nothing of it but what ending takes. The turn's buffer holds whole frames
/// whenever the application's code runs.
#[inline(always)] // around each closure there is one of it, with one caller
pub(crate) fn caught<R>(act: impl FnOnce() -> R) -> Result<R, Panicked> {
    catch_unwind(AssertUnwindSafe(act)).map_err(message_of)
}

/// Drops what is the application's: a `Drop` of its types is its code too.
pub(crate) fn drop_caught<T>(what: &str, value: T) {
    if let Err(Panicked(text)) = caught(|| drop(value)) {
        error!(target: "wirewheel::server", "{what} panicked in a drop: {}", on_one_line(&text));
    }
}

#[cold]
fn message_of(panic: Box<dyn Any + Send>) -> Panicked {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    // What a panic was given may panic in its drop in turn, and so on. The second is left alone.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        mem::forget(second);
    }
    Panicked(text.unwrap_or_else(|| "no message".into()))
}
