//! The guide's configurations for proxies as they stand, with the proxies themselves: who a client is,
//! whatever it writes. `.ci/proxy` runs it, and installs what it needs.

mod support;

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use support::*;
use wirewheel::options::ProxyHeader;
use wirewheel::{Application, Call, WebSockets, on_connect};

/// A proxy in front of a server, and the folder of its files.
struct Proxy {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn guide(language: &str) -> String {
    let page = include_str!("../src/guide/proxies.md");
    let (_, block) = page.split_once(&format!("```{language}\n")).unwrap();
    format!("{}\n", block.split_once("```").unwrap().0.trim_end())
}

impl Proxy {
    /// Starts `program` on a configuration, and waits until it listens.
    #[allow(clippy::disallowed_methods, reason = "another program needs its time to start")]
    fn start(
        name: &str,
        configuration: &str,
        port: u16,
        command: impl Fn(&Path) -> Command,
    ) -> Self {
        let folder = std::env::temp_dir().join(format!("wirewheel-{name}-{port}"));
        std::fs::create_dir_all(&folder).unwrap();
        let configuration = configuration.replace("FOLDER", folder.to_str().unwrap());
        std::fs::write(folder.join("conf"), configuration).unwrap();
        let child = command(&folder).stdout(Stdio::null()).spawn();
        let mut proxy = Self {
            child: child.unwrap_or_else(|error| panic!("{name}: {error}")),
            folder,
            address: ([127, 0, 0, 1], port).into(),
        };
        let begun = Instant::now();
        while TcpStream::connect(proxy.address).is_err() {
            assert_eq!(proxy.child.try_wait().unwrap(), None, "{name} has ended");
            assert!(begun.elapsed() < PATIENCE, "{name} does not listen");
            std::thread::yield_now();
        }
        proxy
    }

    fn nginx(location: &str) -> Self {
        let port = free_port();
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let paths = paths.map(|kind| format!("{kind}_temp_path FOLDER/{kind};\n")).concat();
        let configuration = format!(
            "daemon off; master_process off; pid FOLDER/pid; error_log stderr;\nevents {{}}\n\
             http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port}; {location} }} }}"
        );
        Self::start("nginx", &configuration, port, |folder| {
            let mut command = Command::new("/usr/sbin/nginx");
            command.arg("-p").arg(folder).arg("-c").arg(folder.join("conf"));
            command
        })
    }

    fn haproxy(sections: &str) -> Self {
        let port = free_port();
        let sections = sections.replace("bind :80\n", &format!("bind 127.0.0.1:{port}\n"));
        let defaults = "defaults\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n";
        Self::start("haproxy", &format!("{defaults}{sections}"), port, |folder| {
            let mut command = Command::new("/usr/sbin/haproxy");
            command.arg("-f").arg(folder.join("conf")).arg("-db");
            command
        })
    }

    /// A client at another address than the proxy, which the server trusts.
    fn connect(&self) -> Client {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream, inbox: Vec::new() }
    }
}

fn server(header: ProxyHeader) -> Running {
    Running::start(move |app: &mut Application| {
        let options = WebSockets::new().trusted_proxies(["127.0.0.1"]).proxy_header(header);
        app.install(options.hosts(["box.example"]));
        app.routing(|route| {
            let who = |call: &Call| {
                format!("{} {} {}", call.client_addr().ip(), call.scheme(), call.host())
            };
            route.get("/who", who);
            route.web_socket("/who", move |_: &Call| {
                on_connect(move |session, call| session.send(who(call)))
            });
        });
    })
}

/// What a client writes to be taken for somebody else.
const FORGERIES: [&str; 8] = [
    "",
    "X-Forwarded-For: 127.0.0.1\r\n",
    "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 0.0.0.0\r\n",
    "X-Forwarded-For:\r\nForwarded:\r\n",
    "Forwarded: for=127.0.0.1;proto=https;host=evil\r\n",
    "Forwarded: for=\"0.0.0.0\"\r\nforwarded: for=1.2.3.4\r\n",
    "X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n",
    "X-Forwarded-Host: a, b\r\nX-Forwarded-Proto: https, https\r\n",
];

/// Every forgery in a plain request and in an upgrade, and pages of this server and of another.
fn expect_the_truth(proxy: &Proxy, path: &str, host: &str, truth: &str) {
    for forgery in FORGERIES {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{forgery}\r\n");
        assert_eq!(proxy.connect().request(&request).body, truth, "{forgery}");
        let upgrade = |origin: &str| {
            let lines = format!("{forgery}Origin: {origin}\r\n");
            upgrade_request(path, &lines).replace("Host: h\r\n", &format!("Host: {host}\r\n"))
        };
        let mut client = proxy.connect();
        assert_eq!(client.request(&upgrade(&format!("http://{host}"))).status, 101, "{forgery}");
        client.expect_text(truth);
        assert_eq!(
            proxy.connect().request(&upgrade("https://evil.example")).status,
            403,
            "{forgery}"
        );
    }
}

