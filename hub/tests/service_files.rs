//! The service files, by playing who reads them: systemd, OpenWrt's procd with its configuration, OpenRC.

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use support::{Folder, Hub, activated, command, listening, show};

fn service_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("service").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(service_file(name)).unwrap()
}

/// What `--help` lists, without what is for whoever calls the program by hand.
fn options() -> Vec<String> {
    let help = String::from_utf8(support::run(&["--help"]).stdout).unwrap();
    let words = help.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'));
    let mut names: Vec<String> =
        words.filter_map(|word| word.strip_prefix("--")).map(str::to_owned).collect();
    names.retain(|name| !matches!(name.as_str(), "" | "check" | "help" | "version"));
    names.sort();
    names.dedup();
    names
}

/// How topics are joined to those elsewhere: there is one way at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joined {
    Upstream,
    Broker,
}

impl Joined {
    /// Whether an option, or its variable, is for the other way.
    fn excludes(self, name: &str) -> bool {
        let name = name.to_lowercase();
        let is_of_broker = name.contains("broker") || name.ends_with("prefix");
        match self {
            Self::Upstream => is_of_broker,
            Self::Broker => name.contains("upstream"),
        }
    }
}

/// Every option with a value that works here; of lists two, where two can be.
fn values(folder: &Folder, joined: Joined) -> BTreeMap<String, Vec<String>> {
    let tokens = folder.write("the tokens", "swordfish\n");
    let page = folder.write("www/index.html", "page");
    let www = page.strip_suffix("/index.html").unwrap().to_owned();
    let socket = format!("unix:{}", show(&folder.path("socket")));
    let one = |value: &str| vec![value.to_owned()];
    let pem = |name: &str| vec![show(&service_file("../../tests/certificates").join(name))];
    let all = [
        ("token-file", vec![tokens.clone()]),
        ("upstream-token-file", vec![tokens]),
        ("upstream-ca", pem("authority.pem")),
        ("broker-login-file", vec![folder.write("the login", "box:swordfish\n")]),
        ("broker-ca", pem("authority.pem")),
        ("allow-origin", vec!["https://a.example".into(), "https://b.example".into()]),
        ("host", vec!["box.lan".into(), "*.box.example".into()]),
        ("trusted-proxy", vec!["127.0.0.1".into(), "10.0.0.0/8".into()]),
        ("host", vec!["box.example".into(), "*.box.example".into()]),
        ("proxy-header", one("x-forwarded-for")),
        ("metrics-open", one("1")),
        ("socket-mode", one("600")),
        ("pass-env", vec!["LANG".into(), "TZ".into()]),
        ("tls-cert", pem("box.pem")),
        ("tls-key", pem("box.key")),
        ("tls-client-ca", pem("clients.pem")),
        ("listen", vec!["127.0.0.1:0".into(), "tls:127.0.0.1:0".into(), socket]),
        ("free-bind", one("1")),
        ("topics", one("1")),
        ("replay", one("7")),
        ("overflow", one("drop-latest")),
        ("upstream", one("wss://127.0.0.1:9")),
        ("broker", one("mqtts://127.0.0.1:9")),
        ("prefix", one("hall/")),
        ("echo", one("1")),
        ("exec", one("sh")),
        ("exec-arg", vec!["-c".into(), "echo \"it's $1\"; env; echo end".into(), "x".into()]),
        ("max-children", one("3")),
        ("child-grace", one("100ms")),
        ("max-line", one("100k")),
        ("long-line", one("cut")),
        ("binary-lines", one("1")),
        ("serve", vec![www]),
        ("metrics", one("/figures")),
        ("ping-period", one("0")),
        ("timeout", one("9s")),
        ("max-message", one("32k")),
        ("max-connections", one("50")),
        ("loops", one("1")), // with more there are neither programs nor links
        ("memory", one("12m")),
        ("grace", one("3s")),
    ];
    let mut all: BTreeMap<String, Vec<String>> =
        all.into_iter().map(|(name, values)| (name.to_owned(), values)).collect();
    assert_eq!(all.keys().cloned().collect::<Vec<_>>(), options(), "the table of this test");
    if !HAS_TLS {
        all.retain(|name, _| !name.starts_with("tls-"));
        all.get_mut("listen").unwrap().retain(|place| !place.starts_with("tls:"));
    }
    all.retain(|name, _| !joined.excludes(name) && is_built_in(name));
    if !HAS_TLS {
        all.retain(|name, _| !name.ends_with("-ca"));
        for (name, place) in [("upstream", "ws://127.0.0.1:9"), ("broker", "mqtt://127.0.0.1:9")] {
            if let Some(value) = all.get_mut(name) {
                *value = one(place);
            }
        }
    }
    all
}

