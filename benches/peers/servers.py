"""Owns the servers that are measured: how each is built, started and stopped.

Used by `benches/run` and `benches/instructions`.
"""

import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
RELEASE = HERE / "target" / "release"
LOAD = RELEASE / "bench-load"
# One target CPU for all, whatever the environment says: without it a figure means little elsewhere.
TARGET_CPU = {"x86_64": "x86-64", "aarch64": "generic"}
# Built with the feature `tls`, which costs a plain echo next to nothing.
WITH_TLS = "wirewheel with tls"
ALL_MODES = frozenset(
    ["echo", "broadcast", "broadcast-deflate", "broadcast-events", "file", "large", "ping", "post"])
# Those that a client is measured in, and of plain requests.
DIAL, REQUESTS = "dial", ["file", "post"]
# Echo servers with TLS, by the certificate that they show.
TLS_MODES = {"tls": "box", "tls-rsa": "rsa"}
CERTIFICATES = HERE.parent.parent / "tests" / "certificates"


class Server:
    """A server's command; `{port}`, `{mode}`, `{certificate}` and `{key}` in it are filled in, and for a client
    that is measured `{connections}`."""

    def __init__(self, name, command, modes=("echo",), binary=None):
        self.name, self.command, self.binary = name, command, binary
        self.modes = frozenset(modes)

    def words(self, port, mode, connections=1):
        shown = CERTIFICATES / TLS_MODES.get(mode, "box")
        filled = {"port": port, "mode": mode, "certificate": f"{shown}.pem", "key": f"{shown}.key",
                  "connections": connections}
        words = list(self.command)
        for name, value in filled.items():
            words = [word.replace("{" + name + "}", str(value)) for word in words]
        return words


class Nginx(Server):
    """nginx with one worker, and a configuration for each port. It reads no body of a request whose answer is a
    line of its configuration: it is discarded."""

    CONFIGURATION = """
        daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log stderr crit;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; sendfile on; keepalive_requests 1000000000; default_type text/plain; {more}
            client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
            server {{
                listen 127.0.0.1:{port}; root {folder};
                location = /post {{ return 200 "$content_length"; }}
            }}
        }}
    """

    def __init__(self, name, program, more=""):
        super().__init__(name, [program], REQUESTS)
        self.more = more

    def words(self, port, mode, connections=1):
        folder = HERE / "target" / f"nginx-{port}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "file.html").write_text("x" * 1024)
        configuration = folder / "nginx.conf"
        configuration.write_text(self.CONFIGURATION.format(folder=folder, port=port, more=self.more))
        return [*self.command, "-p", str(folder), "-c", str(configuration)]


