"""Write a results table as csv (numbers), Markdown and LaTeX (text), and read a csv for a terminal."""

import csv
import io
import re
from dataclasses import dataclass, field

from evaluation.metrics import TITLES, Moments
from evaluation.summary import Cell

FIELDS = ("std", "low", "high", "n_seeds", "n_sessions", "n_excluded", "metric")
COMPUTED, REPORTED = "computed", "reported"
NOTHING = "–"
NOTE_SEPARATOR = " | "
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
BLOCK_START = re.compile(r"([+-]|#{1,6})(\s|$)|-[-\s]*$|=+$")  # of Markdown


@dataclass
class Row:
    """One row: cells by column for a computed run, or published values as printed for a reported one."""

    run: str
    kind: str
    cells: dict[str, Cell] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.run} (reported)" if self.kind == REPORTED else self.run


@dataclass
class Table:
    """Columns in order with a subtitle each (sessions, exclusions), rows, and footnotes.

    titles: what Markdown and LaTeX write above a column, where that is not its name.
    """

    columns: list[str]
    subtitles: dict[str, str]
    rows: list[Row]
    footnotes: list[str]
    titles: dict[str, str] = field(default_factory=dict)

    def title(self, column: str) -> str:
        return self.titles.get(column, column)


def decimals(value: float) -> str:
    """Two decimals, without a negative zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def cell_text(cell: Cell) -> str:
    """``0.71 ± 0.02 [0.60, 0.79]``; what does not exist is left out."""
    if cell.mean is None:
        return NOTHING
    text = decimals(cell.mean)
    if cell.std is not None:
        text += f" ± {decimals(cell.std)}"
    if cell.low is not None and cell.high is not None:
        text += f" [{decimals(cell.low)}, {decimals(cell.high)}]"
    return text


def _text(row: Row, column: str) -> str:
    if row.kind == REPORTED:
        return row.published.get(column, NOTHING)
    return cell_text(row.cells[column])


def to_csv(table: Table) -> str:
    """One line per run; per column its mean and std, low, high, n_*, metric."""
    header = ["run", "kind"]
    for column in table.columns:
        header += [column, *(f"{column} {name}" for name in FIELDS)]
    lines = [[*header, "notes"]]
    for row in table.rows:
        line = [row.title, row.kind]
        for column in table.columns:
            if row.kind == REPORTED:
                line += [row.published.get(column, ""), *[""] * len(FIELDS)]
            else:
                cell = row.cells[column]
                line += [_csv_value(cell.mean), *(_csv_value(getattr(cell, f)) for f in FIELDS)]
        notes = [plain(note.replace("|", "/")) for note in row.notes]
        lines.append([*line, NOTE_SEPARATOR.join(notes)])
    return csv_text(lines)


def csv_text(lines: list[list]) -> str:
    """Comma-separated text with quoting where needed; newline at each line's end.

    Text that a spreadsheet would run as a formula gets an apostrophe in front; numbers do not.
    """
    out = io.StringIO()
    safe = [[_no_formula(v) if isinstance(v, str) else v for v in line] for line in lines]
    csv.writer(out, lineterminator="\n").writerows(safe)
    return out.getvalue()


def _no_formula(text: str) -> str:
    formula = text.lstrip()[:1] in set("=+-@") or text[:1] in set("\t\r\n")
    return f"'{text}" if formula and text and not NUMBER.fullmatch(text) else text


def _csv_value(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def printable(text: str) -> str:
    """The text with a space for every control character, which a terminal or LaTeX would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def plain(text: str) -> str:
    """One line without control characters."""
    return " ".join(printable(text).split())


def escape_markdown(text: str) -> str:
    """Plain text inside a Markdown table cell or list item: no tag, entity, link, list or heading.

    Underscores inside a word need no escape.
    """
    text = re.sub(r"([\\|<>&*`~\[\]])", r"\\\1", plain(text))
    if BLOCK_START.match(text):
        text = f"\\{text}"
    # A backslash before a digit would be printed; as an entity it starts no numbered list.
    text = re.sub(r"^(\d)(\d*[.)](?:\s|$))", lambda m: f"&#{ord(m[1])};{m[2]}", text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def to_markdown(table: Table) -> str:
    """A Markdown table with footnotes below."""
    header = ["run"] + [
        escape_markdown(table.title(c))
        + (f"<br>{escape_markdown(table.subtitles[c])}" if table.subtitles.get(c) else "")
        for c in table.columns
    ]
    body = [
        [escape_markdown(row.title)]
        + [_text(row, c).replace("[", "\\[") + row.marks.get(c, "") for c in table.columns]
        for row in table.rows
    ]
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(header, widths, strict=True)) + " |"]
    rules = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    lines.append("| " + " | ".join(rules) + " |")
    for line in body:
        cells = [line[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"- {escape_markdown(note)}" for note in table.footnotes]
    return "\n".join([*lines, "", *notes, ""])


def confusion_markdown(title: str, lines: list[list]) -> str:
    """A confusion matrix below the table; lines: header, then name, frames and shares of a class."""
    header, *body = [[escape_markdown(str(cell)) for cell in line] for line in lines]
    rule = ["---", *["---:"] * (len(header) - 1)]
    rows = ["| " + " | ".join(line) + " |" for line in (header, rule, *body)]
    what = "of the frames of a true class, the share predicted as each; all seeds together"
    return "\n".join(["", f"**{escape_markdown(title)}**: {what}.", "", *rows, ""])


LATIN = 0x17F  # the last letter that every LaTeX knows
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "–": "--",
    "†": r"$^\dagger$",
}


