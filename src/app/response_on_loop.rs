//! Answers that are not known yet when a hook returns: made with the server, or deferred.

use std::borrow::Cow;

use crate::app::call::Call;
use crate::app::made_once::MadeOnce;
use crate::app::response::{Body, MakeAnswer, Response};
use crate::context::loop_state::ServerRef;

/// An answer with all that is said, or one that is to be made first.
pub(crate) enum Making {
    Made(Response),
    /// The rest of the answer, and what makes it.
    ToMake(Response, MakeAnswer),
}

impl Response {
    /// An answer that is made with the server: `make` is called once, as soon as the hook that returns it is
    /// over. So whatever returns a response reaches sessions, names, flows and timers: pages, bodies, guards,
    /// and refusals of upgrade hooks.
    ///
    /// Headers that are set on it are added to the answer that is made, unless that has them; a status other
    /// than 200 replaces its own.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # {
    /// use wirewheel::testing::TestApplication;
    /// use wirewheel::{Application, Call, Response, WebSockets, on_connect};
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     app.install(WebSockets::new());
    ///     app.routing(|route| {
    ///         route.web_socket("/device/{name}", |call: &Call| {
    ///             let name = call.parameter("name").unwrap_or_default().into_owned();
    ///             on_connect(move |session, _call| Ok(session.set_name(&name)?))
    ///         });
    ///         route.post("/ring/{name}", |_call, body| {
    ///             let text = body.text().unwrap_or("ring").to_owned();
    ///             Response::with_server(move |call, server| {
    ///                 let name = call.parameter("name").unwrap_or_default();
    ///                 match server.send_to_name(&name, text) {
    ///                     Ok(()) => Response::new(204),
    ///                     Err(error) => Response::text(error.to_string()).status(404),
    ///                 }
    ///             })
    ///         });
    ///         route.get("/count", |_call| {
    ///             Response::with_server(|_call, server| server.session_count().to_string())
    ///         });
    ///     });
    /// })?;
    /// assert_eq!(app.post("/ring/door", "text/plain", "ding").status, 404);
    /// let mut door = app.web_socket("/device/door");
    /// assert_eq!(app.post("/ring/door", "text/plain", "ding").status, 204);
    /// door.expect_text("ding");
    /// assert_eq!(app.get("/count").text(), "1");
    /// # }
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn with_server<R>(make: impl FnOnce(&Call, &mut ServerRef<'_>) -> R + 'static) -> Self
    where
        R: Into<Self>,
    {
        let make: MakeAnswer = Box::new(move |call, server| make(call, server).into());
        let body = Body::OnLoop(MadeOnce::new(make));
        Self { body, ..Self::new(200) }
    }

    /// What a hook returns that has [deferred](Call::defer) its answer. Returned without that, it is a
    /// mistake: 500, and an error in the log.
    ///
    /// ```
    /// use wirewheel::{Call, Response};
    /// fn slow(call: &Call) -> Response {
    ///     let pending = call.defer();
    ///     std::thread::spawn(move || pending.answer("at last"));
    ///     Response::deferred()
    /// }
    /// ```
    pub fn deferred() -> Self {
        Self { body: Body::Deferred, ..Self::new(200) }
    }

    /// Whether it is to come later.
    pub(crate) fn is_deferred(&self) -> bool {
        matches!(self.body, Body::Deferred)
    }

    /// What has to be done before it can be sent.
    pub(crate) fn making(self) -> Making {
        let Body::OnLoop(made) = &self.body else { return Making::Made(self) };
        match made.take() {
            Some(make) => {
                let body = Body::Bytes(Vec::new());
                let rest = Self { body, headers: self.headers.clone(), ..Self::new(self.status) };
                Making::ToMake(rest, make)
            }
            None => {
                let mistake =
                    "one Response::with_server was returned twice: make one for each request";
                Making::Made(Self::faulty(mistake))
            }
        }
    }

    /// What was made, with what was set beside it.
    pub(crate) fn completed_by(mut self, rest: Self) -> Self {
        if self.fault.is_some() {
            return self;
        }
        if rest.status != 200 {
            self.status = rest.status;
        }
        add_missing(&mut self.headers, rest.headers);
        self
    }

    /// The parts that another thread may make; 500 where there are others.
    pub(crate) fn into_sendable(self) -> SendableResponse {
        let Self { status, is_refusal, headers, body, fault } = self;
        let body = match body {
            Body::Bytes(bytes) => Ok(bytes.into()),
            Body::Static(bytes) => Ok(bytes.into()),
            Body::File(..) | Body::Produced(_) | Body::OnLoop(_) | Body::Deferred => Err(()),
        };
        SendableResponse { status, is_refusal, headers, body, fault }
    }
}

/// Adds lines whose names are not there yet, all of one name. Of `Set-Cookie` each line stands for itself
/// (RFC 6265 section 3), and `Vary` only grows (RFC 9110 section 12.5.5).
pub(super) fn add_missing(
    headers: &mut Vec<(String, String)>,
    lines: impl IntoIterator<Item = (String, String)>,
) {
    let before = headers.len();
    for (name, value) in lines {
        let own = headers.get(..before).unwrap_or_default();
        let grows = ["set-cookie", "vary"].iter().any(|it| name.eq_ignore_ascii_case(it));
        let is_there = own
            .iter()
            .any(|(known, has)| name.eq_ignore_ascii_case(known) && (!grows || *has == value));
        if !is_there {
            headers.push((name, value));
        }
    }
}

/// A response of bytes alone, which may go from one thread to another.
pub(crate) struct SendableResponse {
    status: u16,
    is_refusal: bool,
    headers: Vec<(String, String)>,
    body: Result<Cow<'static, [u8]>, ()>,
    fault: Option<Box<str>>,
}

impl From<SendableResponse> for Response {
    fn from(sent: SendableResponse) -> Self {
        let SendableResponse { status, is_refusal, headers, body, fault } = sent;
        let body = match body {
            Ok(Cow::Owned(bytes)) => Body::Bytes(bytes),
            Ok(Cow::Borrowed(bytes)) => Body::Static(bytes),
            Err(()) => {
                return Self::faulty(
                    "Pending::answer takes no stream, file or Response::with_server, which belong to one \
                     thread: make it in Pending::answer_with, or on the loop, by Pending::answer_on",
                );
            }
        };
        Self { status, is_refusal, headers, body, fault }
    }
}
