"""From answers to the table."""

import dataclasses
import datetime
import re

import fixtures

BEGIN, END = "<!-- made by scripts/reader-matrix -->", "<!-- end -->"
SHOWN_ROWS = 6
MESSAGE_CHARACTERS = 160

# A reader may refuse, but only in these words; any other error is a failure of this script or of the
# reader, and no cell of the table.
REFUSALS = {
    "duckdb": [],
    "spark": [],
    "trino": [],
    "pyiceberg": ["does not yet support equality deletes"],
}


@dataclasses.dataclass
class Cell:
    """`state` is right, refused, WRONG or FAILED; `details` say why it is not right."""

    state: str
    details: list
    message: str = ""
    of: str = ""


@dataclasses.dataclass
class Line:
    reader: str
    title: str
    version: str
    cells: dict


def shortened(message):
    text = " ".join(message.split())
    # Paths and ports differ from run to run.
    text = re.sub(r"(file|s3|http)://\S+|/tmp/\S+", "…", text)
    return text if len(text) <= MESSAGE_CHARACTERS else text[:MESSAGE_CHARACTERS].rstrip() + " …"


def judged(reader, query, expected, found):
    """(state, why) of one answer."""
    if message := found.get("refused"):
        known = any(re.search(pattern, message) for pattern in REFUSALS[reader])
        return ("refused" if known else "FAILED"), message
    if (found["count"], found["digest"]) == (expected["count"], expected["digest"]):
        return "right", ""
    missing = [row for row in expected["rows"] if row not in found["rows"]][:SHOWN_ROWS]
    surplus = [row for row in found["rows"] if row not in expected["rows"]][:SHOWN_ROWS]
    what = f"{found['count']} rows, not {expected['count']}; missing {missing}, surplus {surplus}"
    return "WRONG", f"{query.of('postgres', 't')}: {what}"


def cell(reader, queries, expected, found):
    judgements = [judged(reader, *three) for three in zip(queries, expected, found, strict=True)]
    states = [state for state, _ in judgements]
    worst = next(s for s in ("WRONG", "FAILED", "refused", "right") if s in states)
    details = [f"{state}: {why}" for state, why in judgements if state != "right"]
    message = next((shortened(why) for state, why in judgements if state == "refused"), "")
    part = "" if states.count(worst) == len(states) else f"{states.count(worst)} of {len(states)}"
    return Cell(worst, details, message, part)


def line(reader, lake, found, right):
    cells, at = {}, 0
    for fixture in fixtures.FIXTURES:
        answers = found["answers"][at : at + len(fixture.queries)]
        at += len(fixture.queries)
        cells[fixture.name] = cell(reader, fixture.queries, right[fixture.name], answers)
    return Line(reader, lake.title, found["version"], cells)


def complaints(line):
    """What is to be told at once: everything but right and refused."""
    for name, cell in line.cells.items():
        if cell.state not in ("right", "refused"):
            yield f"  {line.version}, {line.title}, {name}: {cell.state}"
            yield from (f"    {detail}" for detail in cell.details)


@dataclasses.dataclass
class Report:
    lines: list
    frazil: str
    postgres: str
    lakes: list

    def markdown(self):
        """One table a catalog: a row a fixture, a column a reader."""
        notes, text = [], []
        for lake in self.lakes:
            lines = [line for line in self.lines if line.title == lake.title]
            text += [f"### {lake.title}", "", f"| | {' | '.join(line.version for line in lines)} |"]
            text.append("|---" * (len(lines) + 1) + "|")
            for fixture in fixtures.FIXTURES:
                cells = " | ".join(self.shown(line.cells[fixture.name], notes) for line in lines)
                text.append(f"| {fixture.what} | {cells} |")
            text.append("")
        text += [*(f"[^{at}]: {note}" for at, note in enumerate(notes, 1)), ""]
        queries = sum(len(fixture.queries) for fixture in fixtures.FIXTURES)
        text.append(
            f"Made on {datetime.date.today().isoformat()} with frazil {self.frazil} and PostgreSQL "
            f"{self.postgres}. Each column is the answers to {queries} queries, compared with Postgres's."
        )
        return "\n".join(text)

    @staticmethod
    def shown(cell, notes):
        if cell.state == "right":
            return "right"
        text = cell.state if cell.state == "refused" else f"**{cell.state}**"
        text += f" ({cell.of})" if cell.of else ""
        if cell.message:
            if cell.message not in notes:
                notes.append(cell.message)
            text += f"[^{notes.index(cell.message) + 1}]"
        return text

    def write(self, file):
        """Replaces what stands between the marks."""
        before, _, rest = file.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        file.write_text(f"{before}{BEGIN}\n{self.markdown()}\n{END}{after}")

    def exit_status(self):
        states = {cell.state for line in self.lines for cell in line.cells.values()}
        return 0 if states <= {"right", "refused"} else 1
