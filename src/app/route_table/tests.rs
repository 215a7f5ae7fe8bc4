use super::*;
use crate::app::application::{Application, WebSockets};
use crate::app::body_handler::{BodyHandler, BodyNext, IncomingBody};
use crate::app::handler::on_message;
use crate::app::pattern::BETWEEN_PIECES;
use crate::protocol::head::tests::head;

/// A table whose WebSocket routes and answers are named by their patterns; `ws:PATH:PROTOCOL`
/// and `get:PATH`.
fn table(routes: &[&str]) -> Result<RouteTable, String> {
    let mut application = Application::new();
    application.install(WebSockets::new());
    application.routing(|route| {
        for line in routes {
            let mut parts = line.splitn(3, ':');
            let kind = parts.next().unwrap();
            let path = parts.next().unwrap();
            if kind == "get" {
                let name = path.to_owned();
                route.get(path, move |_| name.clone());
            } else if kind != "ws" {
                route.receive(kind, path, |_| Err::<Never, _>(Response::new(204)));
            } else {
                let added = route.web_socket(path, |_: &Call| on_message(|_, _| Ok(())));
                if let Some(protocol) = parts.next() {
                    added.protocol(protocol);
                }
            }
        }
    });
    application.build().map(|built| built.routes)
}

struct Never;

impl BodyHandler for Never {
    fn on_piece(&mut self, _body: &mut IncomingBody<'_>, _piece: &[u8]) -> BodyNext {
        BodyNext::Continue
    }
    fn on_end(&mut self, _body: &mut IncomingBody<'_>) -> Response {
        Response::new(204)
    }
}

