"""Results that Snakemake did not make here: do they fit the config and the program?

    python -m workflow.foreign show      # what does not fit, and in what
    python -m workflow.foreign remake    # delete it, so that the next call makes it again
    python -m workflow.foreign keep      # take it as it is

Snakemake knows what it made from `.snakemake` in the working folder. Where results were copied to
another clone, or `.snakemake` was removed, it takes every file for up to date. Every start therefore
compares the fingerprint that a file's record holds with the one that its rule demands, for files that
Snakemake has no record of, and stops where they differ. What `keep` accepted stands in
`adopted.json` of the results folder, with both fingerprints, and goes where the results go.
"""

import argparse
import json
import os
import sys
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from runtime import InputError
from runtime.job import run_job
from store.atomic import write_text
from store.planned import plan
from workflow.unfinished import RULES, wanted

FOUND = Path(".snakemake") / "foreign.json"  # of the last start
ADOPTED = "adopted.json"
SHOWN = 20
TABLES = ("table", "challenge_table")
APPLYING = ("apply", "apply_mean")


def recorded_by_snakemake(workflow) -> Callable[[str], bool]:
    """Path -> whether Snakemake has a record of having made it, in the working folder."""
    from snakemake.io import IOFile
    from snakemake.persistence.db import DbPersistence
    from snakemake.settings.enums import PersistenceBackend

    settings = workflow.workflow_settings
    if settings.persistence_backend != PersistenceBackend.DB:
        return recorded_files().__contains__
    # The workflow's own store of records exists only when its graph is built, after this.
    url = settings.persistence_backend_db_url
    store = DbPersistence(nolock=True, **({"db_url": url} if url else {}))
    return lambda path: store.metadata(IOFile(path)) is not None


def recorded_files(folder: Path = Path(".snakemake") / "metadata") -> set[str]:
    """Paths of Snakemake's records, from their names: reading thousands would take a second.

    A name is the path in base64, a long one cut into folders that begin with @.
    """
    found = set()
    for place, _, names in os.walk(folder):
        above = "".join(part[1:] for part in Path(place).relative_to(folder).parts)
        found |= {urlsafe_b64decode(above + name).decode() for name in names}
    return found


def fingerprint_in(record: Path) -> str | None:
    """Fingerprint that a record holds; None where it holds none, as of a command run by hand."""
    try:
        found = json.loads(record.read_text(encoding="utf-8")).get("fingerprint")
    except (OSError, ValueError, AttributeError):
        return None  # damaged, or of somebody else: its reader will say so
    return found or None


def records(results: str) -> Iterator[str]:
    """All records (.json) below the results folder but of caches and logs, named as the rules do."""
    for stage in sorted(p for p in Path(results).glob("*") if p.is_dir()):
        if stage.name not in ("logs", "benchmarks", "cache"):
            for path in sorted(stage.rglob("*.json")):
                yield f"{results}/{path.relative_to(results)}"


def demands(rules: Iterable, study, tables: Iterable[str]):
    """Record -> (demanded fingerprint, outputs of its job); None for what the call does not need.

    tables : those that the call builds.
    """
    from snakemake.iocontainers import Wildcards

    tables = set(tables)
    asked = {n for r in study.table_runs(*tables) for n in study.declared.needed(r.name)} if tables else set()  # fmt: skip
    chain = {*RULES, *TABLES, *APPLYING, *study.features, "stream"}
    makers = []
    for rule in rules:
        if rule.name in chain:
            kinds = [o for o in rule.output if str(o).endswith(".json")]
            makers += [(str(kind).partition("{")[0], kind, rule) for kind in kinds]

    def demanded(record: str) -> tuple[str, list[str]] | None:
        for start, kind, rule in makers:
            if not record.startswith(start) or not kind.match(record):
                continue
            names = dict(rule.get_wildcards(record))
            wildcards = Wildcards(fromdict=names)
            needed = names.get("run", "") in {"", *asked} and names.get("table", "") in {
                "",
                *tables,
            }
            if not needed or not wanted(rule.name, names, study):
                return None
            value = rule.params.fingerprint
            outputs = [str(o.apply_wildcards(wildcards)) for o in rule.output]
            return (value(wildcards) if callable(value) else value), outputs
        return None

    return demanded


