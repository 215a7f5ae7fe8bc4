//! Owns what a panic in the application's code becomes: the end of one session, or one answer of
//! 500, while everything else runs on.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use log::error;

use crate::app::response::Response;
use crate::session::state::Phase;
use crate::words::close::{CloseCode, CloseInfo, ClosedBy};
use crate::words::error::SessionError;
use crate::words::quoted::on_one_line;

use crate::core::connection::{Disposal, Stage};
use crate::core::ending::Loss;
use crate::core::turn::Turn;

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
    catch_unwind(AssertUnwindSafe(act)).map_err(told)
}

/// Drops what is the application's: a `Drop` of its types is its code too.
pub(crate) fn drop_caught<T>(what: &str, value: T) {
    if let Err(Panicked(text)) = caught(|| drop(value)) {
        error!(target: "wirewheel::server", "{what} panicked in a drop: {}", on_one_line(&text));
    }
}

#[cold]
fn told(panic: Box<dyn Any + Send>) -> Panicked {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    // What a panic was given may panic in its drop in turn, and so on. The second is left alone.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        mem::forget(second);
    }
    Panicked(text.unwrap_or_else(|| "no message".into()))
}

/// A turn ends after this many panics, whatever is left to do. `on_message`, `on_error` and
/// `on_close` of one session may each panic, and so may the drop of its handler.
const PANICS_MAX: u32 = 5;

impl Turn<'_> {
    /// Brings the connection to its end after a panic, going on where that panicked again: a hook
    /// that has run is not run again.
    #[cold]
    #[allow(clippy::arithmetic_side_effects, reason = "stops at PANICS_MAX")]
    pub(crate) fn recover(&mut self, first: Panicked) {
        let mut next = Some(first);
        let mut count = 0;
        while let Some(panic) = next.take() {
            count += 1;
            self.shared.last_panic = Some(panic.0.clone());
            if count > PANICS_MAX {
                // Once more for the drop of the handler.
                if caught(|| self.drop_socket(Disposal::Reset)).is_err() {
                    self.drop_socket(Disposal::Reset);
                }
                return;
            }
            let done = caught(|| {
                self.end_after(panic);
                self.flush();
                self.charge();
            });
            next = done.err();
        }
    }

    /// The answer in place of one whose making panicked.
    #[cold]
    pub(crate) fn internal_error(&mut self, route: &str, Panicked(text): Panicked) -> Response {
        self.note_error(("handler panicked", 500), || format!("{route}: handler panicked: {text}"));
        self.shared.last_panic = Some(text);
        Response::refusal(500)
    }

    fn end_after(&mut self, Panicked(text): Panicked) {
        match (&self.connection.stage, self.connection.state.phase) {
            (Stage::Session(_), Phase::Ended) => {
                // `on_error` panicked: `on_close` is left.
                self.log_fault(&SessionError::Panic(text));
                let info = self.session().close_info().cloned().unwrap_or_else(|| {
                    CloseInfo::new(CloseCode::ABNORMAL, "", ClosedBy::Local, false)
                });
                self.end(&info);
                self.leave_after(info.code());
            }
            (Stage::Session(_), _) => self.fail(SessionError::Panic(text)),
            (Stage::Http(_), _) => {
                self.note_error(("request panicked", 500), || {
                    format!("{}: request handling panicked: {text}", self.who())
                });
                self.refuse(500);
            }
            (Stage::Finishing, _) => {
                // `on_close` panicked, or the drop of the handler: what was to follow, follows.
                self.log_fault(&SessionError::Panic(text));
                let extra = self.connection.state.extra();
                let code = extra.close.as_ref().map_or(CloseCode::NORMAL, CloseInfo::code);
                if extra.aborted {
                    self.drop_socket(Disposal::Reset);
                } else {
                    self.leave_after(code);
                }
            }
            (Stage::Closed(_), _) => self.log_fault(&SessionError::Panic(text)),
        }
    }

    /// Where the connection broke there is nobody to wait for.
    fn leave_after(&mut self, code: CloseCode) {
        if code == CloseCode::ABNORMAL && !self.connection.state.extra().peer_shut {
            self.lose(Loss::Gone);
            self.drop_socket(Disposal::Close);
        } else {
            self.finish();
        }
    }
}
