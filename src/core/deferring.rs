//! Answers that come later: what a request gives to the application, and what that does with it.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::app::call::Call;
use crate::app::deferral::Address;
use crate::app::response::{Accept, Response};
use crate::context::commands::{Command, Settlement};
use crate::context::loop_state::ServerRef;
use crate::core::deferred_outcome::{Decision, decided};

/// The answer to a request that comes later, by [`Call::defer`]. It can be sent to another thread.
///
/// It is used up by the first answer. Dropped, its request gets 503. What it
/// is answered with once nobody [waits](Self::is_cancelled) any more is dropped.
///
/// ```
/// use std::thread;
/// use wirewheel::defer::Pending;
/// use wirewheel::{Accept, Application, Call, Response, WebSockets, on_connect};
///
/// struct User(String);
///
/// /// A service that takes its time: on a thread, which may wait.
/// fn log_in(token: &str) -> Option<User> {
///     (token == "secret").then(|| User("anna".into()))
/// }
///
/// fn decide(pending: Pending, token: &str) {
///     if pending.is_cancelled() {
///         return; // the client has left already, or there are too many
///     }
///     match log_in(token) {
///         Some(user) => pending.accept_with(move |call| {
///             call.attach(user); // on the loop, for the hooks that follow and the handler
///             Ok(Accept::new())
///         }),
///         None => pending.answer(Response::new(401)),
///     }
/// }
///
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route.on_upgrade(|call| {
///             let token = call.cookie("token").ok_or_else(|| Response::new(401))?.to_owned();
///             let pending = call.defer();
///             thread::spawn(move || decide(pending, &token));
///             Err(Response::deferred())
///         });
///         route.web_socket("/me", |call: &Call| {
///             let name = call.attached().map_or_else(String::new, |User(name)| name.clone());
///             on_connect(move |session, _call| session.send(&name))
///         });
///     });
/// }
/// # wirewheel::Server::bind("127.0.0.1:0", module)?.spawn()?.shutdown(std::time::Duration::ZERO);
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
#[must_use = "dropped, its request gets 503"]
pub struct Pending {
    /// `None` where nobody has waited, or once it is used up.
    address: Option<Address>,
    cancelled: Arc<AtomicBool>,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("is_cancelled", &self.is_cancelled()).finish()
    }
}

impl Call {
    /// Defers the answer to this request: an upgrade hook, a page, a route for bodies or a guard returns
    /// [`Response::deferred`] (an upgrade hook as an `Err`), and the answer is given later, by this.
    ///
    /// Until then further requests on the connection wait, and nothing is read from it. The Origin was
    /// judged before; upgrade hooks that follow are asked once the answer accepts. `handshake_timeout` does
    /// not count, but [`defer_timeout`](crate::Limits::defer_timeout) does: after it the request gets 503. At
    /// most [`max_deferred`](crate::Limits::max_deferred) are open, in the hands of the application; over
    /// that the request gets 503. A stop waits for it as long as its grace lasts; an upgrade that is
    /// accepted then gets 503.
    ///
    /// A hook that answers after all, with any other response, or an upgrade hook that refuses, cancels it;
    /// one that accepts (`Ok`) adds its headers and leaves the verdict to the answer. Where nobody waits for
    /// an answer (over the limit, a second time for one request, or after the request was answered) it is
    /// [cancelled](Pending::is_cancelled) from the start.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # {
    /// use std::time::Duration;
    /// use wirewheel::testing::TestApplication;
    /// use wirewheel::{Application, Response};
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     app.routing(|route| {
    ///         route.get("/report", |call| {
    ///             let pending = call.defer();
    ///             Response::with_server(|_call, server| {
    ///                 let later = Duration::from_secs(2);
    ///                 match server.after(later, |server| pending.answer_on(server, "it is done")) {
    ///                     Ok(_timer) => Response::deferred(),
    ///                     Err(error) => Response::text(error.to_string()).status(500),
    ///                 }
    ///             })
    ///         });
    ///     });
    /// })?;
    /// let mut client = app.connect();
    /// client.send_bytes(b"GET /report HTTP/1.1\r\nHost: h\r\n\r\n");
    /// app.advance(Duration::from_secs(2));
    /// assert_eq!(client.expect_answer().text(), "it is done");
    /// # }
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn defer(&self) -> Pending {
        let address = self.deferral().begin();
        let cancelled = match &address {
            Some(address) => Arc::clone(&address.cancelled),
            None => Arc::new(AtomicBool::new(true)),
        };
        Pending { address, cancelled }
    }
}

impl Pending {
    /// Answers, from any thread; an upgrade is refused with it. A response with a file, a stream or
    /// [`Response::with_server`] belongs to the thread that made it: it is logged as an error and becomes a
    /// 500. [`answer_with`](Self::answer_with) makes such a one on the loop, and
    /// [`answer_on`](Self::answer_on) takes any.
    ///
    /// ```
    /// use wirewheel::{Call, Response};
    /// fn count(call: &Call) -> Response {
    ///     let pending = call.defer();
    ///     std::thread::spawn(move || {
    ///         let count = std::fs::read_dir("/srv").map_or(0, Iterator::count); // may take long
    ///         pending.answer(count.to_string());
    ///     });
    ///     Response::deferred()
    /// }
    /// ```
    pub fn answer(self, response: impl Into<Response>) {
        let response = response.into();
        // They count while the peer still takes what was answered before.
        let bytes = response.bytes_held();
        let sent = response.into_sendable();
        self.decide(bytes, move |_call, _server| Decision::Answer(sent.into()));
    }

    /// Answers on the loop, with any response, after the present hook. An upgrade is refused with it. Where
    /// another [loop](crate::Server::loops) has the request, it is as [`answer`](Self::answer) from a thread.
    ///
    /// ```
    /// use std::io::Write;
    /// use wirewheel::{Response, ServerRef, defer::Pending};
    /// fn send(server: &mut ServerRef<'_>, pending: Pending) {
    ///     let mut left = 3;
    ///     let countdown = Response::stream(move |piece| {
    ///         if left > 0 {
    ///             writeln!(piece, "{left}")?;
    ///             left -= 1;
    ///         }
    ///         Ok(())
    ///     });
    ///     pending.answer_on(server, countdown);
    /// }
    /// ```
    pub fn answer_on(mut self, server: &mut ServerRef<'_>, response: impl Into<Response>) {
        let own = &server.shared.deferrals.mailbox;
        if !self.address.as_ref().is_some_and(|address| address.mailbox.is_same(own)) {
            return self.answer(response);
        }
        let Some(Address { to, number, .. }) = self.address.take() else { return };
        let response = response.into();
        let bytes = response.bytes_held();
        let answer = Some(decided(move |_call, _server| Decision::Answer(response)));
        give(server, Command::Answer { to, number, settlement: Settlement { answer, bytes } });
    }

    /// Answers with what `make` returns, which is called on the loop, where it has the request and the
    /// server. It is not called if nobody waits any more.
    ///
    /// ```
    /// use wirewheel::{Response, defer::Pending};
    /// /// On a thread that has made a file.
    /// fn send(pending: Pending, path: String) {
    ///     pending.answer_with(move |_call, server| {
    ///         let count = server.session_count();
    ///         Response::file(path).header("X-Sessions", count.to_string())
    ///     });
    /// }
    /// ```
    pub fn answer_with<R: Into<Response>>(
        self,
        make: impl FnOnce(&Call, &mut ServerRef<'_>) -> R + Send + 'static,
    ) {
        self.decide(0, move |call, server| Decision::Answer(make(call, server).into()));
    }

    /// Accepts an upgrade, as far as the hook is concerned that has deferred it; hooks that follow are asked.
    /// For a page it is a mistake: 500, and an error in the log.
    ///
    /// ```
    /// use wirewheel::{Accept, defer::Pending};
    /// fn let_in(pending: Pending, cookie: &str) {
    ///     pending.accept(Accept::new().header("Set-Cookie", cookie));
    /// }
    /// ```
    pub fn accept(self, accept: Accept) {
        self.decide(0, move |_call, _server| Decision::Accept(accept));
    }

    /// The same as `decide` returns, which is called on the loop with the request: to
    /// [attach](Call::attach) what was found out. It is not called if nobody waits any more.
    ///
    /// ```
    /// use wirewheel::{Accept, Response, defer::Pending};
    /// struct User(String);
    /// fn known(pending: Pending, name: String) {
    ///     pending.accept_with(move |call| match call.attach(User(name)) {
    ///         true => Ok(Accept::new()),
    ///         false => Err(Response::new(500)), // somebody was found already
    ///     });
    /// }
    /// ```
    pub fn accept_with(
        self,
        decide: impl FnOnce(&Call) -> Result<Accept, Response> + Send + 'static,
    ) {
        self.decide(0, move |call, _server| {
            decide(call).map_or_else(Decision::Answer, Decision::Accept)
        });
    }

    /// Whether nobody waits for the answer any more, most likely: the client has ended its side of the
    /// connection, which few do who still read; or it was too late, or one too many. To be asked before
    /// work is begun, and in between.
    ///
    /// ```
    /// use wirewheel::defer::Pending;
    /// fn search(pending: Pending, items: impl Iterator<Item = String>) {
    ///     for item in items {
    ///         if pending.is_cancelled() {
    ///             return;
    ///         }
    ///         if item == "needle" {
    ///             return pending.answer(item);
    ///         }
    ///     }
    /// } // it is dropped: 503
    /// ```
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    fn decide(
        mut self,
        bytes: usize,
        decide: impl FnOnce(&Call, &mut ServerRef<'_>) -> Decision + Send + 'static,
    ) {
        let Some(Address { to, number, mailbox, .. }) = self.address.take() else { return };
        // However full the queue is: else a client would wait for what was given already.
        mailbox.send_owed(Box::new(move |server: &mut ServerRef<'_>| {
            let settlement = Settlement { answer: Some(decided(decide)), bytes };
            give(server, Command::Answer { to, number, settlement });
        }));
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // An answer too: no path of errors can leave a client waiting.
        let Some(Address { to, number, mailbox, .. }) = mem::take(&mut self.address) else {
            return;
        };
        mailbox.send_owed(Box::new(move |server: &mut ServerRef<'_>| {
            give(server, Command::Answer { to, number, settlement: Settlement::default() });
        }));
    }
}

/// Brings an answer to its request. There is one for each that was deferred, so their limit bounds these.
fn give(server: &mut ServerRef<'_>, answer: Command) {
    server.shared.commands.push_back(answer);
    server.shared.has_deferred_work = true;
}
