"""The client role against servers of other makes, through proxies, and through a server's restarts; for .ci/interop."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import programs

ROOT = pathlib.Path(__file__).resolve().parent.parent
CERTIFICATES = ROOT / "tests" / "certificates"
AUTHORITY, CERTIFICATE = CERTIFICATES / "authority.pem", (CERTIFICATES / "box.pem", CERTIFICATES / "box.key")
TEST = ["cargo", "test", "--locked", *programs.FEATURES, "--test", "dialled_peers", "--",
        "--ignored", "--nocapture"]

PYTHON_SERVER = """
import ssl, sys
from websockets.sync.server import serve

secured = None
if sys.argv[1:]:
    secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secured.load_cert_chain(*sys.argv[1:])

def echo(connection):
    for message in connection:
        connection.send(message)

with serve(echo, "127.0.0.1", 0, max_size=None, ssl=secured) as server:
    print(server.socket.getsockname()[1], flush=True)
    server.serve_forever()
"""

NODE_SERVER = """
const { WebSocketServer } = require("ws");
const files = process.argv.slice(1);
const read = (name) => require("fs").readFileSync(name);
const http = files.length === 0
  ? require("http").createServer() : require("https").createServer({ cert: read(files[0]), key: read(files[1]) });
const server = new WebSocketServer({ server: http, perMessageDeflate: { threshold: 0 } });
http.listen(0, "127.0.0.1", () => console.log(http.address().port));
server.on("connection", (client) => client.on("message", (data, binary) => client.send(data, { binary })));
"""

# A cloud that greets, so that the client knows it is alive, and says all that it has heard when it is asked.
CLOUD = """
import json, sys, threading
from websockets.sync.server import serve

values = {}

def gateway(connection):
    if connection.request.path == "/values":
        connection.send(json.dumps(values))
        return
    connection.send(json.dumps({"id": 0, "to": "nobody", "command": "hello"}))
    for message in connection:
        message = json.loads(message)
        if message["type"] == "reading":
            values[message["sensor"]] = message["value"]

with serve(gateway, "127.0.0.1", int(sys.argv[1])) as server:
    print("listening", flush=True)
    server.serve_forever()
"""

# A device with 20 sensors, each of which reports every 20 ms until standard input ends; the last values are printed.
DEVICE = """
import json, sys, threading
from websockets.sync.client import connect

ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
values, beat = {}, 0
with connect(sys.argv[1], additional_headers={"Authorization": "Bearer secret"}) as device:
    while not ended.wait(0.02):
        beat += 1
        for sensor in range(20):
            values["sensor-%d" % sensor] = beat * 100 + sensor
        for sensor, value in values.items():
            device.send(json.dumps({"type": "reading", "sensor": sensor, "value": value}))
    print(json.dumps(values))
"""

ASK = """
import json, sys
from websockets.sync.client import connect
with connect(sys.argv[1]) as client:
    print(client.recv())
"""


@contextlib.contextmanager
def running(command, **options):
    process = subprocess.Popen(command, text=True, **options)
    try:
        yield process
    finally:
        # Told, and not killed at once: a proxy has processes of its own, which it ends.
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait(60)


@contextlib.contextmanager
def server_of(command, environment):
    """A server that prints its port."""
    with running(command, stdout=subprocess.PIPE, env=environment) as process:
        yield int(process.stdout.readline())


@contextlib.contextmanager
def proxy_of(name, configuration, command):
    """A proxy at a port of its own; `configuration` and `command` are told the port and a folder or a file."""
    port = programs.free_port()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"{name}.conf"
        path.write_text(configuration(port, folder))
        program = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
        with running(command(program, path, folder)) as process:
            await_port(port, process)
            yield port


def await_port(port, process):
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        assert process.poll() is None and time.monotonic() < deadline, process.args
        time.sleep(0.05)


def converse(title, url, proxy=None, deflate=True, roots=None):
    environment = dict(os.environ, WIREWHEEL_PEER=url)
    if roots:
        environment["WIREWHEEL_PEER_ROOTS"] = str(roots)
    if proxy:
        environment["WIREWHEEL_PEER_PROXY"] = proxy
    if deflate:
        environment["WIREWHEEL_PEER_DEFLATE"] = "1"
    said = subprocess.run(TEST, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=300)
    echoes = [line for line in said.stdout.splitlines() if line.endswith(" echoes")]
    assert said.returncode == 0 and len(echoes) == 1, f"{title}: {said.stdout}"
    print(f"our client, {title}: {echoes[0]}")


def nginx(backend, certificate=None):
    """nginx in front of a server, with TLS if there is a certificate with its key."""
    paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    secured = "; ssl_certificate {}; ssl_certificate_key {}".format(*certificate) if certificate else ""
    ssl = " ssl" if certificate else ""
    return proxy_of("nginx", lambda port, folder: f"""
        daemon off; pid {folder}/pid; error_log stderr crit;
        events {{}}
        http {{ access_log off; {"".join(f"{kind}_temp_path {folder}/{kind};" for kind in paths)}
            server {{ listen 127.0.0.1:{port}{ssl}{secured}; location / {{
                proxy_pass http://127.0.0.1:{backend}; proxy_http_version 1.1;
                proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
                proxy_set_header Host $host; }} }} }}""",
                    lambda program, path, folder: [program, "-p", folder, "-c", path])


def haproxy(backend):
    return proxy_of("haproxy", lambda port, folder: f"""
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout tunnel 1h
frontend all
    bind 127.0.0.1:{port}
    default_backend one
