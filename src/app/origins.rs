//! The rule about `Origin`: whose pages may make a browser connect here.

use std::rc::Rc;

use crate::protocol::head::RequestHead;
use crate::protocol::origin::{Authority, Host, Origin, default_port};
use crate::protocol::target::is_scheme;
use crate::words::quoted::Quoted;

/// What decides whose pages may connect, as it was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct OriginOptions {
    pub(crate) allowed: Option<Rc<[String]>>,
    pub(crate) hosts: Option<Rc<[String]>>,
}

impl OriginOptions {
    /// These, and where nothing is said what is installed.
    pub(crate) fn or(self, installed: &Self) -> Self {
        Self {
            allowed: self.allowed.or_else(|| installed.allowed.clone()),
            hosts: self.hosts.or_else(|| installed.hosts.clone()),
        }
    }

    pub(crate) fn rules(&self) -> Result<OriginRules, String> {
        OriginRules::new(self.allowed.as_deref(), self.hosts.as_deref())
    }
}

/// Whose pages may connect (RFC 6455 section 10.2). By default those of this server itself; a request
/// without an `Origin` comes from no page, and passes.
#[derive(Clone, Debug, Default)]
pub(crate) struct OriginRules {
    listed: Vec<Listed>,
    /// The names of this server; `None` if nobody said.
    hosts: Option<Vec<Pattern>>,
}

/// An origin that is allowed whatever `Host` says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Listed {
    /// `*`
    Any,
    /// `null`
    Null,
    /// `file://`
    Hostless { scheme: String },
    /// `https://*.example.com:8443`
    Of { scheme: String, host: Pattern, port: Port },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Port {
    Any,
    /// `None`: the scheme has no port of its own, and none was written.
    Only(Option<u16>),
}

/// A host, or those below one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// `*`
    Any,
    /// `box.example`, `192.0.2.1`, `[::1]`
    Host(String),
    /// `*.example.com`: what stands behind the star.
    Below(String),
}

/// What the rule says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Pass,
    /// It passes because `Host` says the same name, and nobody said which names are this server's.
    PassUnnamed,
    /// 403, and why.
    Refuse(String),
}

impl OriginRules {
    /// The rule that these options make; the error names the entry that could never match.
    pub(crate) fn new(
        origins: Option<&[String]>,
        hosts: Option<&[String]>,
    ) -> Result<Self, String> {
        let listed = origins.unwrap_or_default().iter().map(|text| {
            let mistake = |what| format!("allowed_origins has {text:?}: {what}");
            Listed::parse(text).map_err(mistake)
        });
        let hosts = hosts.map(|hosts| {
            let parsed = hosts.iter().map(|text| {
                let mistake = |what| format!("hosts has {text:?}: {what}");
                Pattern::parse(text).map_err(mistake)
            });
            parsed.collect::<Result<_, String>>()
        });
        Ok(Self { listed: listed.collect::<Result<_, String>>()?, hosts: hosts.transpose()? })
    }

    /// Asks whether a request may do more than read. `server` is the host that the client asked
    /// for, and `loopback` whether it was reached at an address of this machine alone, where only a
    /// foreign name that was made to point there can stand in both lines (DNS rebinding).
    pub(crate) fn judge(&self, head: &RequestHead, server: &str, loopback: bool) -> Judgement {
        let mut lines = head.all("origin");
        let Some(text) = lines.next() else { return Judgement::Pass };
        if self.listed.contains(&Listed::Any) {
            return Judgement::Pass;
        }
        let quoted = Quoted(text);
        if lines.next().is_some() {
            return Judgement::Refuse(format!("two Origin lines, the first {quoted}: send one"));
        }
        let Some(origin) = Origin::parse(text) else {
            return Judgement::Refuse(format!(
                "Origin {quoted} is none: it is null, or scheme://host with perhaps a port"
            ));
        };
        if self.listed.iter().any(|listed| listed.matches(&origin)) {
            return Judgement::Pass;
        }
        let own = Authority::parse(server).filter(|own| origin.is_of(own));
        let Some(own) = own else {
            return Judgement::Refuse(format!(
                "Origin {quoted} is not allowed, and not that of Host {}: list it in allowed_origins, or, \
                 where it is this server's own page, have the proxy in front pass Host on with its port",
                Quoted(server)
            ));
        };
        let is_named = |hosts: &Vec<Pattern>| hosts.iter().any(|host| host.matches(&own.host));
        match &self.hosts {
            _ if own.host.is_beyond_dns() => Judgement::Pass,
            Some(hosts) if is_named(hosts) => Judgement::Pass,
            None if !loopback => Judgement::PassUnnamed,
            _ => Judgement::Refuse(format!(
                "Origin {quoted} equals Host {}, but nobody named that host as this server's, and any \
                 name can be made to point here: name it in hosts, or list the origin in allowed_origins",
                Quoted(server)
            )),
        }
    }
}