/// Whether the hub was built with what an option, or its variable, is for.
fn is_built_in(name: &str) -> bool {
    (HAS_UPSTREAM || !Joined::Broker.excludes(name))
        && (HAS_BROKER || !Joined::Upstream.excludes(name))
}

/// Whether the hub was built with all of it; the options are there in any case.
const HAS_TLS: bool = cfg!(feature = "tls-client-auth");
const HAS_UPSTREAM: bool = cfg!(feature = "upstream");
const HAS_BROKER: bool = cfg!(feature = "broker");

fn variable(name: &str) -> String {
    format!("WIREWHEEL_HUB_{}", name.to_uppercase().replace('-', "_"))
}

/// What every way of starting has to come to: the arguments, sorted.
fn as_arguments(values: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let switches = ["metrics-open", "free-bind", "topics", "echo", "binary-lines"];
    let argument = |(name, value): (&String, &String)| match switches.contains(&name.as_str()) {
        true => format!("--{name}"),
        false => format!("--{name}={value}"),
    };
    let pairs = values.iter().flat_map(|(name, all)| all.iter().map(move |value| (name, value)));
    pairs.map(argument).collect()
}

/// A hub with all of these options does what they say.
fn expect_all(mut hub: Hub, folder: &Folder) {
    let socket = folder.path("socket");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(socket).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    #[cfg(feature = "tls-client-auth")]
    expect_tls(&mut hub);
    let get =
        |path: &str| hub.connect().request(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_eq!(get("/").body, "page");
    assert_eq!(get("/figures").status, 200);
    let status = |path: &str, more: &str| {
        hub.connect().request(&support::client::upgrade_request(path, more)).status
    };
    assert_eq!(status("/echo", ""), 401);
    let bearer = "Authorization: Bearer swordfish\r\n";
    assert_eq!(status("/echo", bearer), 101);
    assert_eq!(status("/topic/x", bearer), 101);
    for (origin, expected) in
        [("https://b.example", 101), ("https://a.example", 101), ("https://c.example", 403)]
    {
        assert_eq!(status("/echo", &format!("{bearer}Origin: {origin}\r\n")), expected);
    }
    let mut client = hub.connect();
    let request = format!("{bearer}X-Forwarded-For: 192.0.2.9\r\n");
    let answer = client.request(&support::client::upgrade_request("/exec", &request));
    assert_eq!(answer.status, 101);
    client.expect_text("it's ");
    let mut environment = Vec::new();
    loop {
        let line = String::from_utf8(client.frame().payload).unwrap();
        if line == "end" {
            break;
        }
        environment.push(line);
    }
    for line in ["REMOTE_ADDR=192.0.2.9", "LANG=C", "TZ=UTC"] {
        assert!(environment.iter().any(|found| found == line), "{line}: {environment:?}");
    }
    drop(client);
    hub.signal(Signal::TERM);
    assert!(hub.child.wait().unwrap().success());
}

/// The second place has TLS, and clients have to show a certificate.
#[cfg(feature = "tls-client-auth")]
fn expect_tls(hub: &mut Hub) {
    use support::tls::{TlsClient, Trust};
    let addr = hub.log_until("bound to ").rsplit(' ').next().unwrap().parse().unwrap();
    let trust = Trust { shows: Some("client"), ..Trust::default() };
    let client = TlsClient::start(addr, "localhost", &trust.config()).shaken();
    client.upgraded("/echo?token=swordfish");
}

#[test]
fn every_option_of_openwrt_reaches_the_program() {
    let folder = Folder::new("openwrt");
    let values = values(&folder, Joined::Broker);
    // What /lib/functions.sh and procd.sh do, with the configuration in variables.
    let script = r#"
        config_load() { [ "$1" = wirewheel-hub ]; }
        config_get() { eval "$1=\"\${UCI_$3:-$4}\""; }
        config_get_bool() {
            local wanted
            config_get wanted "$2" "$3" "$4"
            case "$wanted" in
                1|on|true|yes|enabled) eval "$1=1" ;;
                0|off|false|no|disabled) eval "$1=0" ;;
                *) eval "$1=$4" ;;
            esac
        }
        config_list_foreach() {
            local section="$1" list="$2" action="$3" number=0 item
            shift 3
            while eval "[ -n \"\${UCI_${list}_$number+x}\" ]"; do
                eval "item=\"\${UCI_${list}_$number}\""
                "$action" "$item" "$@"
                number=$((number + 1))
            done
        }
        procd_open_instance() { :; }
        procd_close_instance() { :; }
        procd_set_param() {
            [ "$1" = term_timeout ] && echo "term_timeout $2" >&2
            [ "$1" = command ] || return 0
            shift
            procd_append_param command "$@"
        }
        procd_append_param() { shift; for item in "$@"; do printf '%s\0' "$item"; done; }
        . "$INIT"
        start_service
    "#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).env("INIT", service_file("openwrt.init"));
    let lists = ["allow-origin", "host", "trusted-proxy", "pass-env", "listen", "exec-arg"];
    for (name, all) in &values {
        let uci = name.replace('-', "_");
        if lists.contains(&name.as_str()) {
            for (number, value) in all.iter().enumerate() {
                shell.env(format!("UCI_{uci}_{number}"), value);
            }
        } else {
            shell.env(format!("UCI_{uci}"), &all[0]);
        }
    }
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words: Vec<String> = text.split_terminator('\0').map(str::to_owned).collect();
    assert_eq!(words.remove(0), "/usr/bin/wirewheel-hub");
    assert!(words[0].starts_with("--token-file="), "who may connect comes first: {words:?}");
    let in_order = words.clone();
    words.sort();
    let mut expected = as_arguments(&values);
    expected.sort();
    assert_eq!(words, expected);
    let told = String::from_utf8(output.stderr).unwrap();
    expect_time_to_stop("term_timeout", told.split(' ').next_back().unwrap().trim());
    let mut command = command();
    command.args(&in_order).env("LANG", "C").env("TZ", "UTC");
    expect_all(Hub::of(command), &folder);
}

