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
    let connected: Vec<_> =
        (0..8).map_while(|_| TcpStream::connect_timeout(&opened.address, patience).ok()).collect();
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

#[test]
fn a_family_that_the_machine_lacks_is_known_by_either_error() {
    for (error, lacks) in [
        (io::Error::from(ErrorKind::AddrNotAvailable), true),
        (io::Error::from_raw_os_error(libc::EAFNOSUPPORT), true),
        (io::Error::from(ErrorKind::AddrInUse), false),
    ] {
        assert_eq!(lacks_family(&error), lacks, "{error}");
    }
}