/// For answers to pages of other origins (CORS).
impl OriginRules {
    /// Whether nobody is listed, so that only this server's own pages pass.
    pub(crate) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    pub(crate) fn lists_any(&self) -> bool {
        self.listed.contains(&Listed::Any)
    }

    /// Whether everybody can have an origin that is listed: `null`, or any host of a scheme of the web.
    pub(crate) fn lists_anybody(&self) -> bool {
        self.listed.iter().any(|listed| match listed {
            Listed::Any | Listed::Null => true,
            Listed::Of { scheme, host: Pattern::Any, .. } => default_port(scheme).is_some(),
            Listed::Of { .. } | Listed::Hostless { .. } => false,
        })
    }

    /// Whether an origin is listed; that it is this server's own is not asked.
    pub(crate) fn lists(&self, origin: &str) -> bool {
        let origin = Origin::parse(origin);
        origin.is_some_and(|origin| self.listed.iter().any(|listed| listed.matches(&origin)))
    }
}

impl Listed {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Null),
            _ => {}
        }
        if !text.is_ascii() {
            return Err(
                "browsers send names of other letters in their xn-- form: write that".into()
            );
        }
        let form = "an origin is scheme://host or scheme://host:port, without a path";
        let Some((scheme, authority)) = text.split_once("://").filter(|(it, _)| is_scheme(it))
        else {
            return Err(form.into());
        };
        let scheme = scheme.to_ascii_lowercase();
        if authority.is_empty() && default_port(&scheme).is_none() {
            return Ok(Self::Hostless { scheme });
        }
        let (host, port) = match authority.strip_suffix(":*") {
            Some(host) => (host, Port::Any),
            None => {
                // The port of what is no host at all is no matter.
                let with_host = authority.replacen('*', "x", 1);
                let port = Authority::parse(&with_host).ok_or(form)?.port;
                let host = port.map_or(authority, |_| {
                    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
                });
                (host, Port::Only(port.or_else(|| default_port(&scheme))))
            }
        };
        Ok(Self::Of { host: Pattern::parse(host)?, scheme, port })
    }

    fn matches(&self, origin: &Origin<'_>) -> bool {
        match (self, origin) {
            (Self::Any, _) | (Self::Null, Origin::Null) => true,
            (Self::Hostless { scheme }, Origin::Hostless { scheme: theirs }) => {
                scheme.eq_ignore_ascii_case(theirs)
            }
            (Self::Of { scheme, host, port }, Origin::Of { scheme: theirs, authority }) => {
                scheme.eq_ignore_ascii_case(theirs)
                    && host.matches(&authority.host)
                    && match port {
                        Port::Any => true,
                        Port::Only(port) => {
                            *port == authority.port.or_else(|| default_port(theirs))
                        }
                    }
            }
            _ => false,
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        if name.contains('*') {
            return Err("a star stands for whole labels at the start, as in *.example.com".into());
        }
        if !name.is_ascii() {
            return Err(
                "browsers send names of other letters in their xn-- form: write that".into()
            );
        }
        match Authority::parse(name) {
            Some(Authority { host: Host::Ip(_), port: None }) if below => {
                Err("an address has no names below it".into())
            }
            Some(Authority { host: Host::Name(parent), port: None }) if below => {
                Ok(Self::Below(parent.into()))
            }
            Some(Authority { port: None, .. }) if !below && !name.ends_with(':') => {
                Ok(Self::Host(name.into()))
            }
            _ => Err("a host is a name or an address, without scheme, port or path".into()),
        }
    }

    fn matches(&self, host: &Host<'_>) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Host(ours), _) => {
                Authority::parse(ours).is_some_and(|ours| ours.host.is_same(host))
            }
            (Self::Below(parent), Host::Name(name)) => {
                let Some(start) = name.len().checked_sub(parent.len()) else { return false };
                let (Some(labels), Some(end)) = (name.get(..start), name.get(start..)) else {
                    return false;
                };
                labels.len() > 1 && labels.ends_with('.') && end.eq_ignore_ascii_case(parent)
            }
            (Self::Below(_), Host::Ip(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::head::tests::head;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn rules(origins: &[&str], hosts: Option<&[&str]>) -> OriginRules {
        OriginRules::new(Some(&strings(origins)), hosts.map(strings).as_deref()).unwrap()
    }

    fn judged(rules: &OriginRules, origin: &str, host: &str, loopback: bool) -> Judgement {
        let head = head(&format!("GET / HTTP/1.1\r\nHost: h\r\nOrigin: {origin}\r\n\r\n"));
        rules.judge(&head, host, loopback)
    }

    fn is_listed(listed: &str, origin: &str) -> bool {
        judged(&rules(&[listed], None), origin, "h", true) == Judgement::Pass
    }

    #[test]
    fn what_is_listed_passes_and_nothing_near_it() {
        for (listed, origin) in [
            ("https://box.example", "https://box.example"),
            ("https://Box.Example:443", "HTTPS://box.example"),
            ("https://box.example", "https://box.example:443"),
            ("http://box.example:8080", "http://box.example.:8080"),
            ("https://*.example.com", "https://a.example.com"),
            ("https://*.example.com", "https://a.b.Example.COM:443"),
            ("https://*.example.com:8443", "https://a.example.com:8443"),
            ("https://*", "https://anything.example"),
            ("http://localhost:*", "http://localhost:3000"),
            ("http://[::1]:3000", "http://[0::1]:3000"),
            ("file://", "file://"),
            ("file://", "FILE:///"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://*", "chrome-extension://abcdefgh"),
            ("moz-extension://4f3c-11", "moz-extension://4f3c-11"),
            ("app+x.y://obsidian.md", "app+x.y://obsidian.md"),
            ("null", "null"),
            ("*", "null"),
            ("*", "nonsense"),
        ] {
            assert!(is_listed(listed, origin), "{listed} and {origin}");
        }
        for (listed, origin) in [
            ("https://box.example", "http://box.example"),
            ("https://box.example", "https://box.example:8443"),
            ("https://box.example", "https://box.example.evil.example"),
            ("https://box.example", "https://xbox.example"),
            ("https://*.example.com", "https://example.com"),
            ("https://*.example.com", "https://evilexample.com"),
            ("https://*.example.com", "https://.example.com"),
            ("https://*.example.com", "https://a.example.com.evil.example"),
            ("https://*.example.com", "http://a.example.com"),
            ("https://*", "http://anything.example"),
            ("file://", "null"),
            ("file://", "file://h"),
            ("capacitor://localhost", "ionic://localhost"),
            ("chrome-extension://*", "moz-extension://abcdefgh"),
            ("null", "NULL"),
        ] {
            assert!(!is_listed(listed, origin), "{listed} and {origin}");
        }
    }

    #[test]
    fn what_could_never_match_is_refused_by_name() {
        for (text, what) in [
            ("box.example", "scheme://host"),
            ("https://", "scheme://host"),
            ("https://box.example/", "without a path"),
            ("https://box.example/page", "without a path"),
            ("https://user@box.example", "without a path"),
            ("https://box.example:99999", "scheme://host:port"),
            ("https://box.example:", "a host is a name"),
            ("https://a*.example.com", "a star stands for whole labels"),
            ("https://*.*.com", "a star stands for whole labels"),
            ("https://example.*", "a star stands for whole labels"),
            ("https://*.192.0.2.1", "no names below"),
            ("https://caf\u{e9}.example", "xn--"),
            ("file:///", "without a path"),
            ("://x", "scheme://host"),
            ("", "scheme://host"),
        ] {
            let mistake = OriginRules::new(Some(&strings(&[text])), None).unwrap_err();
            let start = format!("allowed_origins has {text:?}: ");
            assert!(mistake.starts_with(&start) && mistake.contains(what), "{mistake}");
        }
        for text in ["http://box", "box:80", "box/", "", "a b", "*.*.x", "b*x", "[::1"] {
            let mistake = OriginRules::new(None, Some(&strings(&[text]))).unwrap_err();
            assert!(mistake.starts_with(&format!("hosts has {text:?}: ")), "{mistake}");
        }
    }

    #[test]
    fn a_page_of_this_server_passes_where_its_name_cannot_be_somebody_elses() {
        let open = rules(&[], None);
        let named = rules(&[], Some(&["box.example", "*.lan"]));
        let closed = rules(&[], Some(&[]));
        for host in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "192.168.1.9:8080",
            "localhost:8080",
            "a.LOCALHOST:8080",
        ] {
            for (rules, loopback) in
                [(&open, true), (&open, false), (&named, true), (&closed, false)]
            {
                let judgement = judged(rules, &format!("http://{host}"), host, loopback);
                assert_eq!(judgement, Judgement::Pass, "{host}");
            }
        }
        for (host, at_open, at_named) in [
            ("box.example:8080", false, true),
            ("printer.lan:8080", false, true),
            ("lan:8080", false, false),
            ("evil.example:8080", false, false),
            ("localhost.evil.example:8080", false, false),
            ("127.0.0.1.evil.example:8080", false, false),
        ] {
            let passes = |rules: &OriginRules, loopback| {
                judged(rules, &format!("http://{host}"), host, loopback) == Judgement::Pass
            };
            assert_eq!((passes(&open, true), passes(&named, true)), (at_open, at_named), "{host}");
            assert_eq!(passes(&named, false), at_named, "{host}");
            assert!(!passes(&closed, true) && !passes(&closed, false), "{host}");
            let unnamed = judged(&open, &format!("http://{host}"), host, false);
            assert_eq!(unnamed, Judgement::PassUnnamed, "{host}");
        }
    }

    #[test]
    fn what_never_passes_by_itself_and_what_a_refusal_says() {
        let rules = rules(&["https://other.example"], Some(&["h"]));
        for origin in ["null", "file://", "capacitor://h", "", "h", "http://h\r\nOrigin: http://h"]
        {
            let judgement = judged(&rules, origin, "h", false);
            assert!(matches!(judgement, Judgement::Refuse(_)), "{origin}: {judgement:?}");
        }
        let reason = |origin: &str, host| match judged(&rules, origin, host, true) {
            Judgement::Refuse(reason) => reason,
            other => panic!("{origin}: {other:?}"),
        };
        let foreign = reason("https://evil.example", "127.0.0.1:80");
        for part in ["\"https://evil.example\"", "\"127.0.0.1:80\"", "allowed_origins", "proxy"] {
            assert!(foreign.contains(part), "{foreign}");
        }
        let rebound = reason("http://evil.example", "evil.example");
        for part in ["\"http://evil.example\"", "Host \"evil.example\"", "name it in hosts"] {
            assert!(rebound.contains(part), "{rebound}");
        }
        let long = reason(&format!("http://{}", "x".repeat(5_000)), "h");
        assert!(long.len() < 500, "{}", long.len());
    }
}
