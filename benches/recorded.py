"""The history of the figures: one line of JSON for each figure of a commit, in benches/history.jsonl.

`benches/instructions --record` and `benches/run --record` append to it, `benches/history` makes a page of it.
"""

import datetime
import json
import statistics
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE / "history.jsonl"
OURS = ("wirewheel", "wirewheel with tls")
# What the figures are of: the library, and the server that measures it.
MEASURED = ["src", "sendq", "Cargo.toml", "Cargo.lock", "benches/peers"]


def git(*words):
    return subprocess.run(["git", *words], cwd=HERE.parent, check=True, capture_output=True, text=True).stdout.strip()


def commit():
    """What is checked out, with a plus where it was changed."""
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *MEASURED)
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def read():
    return [json.loads(line) for line in DATA.read_text().splitlines()] if DATA.exists() else []


def append(figures):
    """Adds figures of what is checked out: one that the commit has already is replaced."""
    own = {"commit": commit(), "date": str(datetime.date.today())}
    new = [{**own, **figure} for figure in figures]
    same = {(one["commit"], one["row"]) for one in new}
    kept = [one for one in read() if (one["commit"], one["row"]) not in same]
    DATA.write_text("".join(json.dumps(one) + "\n" for one in kept + new))


def of_instructions(results):
    """The figures of `benches/instructions`: scenario -> server -> instructions."""
    for scenario, found in results.items():
        ours = next((found[name] for name in OURS if name in found), None)
        if ours is not None:
            yield {"row": scenario, "unit": "instructions", "figure": round(ours, 1)}


def of_run(found):
    """Those of `benches/run`: CPU time against each other server, within a round, and bytes of idle connections.
    Ratios are compared with those of the same processor alone."""
    processor = found["machine"].partition(",")[0]
    for scenario, servers in found["cpu"].items():
        ours = next((servers[name] for name in OURS if name in servers), [])
        for name, theirs in servers.items():
            ratios = [a["server_us"] / b["server_us"] for a, b in zip(ours, theirs)]
            if name not in OURS and len(ratios) > 1:
                low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
                yield {"row": f"{scenario} / {name}", "unit": "CPU", "figure": round(middle, 3),
                       "quartiles": [round(low, 3), round(high, 3)], "processor": processor}
    for key, row in (("fresh", "idle connection"), ("after_64k", "idle connection after 64 KiB")):
        if key in found["memory"].get("wirewheel", {}):
            yield {"row": row, "unit": "bytes", "figure": round(found["memory"]["wirewheel"][key], 1)}