#[test]
#[ignore = "needs nginx: .ci/proxy"]
fn behind_nginx_the_client_is_who_connected_to_it() {
    let server = server(ProxyHeader::XForwardedFor);
    let location = guide("nginx");
    assert!(location.contains("127.0.0.1:8080"));
    let proxy = Proxy::nginx(&location.replace("127.0.0.1:8080", &server.addr().to_string()));
    expect_the_truth(&proxy, "/ws/who", "box.example:8443", "127.0.0.2 http box.example:8443");
}

#[test]
#[ignore = "needs haproxy: .ci/proxy"]
fn behind_haproxy_the_client_is_who_connected_to_it() {
    let server = server(ProxyHeader::XForwardedFor);
    let sections = guide("haproxy");
    assert!(sections.contains("127.0.0.1:8080"));
    let proxy = Proxy::haproxy(&sections.replace("127.0.0.1:8080", &server.addr().to_string()));
    expect_the_truth(&proxy, "/who", "box.example:8443", "127.0.0.2 http box.example:8443");
}

#[test]
#[ignore = "needs haproxy: .ci/proxy"]
fn behind_a_balancer_the_client_is_who_its_header_names() {
    let server = server(ProxyHeader::ProxyProtocol);
    for version in ["send-proxy", "send-proxy-v2"] {
        let sections =
            format!("listen box\n mode tcp\n bind :80\n server box {} {version}\n", server.addr());
        let proxy = Proxy::haproxy(&sections);
        expect_the_truth(&proxy, "/who", "box.example", "127.0.0.2 http box.example");
    }
}

/// nginx as it comes puts its own upstream into Host: a page is told what is wrong.
#[test]
#[ignore = "needs nginx: .ci/proxy"]
fn behind_a_proxy_that_changes_host_a_refusal_says_so() {
    let server = server(ProxyHeader::XForwardedFor);
    let location = format!(
        "location / {{ proxy_pass http://{}; proxy_http_version 1.1; \
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}",
        server.addr()
    );
    let proxy = Proxy::nginx(&location);
    let request = upgrade_request("/who", "Origin: http://box.example\r\n");
    let answer = proxy.connect().request(&request.replace("Host: h", "Host: box.example"));
    assert_eq!(answer.status, 403);
    let both = answer.body.contains("\"http://box.example\"")
        && answer.body.contains(&format!("\"{}\"", server.addr()));
    assert!(
        both && answer.body.contains("have the proxy in front pass Host on"),
        "{}",
        answer.body
    );
}

/// What comes with the packages: nginx speaks HTTP/1.0 and passes no upgrade on, HAProxy both.
#[test]
#[ignore = "needs nginx and haproxy: .ci/proxy"]
fn behind_proxies_as_they_come_pages_are_served_and_an_upgrade_that_cannot_be_says_so() {
    let server = Running::start(|app: &mut Application| {
        app.install(WebSockets::new().hosts(["box.example"]));
        app.routing(|route| {
            route.get("/page", |_| "page");
            route.web_socket("/session", |_: &Call| on_connect(|it, _| it.send("hello")));
        });
    });
    let at = server.addr();
    let nginx = Proxy::nginx(&format!("location / {{ proxy_pass http://{at}; }}"));
    let haproxy = Proxy::haproxy(&format!(
        "frontend web\n mode http\n bind :80\n default_backend box\n\
         backend box\n mode http\n server box {at}\n"
    ));
    let upgrade = upgrade_request("/session", "Origin: http://box.example\r\n");
    let upgrade = upgrade.replace("Host: h", "Host: box.example");
    for (proxy, status) in [(&nginx, 426), (&haproxy, 101)] {
        let mut client = proxy.connect();
        for lines in ["", "X: \r\n", "Connection: keep-alive\r\n"] {
            let page = format!("GET /page HTTP/1.1\r\nHost: box.example\r\n{lines}\r\n");
            assert_eq!(client.request(&page).body, "page");
        }
        let mut client = proxy.connect();
        let answer = client.request(&upgrade);
        assert_eq!(answer.status, status, "{}", answer.body);
        if status == 101 {
            client.expect_text("hello");
        }
    }
}
