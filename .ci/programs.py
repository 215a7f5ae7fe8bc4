"""The examples and the hub, built for scripts that let other programs loose on them: as a release, or of the profile
for development with PROFILE=debug, in which `.ci/run` has them built already.
"""
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROFILE = os.environ.get("PROFILE", "release")
HUB, EXAMPLES = ROOT / "target" / PROFILE / "wirewheel-hub", ROOT / "target" / PROFILE / "examples"
# Those that `.ci/run` tests with.
FEATURES = ["--features", "json,tls-client-auth,client"]


def build(*what):
    """Builds what cargo is told to."""
    release = [] if PROFILE == "debug" else ["--release"]
    subprocess.run(["cargo", "build", "--locked", *release, *what], cwd=ROOT, check=True)


def examples(*names):
    """Builds these examples."""
    build(*FEATURES, *(word for name in names for word in ("--example", name)))


def hub():
    build("--package", "wirewheel-hub")
