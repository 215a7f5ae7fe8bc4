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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpStream;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    use super::*;

    /// Listens at what is one place.
    fn open(listen: impl Into<Listen>, options: &ListenOptions) -> io::Result<Opened> {
        let mut opened = Opened::open(listen.into(), options)?;
        assert_eq!(opened.len(), 1);
        Ok(opened.remove(0))
    }

    fn has_ipv6() -> bool {
        std::net::TcpListener::bind("[::1]:0").is_ok()
    }

    #[test]
    fn localhost_and_no_host_are_both_families_on_one_port() {
        for (text, each) in [("localhost:0", ["127.0.0.1", "::1"]), (":0", ["0.0.0.0", "::"])] {
            // Ports are given out in order: many tries meet one that only one family has free.
            let opened = Opened::open(text.into(), &ListenOptions::new()).unwrap();
            let expected = if has_ipv6() { 2 } else { 1 };
            assert_eq!(opened.len(), expected, "{text}");
            let port = opened[0].address.port();
            for (opened, ip) in opened.iter().zip(each) {
                assert_eq!(opened.address, SocketAddr::new(ip.parse().unwrap(), port));
            }
            let again = Opened::open(Listen::from(format!("*:{port}")), &ListenOptions::new());
            assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
            assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
    }

    #[test]
    fn a_port_that_another_has_in_one_family_is_in_use() {
        if !has_ipv6() {
            return;
        }
        let other = std::net::TcpListener::bind("[::1]:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let result = Opened::open(Listen::from(format!("localhost:{port}")), &ListenOptions::new());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn an_abstract_name_has_no_file_and_is_said() {
        let name = format!("wirewheel-test-{}", std::process::id());
        let opened = open(Listen::from(format!("unix:@{name}")), &ListenOptions::new()).unwrap();
        assert_eq!(opened.to_string(), format!("unix:@{name}"));
        assert!(!Path::new(&format!("@{name}")).exists());
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        assert!(client.connect(&SockAddr::unix(format!("\0{name}")).unwrap()).is_ok());
        let again = open(Listen::Abstract(name), &ListenOptions::new());
        assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
        // The same where it was handed over.
        let handed = open(OwnedFd::from(opened.socket), &ListenOptions::new()).unwrap();
        assert!(handed.to_string().starts_with("unix:@wirewheel-test-"), "{handed}");
    }

    #[test]
    fn what_is_no_place_is_refused_with_the_right_form() {
        for (text, form) in [
            ("unix:", "write unix:/run/x.sock"),
            ("unix:@", "write unix:@name"),
            ("http://localhost:80", "write the address alone, localhost:80"),
            ("8080", "or :8080 for every address"),
        ] {
            let error = Opened::open(text.into(), &ListenOptions::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().ends_with(form), "{text}: {error}");
        }
    }

    /// The interface of an IPv6 address by its name, without a resolver.
    #[test]
    fn an_interface_is_named_in_the_address() {
        let addresses = Listen::from("[fe80::1%lo]:80").addresses().unwrap();
        let [SocketAddr::V6(address)] = addresses[..] else { panic!("{addresses:?}") };
        assert!(address.scope_id() > 0, "{address}");
        assert!(Listen::from("[fe80::1%nosuch0]:80").addresses().is_err());
    }

    /// A connection's end at the server.
    fn accepted(opened: &Opened) -> Socket {
        let client = TcpStream::connect(opened.address).unwrap();
        opened.socket.set_nonblocking(false).unwrap();
        let (socket, _) = opened.socket.accept().unwrap();
        drop(client);
        socket
    }

    #[test]
    fn connections_inherit_the_options() {
        let plain = accepted(&open("127.0.0.1:0", &ListenOptions::new()).unwrap());
        assert!(plain.tcp_nodelay().unwrap() && !plain.keepalive().unwrap());
        let options = ListenOptions::new()
            .nodelay(false)
            .keepalive(Duration::from_secs(60))
            .send_buffer_bytes(20_000)
            .receive_buffer_bytes(30_000);
        let set = accepted(&open("127.0.0.1:0", &options).unwrap());
        assert!(!set.tcp_nodelay().unwrap() && set.keepalive().unwrap());
        assert_eq!(set.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(set.tcp_keepalive_interval().unwrap(), Duration::from_secs(20));
        assert_eq!(set.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(set.tcp_user_timeout().unwrap(), Some(Duration::from_secs(120)));
        // The system doubles what it is told (socket(7)).
        assert_eq!(set.send_buffer_size().unwrap(), 40_000);
        assert_eq!(set.recv_buffer_size().unwrap(), 60_000);
    }

    #[test]
    fn a_port_is_shared_only_where_both_say_so() {
        let sharing = ListenOptions::new().reuse_port(true);
        let first = open("127.0.0.1:0", &sharing).unwrap();
        let second = open(first.address, &sharing).unwrap();
        assert_eq!(first.address, second.address);
        let error = open(first.address, &ListenOptions::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn an_address_that_is_not_there_yet_is_listened_on_if_that_is_wanted() {
        // Of the networks for documentation (RFC 5737, RFC 3849), which nobody has.
        let address = "192.0.2.1:0";
        let error = open(address, &ListenOptions::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        let free = ListenOptions::new().free_bind(true);
        assert_eq!(open(address, &free).unwrap().address.ip().to_string(), "192.0.2.1");
        if open("[::1]:0", &free).is_ok() {
            assert!(open("[2001:db8::1]:0", &free).is_ok());
        }
    }

    #[test]
    fn ipv6_takes_ipv4_only_if_it_is_told_to() {
        let Ok(dual) = open("[::]:0", &ListenOptions::new().only_v6(false)) else {
            return; // a machine without IPv6
        };
        let over_v4 = SocketAddr::from(([127, 0, 0, 1], dual.address.port()));
        assert!(TcpStream::connect(over_v4).is_ok());
        let only = open("[::]:0", &ListenOptions::new()).unwrap();
        let over_v4 = SocketAddr::from(([127, 0, 0, 1], only.address.port()));
        assert!(TcpStream::connect(over_v4).is_err());
    }

    #[test]
    fn the_system_holds_no_more_than_the_backlog() {
        let opened = open("127.0.0.1:0", &ListenOptions::new().backlog(1)).unwrap();
        let patience = Duration::from_millis(900);
        // Linux takes one more than the backlog; the rest see their SYN dropped.
        let connected: Vec<_> = (0..8)
            .map_while(|_| TcpStream::connect_timeout(&opened.address, patience).ok())
            .collect();
        assert_eq!(connected.len(), 2);
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            // Short, whatever TMPDIR is: a socket's path holds 107 bytes.
            let path = Path::new("/tmp").join(format!("wirewheel-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let folder = Folder::new("stale");
        let path = folder.path("socket");
        let options = ListenOptions::new().unix_mode(0o600);
        // What a process that was killed leaves.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = open(Listen::Unix(path.clone()), &options).unwrap();
        assert_eq!((first.kind, first.address), (Kind::Unix, NO_ADDR));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        let error = open(Listen::Unix(path.clone()), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn nothing_but_our_own_socket_is_removed() {
        let folder = Folder::new("foreign");
        let path = folder.path("file");
        fs::write(&path, "precious").unwrap();
        let error = open(Listen::Unix(path.clone()), &ListenOptions::new()).unwrap_err();
        assert!(error.to_string().contains("no socket"), "{error}");
        fs::remove_file(&path).unwrap();
        let opened = open(Listen::Unix(path.clone()), &ListenOptions::new()).unwrap();
        // Moved, not removed: a new file could be given the same inode.
        fs::rename(&path, folder.path("ours")).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(opened);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_descriptor_must_listen() {
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listening.local_addr().unwrap();
        let adopted = open(OwnedFd::from(listening), &ListenOptions::new()).unwrap();
        assert_eq!((adopted.kind, adopted.address), (Kind::Tcp, address));
        let client = TcpStream::connect(address).unwrap();
        for (descriptor, complaint) in [
            (OwnedFd::from(client), "listens"),
            (OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()), "listens"),
            (OwnedFd::from(UnixStream::pair().unwrap().0), "listens"),
            (OwnedFd::from(fs::File::open("/dev/null").unwrap()), "socket"),
        ] {
            let error = open(descriptor, &ListenOptions::new()).unwrap_err();
            assert!(error.to_string().contains(complaint), "{error}");
        }
    }
}
