//! A server turned by a main loop of GLib: a source for its descriptor, and one for its deadline.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use glib::thread_guard::ThreadGuard;
use glib::{IOCondition, MainContext, MainLoop, Priority, Source};
use wirewheel::embedding::ServerDriver;
use wirewheel::{Drained, Result};

/// The server, and the main loop that it is a part of.
struct Served {
    server: ServerDriver,
    woke: Box<dyn FnMut()>,
    context: MainContext,
    main_loop: MainLoop,
    /// What fires at the server's deadline.
    deadline: Option<Source>,
    end: Option<Result<Drained>>,
}

/// Runs a main loop until the server is over; `woke` is called for each callback.
///
/// The tests have several servers, so that each thread gets a context of its own. A program with one loop has
/// the default context, and takes `unix_fd_add_local` and `timeout_add_local_once`, which need no guard.
pub fn run(server: ServerDriver, woke: impl FnMut() + 'static) -> Result<Drained> {
    let context = MainContext::new();
    let main_loop = MainLoop::new(Some(&context), false);
    let descriptor = server.as_raw_fd();
    let served = Served {
        server,
        woke: Box::new(woke),
        context: context.clone(),
        main_loop: main_loop.clone(),
        deadline: None,
        end: None,
    };
    let served = Rc::new(RefCell::new(served));
    let readable = ThreadGuard::new(Rc::clone(&served));
    let read = move |_, _| {
        wake(readable.get_ref());
        glib::ControlFlow::Continue
    };
    let source =
        glib::unix_fd_source_new(descriptor, IOCondition::IN, None, Priority::DEFAULT, read);
    source.attach(Some(&context));
    turn(&served); // it may have work already
    if served.borrow().end.is_none() {
        main_loop.run();
    }
    source.destroy();
    let end = served.borrow_mut().end.take();
    end.expect("the loop runs until the server is over")
}

/// The descriptor is readable, or the deadline has come.
fn wake(served: &Rc<RefCell<Served>>) {
    (served.borrow_mut().woke)();
    turn(served);
}

/// One turn, and the deadline anew.
fn turn(served: &Rc<RefCell<Served>>) {
    let again = ThreadGuard::new(Rc::clone(served));
    let mut served = served.borrow_mut();
    if let Some(deadline) = served.deadline.take() {
        deadline.destroy();
    }
    served.end = match served.server.turn() {
        Ok(ControlFlow::Continue(())) => None,
        Ok(ControlFlow::Break(drained)) => Some(Ok(drained)),
        Err(error) => Some(Err(error)),
    };
    if served.end.is_some() {
        return served.main_loop.quit();
    }
    served.deadline = served.server.next_deadline().map(|at| {
        let late = move || {
            wake(again.get_ref());
            glib::ControlFlow::Break
        };
        let source = glib::timeout_source_new(until(at), None, Priority::DEFAULT, late);
        source.attach(Some(&served.context));
        source
    });
}

/// GLib waits in milliseconds: rounded up, or it would wake just before the deadline and once more at it.
#[allow(clippy::disallowed_methods, reason = "a loop reads the clock")]
fn until(at: Instant) -> Duration {
    at.saturating_duration_since(Instant::now()) + Duration::from_nanos(999_999)
}
