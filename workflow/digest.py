"""What a person reads last: the table after a run, the digest of failures after a broken one."""

import re
import shutil
from pathlib import Path

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def summary(study) -> str:
    """CCC tables in plain text and where everything lies."""
    from evaluation.render import to_terminal

    width = shutil.get_terminal_size((120, 40)).columns
    parts = []
    for name in study.tables:
        path = Path(study.results) / "tables" / name / "ccc.csv"
        try:
            parts.append("\n" + to_terminal(path.read_text(encoding="utf-8"), width))
        except (OSError, KeyError, ValueError, TypeError, IndexError):
            parts.append(f"\n{path} cannot be shown")
        parts.append(f"tables   {path.parent}/ccc.{{csv,md,tex}}")
    parts.append(f"curves   {study.results}/curves/<run>/<dataset>.png")
    parts.append(f"quality  {study.results}/qc/qc.tsv")
    parts.append(f"report   snakemake --report {study.results}/report.zip")
    return "\n".join(parts)


def failures(text: str) -> list[dict[str, str]]:
    """Failed jobs of a Snakemake log: rule, item (its wildcards or message) and log file."""
    found = []
    blocks = re.split(
        r"(?m)^(?=\[.*\d{4}\]\s*$|Error in rule |rule |localrule |RuleException)",
        ANSI.sub("", text),
    )
    for block in blocks:
        match = re.match(r"Error in rule (?P<rule>[\w-]+)", block)
        if not match:
            continue
        log = re.search(r"^\s+log: (?P<path>\S.*?)(?: \(check log file.*)?$", block, re.M)
        message = re.search(r"^\s+message: (?P<text>.*)$", block, re.M)
        entry = {
            "rule": match["rule"],
            "item": message["text"].strip() if message else "",
            "log": log["path"].strip() if log else "",
        }
        if entry not in found:
            found.append(entry)
    return found


def last_error(log_file: Path) -> str:
    """The error a job left in its log: its own sentence, else the last line."""
    try:
        lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "(no log was written: the job was killed or never started)"
    for line in lines:
        if "error: " in line:
            return line.split("error: ", 1)[1].strip()
        if "unexpected error in " in line:
            return line.split(" | ", 1)[-1].strip()
    return next((line.strip() for line in reversed(lines) if line.strip()), "(empty log)")


def exclude_line(item: str, reason: str) -> str | None:
    """A line for the sheet when the failed item is one participant, else None."""
    match = re.search(r"(?P<dataset>[^\s/]+)/(?P<session>[^\s/]+) (?P<role>\S+)\s*$", item)
    if not match:
        return None
    return (
        f"{match['dataset']} {match['session']} {match['role']}: set exclude=yes and "
        f"exclude_reason={' '.join(reason.split())[:80]!r}"
    )


def digest(study, snakemake_log: str) -> str:
    """Rule, item, last error line, log path and a ready-to-paste cure of every failed job."""
    try:
        text = Path(snakemake_log).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = ["", "What failed:"]
    for failure in failures(text):
        reason = last_error(Path(failure["log"])) if failure["log"] else ""
        lines.append(f"- {failure['rule']} · {failure['item']}")
        lines.append(f"    {reason}")
        if failure["log"]:
            lines.append(f"    log: {failure['log']}")
        exclude = exclude_line(failure["item"], reason)
        if exclude:
            lines.append(f"    to go on without it, in {study.config['sessions']}: {exclude}")
    if len(lines) == 2:
        lines.append(f"- see {snakemake_log}")
    lines.append("Everything else is kept; the same command goes on from here.")
    lines.append("After a kill: `snakemake --unlock`, then the same command.")
    return "\n".join(lines)