/// The variables of the default file, whether they are commented out or not.
fn default_variables() -> BTreeMap<String, String> {
    let text = read("wirewheel-hub.default");
    let lines = text.lines().map(|line| line.trim_start_matches('#'));
    let pairs = lines.filter(|line| line.starts_with("WIREWHEEL_HUB_"));
    pairs
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn the_default_file_has_every_option_and_its_examples_are_right() {
    let folder = Folder::new("default");
    let mut examples = default_variables();
    let names: Vec<String> = options().iter().map(|name| variable(name)).collect();
    assert_eq!(examples.keys().cloned().collect::<Vec<_>>(), names);
    if !HAS_TLS {
        examples.retain(|name, _| !name.contains("_TLS_") && name != &variable("listen"));
        examples.retain(|name, _| !name.ends_with("_CA"));
        examples.insert(variable("upstream"), "ws://parent.example".into());
    }
    examples.retain(|name, _| is_built_in(name));
    for joined in [Joined::Upstream, Joined::Broker] {
        let mut examples = examples.clone();
        examples.retain(|name, _| !joined.excludes(name));
        // What is not on this machine.
        let values = values(&folder, joined);
        let files = ["token-file", "upstream-token-file", "upstream-ca", "broker-login-file"];
        let lacking = files.into_iter().chain(["broker-ca", "tls-cert", "tls-key"]);
        let lacking = lacking.chain(["tls-client-ca", "serve", "exec"]);
        for name in lacking.filter(|name| values.contains_key(*name)) {
            examples.insert(variable(name), values[name][0].clone());
        }
        let output = command().arg("--check").envs(examples).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    // As it is delivered.
    let text = read("wirewheel-hub.default");
    let set = text.lines().filter(|line| line.starts_with("WIREWHEEL_HUB_"));
    let set: BTreeMap<&str, &str> = set.filter_map(|line| line.split_once('=')).collect();
    assert!(command().arg("--check").envs(set).output().unwrap().status.success());
}

/// A service manager waits longer than a stop takes at the defaults.
#[track_caller]
fn expect_time_to_stop(name: &str, seconds: &str) {
    let grace = default_variables()["WIREWHEEL_HUB_GRACE"].trim_end_matches('s').parse::<u64>();
    let help = String::from_utf8(support::run(&["--help"]).stdout).unwrap();
    let grace = grace.unwrap();
    assert!(help.contains(&format!("[{grace}s]")), "the default of --grace");
    let wait: u64 = seconds.parse().unwrap_or_else(|_| panic!("{name}: {seconds:?}"));
    assert!(wait > grace + 2, "{name} is {wait} s");
}

/// The values of a key in a unit file.
fn unit(name: &str, key: &str) -> Vec<String> {
    let text = read(name);
    let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

#[test]
fn as_a_unit_of_systemd_every_option_arrives_and_it_never_gives_up() {
    let folder = Folder::new("systemd");
    let mut values = values(&folder, Joined::Broker);
    let service = "wirewheel-hub.service";
    assert_eq!(unit(service, "EnvironmentFile"), ["-/etc/default/wirewheel-hub"]);
    assert_eq!(unit(service, "StartLimitIntervalSec"), ["0"]);
    assert_eq!(unit(service, "Restart"), ["on-failure"]);
    assert_eq!(unit(service, "RestartSec"), ["2"]);
    assert_eq!(unit(service, "KillMode"), ["mixed"], "programs are the hub's to end");
    assert_eq!(unit("wirewheel-hub.socket", "FreeBind"), ["true"]);
    expect_time_to_stop("TimeoutStopSec", &unit(service, "TimeoutStopSec")[0]);
    // Its sockets are handed over, and stand beside those that are named.
    values.get_mut("listen").unwrap().insert(0, "fd:".into());
    let environment: Vec<(String, String)> =
        values.iter().map(|(name, all)| (variable(name), all.join("\n"))).collect();
    let command_of = |line: &str| {
        let line = line.strip_prefix("/usr/bin/wirewheel-hub").unwrap().to_owned();
        line.split_whitespace().map(str::to_owned).collect::<Vec<String>>()
    };
    let before = command_of(&unit(service, "ExecStartPre")[0]);
    let output = command().args(before).envs(environment.clone()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let start = command_of(&unit(service, "ExecStart")[0]);
    let start: Vec<&str> = start.iter().map(String::as_str).collect();
    let (socket, handed) = listening();
    let mut command = activated(vec![socket], &start, "$$");
    command.envs(environment).env("LANG", "C").env("TZ", "UTC");
    let hub = Hub::of(command);
    let over_handed = support::client::Client::connect(handed)
        .request("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(over_handed.body, "ok\n");
    expect_all(hub, &folder);
}

#[test]
fn under_openrc_every_option_arrives_and_mistakes_are_told_before_the_start() {
    let folder = Folder::new("openrc");
    let values = values(&folder, Joined::Upstream);
    let script = r#"
        checkpath() { :; }
        . "$INIT"
        [ "$respawn_max" = 0 ] && [ "$respawn_delay" -ge 1 ] || exit 9
        echo "${retry}" | cut -d/ -f2
        [ "$command" = /usr/bin/wirewheel-hub ] || exit 8
        hub() { $HUB "$@"; }
        command=hub
        start_pre
    "#;
    let mut shell = Command::new("sh");
    let program = support::client::emulator::words(env!("CARGO_BIN_EXE_wirewheel-hub"));
    let program: Vec<String> =
        program.into_iter().map(|word| word.into_string().unwrap()).collect();
    shell.args(["-c", script]).env("INIT", service_file("openrc.init"));
    shell.env("HUB", program.join(" "));
    let environment: Vec<(String, String)> =
        values.iter().map(|(name, all)| (variable(name), all.join("\n"))).collect();
    let output = shell.envs(environment.clone()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    expect_time_to_stop("retry", String::from_utf8(output.stdout).unwrap().trim());
    let wrong = shell.env("WIREWHEEL_HUB_METRICS", "figures").output().unwrap();
    assert!(!wrong.status.success());
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("give a path from /"));
    shell.env_remove("WIREWHEEL_HUB_METRICS").env("WIREWHEEL_HUB_EXEC", "/nonexistent/later");
    let missing = shell.output().unwrap();
    assert!(missing.status.success(), "what may come later is no reason not to start: {missing:?}");
    assert!(String::from_utf8(missing.stderr).unwrap().contains("there is no such program"));
    let mut command = command();
    command.envs(environment).env("LANG", "C").env("TZ", "UTC");
    expect_all(Hub::of(command), &folder);
}

#[test]
fn an_address_that_comes_later_is_listened_on_if_that_is_wanted() {
    let address = "192.0.2.1:0"; // of a network for documentation (RFC 5737)
    let refused = support::run(&["--echo", "--listen", address]);
    assert_eq!(refused.status.code(), Some(1));
    let hub = Hub::of({
        let mut command = command();
        command.args(["--echo", "--free-bind", "--listen", address]);
        command
    });
    assert_eq!(hub.addr.ip().to_string(), "192.0.2.1");
}
