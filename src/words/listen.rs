//! The places where a server listens, and the options of the socket.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::words::address::Address;
use crate::words::bounds::{LARGEST_SIZE, check_time};
#[cfg(feature = "tls")]
use crate::words::tls::TlsOptions;

/// Where a server listens. Text is taken for TCP, or for a Unix socket if it begins with `unix:`
/// (`unix:/run/x.sock`, `unix:///run/x.sock`), in the abstract namespace if an `@` follows
/// (`unix:@name`).
///
/// ```
/// use wirewheel::{Application, Listen, Server};
/// let path = std::path::PathBuf::from(format!("/tmp/wirewheel-doc-{}", std::process::id()));
/// let server = Server::bind("127.0.0.1:0", |_app: &mut Application| {})?
///     .listen(Listen::Unix(path.clone()))?;
/// assert!(path.exists());
/// drop(server);
/// assert!(!path.exists());
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Listen {
    /// `host:port`, and `[host]:port` for IPv6, where `[fe80::1%eth0]:port` names the interface.
    /// Port 0 takes a free port.
    ///
    /// `localhost:port` listens on the loopback addresses of both families, and `:port` or `*:port`
    /// on every address of both, as far as the machine has them; no resolver is asked. Any other
    /// name is resolved, and the first of its addresses that works is taken.
    Tcp(String),
    /// A Unix stream socket at this path. A socket file that nobody listens on any more is
    /// replaced, and the file is removed when the server stops.
    ///
    /// Peers of a Unix socket have no address:
    /// [`Session::remote_addr`](crate::Session::remote_addr) and
    /// [`Call::remote_addr`](crate::Call::remote_addr) are `0.0.0.0:0`, whose
    /// [`is_unspecified`](std::net::Ipv4Addr::is_unspecified) no peer over TCP has, and so is the
    /// server's own address.
    Unix(PathBuf),
    /// A Unix stream socket of this name in Linux's abstract namespace: it has no file, and every
    /// process in the same network namespace may connect.
    ///
    /// ```
    /// use wirewheel::{Application, Listen, Server};
    /// let name = format!("wirewheel-doc-{}", std::process::id());
    /// let _server = Server::bind(Listen::Abstract(name), |_app: &mut Application| {})?;
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    Abstract(String),
    /// A stream socket that listens already, TCP or Unix, from whoever started the process (socket
    /// activation). It is not unlinked, whatever its path is.
    Fd(OwnedFd),
    /// Any of the others, with TLS; [`tls`](Self::tls) makes one.
    #[cfg(feature = "tls")]
    Tls(Box<Self>, Box<TlsOptions>),
}

impl Listen {
    /// The same place with TLS: `https://` and `wss://`. A server may listen with TLS and without, at
    /// different places.
    ///
    /// Certificates and keys are read when the server begins to listen; a mistake in them is an error
    /// there, which names it. One that is not valid yet, or any more, is shown all the same and warned
    /// of every day: a box without a clock starts in 1970.
    ///
    /// ```no_run
    /// use wirewheel::tls::TlsOptions;
    /// use wirewheel::{Application, Listen, Server};
    /// let tls = TlsOptions::new("/etc/box/fullchain.pem", "/etc/box/privkey.pem");
    /// Server::bind(Listen::tls(":443", tls), |_app: &mut Application| {})?.run()?;
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls(listen: impl Into<Self>, options: TlsOptions) -> Self {
        let listen = match listen.into() {
            Self::Tls(listen, _) => listen, // the last options count
            listen => Box::new(listen),
        };
        Self::Tls(listen, Box::new(options))
    }

    /// The addresses of TCP that it stands for, with names resolved; none for Unix sockets and
    /// descriptors. A configuration can be checked with it before there is a server.
    ///
    /// ```
    /// use wirewheel::Listen;
    /// let both = Listen::from("localhost:8080").addresses()?;
    /// assert_eq!(both, ["127.0.0.1:8080".parse().unwrap(), "[::1]:8080".parse().unwrap()]);
    /// let mistake = Listen::from("http://localhost:8080").addresses().unwrap_err();
    /// assert!(mistake.to_string().ends_with("write the address alone, localhost:8080"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for what is no address, with what to write
    /// instead; what the resolver says of a name it does not know.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let text = match self {
            Self::Tcp(text) => text,
            #[cfg(feature = "tls")]
            Self::Tls(listen, _) => return listen.addresses(),
            Self::Unix(_) | Self::Abstract(_) | Self::Fd(_) => return Ok(Vec::new()),
        };
        Address::parse(text).map_err(invalid)?.resolve()
    }
}

