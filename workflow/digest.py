"""What a person reads last: the table after a run, the digest of failures after a broken one.

python -m workflow.digest [--configfile presets/noxi.yaml]     # the tables, and where all lies
"""

import argparse
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from formats.roles import role_of
from runtime.job import run_job
from store import layout
from workflow.unusable import unusable

ANSI = re.compile(r"\x1b\[[0-9;]*m")
# Module, log (in the shell's quotes) and end of a job's command line.
FAILED_COMMAND = re.compile(
    r"Command '.*?python -m ([\w.]+) .*?--log (.+?)'"
    r" (died with <Signals\.\w+: \d+>|returned non-zero exit status \d+)"
)
# What a process does to itself; any other signal comes from outside.
CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL")


def summary(study, tables: Iterable[str]) -> str:
    """The named CCC tables in plain text and where everything lies."""
    from evaluation.render import to_terminal

    width = shutil.get_terminal_size((120, 40)).columns
    parts = []
    for name in tables:
        path = Path(layout.table(study.results, name))
        try:
            parts.append("\n" + to_terminal(path.read_text(encoding="utf-8"), width))
        except (OSError, KeyError, ValueError, TypeError, IndexError):
            parts.append(f"\n{path} cannot be shown")
        parts.append(f"tables   {path.parent}/ccc.{{csv,md,tex}}")
    if study.unused_runs:
        parts.append(f"not built: no table names {', '.join(study.unused_runs)}")
    parts.append(f"curves   {layout.curves(study.results, '<run>', '*')}")
    parts.append(f"quality  {layout.quality_table(study.results)}")
    parts += [f"unusable {line}" for line in unusable(study)]
    measured = Path(layout.table(study.results, "efficiency", "efficiency", "md"))
    if measured.exists():
        parts.append(f"cost     {measured}")
    report = Path(study.results) / "report.zip"
    how = "" if report.exists() else f"   (make it: snakemake --report {report})"
    parts.append(f"report   {report}{how}")
    return "\n".join(parts)


def failures(text: str) -> list[dict[str, str]]:
    """Failed jobs of a Snakemake log, in order, each once.

    rule, log; slurm: why SLURM ended it; signal: the one that ended it otherwise (number and name).
    """
    found = []
    for block in re.split(r"(?m)^(?=Error in rule )", ANSI.sub("", text))[1:]:
        rule = re.match(r"Error in rule ([\w.-]+)", block)
        log = re.search(r"^\s+log: (\S.*?)(?: \(check log file.*)?$", block, re.M)
        # On a cluster the scheduler's log of the job follows, by its absolute path.
        own = log[1].split(", /")[0].strip() if log else ""
        entry = {"rule": rule[1] if rule else "?", "log": own}
        status = re.search(r"SLURM status is: '(\w+)'", block)
        if status and status[1] != "FAILED":
            entry["slurm"] = status[1]
        if entry not in found:
            found.append(entry)
    # Snakemake tells how the command ended beside its block, and with `--quiet rules` instead of it.
    known = {entry["log"]: entry for entry in found}
    for module, words, end in FAILED_COMMAND.findall(ANSI.sub("", text)):
        log = " ".join(shlex.split(words))
        if log not in known:
            known[log] = {"rule": module.split(".")[-1], "log": log}
            found.append(known[log])
        if by := signal_of(end):
            known[log]["signal"] = by
    return found


def signal_of(end: str) -> str:
    """The signal that ended a command, "9, SIGKILL"; "" for a command that ended by itself.

    end: "died with <Signals.SIGKILL: 9>", or "returned non-zero exit status 137", which is how the
    shell around a command says the same (128 + 9).
    """
    number = int(re.findall(r"\d+", end)[-1]) - (0 if end.startswith("died") else 128)
    try:
        return f"{number}, {signal.Signals(number).name}"
    except ValueError:
        return ""


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


def participant_of(study, log_file: str):
    """The participant whose job wrote this log (logs are named DATASET.SESSION.ROLE...), or None."""
    people = {f"{p.dataset}.{p.session}.{p.role}": p for p in study.participants}
    return people.get(role_of(Path(log_file).name, people))


def digest(study, snakemake_log: str | list[str]) -> str:
    """Rule, item, last error line, log path and a ready-to-paste cure of every failed job."""
    paths = [snakemake_log] if isinstance(snakemake_log, str) else list(snakemake_log)
    text = "".join(Path(p).read_text(encoding="utf-8", errors="replace") for p in paths)
    lines = ["", "What failed:"]
    for failure in failures(text):
        log_file, crashed = failure["log"], False
        reason = last_error(Path(log_file)) if log_file else "(the job has no log)"
        if "slurm" in failure:
            reason = f"SLURM ended the job: {failure['slurm']}"
        elif "signal" in failure:
            crashed = failure["signal"].endswith(CRASHES)
            reason = (
                f"{'crashed' if crashed else 'ended from outside'} (signal {failure['signal']})"
            )
            if failure["signal"].endswith("SIGKILL"):
                reason += "; the system does that where memory runs out"
        person = participant_of(study, log_file) if log_file else None
        item = f"{person.dataset}/{person.session} {person.role}" if person else Path(log_file).stem
        lines += [f"- {failure['rule']} · {item}", f"    {reason}", f"    log: {log_file}"]
        if person and (crashed or "signal" not in failure):
            why = " ".join(reason.replace("\t", " ").split())[:80]
            cure = (
                f"{study.config['sessions']}, line {person.line}: "
                f"exclude = yes, exclude_reason = {failure['rule']}: {why}"
            )
            if not person.line:  # no sheet: a folder of new recordings
                cure = f"take {person.session}/{person.role} out of {study.config['corpus']}"
            lines.append(f"    to go on without: {cure}")
    if len(lines) == 2:
        lines.append(f"- no job; see {' '.join(paths)}")
    lines.append("Everything else is kept; the same command goes on from here.")
    lines.append("After a kill: `snakemake --unlock`, then the same command.")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workflow.digest", description="Print the tables and where everything lies."
    )
    parser.add_argument("--configfile", nargs="*", default=[], help="presets on top of config.yaml")
    parser.add_argument("--media-root", metavar="DIR", help="overrides the config's media_root")
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        from workflow.config import load_config
        from workflow.study import Study

        config = load_config(args.configfile)
        if args.media_root:
            config["media_root"] = args.media_root
        study = Study(config)
        made = [n for n in study.on_request if Path(layout.table(study.results, n)).exists()]
        print(summary(study, [*study.tables_of_all, *made]))

    return run_job("workflow.digest", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
