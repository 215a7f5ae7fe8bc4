//! What changes answers on their way out: default headers, pages for statuses, CORS. Each holds for the paths
//! below a scope of routes.

use std::fmt;

use crate::protocol::head::RequestHead;

use crate::app::call::Call;
use crate::app::pattern::{Pattern, path_segments};
use crate::app::response::{Body, Response, describes_content, has_header};
use crate::app::response_on_loop::add_missing;

/// One of them.
pub(crate) trait AnswerFilter {
    /// Answers an OPTIONS request in place of its route.
    fn preflight(&self, _head: &RequestHead) -> Option<Response> {
        None
    }

    /// Whether the page that made a request may send it; only CORS knows.
    fn allows(&self, _head: &RequestHead) -> Option<bool> {
        None
    }

    /// Changes an answer.
    fn change(&self, call: &Call, response: Response) -> Response;
}

/// All of them. A trait, so that a program without any is linked without what is done with them.
pub(crate) trait AnswerFilters: fmt::Debug {
    /// Adds one for a path and all below it.
    fn add(&mut self, scope: &str, filter: Box<dyn AnswerFilter>) -> Result<(), String>;

    /// What answers an OPTIONS request in place of its route, if anything does.
    fn preflight(&self, head: &RequestHead) -> Option<Response>;

    /// Whether the page that made a request may send it; `None` where nothing is said about it.
    fn allows(&self, head: &RequestHead) -> Option<bool>;

    /// An answer as those that hold for its path change it.
    fn change(&self, call: &Call, response: Response) -> Response;
}

/// Those of the innermost scopes first.
#[derive(Default)]
pub(super) struct ScopedFilters(Vec<ScopedFilter>);

struct ScopedFilter {
    scope: Pattern,
    depth: usize,
    filter: Box<dyn AnswerFilter>,
}

impl fmt::Debug for ScopedFilters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedFilters").field("len", &self.0.len()).finish()
    }
}

impl AnswerFilters for ScopedFilters {
    fn add(&mut self, scope: &str, filter: Box<dyn AnswerFilter>) -> Result<(), String> {
        let depth = scope.split('/').filter(|segment| !segment.is_empty()).count();
        let scope = Pattern::parse(&format!("{}/{{...}}", scope.trim_end_matches('/')))?;
        // Behind those of the same depth: who was written first goes first.
        let place = self.0.partition_point(|known| known.depth >= depth);
        self.0.insert(place, ScopedFilter { scope, depth, filter });
        Ok(())
    }

    fn preflight(&self, head: &RequestHead) -> Option<Response> {
        self.of(head).find_map(|filter| filter.preflight(head))
    }

    fn allows(&self, head: &RequestHead) -> Option<bool> {
        self.of(head).find_map(|filter| filter.allows(head))
    }

    fn change(&self, call: &Call, mut response: Response) -> Response {
        let mut has_cors = false;
        for filter in self.of(call.head()) {
            // The innermost decides: an outer one must not let in whom it keeps out.
            let is_cors = filter.allows(call.head()).is_some();
            if !(is_cors && has_cors) {
                response = filter.change(call, response);
            }
            has_cors |= is_cors;
        }
        response
    }
}

impl ScopedFilters {
    /// Those that hold for a path; for one that cannot be read, those of the root.
    fn of(&self, head: &RequestHead) -> impl Iterator<Item = &dyn AnswerFilter> {
        let path = head.target().split('?').next().unwrap_or_default();
        let segments = path_segments(path).unwrap_or_default();
        let holding = self.0.iter().filter(move |known| known.scope.fit(&segments).is_some());
        holding.map(|known| &*known.filter)
    }
}

/// A header for answers that do not have it (Ktor's `DefaultHeaders`).
pub(super) struct DefaultHeader {
    pub(super) name: String,
    pub(super) value: String,
}

impl AnswerFilter for DefaultHeader {
    fn change(&self, _call: &Call, mut response: Response) -> Response {
        // RFC 9110 section 15.4.5: a 304 describes no content; a default would take the place of what the
        // client's copy has.
        let is_for_content = response.status == 304 && describes_content(&self.name);
        if !is_for_content && !has_header(&response.headers, &self.name) {
            response.headers.push((self.name.clone(), self.value.clone()));
        }
        response
    }
}

/// What is sent in place of the server's own words for a status (Ktor's `StatusPages`).
pub(super) struct StatusPage<F> {
    pub(super) status: u16,
    pub(super) page: F,
}

impl<F: Fn(&Call) -> Response> AnswerFilter for StatusPage<F> {
    fn change(&self, call: &Call, response: Response) -> Response {
        // What is made on the loop, as the page of an inner scope may be, has no length yet.
        let is_to_come = matches!(response.body, Body::OnLoop(_) | Body::Deferred);
        let is_empty = !is_to_come && response.body.length() == Some(0);
        if response.status != self.status || !(response.is_refusal || is_empty) {
            return response;
        }
        let mut page = (self.page)(call);
        // What the refusal has to say stays: `Allow`, `WWW-Authenticate`, `Retry-After`, and of 416 how long
        // what was asked for is (RFC 9110 section 15.5.17), which describes no content of its own.
        let says = |name: &str| {
            !describes_content(name)
                || response.status == 416 && name.eq_ignore_ascii_case("content-range")
        };
        add_missing(&mut page.headers, response.headers.into_iter().filter(|(name, _)| says(name)));
        Response { status: response.status, fault: response.fault.or(page.fault), ..page }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::call::tests::call;

    /// Adds its number to a header.
    struct Mark(&'static str);

    impl AnswerFilter for Mark {
        fn change(&self, _call: &Call, response: Response) -> Response {
            response.header("X-Mark", self.0)
        }
    }

    #[test]
    fn the_inner_scope_goes_first_and_the_first_of_one_scope() {
        let mut filters = ScopedFilters::default();
        for (scope, name) in [("", "a"), ("/x", "b"), ("/x/{p}", "c"), ("/x/", "d"), ("/", "e")] {
            filters.add(scope, Box::new(Mark(name))).unwrap();
        }
        for (path, expected) in [
            ("/", "ae"),
            ("/x", "bdae"),
            ("/x/", "bdae"),
            ("/x/y", "cbdae"),
            ("/x/y/z?q", "cbdae"),
            ("/xy", "ae"),
            ("/%ff", "ae"),
        ] {
            let call = call(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
            let response = filters.change(&call, Response::new(204));
            let marks: String = response.headers.into_iter().map(|(_, mark)| mark).collect();
            assert_eq!(marks, expected, "{path}");
        }
    }

    #[test]
    fn a_page_takes_the_place_of_what_nobody_wrote() {
        let filter = StatusPage { status: 404, page: |_: &Call| Response::html("lost") };
        let call = call("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        let of = |response| match filter.change(&call, response) {
            Response { status, body: Body::Bytes(bytes), headers, .. } => {
                (status, String::from_utf8(bytes).unwrap(), headers.len())
            }
            other => panic!("{other:?}"),
        };
        let refusal = Response::refusal(404)
            .header("Allow", "GET")
            .header("Content-Language", "x")
            .header("Content-Security-Policy", "default-src 'self'");
        assert_eq!(of(refusal), (404, "lost".into(), 3));
        assert_eq!(of(Response::new(404)), (404, "lost".into(), 1));
        assert_eq!(of(Response::text("mine").status(404)).1, "mine");
        assert_eq!(of(Response::refusal(404).body("mine")).1, "mine");
        assert_eq!(of(Response::refusal(403)).0, 403);
    }
}
