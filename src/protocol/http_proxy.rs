//! An HTTP proxy that connects to a server for a client (RFC 9110 section 9.3.6), and which is used for
//! what.

use std::fmt;
use std::net::IpAddr;

use crate::protocol::client_url::{ClientUrl, Place, authorization_of, split_host};
use crate::words::network::Network;

/// A proxy, as `http://user:password@proxy:3128` names one. It is shown without the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpProxy {
    pub(crate) place: Place,
    authorization: Option<Box<str>>,
}

impl HttpProxy {
    /// Understands a proxy's URL, or says what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => {
                return Err(format!(
                    "proxies are reached by http, not {scheme}: write http://proxy:3128"
                ));
            }
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let (host, port) = split_host(host).map_err(|mistake| format!("proxy: {mistake}"))?;
        let authorization = user.map(authorization_of);
        // Squid's, which is what others use too.
        Ok(Self {
            place: Place::Tcp { host: host.into(), port: port.unwrap_or(3128) },
            authorization,
        })
    }

    /// Writes what asks it to connect to a server.
    pub(crate) fn write_connect(&self, out: &mut Vec<u8>, place: &Place) {
        let Place::Tcp { host, port } = place else { return };
        let host = host.split('%').next().unwrap_or_default();
        let server =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let authorization = self.authorization.as_ref();
        let authorization = authorization
            .map(|value| format!("Proxy-Authorization: {value}\r\n"))
            .unwrap_or_default();
        out.extend_from_slice(
            format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n{authorization}\r\n")
                .as_bytes(),
        );
    }
}

impl fmt::Display for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { host, port } if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Place::Tcp { host, port } => write!(f, "http://{host}:{port}"),
            Place::Unix(path) => f.write_str(path),
        }
    }
}

/// The proxy that the environment names for a URL, as other programs read it: `HTTPS_PROXY` for `wss`,
/// else `ALL_PROXY`, in capitals or not, but not for what `NO_PROXY` lists.
pub(crate) fn proxy_of_environment(
    url: &ClientUrl,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<HttpProxy>, String> {
    let set = |name: &str| {
        let found = variable(&name.to_ascii_lowercase()).or_else(|| variable(name));
        found.filter(|value| !value.trim().is_empty())
    };
    let Place::Tcp { host, port } = &url.place else { return Ok(None) };
    if set("NO_PROXY").is_some_and(|list| is_excepted(&list, host, *port)) {
        return Ok(None);
    }
    let of_scheme = url.secure.then(|| ("HTTPS_PROXY", set("HTTPS_PROXY")));
    let named = of_scheme.into_iter().chain([("ALL_PROXY", set("ALL_PROXY"))]);
    for (name, value) in named {
        if let Some(value) = value {
            return HttpProxy::parse(&value)
                .map(Some)
                .map_err(|mistake| format!("{name}: {mistake}"));
        }
    }
    Ok(None)
}

/// Whether a list of hosts names this one: a name and all below it, an address, a network, `*`.
fn is_excepted(list: &str, host: &str, port: u16) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let address: Option<IpAddr> = host.parse().ok();
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Some(address) = address {
            let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let network = bare.unwrap_or(entry).parse::<Network>();
            return network.is_ok_and(|network| entry != "unix" && network.contains(address));
        }
        let (name, entry_port) = match entry.rsplit_once(':') {
            Some((name, digits)) => (name, digits.parse().ok()),
            None => (entry, None),
        };
        let name = name.strip_prefix("*.").or_else(|| name.strip_prefix('.')).unwrap_or(name);
        let start = host.len().checked_sub(name.len());
        let tail = start.and_then(|start| host.get(start..));
        let is_below = || {
            let dot = start.and_then(|start| host.as_bytes().get(start.checked_sub(1)?));
            start == Some(0) || dot == Some(&b'.')
        };
        entry_port.is_none_or(|known: u16| known == port)
            && tail.is_some_and(|tail| tail.eq_ignore_ascii_case(name))
            && is_below()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ClientUrl {
        ClientUrl::parse(text).unwrap()
    }

    #[test]
    fn a_proxy_is_asked_to_connect() {
        for (proxy, to, shown, request) in [
            (
                "http://proxy:8080",
                "wss://h/x",
                "http://proxy:8080",
                "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n",
            ),
            (
                "http://me:p%40w@proxy/",
                "ws://h:81/",
                "http://proxy:3128",
                "CONNECT h:81 HTTP/1.1\r\nHost: h:81\r\nProxy-Authorization: Basic bWU6cEB3\r\n\r\n",
            ),
            (
                "[::1]:3128",
                "ws://[fe80::1%lo]/",
                "http://[::1]:3128",
                "CONNECT [fe80::1]:80 HTTP/1.1\r\nHost: [fe80::1]:80\r\n\r\n",
            ),
        ] {
            let proxy = HttpProxy::parse(proxy).unwrap();
            let mut out = Vec::new();
            proxy.write_connect(&mut out, &url(to).place);
            assert_eq!((proxy.to_string().as_str(), out), (shown, request.as_bytes().to_vec()));
        }
        for wrong in ["socks5://h", "https://h", "", "http://", "h:x"] {
            assert!(HttpProxy::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_environment_is_read_as_others_read_it() {
        let proxy = |set: &[(&str, &str)], to: &str| {
            let found = proxy_of_environment(&url(to), |name| {
                let known = set.iter().find(|(known, _)| *known == name);
                known.map(|(_, value)| (*value).to_owned())
            });
            found.map(|found| found.map(|proxy| proxy.to_string()))
        };
        let (a, b) = (("HTTPS_PROXY", "a:1"), ("all_proxy", "http://b:2"));
        let is = |text: &str| Ok(Some(format!("http://{text}")));
        assert_eq!(proxy(&[], "wss://h/"), Ok(None));
        assert_eq!(proxy(&[a, b], "wss://h/"), is("a:1"));
        assert_eq!(proxy(&[a, b], "ws://h/"), is("b:2"));
        assert_eq!(proxy(&[a], "ws://h/"), Ok(None));
        assert_eq!(proxy(&[b, ("HTTPS_PROXY", "")], "wss://h/"), is("b:2"));
        assert_eq!(proxy(&[a, b], "ws+unix:/x"), Ok(None));
        assert!(proxy(&[("ALL_PROXY", "socks5://h")], "ws://h/").is_err());
        for (list, host, excepted) in [
            ("h", "h", true),
            ("H.example", "h.EXAMPLE", true),
            (".example", "a.example", true),
            ("example", "a.example", true),
            ("*.example", "a.b.example", true),
            ("example", "anexample", false),
            ("a.example", "example", false),
            ("x, h", "h", true),
            ("h:81", "h", false),
            ("h:443", "h", true),
            ("*", "h", true),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("::1", "[::1]", true),
            ("[::1]", "[::1]", true),
            ("", "h", false),
            ("unix", "0.0.0.0", false),
        ] {
            let found = proxy(&[a, ("NO_PROXY", list)], &format!("wss://{host}/")).unwrap();
            assert_eq!(found.is_none(), excepted, "{list} {host}");
        }
    }
}
