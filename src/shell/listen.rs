//! The making of listening sockets: TCP, Unix, or inherited.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
#[cfg(feature = "tls")]
use std::{rc::Rc, sync::Arc};

use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::session::state::NO_ADDR;
#[cfg(feature = "tls")]
use crate::transport::tls::acceptor::{Acceptor, Certificates};
use crate::words::address::Address;
use crate::words::listen::{Listen, ListenOptions, invalid};
#[cfg(feature = "tls")]
use crate::words::tls::TlsOptions;

use super::unix_path::SocketFile;

/// A socket that listens, and is not served yet.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) socket: Socket,
    /// Where; [`NO_ADDR`] for a Unix socket.
    pub(crate) address: SocketAddr,
    pub(crate) kind: Kind,
    /// By whoever started this process, who keeps it.
    pub(crate) handed_over: bool,
    /// The file to be removed in the end.
    pub(crate) file: Option<SocketFile>,
    /// The TLS that is spoken there.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<Certificates>>,
}

/// The certificates of each listener, for loops that serve what another accepts.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListenerCertificates {
    #[cfg(feature = "tls")]
    by_number: Vec<Option<Arc<Certificates>>>,
}

impl ListenerCertificates {
    #[cfg_attr(not(feature = "tls"), allow(unused_variables, reason = "there are none"))]
    pub(crate) fn of(listeners: &[Opened]) -> Self {
        Self {
            #[cfg(feature = "tls")]
            by_number: listeners.iter().map(|listener| listener.tls.clone()).collect(),
        }
    }

    /// What each needs on one loop.
    #[cfg(feature = "tls")]
    pub(crate) fn acceptors(&self, max_proxy_header: usize) -> Vec<Option<Rc<Acceptor>>> {
        let acceptor = |certificates: &Arc<Certificates>| {
            Rc::new(Acceptor::new(Arc::clone(certificates), max_proxy_header))
        };
        self.by_number.iter().map(|certificates| certificates.as_ref().map(acceptor)).collect()
    }
}

/// What speaks over a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Unix,
}

impl Opened {
    /// Listens, at several addresses where `listen` means them all; `options` are checked.
    pub(crate) fn open(listen: Listen, options: &ListenOptions) -> io::Result<Vec<Self>> {
        Ok(vec![match listen {
            Listen::Tcp(text) => return open_tcp(&text, options),
            Listen::Unix(path) => open_unix(&path, options)?,
            Listen::Abstract(name) => open_abstract(&name, options)?,
            Listen::Fd(descriptor) => adopt(descriptor, options)?,
            #[cfg(feature = "tls")]
            Listen::Tls(listen, tls) => return open_tls(*listen, *tls, options),
        }])
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == Kind::Tcp {
            return self.address.fmt(f);
        }
        let address = self.socket.local_addr().ok();
        let address = address.as_ref();
        let name = address.and_then(SockAddr::as_abstract_namespace);
        match (address.and_then(SockAddr::as_pathname), name) {
            (Some(path), _) => write!(f, "unix:{}", path.display()),
            (None, Some(name)) => write!(f, "unix:@{}", name.escape_ascii()),
            (None, None) => f.write_str("a Unix socket without a name"),
        }
    }
}

