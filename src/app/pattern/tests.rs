//! Patterns and what they are mistaken for.

use super::*;

#[test]
fn faults_are_named() {
    for (path, fault) in [
        ("chat", "must start with '/'"),
        ("/{p?}/x", "optional parameter may only stand at the end"),
        ("/{...}/x", "tail {...} may only stand at the end"),
        ("/{p", "'{' without '}'"),
        ("/p}", "'}' without '{'"),
        ("/{}", "needs a name"),
        ("/{a}{b}", "one parameter at most"),
        ("/{a}/{a}", "\"a\" stands twice"),
        ("/x{a...}", "takes a whole segment"),
        ("/x{a?}", "takes a whole segment"),
    ] {
        let error = Pattern::parse(path).unwrap_err();
        assert!(error.contains(fault) && error.contains(path), "{path}: {error}");
    }
}

#[test]
fn syntax_of_others_is_refused_with_the_right_form() {
    for (path, right) in [
        ("/devices/:id", "{id}"),
        ("/devices/:id?", "{id?}"),
        ("/files/:rest*", "{rest...}"),
        ("/files/:rest+", "{rest...}"),
        ("/:id(\\d+)", "{id}"),
        ("/:id.json", "written {id}.json here"),
        ("/:user-id", "written {user}-id here"),
        ("/flights/:from-:to", "one parameter at most"),
        ("/flights/:from.:to?", "one parameter at most"),
        ("/:", "{name}"),
        ("/files/*rest", "{rest...}"),
        ("/files/**", "{...}"),
        ("/files/**/x", "{...}"),
        ("/files/*.js", "{name}.txt"),
        ("/files/a*", "a whole segment"),
        ("/files/{*rest}", "{rest...}"),
        ("/files/{**rest}", "{rest...}"),
        ("/files/{...rest}", "{rest...}"),
        ("/files/{rest*}", "{rest...}"),
        ("/files/{rest+}", "{rest...}"),
        ("/files/{rest..}", "{rest...}"),
        ("/files/{rest:path}", "{rest...}"),
        ("/files/{rest:.*}", "{rest...}"),
        ("/files/{*rest}.txt", "{rest...}"),
        ("/devices/{id:int}", "{id}"),
        ("/devices/{id:[0-9]+}", "{id}"),
        ("/devices/{id:\\d{2}}", "written {id} here"),
        ("/devices/{id=5}", "{name}"),
        ("/devices/{ id }", "{name}"),
        ("/devices/{?id}", "{id?}"),
        ("/devices/{id:int?}", "{id}"),
        ("/devices/<id>", "{id}"),
        ("/devices/<int:id>", "{id}"),
        ("/files/<path:rest>", "{rest...}"),
        ("/files/<rest..>", "{rest...}"),
        ("/devices/x<id>", "{name}"),
        ("/devices/[id]", "{id}"),
        ("/files/[...rest]", "{rest...}"),
        ("/files/[[...rest]]", "{rest...}"),
        ("/devices/[[id]]", "{id?}"),
        ("/files/[id].json", "{name}"),
        ("/user-[id]", "{name}"),
        ("/devices[/{id}]", "{name?}"),
        ("/devices/(\\d+)", "a regular expression"),
        ("/devices/(?<id>[a-z]+)", "a regular expression"),
        ("/devices/(.*)", "whole segment"),
        ("/devices/([^x]+)", "a regular expression"),
        ("/devices/?", "{name?}"),
        ("/devices?id=1", "{name?}"),
        ("/page#part", "a fragment"),
        ("/{$}", "{$}"),
        ("GET /devices", "without a method"),
    ] {
        let error = Pattern::parse(path).unwrap_err();
        assert!(error.contains(right) && error.contains("bad route path"), "{path}: {error}");
    }
}

#[test]
fn what_only_looks_like_it_stays() {
    for path in [
        "/*",
        "/*/x",
        "/{...}",
        "/{rest...}",
        "/{p?}",
        "/a{p}b",
        "/{p}.json",
        "/@{name}",
        "/{user-id}",
        "/{user_id}",
        "/{user.id}",
        "/{n\u{e4}me}",
        "/v1/things:search",
        "/things:{id}",
        "/a+b",
        "/$metadata",
        "/Things(1)",
        "/~user",
        "/a,b;c=1",
        "/.well-known/x",
        "/a b",
        "/100%",
        "/x[1]",
        "/",
    ] {
        assert!(Pattern::parse(path).is_ok(), "{path}: {:?}", Pattern::parse(path));
    }
    let pattern = |path| Pattern::parse(path).unwrap();
    assert_eq!(pattern("/a%20b"), pattern("/a b"));
    assert!(Pattern::parse("/%ff").is_err());
}

#[test]
fn broken_encodings_have_no_segments() {
    for path in ["/%", "/%4", "/%zz", "/%ff", "/%00", "", "x"] {
        assert_eq!(path_segments(path), None, "{path}");
    }
    assert_eq!(path_segments("/a%2Fb//c/"), Some(vec!["a/b".into(), "c".into(), String::new()]));
    assert_eq!(path_segments("/"), Some(vec![]));
}
