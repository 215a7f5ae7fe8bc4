//! Owns the making of listening sockets: TCP, Unix, or handed over; and a Unix socket's file.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::domain::session_state::NO_ADDR;
use crate::words::listen::{Listen, ListenOptions};

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
}

/// What speaks over a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Unix,
}

impl Opened {
    /// Listens; `options` are checked.
    pub(crate) fn open(listen: Listen, options: &ListenOptions) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => open_tcp(&address, options),
            Listen::Unix(path) => open_unix(&path, options),
            Listen::Fd(descriptor) => adopt(descriptor, options),
        }
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket.local_addr().ok().as_ref().and_then(SockAddr::as_pathname) {
            Some(path) => write!(f, "unix:{}", path.display()),
            None => self.address.fmt(f),
        }
    }
}

fn open_tcp(address: &str, options: &ListenOptions) -> io::Result<Opened> {
    let mut last = ErrorKind::AddrNotAvailable.into();
    for candidate in address.to_socket_addrs()? {
        match listen_on(candidate, options) {
            Ok(opened) => return Ok(opened),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen_on(address: SocketAddr, options: &ListenOptions) -> io::Result<Opened> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A server that restarts takes its port back at once.
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(options.only_v6)?;
    }
    set_inherited(&socket, Kind::Tcp, options)?;
    socket.bind(&address.into())?;
    socket.listen(backlog(options))?;
    finish(socket, Kind::Tcp, None)
}

fn open_unix(path: &Path, options: &ListenOptions) -> io::Result<Opened> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    set_inherited(&socket, Kind::Unix, options)?;
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path)? => {
            fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        result => result?,
    }
    let file = SocketFile::of(path)?;
    if let Some(mode) = options.unix_mode {
        // Nobody can connect before `listen`.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    socket.listen(backlog(options))?;
    finish(socket, Kind::Unix, Some(file))
}

/// Whether a path is a socket on which nobody listens any more: left by a process that was killed.
fn is_stale(path: &Path) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let text = "the path is taken by something that is no socket; remove it or choose another";
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(true),
        _ => Ok(false),
    }
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
    Ok(Opened { socket, address, kind, handed_over: false, file })
}

/// The file of a Unix socket that this process made; dropping it removes the file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: by the end the path may be somebody else's.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // A path that cannot be removed is found stale at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn open(listen: impl Into<Listen>, options: &ListenOptions) -> io::Result<Opened> {
        Opened::open(listen.into(), options)
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
        let patience = Duration::from_millis(200);
        // Linux takes one more than the backlog; the rest see their SYN dropped.
        let connected: Vec<_> = (0..8)
            .map_while(|_| TcpStream::connect_timeout(&opened.address, patience).ok())
            .collect();
        assert_eq!(connected.len(), 2);
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("wirewheel-{name}-{}", std::process::id()));
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
