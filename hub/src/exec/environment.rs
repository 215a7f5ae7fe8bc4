//! The environment of a program: what CGI calls the peer's request (RFC 3875 section 4.1).

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use percent_encoding::percent_decode_str;
use wirewheel::Call;

use crate::tokens::Shown;

/// The path of the route that starts programs.
pub(crate) const SCRIPT_NAME: &str = "/exec";

/// Headers that are the hub's, or mean something else as a variable: a request's `Proxy` would be
/// `HTTP_PROXY`, which programs take for the proxy that they are to use; the two with tokens stay
/// with the hub (RFC 3875 section 4.1.18); what is about the connection is over.
const WITHHELD: [&str; 10] = [
    "authorization",
    "proxy-authorization",
    "proxy",
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-extensions",
    "content-length",
    "content-type",
    "transfer-encoding",
];

/// The path beneath the script, decoded. `None` if no variable can hold it.
pub(crate) fn path_info(call: &Call) -> Option<Vec<u8>> {
    // The script's name may be written in several ways, such as with %65.
    let beneath = call.path().trim_start_matches('/').split_once('/').map(|(_, rest)| rest);
    let Some(beneath) = beneath else { return Some(Vec::new()) };
    let decoded: Vec<u8> = std::iter::once(b'/').chain(percent_decode_str(beneath)).collect();
    (!decoded.contains(&0)).then_some(decoded)
}

/// The variables of a program: nothing of the hub's own but `PATH` and what `pass` names, then those of
/// the request.
pub(crate) fn environment(call: &Call, pass: &[String]) -> Vec<(OsString, OsString)> {
    let mut variables: Vec<(OsString, OsString)> = Vec::new();
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    variables.push(("PATH".into(), path));
    for name in pass {
        if let Some(value) = std::env::var_os(name) {
            variables.push((name.into(), value));
        }
    }
    let shown = call.attached::<Shown>();
    let mut set = |name: &str, value: &[u8]| {
        // No variable can hold it; no header has it either.
        if value.contains(&0) {
            return;
        }
        // A client may have written its token anywhere, such as into the path.
        let is_told = shown.is_some_and(|shown| shown.is_in(&String::from_utf8_lossy(value)));
        let value = if is_told { Vec::new() } else { value.to_vec() };
        variables.push((name.into(), OsString::from_vec(value)));
    };
    let (client, here) = (call.client_addr(), call.local_addr());
    if shown.is_some() {
        set("AUTH_TYPE", b"Bearer");
    }
    set("GATEWAY_INTERFACE", b"CGI/1.1");
    set("PATH_INFO", &path_info(call).unwrap_or_default());
    set("QUERY_STRING", query_without_token(call.query(), shown).as_bytes());
    // Who comes over a Unix socket has no address.
    let address = match client.ip().is_unspecified() {
        true => "unix:".into(),
        false => client.ip().to_canonical().to_string(),
    };
    set("REMOTE_ADDR", address.as_bytes());
    set("REMOTE_HOST", address.as_bytes());
    set("REMOTE_PORT", client.port().to_string().as_bytes());
    set("REQUEST_METHOD", call.method().as_bytes());
    set("SCRIPT_NAME", SCRIPT_NAME.as_bytes());
    let local = here.ip().to_canonical().to_string();
    let host = call.header("host").map(host_name).filter(|name| !name.is_empty());
    set("SERVER_NAME", host.unwrap_or(&local).as_bytes());
    set("SERVER_PORT", here.port().to_string().as_bytes());
    set("SERVER_PROTOCOL", b"HTTP/1.1");
    set("SERVER_SOFTWARE", concat!("wirewheel-hub/", env!("CARGO_PKG_VERSION")).as_bytes());
    for (name, value) in headers(call, shown) {
        set(&name, value.as_bytes());
    }
    variables
}

/// A `Host` without its port, an IPv6 address in its brackets.
fn host_name(host: &str) -> &str {
    let port_at = host.rfind(':').filter(|at| !host[*at..].contains(']'));
    port_at.map_or(host, |at| &host[..at])
}

/// The query without the token, and as it was sent otherwise.
fn query_without_token<'a>(query: &'a str, shown: Option<&Shown>) -> Cow<'a, str> {
    let Some(shown) = shown else { return query.into() };
    let is_other = |pair: &&str| !shown.is_in_pair(pair);
    query.split('&').filter(is_other).collect::<Vec<_>>().join("&").into()
}

/// The headers as variables. Lines of one name are one value (RFC 3875 section 4.1.18); a name with an
/// underscore could pass for another's variable.
fn headers(call: &Call, shown: Option<&Shown>) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for (name, value) in call.headers() {
        let name = name.to_ascii_lowercase();
        let is_told = shown.is_some_and(|shown| shown.is_in(value) || shown.is_in_name(&name));
        if name.contains('_') || WITHHELD.contains(&name.as_str()) || is_told {
            continue;
        }
        let separator = if name == "cookie" { "; " } else { ", " };
        let variable = format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_"));
        match variables.iter_mut().find(|(known, _)| *known == variable) {
            Some((_, joined)) => {
                joined.push_str(separator);
                joined.push_str(value);
            }
            None => variables.push((variable, value.to_owned())),
        }
    }
    variables
}

/// Whether a name can be that of a variable.
pub(crate) fn is_variable(name: &OsStr) -> bool {
    !name.is_empty() && !name.as_bytes().iter().any(|byte| matches!(byte, b'=' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_host_is_without_its_port() {
        for (host, name) in
            [("h", "h"), ("h:80", "h"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")]
        {
            assert_eq!(host_name(host), name);
        }
    }

    #[test]
    fn a_query_loses_the_token_in_whatever_way_it_is_written() {
        let shown = Shown("swordfish".into());
        for (query, kept) in [
            ("a=1&token=swordfish&b=%20", "a=1&b=%20"),
            ("token=swordfish", ""),
            ("%74oken=x&tokens=y&Token=z&token", "tokens=y&Token=z"),
            ("a=swor%64fish&b=2", "b=2"),
        ] {
            assert_eq!(query_without_token(query, Some(&shown)), kept);
            assert_eq!(query_without_token(query, None), query);
        }
    }
}
