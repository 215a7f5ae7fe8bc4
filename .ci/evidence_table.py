"""The rows of EVIDENCE.md: read from its tables, with what each line of a program's output has to be; and the results of
the last run, as JSON lines and in the last column.
"""
import dataclasses
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "EVIDENCE.md"
RESULTS = ROOT / ".ci" / "evidence.jsonl"
# What `git` compares: results, and the pages that are drawn of the figures, are no change of the sources.
SOURCES = ["--", ".", ":!EVIDENCE.md", ":!.ci/evidence.jsonl", ":!benches/history.*"]
FIELDS = ["claim", "command", "expected line", "seconds", "last result"]
SPAN = re.compile(r"`([^`]+)`")
# What a cell of expected lines is made of: a line, whether it is to be absent, and the limit of its first number.
EXPECTED = re.compile(r"(?P<no>no )?`(?P<line>[^`]+)`(?: (?P<bound>at most|at least) (?P<limit>\d[\d,.]*\d|\d))?")
NUMBER = r"(-?\d(?:[\d.,]*\d)?)"
# The part of a last result that is the script's; what follows is the remark of whoever wrote the row.
TOLD = re.compile(r"^\*\*(?:passed|met|missed|failed)\b.*?\*\*[.;,]? ?")
# What was written before there was a script, and says no more than it does.
EMPTY_REMARKS = {"passed", "met", "not run yet"}
# What is measured by the clock, and so by itself.
TIMED = re.compile(r"benches/(?:run|agree)|cargo bench|\.ci/(?:floods|idle|full (?:slow|broadcast))")
SUMMARY = re.compile(r"(?<=<!-- summary -->\n).*(?=\n<!-- /summary -->)")


def value(text):
    return float(text.replace(",", ""))


@dataclasses.dataclass
class Line:
    """A line that has to be there, or not to be there: `N` in it is a number, ` .. ` anything."""

    text: str
    absent: bool = False
    bound: str = ""
    limit: str = ""

    def pattern(self):
        parts = re.split(r"(?<!\w)(N|\.\.)(?!\w)", self.text)
        known = {"N": NUMBER, "..": ".*?"}
        inside = "".join(known.get(part, re.escape(part)) for part in parts)
        return re.compile(rf"(?<!\w){inside}(?!\w)")

    def found(self, output):
        """The lines that match, each with its numbers. Without a limit a number of zero is none."""
        for line in output.splitlines():
            match = self.pattern().search(line)
            if match and (self.limit or all(value(number) for number in match.groups())):
                yield line, match.groups()

    def keeps_limit(self, figure):
        if not self.limit:
            return True
        return value(figure) <= value(self.limit) if self.bound == "at most" else value(figure) >= value(self.limit)


@dataclasses.dataclass
class Row:
    number: int
    """In the order of the document, from 1."""
    line: int
    """Of the document."""
    cells: list

    @property
    def claim(self):
        return self.cells[0]

    @property
    def seconds(self):
        return int(self.cells[3]) if self.cells[3].isdigit() else 0

    @property
    def commands(self):
        return [unescaped(command) for command in SPAN.findall(self.cells[1])]

    @property
    def expected(self):
        return [Line(unescaped(one["line"]), bool(one["no"]), one["bound"] or "", one["limit"] or "")
                for one in EXPECTED.finditer(self.cells[2])]

    @property
    def is_by_hand(self):
        """Whether a command wants a program that is not there."""
        return any("COMMAND" in command for command in self.commands)

    @property
    def key(self):
        """A result belongs to what was run and what had to come."""
        return f"{self.cells[1]} | {self.cells[2]}"

    @property
    def measures_time(self):
        return any(TIMED.search(command) for command in self.commands)

    def steps(self):
        """Each command with the lines that its output must have: one command has them all, one line is for each
        command, otherwise each has its own."""
        commands, lines = self.commands, self.expected
        if len(commands) == 1:
            return [(commands[0], lines)]
        return [(command, lines if len(lines) == 1 else [lines[at]]) for at, command in enumerate(commands)]


def unescaped(text):
    return text.replace("\\|", "|")


def rows(text):
    """The rows of the tables of claims."""
    inside, number = False, 0
    for at, line in enumerate(text.splitlines()):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells == FIELDS:
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|--"):
            number += 1
            yield Row(number, at, cells)


def read_results():
    """The last result of each row, by its key."""
    if not RESULTS.exists():
        return {}
    return {found["row"]: found for found in map(json.loads, RESULTS.read_text().splitlines())}


def last_result(result, cell):
    """The cell that a result, or none, makes of the one that is there: its remark stays."""
    remark = TOLD.sub("", cell)
    if not result:  # that of another command or line does not count
        return remark or "not run yet"
    remark = "" if remark in EMPTY_REMARKS else remark
    word = result["verdict"]
    # How many tests passed changes with every test.
    figures = [] if word == "passed" else result["figures"]
    if result.get("why"):
        word += ": " + result["why"].replace("|", "\\|")
    elif figures:
        word += f": {', '.join(figures)}"
    return f"**{word}**. {remark}" if remark else f"**{word}**"


def seconds_of(result, cell):
    """What the row took, once it is another order of time than what stands there. On a busy machine it says nothing."""
    if not result or result["verdict"] == "failed" or result.get("busy"):
        return cell
    took = max(1, round(result["seconds"]))
    told = int(cell)
    return cell if told / 2 - 5 <= took <= told * 2 + 5 else str(took)


def summary(found, results):
    current = [results[row.key] for row in found if row.key in results]
    count = lambda *words: sum(one["verdict"] in words for one in current)
    days = sorted({one["date"] for one in current})
    when = "" if not days else f", {days[0]}" if len(days) == 1 else f", {days[0]} to {days[-1]}"
    return (f"{len(found)} rows; of the {len(current)} that the script has run last{when}: {count('passed', 'met')} passed, "
            f"{count('missed')} missed, {count('failed')} failed. The others have the results that were written by hand.")


def write(results):
    """Puts the results into the document and keeps those of its rows, one a line, in its order."""
    text = DOCUMENT.read_text()
    found = list(rows(text))
    lines = text.splitlines()
    for row in found:
        result = results.get(row.key)
        cells = [*row.cells[:3], seconds_of(result, row.cells[3]), last_result(result, row.cells[4])]
        lines[row.line] = f"| {' | '.join(cells)} |"
    text = SUMMARY.sub(lambda _: summary(found, results), "\n".join(lines) + "\n")
    DOCUMENT.write_text(text)
    kept = dict.fromkeys(row.key for row in found if row.key in results)
    RESULTS.write_text("".join(json.dumps(results[key], ensure_ascii=False) + "\n" for key in kept))
