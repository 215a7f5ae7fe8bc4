//! The word for how a proxy says for whom it speaks.

/// Where the [`trusted_proxies`](crate::WebSockets::trusted_proxies) say for whom they speak. Exactly one
/// counts; the others are ignored, whoever wrote them: a proxy that writes one passes the others on as
/// they came, from the client.
///
/// ```
/// use wirewheel::options::ProxyHeader;
/// use wirewheel::WebSockets;
/// let behind_nginx = WebSockets::new().trusted_proxies(["127.0.0.1"]); // X-Forwarded-For
/// let behind_a_balancer = WebSockets::new()
///     .trusted_proxies(["10.0.0.0/8"])
///     .proxy_header(ProxyHeader::ProxyProtocol);
/// let by_the_standard = WebSockets::new().trusted_proxies(["::1"]).proxy_header(ProxyHeader::Forwarded);
/// # let _ = (behind_nginx, behind_a_balancer, by_the_standard);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and `X-Forwarded-Host` beside it, as nginx, Apache and
    /// most others write them. The proxy has to set or remove all three.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239): `for`, `proto` and `host` of one element.
    Forwarded,
    /// A header of the PROXY protocol, version 1 or 2, which begins the connection (nginx:
    /// `proxy_protocol on` of a stream; HAProxy: `send-proxy-v2`). A connection of theirs without one gets
    /// 400; nobody else may send one. It tells neither scheme nor host.
    ProxyProtocol,
}