class Running:
    """A server that runs, pinned, until the block ends."""

    def __init__(self, server, mode="echo", cpu=None, wrapper=(), environment=None):
        self.server, self.port = server, free_port()
        self.cpu = server_cpu() if cpu is None else cpu
        begun = time.monotonic()
        self.process = subprocess.Popen(
            [*wrapper, *server.words(self.port, mode)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=lambda: prepare(self.cpu), env={**os.environ, **(environment or {})})
        self.startup_ms = (self.wait_until_it_listens() - begun) * 1e3
        # Under a wrapper the server is its child.
        self.pid = children(self.process.pid)[0] if wrapper and wrapper[0] == "strace" \
            else self.process.pid

    def wait_until_it_listens(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5):
                    return time.monotonic()
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.0002)
        raise SystemExit(f"{self.server.name} does not listen on port {self.port}")

    def anonymous_bytes(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
        return int(line.split()[1]) << 10

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A wrapper prints its counts when the server is gone.
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(self.pid, number)
                self.process.wait(timeout=60)
                return
            except ProcessLookupError:
                self.process.wait(timeout=60)
                return
            except subprocess.TimeoutExpired:
                continue


def prepare(cpu):
    os.sched_setaffinity(0, {cpu})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def cpus():
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


def server_cpu():
    return cpus()[0]


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def free_port():
    """A port below those that the system gives to clients: whoever connects before the server
    listens could else be connected to itself."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def load(mode, running, *words, pid=True):
    """Runs the load generator on the other CPU; its line of JSON."""
    command = [str(LOAD), mode, "--port", str(running.port), *map(str, words)]
    if pid:
        command += ["--pid", str(running.pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600,
                          preexec_fn=lambda: prepare(cpus()[1]))
    if done.returncode:
        raise SystemExit(f"{running.server.name}, {mode} {' '.join(map(str, words))}: "
                         f"{done.stderr.strip()}")
    return json.loads(done.stdout)


def load_client(client, wrapper=(), environment=None, pid=True, **words):
    """Runs the load generator as the server that a client dials: its line of JSON."""
    port = free_port()
    serve = [str(LOAD), "serve", "--port", str(port), *arguments(words)]
    with subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          preexec_fn=lambda: prepare(cpus()[1])) as serving:
        if serving.stdout.readline() != "listening\n":
            raise SystemExit(f"the load generator does not serve: {serving.stderr.read()}")
        dialled = subprocess.Popen(
            [*wrapper, *client.words(port, DIAL, words["connections"])], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=lambda: prepare(server_cpu()),
            env={**os.environ, **(environment or {})})
        try:
            out, error = serving.communicate(f"{dialled.pid if pid else ''}\n", timeout=600)
        finally:
            serving.kill()
            dialled.terminate()
            dialled.wait(timeout=60)
    if serving.returncode:
        raise SystemExit(f"{client.name}, as a client: {error.strip()}")
    return json.loads(out)


def arguments(words):
    """Options of the load generator: `--name value` for each, and `--name` for what is true."""
    for name, value in words.items():
        yield f"--{name}"
        if value is not True:
            yield str(value)


def say(text):
    print(text, file=sys.stderr, flush=True)


def build(extra=(), with_tls=False, with_clients=False):
    """Builds what can be built: the servers, and a word for each that is left out."""
    flags = TARGET_CPU.get(os.uname().machine)
    environment = {**os.environ, **({"RUSTFLAGS": f"-C target-cpu={flags}"} if flags else {})}
    say("building the Rust servers and the load generator")
    cargo = ["cargo", "build", "--release", "--quiet"]
    if with_tls:
        subprocess.run([*cargo, "-p", "bench-wirewheel", "--features", "tls"], cwd=HERE, env=environment, check=True)
        shutil.copy(RELEASE / "bench-wirewheel", RELEASE / "bench-wirewheel-tls")
    if with_clients:
        ours = build_client()  # before the others, which are to be there without its features
    subprocess.run(cargo, cwd=HERE, env=environment, check=True)
    rust = lambda name: str(RELEASE / f"bench-{name}")
    tokio = rust("tokio-tungstenite")
    servers = [
        Server("wirewheel", [rust("wirewheel"), "{port}", "{mode}"], ALL_MODES, rust("wirewheel")),
        Server("floor", [rust("floor"), "{port}", "{mode}"], ["echo", "broadcast"], rust("floor")),
        Server("tokio-tungstenite", [tokio, "{port}", "{mode}", "{certificate}", "{key}"],
               ["echo", "broadcast", "large", *TLS_MODES], tokio),
        Server("tokio-tungstenite, 4 KiB", [tokio, "{port}", "{mode}", "4k"],
               ["echo", "broadcast", "large"], tokio),
        Server("hyper", [rust("hyper"), "{port}"], REQUESTS, rust("hyper")),
        Server("fastwebsockets", [rust("fastwebsockets"), "{port}"], ["echo"],
               rust("fastwebsockets")),
    ]
    if with_tls:
        with_tls = rust("wirewheel-tls")
        servers.insert(1, Server(WITH_TLS, [with_tls, "{port}", "{mode}"], ["echo", *TLS_MODES], with_tls))
    if with_clients:
        servers += [
            client("wirewheel", ours), client("tokio-tungstenite", tokio),
            client("tokio-tungstenite, 4 KiB", tokio, "4k"),
            Server("wirewheel", [ours, "{port}", "{mode}"], ["loops"]),
        ]
    left_out = {}
    for make in (libwebsockets, node_ws, nginx):
        name, made = make()
        if isinstance(made, str):
            left_out[name] = made
        else:
            servers += made
    for word in extra:
        name, _, command = word.partition("=")
        words = command.split()
        modes = set(TLS_MODES) if "{key}" in command else {"echo"}
        if "{mode}" in command:
            modes |= ALL_MODES
        servers.append(Server(name, words, modes, shutil.which(words[0]) if words else None))
    for name, why in left_out.items():
        say(f"left out: {name}: {why}")
    return servers, left_out


def client(name, program, *more):
    """A program as a client, by the name of the server that it is otherwise."""
    return Server(name, [program, "{port}", DIAL, "{connections}", *more], [DIAL])


def build_client():
    """Builds wirewheel with its client role and several loops; the program."""
    flags = TARGET_CPU.get(os.uname().machine)
    environment = {**os.environ, **({"RUSTFLAGS": f"-C target-cpu={flags}"} if flags else {})}
    say("building wirewheel as a client")
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "bench-wirewheel", "--features", "client,loops",
                    "-p", "bench-load"], cwd=HERE, env=environment, check=True)
    program = RELEASE / "bench-wirewheel-client"
    shutil.copy(RELEASE / "bench-wirewheel", program)
    return str(program)


def libwebsockets():
    name, target = "libwebsockets", HERE / "target" / "bench-libwebsockets"
    say("building the libwebsockets server")
    done = subprocess.run(["cc", "-O2", "-o", str(target),
                           str(HERE / "libwebsockets" / "server.c"), "-lwebsockets"],
                          capture_output=True, text=True) if shutil.which("cc") else None
    if done is None or done.returncode:
        return name, "needs a C compiler and Debian's libwebsockets-dev"
    return name, [Server(name, [str(target), "{port}"], ["echo"], str(target))]


def node_ws():
    name, folder = "npm ws", HERE / "ws"
    if not (shutil.which("node") and shutil.which("npm")):
        return name, "needs node and npm"
    if not (folder / "node_modules").exists():
        say("installing npm ws")
        done = subprocess.run(["npm", "ci", "--silent"], cwd=folder, capture_output=True)
        if done.returncode:
            return name, "npm ci failed"
    modes = ["echo", "broadcast", "broadcast-deflate"]
    return name, [Server(name, ["node", str(folder / "server.js"), "{port}", "{mode}"], modes)]


def nginx():
    """As it is configured by default, and keeping files open; installed where that is possible."""
    name, search = "nginx", os.environ.get("PATH", "") + ":/usr/sbin"
    if not shutil.which(name, path=search) and os.geteuid() == 0:
        say("installing nginx")
        subprocess.run([HERE.parent.parent / ".ci" / "proxy", "--install"])
    program = shutil.which(name, path=search)
    if not program:
        return name, "needs Debian's nginx-light"
    return name, [Nginx(name, program),
                  Nginx("nginx, files kept open", program, "open_file_cache max=16; open_file_cache_valid 60s;")]


def stripped_bytes(server):
    if server.binary is None or not shutil.which("strip"):
        return None
    target = HERE / "target" / "stripped"
    done = subprocess.run(["strip", "-o", str(target), server.binary], capture_output=True)
    return target.stat().st_size if done.returncode == 0 else None