/// A mistake of whoever wrote the address.
pub(crate) fn invalid(mistake: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, mistake.into())
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{name}"),
            Self::Fd(descriptor) => write!(f, "{descriptor:?}"),
            #[cfg(feature = "tls")]
            Self::Tls(listen, _) => write!(f, "{listen} with TLS"),
        }
    }
}

impl From<&str> for Listen {
    fn from(text: &str) -> Self {
        let Some(path) = text.strip_prefix("unix:") else { return Self::Tcp(text.to_owned()) };
        let path = path.strip_prefix("//").unwrap_or(path);
        match path.strip_prefix('@') {
            Some(name) => Self::Abstract(name.to_owned()),
            None => Self::Unix(path.into()),
        }
    }
}

impl From<String> for Listen {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&String> for Listen {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address.to_string())
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Listen {
    fn from((address, port): (I, u16)) -> Self {
        Self::from(SocketAddr::new(address.into(), port))
    }
}

impl From<OwnedFd> for Listen {
    fn from(descriptor: OwnedFd) -> Self {
        Self::Fd(descriptor)
    }
}

/// Options of a listening socket, which its connections inherit. Those of TCP do nothing to a Unix
/// socket; `backlog`, `only_v6`, `reuse_port` and `free_bind` do nothing to a [`Listen::Fd`], which is
/// bound and listens already.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::options::ListenOptions;
/// use wirewheel::{Application, Server};
/// let options = ListenOptions::new().backlog(16).keepalive(Duration::from_secs(60));
/// let server = Server::bind_with("127.0.0.1:0", &options, |_app: &mut Application| {})?;
/// # drop(server);
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
///
/// All of them:
///
/// ```
/// use std::time::Duration;
/// use wirewheel::options::ListenOptions;
/// let options = ListenOptions::new()
///     .backlog(1024)
///     .only_v6(true)
///     .reuse_port(false)
///     .free_bind(false)
///     .nodelay(true)
///     .keepalive(Duration::from_secs(60))
///     .send_buffer_bytes(16 << 10)
///     .receive_buffer_bytes(16 << 10)
///     .unix_mode(0o660);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    pub(crate) backlog: u32,
    pub(crate) only_v6: bool,
    pub(crate) reuse_port: bool,
    pub(crate) free_bind: bool,
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) send_buffer_bytes: Option<usize>,
    pub(crate) receive_buffer_bytes: Option<usize>,
    pub(crate) unix_mode: Option<u32>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 4_096,
            only_v6: true,
            reuse_port: false,
            free_bind: false,
            nodelay: true,
            keepalive: None,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            unix_mode: None,
        }
    }
}

macro_rules! listen_setters {
    ($($(#[$doc:meta])* $name:ident: $T:ty => $kept:expr;)+) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $T) -> Self {
            self.$name = $kept;
            self
        }
    )+};
}