fn open_tcp(text: &str, options: &ListenOptions) -> io::Result<Vec<Opened>> {
    let address = Address::parse(text).map_err(invalid)?;
    let candidates = address.resolve()?;
    if address.means_all() {
        return open_all(&candidates, options);
    }
    let mut last = ErrorKind::AddrNotAvailable.into();
    for candidate in candidates {
        match listen_on(candidate, options) {
            Ok(opened) => return Ok(vec![opened]),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A free port of one family may be taken in the other: so often another one is tried.
const PORTS_TRIED: usize = 16;

/// Listens at addresses of both families, on the same port.
fn open_all(addresses: &[SocketAddr], options: &ListenOptions) -> io::Result<Vec<Opened>> {
    // Each family has a socket of its own.
    let options = options.clone().only_v6(true);
    let any_port = addresses.iter().all(|address| address.port() == 0);
    let mut tries = if any_port { PORTS_TRIED } else { 1 };
    loop {
        tries -= 1;
        match open_each(addresses, &options) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && tries > 0 => {}
            result => return result,
        }
    }
}

fn open_each(addresses: &[SocketAddr], options: &ListenOptions) -> io::Result<Vec<Opened>> {
    let mut opened: Vec<Opened> = Vec::new();
    let mut last = ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        let port = opened.first().map_or(*address, |first| first.address).port();
        match listen_on(SocketAddr::new(address.ip(), port), options) {
            Ok(socket) => opened.push(socket),
            Err(error) if lacks_family(&error) => last = error,
            Err(error) => return Err(error),
        }
    }
    if opened.is_empty() { Err(last) } else { Ok(opened) }
}

/// Whether the machine has no address of that family, or not the family itself.
fn lacks_family(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn listen_on(address: SocketAddr, options: &ListenOptions) -> io::Result<Opened> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A server that restarts takes its port back at once.
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if options.free_bind {
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    if address.is_ipv6() {
        socket.set_only_v6(options.only_v6)?;
    }
    set_inherited(&socket, Kind::Tcp, options)?;
    socket.bind(&address.into())?;
    socket.listen(backlog(options))?;
    finish(socket, Kind::Tcp, None)
}

/// Certificates are read before anything listens: a mistake in them ends the start.
#[cfg(feature = "tls")]
fn open_tls(listen: Listen, tls: TlsOptions, options: &ListenOptions) -> io::Result<Vec<Opened>> {
    let load = || {
        let loaded = Certificates::load(tls.clone());
        loaded.map_err(|mistake| io::Error::new(ErrorKind::InvalidData, mistake))
    };
    load()?;
    let mut opened = Opened::open(listen, options)?;
    for listener in &mut opened {
        listener.tls = Some(Arc::new(load()?));
    }
    Ok(opened)
}

fn open_unix(path: &Path, options: &ListenOptions) -> io::Result<Opened> {
    if path.as_os_str().is_empty() {
        return Err(invalid("there is no path: write unix:/run/x.sock"));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    set_inherited(&socket, Kind::Unix, options)?;
    let file = SocketFile::listen(&socket, path, options.unix_mode, backlog(options))?;
    finish(socket, Kind::Unix, Some(file))
}

fn open_abstract(name: &str, options: &ListenOptions) -> io::Result<Opened> {
    if name.is_empty() {
        return Err(invalid("there is no name: write unix:@name"));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    set_inherited(&socket, Kind::Unix, options)?;
    socket.bind(&SockAddr::unix(format!("\0{name}"))?)?;
    socket.listen(backlog(options))?;
    finish(socket, Kind::Unix, None)
}

fn adopt(descriptor: OwnedFd, options: &ListenOptions) -> io::Result<Opened> {
    let socket = Socket::from(descriptor);
    let refused = |text| Err(io::Error::new(ErrorKind::InvalidInput, text));
    let kind = match socket.domain()? {
        Domain::IPV4 | Domain::IPV6 => Kind::Tcp,
        Domain::UNIX => Kind::Unix,
        _ => return refused("the descriptor is a socket of neither TCP nor Unix"),
    };
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        return refused(
            "the descriptor is no stream socket that listens (ListenStream=, Accept=no)",
        );
    }
    set_inherited(&socket, kind, options)?;
    Ok(Opened { handed_over: true, ..finish(socket, kind, None)? })
}

/// Probes without an answer that end a connection.
const KEEPALIVE_RETRIES: u32 = 3;

/// Options that accepted connections have from their listener: no call is needed for each.
fn set_inherited(socket: &Socket, kind: Kind, options: &ListenOptions) -> io::Result<()> {
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if kind == Kind::Unix {
        return Ok(());
    }
    socket.set_tcp_nodelay(options.nodelay)?;
    if let Some(time) = options.keepalive {
        let interval = (time / 3).max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new()
            .with_time(time)
            .with_interval(interval)
            .with_retries(KEEPALIVE_RETRIES);
        SockRef::from(socket).set_tcp_keepalive(&keepalive)?;
        // The system does not probe while bytes are unacknowledged, and would go on sending those for a
        // quarter of an hour: they have as long as the probes.
        socket.set_tcp_user_timeout(Some(time.saturating_add(interval * KEEPALIVE_RETRIES)))?;
    }
    Ok(())
}

fn backlog(options: &ListenOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
}

fn finish(socket: Socket, kind: Kind, file: Option<SocketFile>) -> io::Result<Opened> {
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?.as_socket().unwrap_or(NO_ADDR);
    Ok(Opened {
        socket,
        address,
        kind,
        handed_over: false,
        file,
        #[cfg(feature = "tls")]
        tls: None,
    })
}

#[cfg(all(repository, test))]
mod tests;
