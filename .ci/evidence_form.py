"""Whether the rows of EVIDENCE.md have their form: every claim has its fields, and its command names programs, steps and
tests that exist. `cargo test` rows are held against the tests in the sources: every filter has to match at least one.
"""
import os
import re
import shlex

import evidence_table
from evidence_table import ROOT

# Members that have tests, by the names of their packages.
FOLDERS = {"wirewheel-hub": ROOT / "hub", "wirewheel-mqtt": ROOT / "mqtt"}
# An attribute of a test, whatever stands between it and its function.
TEST = re.compile(r"^( *)#\[test\]\n(?:^ *(?:#\[.*|//.*|\]|[\w ]+=.*,?)\n)*^ *fn (\w+)", re.M)
INLINE = re.compile(r"^( *)(?:pub(?:\(crate\))? )?mod (\w+) \{", re.M)


def module_of(path, root):
    parts = list(path.relative_to(root).with_suffix("").parts)
    return parts[:-1] if parts[-1] in ("mod", "main", "lib") else parts


def tests_under(root, files):
    """The paths of the tests in these files, as `cargo test` prints them."""
    for file in files:
        text = file.read_text()
        inline = [(found.start(), len(found[1]), found[2]) for found in INLINE.finditer(text)]
        for test in TEST.finditer(text):
            around = [name for start, indent, name in inline if start < test.start() and indent < len(test[1])]
            yield "::".join([*module_of(file, root), *around[-1:], test[2]])


class Tests:
    """The tests of each target, read from the sources."""

    def __init__(self):
        self.known = {}

    def of_folder(self, root):
        return list(tests_under(root, sorted(root.rglob("*.rs"))))

    def of(self, package, kind, name):
        key = (package, kind, name)
        if key not in self.known:
            self.known[key] = self.find(FOLDERS.get(package, ROOT), kind, name)
        return self.known[key]

    def find(self, base, kind, name):
        if kind in ("lib", "bin"):
            return self.of_folder(base / "src")
        folder = base / ("examples" if kind == "example" else "tests") / name
        if (folder / "main.rs").exists():
            return self.of_folder(folder) or None  # None: it has a harness of its own
        file = folder.with_suffix(".rs")
        if not file.exists():
            return []
        # With its modules, which `#[path]` takes from the folder of its name.
        return list(tests_under(file.parent, [file])) + self.of_folder(folder)


def filters_of(words):
    """The package, the target and the filters of `cargo test`."""
    package = kind = name = None
    filters, before = [], True
    words = iter(words)
    for word in words:
        if word == "--":
            before = False
        elif before and word in ("-p", "--test", "--bin", "--example", "--features"):
            value = next(words)
            if word == "--features":
                continue
            if word == "-p":
                package = value
            else:
                kind, name = word[2:], value
        elif before and word == "--features":
            next(words)
        elif before and word in ("--lib", "--doc"):
            kind = word[2:]
        elif not word.startswith("-"):
            filters.append(word)
    return package, kind, name, filters


def check_cargo_test(words, tests):
    package, kind, name, filters = filters_of(words)
    if package not in (None, "wirewheel-hub", "wirewheel-mqtt"):
        return f"there is no package {package}"
    if kind is None and not filters:
        missing = []  # all there are
    elif kind == "doc":
        pages = [path.stem for path in (ROOT / "src").rglob("*") if path.suffix in (".rs", ".md")] + ["guide"]
        missing = [one for one in filters if not any(one in page for page in pages)]
    else:
        found = tests.of(package, kind, name)
        if found == []:
            return f"there are no tests in --{kind} {name or ''}"
        # The path in its target: a file of `tests/` is no module of its own name.
        own = [path.removeprefix(f"{name}::") for path in found or []]
        missing = [one for one in filters if found and not any(one in path for path in own)]
    return f"no test is called {', '.join(missing)}" if missing else None


def steps(script):
    return set(re.findall(r"^(\w+)\(\) \{", script.read_text(), re.M))


def check_command(command, tests):
    """What is wrong with a command, or nothing."""
    words = shlex.split(command)
    while words and re.match(r"^\w+=", words[0]):
        words.pop(0)  # the environment
    if not words:
        return "there is no command"
    program, rest = words[0], words[1:]
    if program == "cargo":
        if rest[0] == "test":
            return check_cargo_test(rest[1:], tests)
        if rest[0] == "bench":
            name = rest[rest.index("--bench") + 1]
            base = FOLDERS.get(rest[rest.index("-p") + 1], ROOT) if "-p" in rest else ROOT
            return None if (base / "benches" / f"{name}.rs").exists() else f"there is no benchmark {name}"
        return None if rest[0] in ("tree", "build", "run") else f"cargo {rest[0]} is not known here"
    file = ROOT / program
    if "/" not in program or not file.is_file() or not os.access(file, os.X_OK):
        return f"{program} is no program of the repository"
    if program in (".ci/run", ".ci/full"):
        missing = [step for step in rest if step not in steps(file)]
        return f"{program} has no step {', '.join(missing)}" if missing else None
    known = set(re.findall(r"--[\w-]+", file.read_text()))
    missing = [word for word in rest if word.startswith("--") and word.partition("=")[0] not in known]
    return f"{program} has no option {', '.join(missing)}" if missing else None


def check_row(row, tests):
    """What is wrong with a row."""
    if len(row.cells) != len(evidence_table.FIELDS):
        yield f"{len(row.cells)} fields instead of {len(evidence_table.FIELDS)}"
        return
    for field, cell in zip(evidence_table.FIELDS, row.cells):
        if not cell:
            yield f"no {field}"
    if not row.cells[3].isdigit():
        yield f"seconds are {row.cells[3]!r}: give a whole number"
    if not row.commands:
        yield "no command in backticks"
    if not row.expected:
        yield "no expected line in backticks"
    beside = evidence_table.EXPECTED.sub("", row.cells[2]).strip(" ;,")
    if re.sub(r"[ ;,]|and", "", beside):
        yield f"expected lines are in backticks, with `no` before or a limit behind them, not {beside!r}"
    if len(row.commands) > 1 and len(row.expected) not in (1, len(row.commands)):
        yield f"{len(row.commands)} commands and {len(row.expected)} expected lines"
    for line in row.expected:
        if line.limit and not line.pattern().groups:
            yield f"{line.text}: a limit, and no N that it is of"
    for command in row.commands:
        wrong = check_command(command, tests)
        if wrong:
            yield f"{command}: {wrong}"


def check(found):
    """What is wrong with the document's rows."""
    tests = Tests()
    if len(found) < 80:
        return [f"only {len(found)} rows were found in {evidence_table.DOCUMENT.name}"]
    if len(tests.of(None, "lib", None)) < 200:
        return ["the tests of the library were not found in its sources"]
    return [f"{evidence_table.DOCUMENT.name}:{row.line + 1}: {what}" for row in found for what in check_row(row, tests)]