impl ListenOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    listen_setters! {
        /// The most connections that the system holds until they are accepted: everybody who comes
        /// back at once, after a restart, has a place here. The system has a limit of its own
        /// (`net.core.somaxconn`). Default 4,096.
        backlog: u32 => backlog;
        /// Whether an IPv6 address takes IPv6 alone (`IPV6_V6ONLY`). With false, `[::]` takes IPv4
        /// too. Default true.
        only_v6: bool => only_v6;
        /// Lets several sockets of one user listen on the same address, and the system spread the
        /// connections over them (`SO_REUSEPORT`). Default false.
        reuse_port: bool => reuse_port;
        /// Listens on an address that this machine does not have yet, such as one that comes by DHCP
        /// after the start (`IP_FREEBIND`). Default false.
        free_bind: bool => free_bind;
        /// Sends replies as they are made (`TCP_NODELAY`); without it a small one may wait for the
        /// peer's acknowledgement of the one before. Default true.
        nodelay: bool => nodelay;
        /// Has the system probe a peer that was silent for this long, three times more at a third of
        /// it, and give it up then (`SO_KEEPALIVE`). A peer that does not acknowledge what it is sent, or
        /// takes nothing of what waits for it, is given up after the same time (`TCP_USER_TIMEOUT`): so
        /// it has to be longer than a peer may well not read. For sessions with pings there is no need.
        /// Whole seconds; default `None`: off.
        keepalive: impl Into<Option<Duration>> => keepalive.into();
        /// The size of the system's send buffer of a connection (`SO_SNDBUF`). Default `None`: the
        /// system grows it as needed.
        send_buffer_bytes: impl Into<Option<usize>> => send_buffer_bytes.into();
        /// The size of the system's receive buffer of a connection (`SO_RCVBUF`). Default `None`:
        /// the system grows it as needed.
        receive_buffer_bytes: impl Into<Option<usize>> => receive_buffer_bytes.into();
        /// The permissions of a Unix socket's file, such as `0o660`; whoever may write to it may
        /// connect. Default `None`: what the umask leaves.
        unix_mode: impl Into<Option<u32>> => unix_mode.into();
    }

    /// Refuses zero and absurd values by name.
    pub(crate) fn check(&self) -> Result<(), String> {
        if i32::try_from(self.backlog).is_err() || self.backlog == 0 {
            let backlog = self.backlog;
            return Err(format!("backlog is {backlog}: it must be at least 1 and below 2^31"));
        }
        if let Some(keepalive) = self.keepalive {
            check_time("keepalive", keepalive)?;
            if keepalive < Duration::from_secs(1) || keepalive > Duration::from_secs(32_767) {
                return Err(format!("keepalive is {keepalive:?}: it must be 1 s to 32,767 s"));
            }
        }
        let sizes = [
            ("send_buffer_bytes", self.send_buffer_bytes),
            ("receive_buffer_bytes", self.receive_buffer_bytes),
        ];
        for (name, size) in sizes {
            if let Some(size) = size.filter(|size| !(1..=LARGEST_SIZE).contains(size)) {
                return Err(format!("{name} is {size}: it must be 1 to {LARGEST_SIZE}"));
            }
        }
        match self.unix_mode.filter(|mode| *mode > 0o777) {
            Some(mode) => Err(format!("unix_mode is {mode:#o}: it must be at most 0o777")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_one_writes_them() {
        for (listen, text) in [
            (Listen::from("localhost:80"), "localhost:80"),
            (Listen::from("unix:/run/x.sock"), "unix:/run/x.sock"),
            (Listen::from("unix:///run/x.sock"), "unix:/run/x.sock"),
            (Listen::from("unix:x.sock"), "unix:x.sock"),
            (Listen::from("unix:@name"), "unix:@name"),
            (Listen::from("unix://@name"), "unix:@name"),
            (Listen::from(([127, 0, 0, 1], 80)), "127.0.0.1:80"),
            (Listen::from((IpAddr::from([0; 16]), 80)), "[::]:80"),
        ] {
            assert_eq!(listen.to_string(), text);
        }
        assert!(matches!(Listen::from("unix:/run/x.sock"), Listen::Unix(_)));
        assert!(matches!(Listen::from("unix:@name"), Listen::Abstract(name) if name == "name"));
    }

    #[test]
    fn zero_and_absurd_values_are_refused_by_name() {
        let new = ListenOptions::new;
        for (options, name) in [
            (new().backlog(0), "backlog"),
            (new().backlog(u32::MAX), "backlog"),
            (new().keepalive(Duration::from_millis(10)), "keepalive"),
            (new().keepalive(Duration::from_secs(40_000)), "keepalive"),
            (new().send_buffer_bytes(0), "send_buffer_bytes"),
            (new().receive_buffer_bytes(usize::MAX), "receive_buffer_bytes"),
            (new().unix_mode(0o1777), "unix_mode"),
        ] {
            assert!(options.check().unwrap_err().starts_with(name), "{name}");
        }
        assert_eq!(new().check(), Ok(()));
    }
}
