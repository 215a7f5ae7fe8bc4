//! The routes that take bodies, by their methods.

use std::rc::Rc;

use crate::protocol::token::is_token;

use crate::app::body::Body;
use crate::app::body_handler::BodyHandler;
use crate::app::body_intake::{PiecesIntake, WholeAnswer, WholeIntake};
use crate::app::body_route::{Admitted, BodyRoute, BodyRouteKey};
use crate::app::call::Call;
use crate::app::response::Response;
use crate::app::routing::Routing;

/// Requests with bodies.
impl Routing<'_> {
    /// Answers POST requests, whose bodies are handed over whole (Ktor's `post`): forms, JSON, commands with
    /// or without a body. At most 64 KiB, unless the route says
    /// [otherwise](BodyRoute::max_body_size); [`receive`](Self::receive) takes larger ones in pieces. It may
    /// share its path with other methods and with WebSocket routes.
    ///
    /// A page of another origin may make a browser send such a request. It gets 403 by the rule of
    /// [`allowed_origins`](crate::WebSockets::allowed_origins), as an upgrade does; so for PUT, PATCH and
    /// DELETE.
    ///
    /// The body is not read before the head was judged: 411, 413, 415, the route's
    /// [guard](BodyRoute::guard). `Expect: 100-continue` is answered with 100 only then. A body that comes
    /// slower than `min_rate` gets 408.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # {
    /// use wirewheel::body::BodyError;
    /// use wirewheel::{Application, Response};
    /// fn module(app: &mut Application) {
    ///     app.routing(|route| {
    ///         route.post("/restart", |_call, _body| Response::new(202));
    ///         route.post("/name", |_call, body| -> Result<String, BodyError> {
    ///             Ok(format!("hello {}", body.form()?.get("name").unwrap_or_default()))
    ///         });
    ///     });
    /// }
    /// # wirewheel::testing::TestApplication::new(module).unwrap();
    /// # }
    /// ```
    pub fn post<F, R>(&mut self, path: &str, answer: F) -> &mut BodyRoute
    where
        F: Fn(&Call, Body<'_>) -> R + 'static,
        R: Into<Response>,
    {
        self.whole("POST", path, Rc::new(move |call, body| answer(call, body).into()))
    }

    /// Answers PUT requests; else as [`post`](Self::post).
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # {
    /// # fn module(app: &mut wirewheel::Application) {
    /// app.routing(|route| {
    ///     route.put("/limits/{name}", |call, body| {
    ///         format!("{:?} is {} bytes", call.parameter("name"), body.bytes().len())
    ///     });
    /// });
    /// # }
    /// # wirewheel::testing::TestApplication::new(module).unwrap();
    /// # }
    /// ```
    pub fn put<F, R>(&mut self, path: &str, answer: F) -> &mut BodyRoute
    where
        F: Fn(&Call, Body<'_>) -> R + 'static,
        R: Into<Response>,
    {
        self.whole("PUT", path, Rc::new(move |call, body| answer(call, body).into()))
    }

    /// Answers PATCH requests; else as [`post`](Self::post).
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # {
    /// # fn module(app: &mut wirewheel::Application) {
    /// app.routing(|route| {
    ///     route.patch("/settings", |_call, body| body.text().map(str::to_owned));
    /// });
    /// # }
    /// # wirewheel::testing::TestApplication::new(module).unwrap();
    /// # }
    /// ```
    pub fn patch<F, R>(&mut self, path: &str, answer: F) -> &mut BodyRoute
    where
        F: Fn(&Call, Body<'_>) -> R + 'static,
        R: Into<Response>,
    {
        self.whole("PATCH", path, Rc::new(move |call, body| answer(call, body).into()))
    }

    /// Answers DELETE requests; else as [`post`](Self::post).
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # {
    /// use wirewheel::Response;
    /// # fn module(app: &mut wirewheel::Application) {
    /// app.routing(|route| {
    ///     route.delete("/logs/{name}", |_call, _body| Response::new(204));
    /// });
    /// # }
    /// # wirewheel::testing::TestApplication::new(module).unwrap();
    /// # }
    /// ```
    pub fn delete<F, R>(&mut self, path: &str, answer: F) -> &mut BodyRoute
    where
        F: Fn(&Call, Body<'_>) -> R + 'static,
        R: Into<Response>,
    {
        self.whole("DELETE", path, Rc::new(move |call, body| answer(call, body).into()))
    }

    /// Answers OPTIONS requests of a path, from pages of any origin; else as [`post`](Self::post).
    /// `OPTIONS *` is answered by the server.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # {
    /// use wirewheel::Response;
    /// # fn module(app: &mut wirewheel::Application) {
    /// app.routing(|route| {
    ///     route.options("/", |_call, _body| Response::new(204).header("Allow", "GET, HEAD"));
    /// });
    /// # }
    /// # wirewheel::testing::TestApplication::new(module).unwrap();
    /// # }
    /// ```
    pub fn options<F, R>(&mut self, path: &str, answer: F) -> &mut BodyRoute
    where
        F: Fn(&Call, Body<'_>) -> R + 'static,
        R: Into<Response>,
    {
        self.whole("OPTIONS", path, Rc::new(move |call, body| answer(call, body).into()))
    }

    /// Takes bodies of any size in pieces, as they come: uploads, firmware. `factory` makes the
    /// [`BodyHandler`] of each request once its head was let in, or answers in its place. Any method but GET,
    /// HEAD, CONNECT and TRACE. At most one read buffer of a body is in memory, also while it is paused; the
    /// limit on its size is 64 KiB here too, unless the route says
    /// [otherwise](BodyRoute::max_body_size).
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # {
    /// use wirewheel::body::{BodyHandler, BodyNext, IncomingBody};
    /// use wirewheel::{Application, Call, Response};
    /// struct Sum(u64);
    /// impl BodyHandler for Sum {
    ///     fn on_piece(&mut self, _body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext {
    ///         self.0 += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    ///         BodyNext::Continue
    ///     }
    ///     fn on_end(&mut self, _body: &mut IncomingBody<'_>) -> Response {
    ///         Response::text(self.0.to_string())
    ///     }
    /// }
    /// fn module(app: &mut Application) {
    ///     app.routing(|route| {
    ///         let firmware = route.receive("PUT", "/firmware", |call: &Call| match call.query() {
    ///             "" => Ok(Sum(0)),
    ///             _ => Err(Response::text("no query here").status(400)),
    ///         });
    ///         firmware.max_body_size(64 << 20).length_required();
    ///     });
    /// }
    /// # wirewheel::testing::TestApplication::new(module).unwrap();
    /// # }
    /// ```
    pub fn receive<F, H>(&mut self, method: &str, path: &str, factory: F) -> &mut BodyRoute
    where
        F: Fn(&Call) -> Result<H, Response> + 'static,
        H: BodyHandler + 'static,
    {
        let make = move |call: &Call, admitted: Admitted| {
            let (decoder, expected) = (admitted.decoder, admitted.expected);
            Ok(Box::new(PiecesIntake { decoder, expected, handler: factory(call)? }) as Box<_>)
        };
        let key = self.body_route_key(method, path);
        self.add_body(BodyRoute::new(key, Rc::new(make), false))
    }

    fn whole(&mut self, method: &str, path: &str, answer: WholeAnswer) -> &mut BodyRoute {
        let make = move |_: &Call, admitted: Admitted| {
            let intake = WholeIntake {
                decoder: admitted.decoder,
                kept: Vec::new(),
                answer: Rc::clone(&answer),
                #[cfg(feature = "json")]
                converter: admitted.converter,
            };
            Ok(Box::new(intake) as Box<_>)
        };
        let key = self.body_route_key(method, path);
        self.add_body(BodyRoute::new(key, Rc::new(make), true))
    }

    fn body_route_key(&mut self, method: &str, path: &str) -> BodyRouteKey {
        if !is_token(method) || matches!(method, "GET" | "HEAD" | "CONNECT" | "TRACE") {
            self.mistake(format!("method {method:?} of route {path:?} takes no body"));
        }
        BodyRouteKey { method: method.to_owned(), path: self.full_path(path) }
    }
}