def foreign(results: str, demanded, recorded) -> tuple[list[dict], int]:
    """Records that do not fit (record, outputs, found, demanded), and how many cannot be compared."""
    adopted = _adopted(results)
    stale, unknown = [], 0
    for record in records(results):
        if recorded(record):
            continue
        job = demanded(record)
        if job is None:
            continue
        found = fingerprint_in(Path(record))
        if found is None:
            unknown += 1
            continue
        key = os.path.relpath(record, results)
        pair = {"made_as": found, "taken_as": job[0]}
        if found != job[0] and adopted.get(key) != pair:
            stale.append({"record": record, "outputs": job[1], **pair})
    return stale, unknown


def _adopted(results: str) -> dict:
    path = Path(results) / ADOPTED
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def difference(found: str, demanded: str) -> str:
    """Where two fingerprints differ, in words: `rate_hz 25 -> 30`."""
    old, new = (dict(w.partition("=")[::2] for w in text.split()) for text in (found, demanded))
    if "stage" not in old:
        return "made by a program that did not record the version of its stages"
    changed = [k for k in dict.fromkeys([*new, *old]) if old.get(k) != new.get(k)]
    return ", ".join(f"{k} {old.get(k, 'none')} -> {new.get(k, 'none')}" for k in changed)


def refuse_foreign(workflow, study, tables: Iterable[str]) -> None:
    """InputError where existing results do not fit and Snakemake does not know it.

    tables : those that the call builds. The number of results without a fingerprint is told.
    """
    if not Path(study.results).is_dir():
        return
    demanded = demands(workflow.rules, study, tables)
    stale, unknown = foreign(study.results, demanded, recorded_by_snakemake(workflow))
    if unknown:
        print(
            f"warning: {unknown} results were made by hand, without a fingerprint: whether they fit the"
            " config cannot be checked",
            file=sys.stderr,
        )
    if not stale:
        FOUND.unlink(missing_ok=True)
        return
    FOUND.parent.mkdir(exist_ok=True)
    write_text(FOUND, json.dumps({"results": study.results, "stale": stale}, indent=1) + "\n")
    first = stale[0]
    raise InputError(
        f"{len(stale)} results were made with other settings or another version of the program, and"
        f" Snakemake has no record of them; the first is {first['record']}"
        f" ({difference(first['made_as'], first['taken_as'])})",
        "python -m workflow.foreign show lists them; `remake` in the place of `show` deletes them, so that"
        " they are made again; `keep` takes them as they are",
    )


def read_found() -> tuple[str, list[dict]]:
    """Results folder and list of the last start. InputError where it found nothing."""
    if not FOUND.exists():
        raise InputError(
            "the last start found no results that do not fit", "start Snakemake first: snakemake -n"
        )
    record = json.loads(FOUND.read_text(encoding="utf-8"))
    return record["results"], record["stale"]


def show() -> None:
    """Print the list, one stage's equal differences in one line."""
    groups: dict[str, list[str]] = {}
    for entry in read_found()[1]:
        text = difference(entry["made_as"], entry["taken_as"])
        groups.setdefault(text, []).append(entry["record"])
    for text, paths in groups.items():
        print(f"{text}: {len(paths)} results")
        for path in paths[:SHOWN]:
            print(f"  {path}")
        if len(paths) > SHOWN:
            print(f"  ... {len(paths) - SHOWN} more")


def remake() -> None:
    """Delete what does not fit, after writing down that it is to be made."""
    _, stale = read_found()
    outputs = [path for entry in stale for path in entry["outputs"]]
    # What follows from them exists: without the plan nothing would ask for them.
    plan(outputs)
    for path in outputs:
        Path(path).unlink(missing_ok=True)
    FOUND.unlink()
    print(f"{len(stale)} results deleted; the next call of snakemake makes them again")


def keep() -> None:
    """Accept what does not fit, in `adopted.json` of the results folder."""
    results, stale = read_found()
    adopted = _adopted(results)
    for entry in stale:
        key = os.path.relpath(entry["record"], results)
        adopted[key] = {name: entry[name] for name in ("made_as", "taken_as")}
    path = Path(results) / ADOPTED
    write_text(path, json.dumps(adopted, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    FOUND.unlink()
    print(f"{len(stale)} results are taken as they are; {path} says so")


COMMANDS = {"show": show, "remake": remake, "keep": keep}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workflow.foreign",
        description="Results that Snakemake has no record of and that do not fit the config"
        " (docs/reruns.md).",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, action in COMMANDS.items():
        what = action.__doc__.splitlines()[0]
        commands.add_parser(name, help=what, description=what)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job("workflow.foreign", build_parser(), lambda a: COMMANDS[a.command](), argv)


if __name__ == "__main__":
    sys.exit(main())