backend one
    server one 127.0.0.1:{backend}
""", lambda program, path, folder: [program, "-f", path, "-db", "-q"])


def tinyproxy():
    return proxy_of("tinyproxy", lambda port, folder: f"""
Port {port}
Listen 127.0.0.1
Allow 127.0.0.1
Timeout 60
LogLevel Critical
PidFile "{folder}/pid"
BasicAuth me open-sesame
""", lambda program, path, folder: [program, "-d", "-c", path])


def restarts(python):
    """The gateway of the example `uplink`, a device with 20 sensors, and a cloud that is there for a second at a time."""
    port = programs.free_port()
    cloud = [python, "-c", CLOUD, str(port)]
    uplink = [programs.EXAMPLES / "uplink", "127.0.0.1:0", f"ws://127.0.0.1:{port}/gateway"]
    with running(uplink, stdout=subprocess.PIPE, env=dict(os.environ, UPLINK_TOKEN="secret")) as gateway:
        address = gateway.stdout.readline().split("http://")[1].strip()
        device = [python, "-c", DEVICE, f"ws://{address}/devices/bed"]
        with running(device, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sensors:
            began, rounds = time.monotonic(), 0
            while time.monotonic() < began + 20:
                with running(cloud, stdout=subprocess.PIPE) as present:
                    assert present.stdout.readline() == "listening\n"
                    time.sleep(1)
                    present.send_signal(signal.SIGTERM if rounds % 2 else signal.SIGKILL)
                    present.wait(60)
                rounds += 1
            newest = sensors.communicate("")[0].strip()
        with running(cloud, stdout=subprocess.PIPE) as present:
            assert present.stdout.readline() == "listening\n"
            # The gateway waits at most as long as it does after so many failures as there were.
            deadline = time.monotonic() + 150
            while True:
                values = subprocess.run([python, "-c", ASK, f"ws://127.0.0.1:{port}/values"], check=True, text=True,
                                        stdout=subprocess.PIPE).stdout.strip()
                if values and json.loads(values) == json.loads(newest):
                    break
                assert time.monotonic() < deadline, f"{values}, not {newest}"
                time.sleep(0.1)
    print(f"our client, a server that was started {rounds} times in 20 s: the newest of 20 keys is there")


def run(python, folder, versions):
    """All of it. `python` has the module `websockets`, `folder` the node module `ws`."""
    environment = dict(os.environ, NODE_PATH=str(folder / "node_modules"))
    converse("tungstenite's server", "tungstenite", deflate=False)
    node = ["node", "-e", NODE_SERVER, "--"]
    with server_of(node, environment) as port:
        converse(versions["ws"], f"ws://127.0.0.1:{port}/")
    with server_of([python, "-c", PYTHON_SERVER], environment) as port:
        converse(versions["websockets"], f"ws://127.0.0.1:{port}/")
        for name, between in (("nginx", nginx), ("HAProxy", haproxy)):
            with between(port) as front:
                converse(f"{versions['websockets']} behind {name}", f"ws://127.0.0.1:{front}/")
        with tinyproxy() as front:
            converse(f"{versions['websockets']} through tinyproxy", f"ws://127.0.0.1:{port}/",
                     proxy=f"http://me:open-sesame@127.0.0.1:{front}")
        with nginx(port, CERTIFICATE) as front:
            converse(f"{versions['websockets']} behind nginx, wss", f"wss://127.0.0.1:{front}/", roots=AUTHORITY)
    for title, command in ((versions["ws"], node), (versions["websockets"], [python, "-c", PYTHON_SERVER])):
        with server_of([*command, *CERTIFICATE], environment) as port:
            converse(f"{title}, wss", f"wss://127.0.0.1:{port}/", roots=AUTHORITY)
            if command is not node:
                with tinyproxy() as front:
                    converse(f"{title}, wss through tinyproxy", f"wss://127.0.0.1:{port}/", roots=AUTHORITY,
                             proxy=f"http://me:open-sesame@127.0.0.1:{front}")
    restarts(python)
