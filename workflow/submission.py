"""What `snakemake submission` hands in, checked against the sheet before anything runs.

A challenge wants every test session of its list. Whoever is missing, excluded in the sheet, or not
predicted by the run is named with what to change.
"""

from corpora.sheet import Participant
from evaluation.layouts import LAYOUTS, Folder, Layout
from formats.stream_files import shifted
from runtime import InputError
from store import layout
from workflow.recordings import is_stream
from workflow.run import Run, unknown_run
from workflow.study import Study

SHOWN = 4  # people named in a message; the rest is counted


def submission(study: Study) -> dict:
    """The section `submission`, complete: year, run, seed, clip, without.

    And what the job reads: `files` (predictions, one per dataset), `records` (length of every
    recording). Raises InputError where there is no section, run or seed, where a folder of the year
    is not predicted, and where the sheet lacks or excludes a required participant or has one too many.
    """
    section = study.config.get("submission")
    if not section:
        raise InputError(
            "config: `submission` is empty",
            "name the run, for example submission: {year: 2026, run: da_mamba, seed: 1}",
        )
    section = {"clip": False, "without": []} | section
    run = study.runs.get(section["run"])
    if run is None:
        raise unknown_run("submission.run", section["run"], list(study.runs))
    if section["seed"] not in run.seeds:
        raise InputError(
            f"config: submission.seed is {section['seed']}, no seed of {run.name}",
            f"choose from: {', '.join(map(str, run.seeds))}",
        )
    year = LAYOUTS[section["year"]]
    year.check_names(section["without"])
    wanted = {
        name: folder
        for name, folder in year.folders.items()
        if name not in section["without"] and name not in year.classes
    }
    _check_folders(study, run, year, wanted)
    for name, folder in wanted.items():
        _check_people(study, run, name, folder, year.year)
    seed, results = section["seed"], study.results
    people = [(f.dataset, *p) for f in wanted.values() for p in f.required()]
    return section | {
        "files": [
            layout.predictions(results, run.name, seed, folder.dataset)
            for folder in wanted.values()
        ],
        "records": [
            *(layout.probe(results, *person) for person in people),
            *dict.fromkeys(layout.clock(results, d, s) for d, s, _ in people),
        ],
    }


def _check_folders(study: Study, run: Run, layout: Layout, wanted: dict[str, Folder]) -> None:
    if run.settings["task"] == "classification":
        raise InputError(
            f"config: submission.run is {run.name}, which predicts classes: the challenge has"
            " published no form for their files",
            "hand in a run of values; docs/challenge.md says how teams wrote classes",
        )
    lacking = {n: f.dataset for n, f in wanted.items() if f.dataset not in study.datasets(run)}
    if not wanted:
        raise InputError(
            "config: submission.without names every folder", "leave one to be handed in"
        )
    if lacking:
        sets = ", ".join(f"{dataset}/test" for dataset in lacking.values())
        raise InputError(
            f"config: {run.name} predicts nothing for {', '.join(lacking)}, which a {layout.year}"
            " submission must hold",
            f"put their sessions into {study.config['sessions']} and {sets} into `evaluate` of the"
            f" run; or leave them out on purpose: submission.without: [{', '.join(lacking)}]",
        )


def _check_people(study: Study, run: Run, name: str, folder: Folder, year: int) -> None:
    """InputError naming who is not in the sheet, excluded, not predicted, or one too many."""
    sheet, dataset, place = (
        study.config["sessions"],
        folder.dataset,
        f"{name} of a {year} submission",
    )
    rows = {
        (p.session, p.role): p
        for p in (*study.participants, *study.excluded)
        if p.dataset == dataset
    }
    required = folder.required()
    if missing := [p for p in required if p not in rows]:
        raise InputError(
            f"{sheet} lacks {_names(dataset, missing)}: {place} must hold them",
            "add their rows (python -m corpora init prints them), or leave the folder out on purpose:"
            f" submission.without: [{name}]",
        )
    if excluded := [rows[p] for p in required if rows[p].exclude]:
        lines = ", ".join(str(p.line) for p in excluded)
        raise InputError(
            f"{sheet} excludes {_people(excluded)}: {place} must hold them",
            f"in line {lines} of the sheet, empty `exclude` and `exclude_reason`"
            + _missing_streams(study, run, excluded),
        )
    predicted = set(study.sessions(study.evaluated(run, dataset)))
    if unpredicted := [
        p for p in required if (dataset, p[0]) not in predicted or rows[p].split != "test"
    ]:
        raise InputError(
            f"config: {run.name} does not predict {_names(dataset, unpredicted)} as test sessions:"
            f" {place} must hold them",
            f"give them the split test in {sheet}, and put {dataset}/test into `evaluate` of the run",
        )
    extra = [
        p for k, p in rows.items() if p.split == "test" and not p.exclude and k not in required
    ]
    if extra:
        raise InputError(
            f"{sheet} has {_people(extra)}: {place} must not hold them",
            "exclude them there (exclude: yes), or give them another split or dataset",
        )


def _missing_streams(study: Study, run: Run, people: list[Participant]) -> str:
    """How to predict people one of whose streams belongs to another recording."""
    names = {name for p in people if p.streams for name in shifted(p.streams)}
    features = [
        f
        for f in run.features
        if is_stream(study.features[f]) and study.features[f]["name"] in names
    ]
    if not features:
        return ""
    keys = ", ".join(f"{f}: {{shifted: missing}}" for f in features)
    return (
        f", and set features: {{{keys}}}: streams of other recordings are then taken as missing, and"
        " these people predicted from their other streams and their partners"
    )


def _names(dataset: str, people: list[tuple[str, str]]) -> str:
    shown = ", ".join(f"{dataset}/{s} {r}" for s, r in people[:SHOWN])
    return shown + _more(people)


def _people(people: list[Participant]) -> str:
    shown = [
        f"{p.dataset}/{p.session} {p.role} (line {p.line}"
        + (f": {p.exclude_reason})" if p.exclude_reason else ")")
        for p in people[:SHOWN]
    ]
    return ", ".join(shown) + _more(people)


def _more(people: list) -> str:
    return f" and {len(people) - SHOWN} more" if len(people) > SHOWN else ""