def escape_latex(text: str) -> str:
    """Plain text for LaTeX."""
    return "".join(LATEX.get(c, c) for c in plain(text))


def to_latex(table: Table) -> str:
    """A tabular with booktabs rules (needs \\usepackage{booktabs}) and the footnotes below."""
    columns = "l" + "r" * len(table.columns)
    lines = ["% needs \\usepackage{booktabs}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    written = [*map(table.title, table.columns), *(r.title for r in table.rows), *table.footnotes]
    if any(ord(c) > LATIN for c in escape_latex("".join(written))):
        lines.insert(1, "% has signs that pdflatex does not know: compile with xelatex or lualatex")
    lines.append(
        " & ".join(["run", *(escape_latex(table.title(c)) for c in table.columns)]) + r" \\"
    )
    subtitles = [escape_latex(table.subtitles.get(c, "")) for c in table.columns]
    lines.append(" & ".join(["", *(f"{{\\scriptsize {s}}}" for s in subtitles)]) + r" \\")
    lines.append("\\midrule")
    previous = None
    for row in table.rows:
        if previous == COMPUTED and row.kind == REPORTED:
            lines.append("\\midrule")
        previous = row.kind
        # Braces keep a leading "[" from being read as an optional argument of "\\".
        cells = [f"{{{escape_latex(_text(row, c) + row.marks.get(c, ''))}}}" for c in table.columns]
        lines.append(" & ".join([f"{{{escape_latex(row.title)}}}", *cells]) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}", ""]
    for note in table.footnotes:
        lines.append(f"\\par{{\\footnotesize {escape_latex(note)}}}")
    return "\n".join([*lines, ""])


def to_terminal(text: str, width: int = 120) -> str:
    """Lay a csv out for a terminal: the results table with its notes, any other csv as it is.

    Columns that do not fit into `width` characters follow in further blocks.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    header = next(csv.reader(io.StringIO(text)), [])
    if "kind" not in header or "notes" not in header:
        return _aligned([header, *([r[h] for h in header] for r in rows)], width)
    columns = [h for h in header if f"{h} n_seeds" in header]
    body = [[r["run"], *(_terminal_cell(r, c) for c in columns)] for r in rows]
    metrics = {c: r[f"{c} metric"] for c in columns for r in rows if r[f"{c} metric"]}
    sizes = ["", *(metric_text(metrics, c) + _size_text(rows, c) for c in columns)]
    notes: dict[str, list[str]] = {}
    for r in rows:
        for note in filter(None, r["notes"].split(NOTE_SEPARATOR)):
            notes.setdefault(note, []).append(r["run"])
    lines = [_aligned([["run", *columns], sizes, *body], width)]
    for note, runs in notes.items():
        who = "" if len(runs) == len(rows) else f" ({', '.join(runs)})"
        lines.append(f"  * {note}{who}")
    return "\n".join(lines)


def metric_text(metrics: dict[str, str], column: str) -> str:
    """``Cohen's kappa, `` in a table that has any other metric than CCC; else nothing."""
    if column not in metrics or set(metrics.values()) == {Moments.metric}:
        return ""
    return f"{TITLES[metrics[column]]}, "


def size_text(n_sessions: int, n_excluded: int) -> str:
    """``16 sessions, 1 excluded``: excluded counts participants."""
    return f"{n_sessions} session{'s' if n_sessions != 1 else ''}, {n_excluded} excluded"


def _size_text(rows: list[dict[str, str]], column: str) -> str:
    sizes = {
        (int(r[f"{column} n_sessions"]), int(r[f"{column} n_excluded"]))
        for r in rows
        if r[f"{column} n_sessions"]
    }
    scored = {s for s in sizes if s[0]} or sizes
    return size_text(*scored.pop()) if len(scored) == 1 else ""


def _terminal_cell(row: dict[str, str], column: str) -> str:
    if row["kind"] == REPORTED:
        return row[column] or NOTHING
    mean, std, low, high = (
        float(row[name]) if row[name] else None
        for name in (column, f"{column} std", f"{column} low", f"{column} high")
    )
    return cell_text(Cell(mean, std, low, high))


def _aligned(lines: list[list[str]], width: int) -> str:
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    blocks: list[list[int]] = [[]]
    for i in range(1, len(widths)):
        used = widths[0] + sum(2 + widths[k] for k in blocks[-1])
        if blocks[-1] and used + 2 + widths[i] > width:
            blocks.append([])
        blocks[-1].append(i)
    out = []
    for block in blocks:
        for line in lines:
            cells = [line[0].ljust(widths[0]), *(line[i].rjust(widths[i]) for i in block)]
            out.append("  ".join(cells).rstrip())
        out.append("")
    return "\n".join(out[:-1])
