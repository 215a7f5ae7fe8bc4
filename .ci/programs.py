"""The examples and the hub, built for scripts that let other programs loose on them: as a release, or of the profile
for development with PROFILE=debug, in which `.ci/run` has them built already. And those other programs.
"""
import contextlib
import os
import pathlib
import random
import shutil
import socket
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROFILE = os.environ.get("PROFILE", "release")
HUB, EXAMPLES = ROOT / "target" / PROFILE / "wirewheel-hub", ROOT / "target" / PROFILE / "examples"
# Those that `.ci/run` tests with.
FEATURES = ["--features", "json,tls-client-auth,client"]
# With these as well, `cargo test` has built the examples by then.
OF_TESTS = ",testing,tungstenite" if PROFILE == "debug" else ""


def install(packages):
    """Installs with apt-get the packages of those programs that are missing, which needs root."""
    missing = [package for name, package in packages.items() if not found(name)]
    if missing:
        subprocess.run([ROOT / ".ci" / "apt", *missing], check=True)


def found(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")


def build(*what):
    """Builds what cargo is told to."""
    release = [] if PROFILE == "debug" else ["--release"]
    subprocess.run(["cargo", "build", "--locked", *release, *what], cwd=ROOT, check=True)


def examples(*names):
    """Builds these examples."""
    build(FEATURES[0], FEATURES[1] + OF_TESTS, *(word for name in names for word in ("--example", name)))


def hub():
    build("--package", "wirewheel-hub")


def free_port():
    """A port below those that the system gives to who asks for any: nobody is given it before it is listened on."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(10_000, 30_000)))
            return probe.getsockname()[1]
