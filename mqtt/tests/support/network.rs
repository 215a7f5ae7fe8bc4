//! A network of the test's own, whose cable can be pulled: a namespace with one end of a pair of interfaces.
#![allow(unreachable_pub, reason = "a part of a test crate")]

use std::process::{Command, Stdio};

pub struct Network {
    name: String,
}

impl Network {
    /// `None`, and a line that says so, where this process may not make one.
    #[allow(clippy::print_stdout, reason = "who runs the test is told")]
    pub fn new() -> Option<Self> {
        let network = Self { name: format!("ww{}", std::process::id()) };
        if network.make() {
            return Some(network);
        }
        println!(
            "NOT TESTED with packets that are lost: no network namespace can be made here (that needs root and \
            `ip`). In virtual time a silent broker is tested by `--test links`."
        );
        None
    }

    fn make(&self) -> bool {
        let (name, [ours, theirs]) =
            (&self.name, ["a", "b"].map(|end| format!("{}{end}", self.name)));
        let [near, far] = [1, 2].map(|last| format!("{}/30", address(last)));
        [
            format!("netns add {name}"),
            format!("link add {ours} type veth peer name {theirs} netns {name}"),
            format!("addr add {near} dev {ours}"),
            format!("link set {ours} up"),
            format!("-n {name} addr add {far} dev {theirs}"),
            format!("-n {name} link set {theirs} up"),
        ]
        .iter()
        .all(|arguments| ip(arguments))
    }

    /// Where a server in it is.
    pub fn host(&self) -> String {
        address(2)
    }

    /// A program that runs in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Pulls the cable: packets are lost, and nobody is told.
    pub fn cut(&self) {
        self.set("down");
    }

    pub fn mend(&self) {
        self.set("up");
    }

    fn set(&self, state: &str) {
        let name = &self.name;
        assert!(ip(&format!("-n {name} link set {name}b {state}")), "it was made");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Its interfaces go with it.
        ip(&format!("netns del {}", self.name));
    }
}

/// Of the addresses for tests of devices (RFC 2544), four for each process.
fn address(last: u32) -> String {
    let place = (std::process::id() << 2 & 0x1fffc) + last;
    format!("198.{}.{}.{}", 18 + (place >> 16), place >> 8 & 255, place & 255)
}

fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