/// What a request gets, in words.
fn resolved(routes: &[&str], request: &str) -> String {
    let mut words = request.split(' ');
    let (kind, path) = (words.next().unwrap(), words.next().unwrap());
    let offered: Vec<&str> = words.collect();
    let method = if kind == "WS" { "GET" } else { kind };
    let head = head(&format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let list = |parameters: &[(String, String)]| {
        let pieces = |(name, value): &(String, String)| {
            value.split(BETWEEN_PIECES).map(|piece| format!(" {name}={piece}")).collect::<String>()
        };
        parameters.iter().map(pieces).collect::<String>()
    };
    let table = table(routes).unwrap();
    match table.resolve(&head, kind == "WS", &offered) {
        Resolution::WebSocket { route, parameters, protocol } => {
            let protocol = protocol.map_or(String::new(), |protocol| format!(" as {protocol}"));
            let pattern = &table.route(route).unwrap().pattern;
            format!("ws {pattern}{protocol}{}", list(&parameters))
        }
        Resolution::Get { handler, parameters } => {
            let paths: Vec<&str> =
                routes.iter().filter_map(|line| line.strip_prefix("get:")).collect();
            format!("get {}{}", paths[usize::from(handler)], list(&parameters))
        }
        Resolution::Body { route, parameters } => {
            let is_body = |line: &&&str| line.starts_with(char::is_uppercase);
            let line = routes.iter().filter(is_body).nth(usize::from(route)).unwrap();
            format!("{}{}", line.replace(':', " "), list(&parameters))
        }
        refusal => format!("{refusal:?}"),
    }
}

/// Whichever way a path is looked up, by its text or by its segments.
#[test]
fn a_path_without_parameters_gets_what_its_segments_get() {
    let routes: &[&str] = &[
        "get:/",
        "get:/a",
        "get:/a/{p?}",
        "get:/b",
        "get:/b/{...}",
        "ws:/b",
        "get:/c/d",
        "ws:/c/d:v1",
        "get:/{p}/d",
        "get:/e%2Ff",
        "get:/g/",
        "ws:/h:v1",
        "get:/{p}",
        "POST:/i",
        "get:/*/j",
    ];
    let mut by_segments = table(routes).unwrap();
    let table = table(routes).unwrap();
    by_segments.spelled_out = SpelledOut::default();
    // A longer pattern fits /a and /b better.
    for (path, is_spelled_out) in
        [("/", true), ("/c/d", true), ("/g/", true), ("/i", true), ("/a", false), ("/b", false)]
    {
        assert_eq!(table.spelled_out.find(path).is_some(), is_spelled_out, "{path}");
    }
    for path in [
        "/", "//", "/a", "/a/", "/a/x", "/b", "/b/x", "/c/d", "/c//d", "/c/d/", "/c/d?e", "/e/f",
        "/e%2Ff", "/%63/d", "/g/", "/g", "/h", "/i", "/x/j", "/x", "/c/%zz",
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "BREW"] {
            let head = head(&format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
            for (upgrade, offered) in [(false, &[][..]), (true, &[]), (true, &["v1"])] {
                let found = table.resolve(&head, upgrade, offered);
                assert_eq!(found, by_segments.resolve(&head, upgrade, offered), "{method} {path}");
            }
        }
    }
}

#[test]
fn routes_that_would_never_be_asked_are_mistakes() {
    let twice: &[&[&str]] = &[
        &["ws:/x", "ws:/x"],
        &["ws:/x", "get:/x", "ws:/x:a", "ws:/x"],
        &["ws:/x:a", "ws:/x:a"],
        &["ws:/r/{p}", "ws:/r/{q}"],
        &["get:/x", "get:/x"],
        &["get:/{p...}", "get:/{...}"],
        &["get:/{p}.json", "get:/{q}.json"],
        &["POST:/x", "PUT:/x", "POST:/x"],
        &["POST:/{p}", "POST:/{q}"],
    ];
    for routes in twice {
        let (_, last) = routes.last().unwrap().split_once(':').unwrap();
        let path = last.split(':').next().unwrap();
        let mistake = table(routes).unwrap_err();
        assert!(mistake.contains(&format!("at {path:?}")), "{mistake}");
        assert!(mistake.contains("never be asked"), "{mistake}");
    }
    let all: &[&[&str]] = &[
        &["ws:/x", "ws:/x:a", "ws:/x:b", "get:/x"],
        &["POST:/x", "PUT:/x", "get:/x", "ws:/x", "POST:/y"],
        &["ws:/r/{p}", "ws:/r/{q}:a", "ws:/r/{p?}", "ws:/r/{p}.json", "ws:/r/{p}/"],
    ];
    for routes in all {
        assert!(table(routes).is_ok(), "{routes:?}");
    }
}

#[test]
fn the_methods_of_a_path_are_those_that_are_allowed() {
    let routes =
        &["get:/x", "POST:/x", "PUT:/{p}", "POST:/{p}", "ws:/w", "DELETE:/d/e", "OPTIONS:/o"];
    let table = table(routes).unwrap();
    for (target, allowed) in [
        ("/x?a", "GET, HEAD, POST, PUT"),
        ("/y", "PUT, POST"),
        ("/w", "GET, HEAD, PUT, POST"),
        ("/d/e", "DELETE"),
        ("*", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        ("h:80", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    ] {
        assert_eq!(table.allowed_methods(target), allowed, "{target}");
    }
}

#[test]
fn methods_without_a_body_are_mistakes() {
    for method in ["GET", "HEAD", "CONNECT", "TRACE", "", "A B", "POST:"] {
        let mut application = Application::new();
        application.install(WebSockets::new());
        application.routing(|route| {
            route.receive(method, "/x", |_| Ok(Never));
        });
        let mistake = application.build().map(|_| ()).unwrap_err();
        assert!(mistake.contains("takes no body"), "{method:?}: {mistake}");
    }
}

/// Rows 15-17 and 20-22 of Ktor's behaviour, pair by pair.
#[test]
fn requests_get_the_route_that_ktor_would_give() {
    let cases: &[(&[&str], &str, &str)] = &[
        // Constants and slashes.
        (&["get:/"], "GET /", "get /"),
        (&["get:"], "GET /", "get "),
        (&["get:/a"], "GET /a", "get /a"),
        (&["get:/a"], "GET /a?b=c", "get /a"),
        (&["get:/a"], "GET //a", "get /a"),
        (&["get:/a"], "GET /a/", "NotFound"),
        (&["get:/a/"], "GET /a/", "get /a/"),
        (&["get:/a/"], "GET /a", "NotFound"),
        (&["get:/a"], "GET /A", "NotFound"),
        (&["get:/a"], "GET /a/b", "NotFound"),
        (&["get:/a b"], "GET /a%20b", "get /a b"),
        (&["get:/a"], "GET /%61", "get /a"),
        (&["get:/a"], "GET /%6", "BadPath"),
        // Parameters.
        (&["get:/{p}"], "GET /x", "get /{p} p=x"),
        (&["get:/{p}"], "GET /", "NotFound"),
        (&["get:/{p}"], "GET /x/y", "NotFound"),
        (&["get:/{p}"], "GET /a%2Fb", "get /{p} p=a/b"),
        (&["get:/{p}/{q}"], "GET /x/y", "get /{p}/{q} p=x q=y"),
        (&["get:/{p?}"], "GET /", "get /{p?}"),
        (&["get:/{p?}"], "GET /x", "get /{p?} p=x"),
        (&["get:/a/{p?}"], "GET /a", "get /a/{p?}"),
        (&["get:/a{p}b"], "GET /axb", "get /a{p}b p=x"),
        (&["get:/a{p}b"], "GET /ab", "NotFound"),
        (&["get:/{p}.json"], "GET /x.json", "get /{p}.json p=x"),
        // Wildcard and tail.
        (&["get:/*"], "GET /x", "get /*"),
        (&["get:/*"], "GET /", "NotFound"),
        (&["get:/*/b"], "GET /a/b", "get /*/b"),
        (&["get:/{...}"], "GET /a/b/c", "get /{...}"),
        (&["get:/{...}"], "GET /", "get /{...}"),
        (&["get:/s/{rest...}"], "GET /s/a/b", "get /s/{rest...} rest=a rest=b"),
        (&["get:/s/{rest...}"], "GET /s", "get /s/{rest...}"),
        (&["get:/s/{rest...}"], "GET /t", "NotFound"),
        // Priority: whatever the order of registration.
        (&["get:/{p}", "get:/a"], "GET /a", "get /a"),
        (&["get:/{p}", "get:/a{p}"], "GET /ab", "get /a{p} p=b"),
        (&["get:/*", "get:/{p}"], "GET /a", "get /{p} p=a"),
        (&["get:/{...}", "get:/*"], "GET /a", "get /*"),
        (&["get:/{...}", "get:/{p?}"], "GET /", "get /{p?}"),
        (&["get:/{p}/b", "get:/a/{q}"], "GET /a/b", "get /a/{q} q=b"),
        (&["get:/a/{...}", "get:/{p}/b"], "GET /a/b", "get /a/{...}"),
        (&["get:/a/*/c", "get:/a/{p}/d"], "GET /a/b/c", "get /a/*/c"),
        (&["get:/{p}", "get:/{q?}"], "GET /a", "get /{p} p=a"),
        // HTTP and WebSocket on one path.
        (&["get:/x", "ws:/x"], "GET /x", "get /x"),
        (&["get:/x", "ws:/x"], "WS /x", "ws /x"),
        (&["ws:/x"], "GET /x", "UpgradeRequired"),
        (&["get:/x"], "WS /x", "get /x"),
        (&["ws:/x", "get:/{p}"], "GET /x", "get /{p} p=x"),
        // Subprotocols.
        (&["ws:/x:a"], "WS /x a", "ws /x as a"),
        (&["ws:/x:a"], "WS /x", "ProtocolRequired"),
        (&["ws:/x:a"], "WS /x A", "ProtocolRequired"),
        (&["ws:/x:a", "ws:/x:b"], "WS /x b a", "ws /x as a"),
        (&["ws:/x", "ws:/x:a"], "WS /x a", "ws /x as a"),
        (&["ws:/x:a", "ws:/x"], "WS /x z", "ws /x"),
        (&["ws:/x:a", "ws:/{p}"], "WS /x z", "ws /{p} p=x"),
        // Other answers.
        (&["ws:/x"], "WS /y", "NotFound"),
        (&["get:/x"], "POST /x", "MethodNotAllowed"),
        (&["get:/{p}"], "POST /x", "MethodNotAllowed"),
        (&["get:/x"], "POST /y", "NotFound"),
        (&["get:/x"], "HEAD /x", "get /x"),
        (&["get:/x"], "BREW /x", "UnknownMethod"),
        (&["get:/x"], "BREW /y", "NotFound"),
        (&["POST:/x"], "POST /x", "POST /x"),
        (&["POST:/x"], "GET /x", "MethodNotAllowed"),
        (&["POST:/x"], "HEAD /x", "MethodNotAllowed"),
        (&["POST:/x"], "WS /x", "MethodNotAllowed"),
        (&["POST:/x"], "PUT /x", "MethodNotAllowed"),
        (&["POST:/x", "get:/{p}"], "GET /x", "get /{p} p=x"),
        (&["POST:/{p}", "get:/x"], "POST /x", "POST /{p} p=x"),
        (&["POST:/x", "PUT:/x", "ws:/x"], "PUT /x", "PUT /x"),
        (&["BREW:/x", "get:/y"], "BREW /y", "MethodNotAllowed"),
        (&["ws:/x"], "POST /x", "MethodNotAllowed"),
        (&[], "GET /", "NotFound"),
    ];
    assert!(cases.len() >= 40);
    for (routes, request, expected) in cases {
        assert_eq!(resolved(routes, request), *expected, "{request} at {routes:?}");
    }
}
