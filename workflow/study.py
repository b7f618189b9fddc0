"""The config and the sessions sheet, as the rules of models, predictions and tables need them.

Everything here is a pure function of the config, the sheet and the code, so the job graph is known
before anything runs. Paths are relative to the working directory; `results` is the config's folder.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from corpora.sheet import Participant, read_sheet
from evaluation.layouts import challenge_columns
from model.configs.base import did_you_mean
from runtime import InputError
from store import layout
from workflow.config import check_config
from workflow.corpus import Corpus
from workflow.fingerprint import fingerprint, version
from workflow.options import options
from workflow.run import Run, unknown_run
from workflow.runs import Runs
from workflow.sets import Key, Sets, as_list

REPORTED = Path(__file__).resolve().parent.parent / "evaluation" / "reported.yaml"


class Study(Corpus):
    """The config and the sheet, checked against each other.

    Raises InputError naming the config key or the sheet's row for everything that does not fit.
    """

    def __init__(self, config: dict):
        c = check_config(config)
        rows = read_sheet(c["sessions"], c["media_root"], check_files=c["demo"] is None)
        super().__init__(c, rows, c["sessions"])
        self.sets = Sets(rows, c.get("sets") or {})
        self._read_tables()

    def _read_tables(self) -> None:
        """Tables and the runs they name.

        A table of `all` must be right; one that is built on request is checked when it is asked
        for, so that settings it cannot work with (a feature that is off) harm nothing else.
        """
        self.declared = declared = Runs(self.config, list(self.features), self.sets)
        self.tables = {n: t for n, t in self.config["tables"].items() if t is not None}
        self.on_request = [n for n, t in self.tables.items() if t.get("on_request")]
        self.refused: dict[str, InputError] = {}
        self.runs: dict[str, Run] = {}
        for name, table in self.tables.items():
            try:
                for run in table["runs"]:
                    if run not in declared:
                        raise unknown_run(f"tables.{name}.runs", run, list(declared))
                    for needed in declared.needed(run):
                        self.runs[needed] = declared.get(needed)
                        self._check_recordings(self.runs[needed])
                self._check_equal(name, table)
                self._check_reported(name, table)
                if table.get("challenge"):
                    challenge_columns(self.columns(table), table["challenge"])
            except InputError as e:
                if name not in self.on_request:
                    raise
                self.refused[name] = e
        self.tables_of_all = [n for n in self.tables if n not in self.on_request]
        used = {run for table in self.tables.values() for run in table["runs"]}
        for keys in (*declared.given.values(), declared.defaults):
            used |= {keys.get("base"), keys.get("weights_of"), keys.get("initial")}
            used |= set(as_list(keys.get("ensemble_of")))
        self.unused_runs = [name for name in declared.plain if name not in used]

    def _check_reported(self, name: str, table: dict) -> None:
        """InputError for published rows beside numbers of generated data or of proxy labels."""
        what = "the demo corpus is generated" if self.config["demo"] is not None else ""
        what = what or ("the labels are proxies" if self.config["labels"].get("proxies") else "")
        if table.get("reported") and what:
            raise InputError(
                f"config: tables.{name}.reported is true, but {what} (`{'demo' if 'demo' in what else 'labels.proxies'}`)",
                f"set tables.{name}.reported to false: such numbers never stand beside published ones",
            )

    def _check_recordings(self, run: Run) -> None:
        """InputError where somebody of the run's sets cannot have one of its features."""
        sets = {*run.train, *run.evaluate, *(run.validate if run.reads_validation else ())}
        for key in self.sessions(sets) if not run.members else ():
            for p in self.by_session[key]:
                for feature in run.features:
                    self.check_feature(p, feature, f"config: run {run.name}")

    def _check_equal(self, name: str, table: dict) -> None:
        """Raise InputError where runs differ in what the table calls equal."""
        first, *others = dict.fromkeys(t for r in table["runs"] for t in self.declared.trained(r))
        expected = self.runs[first].settings["training"]
        for key in table.get("equal", []):
            if key not in expected:
                raise InputError(
                    f"config: tables.{name}.equal: unknown key {key}",
                    did_you_mean(key, tuple(expected)),
                )
            for run in others:
                found = self.runs[run].settings["training"][key]
                if found != expected[key]:
                    raise InputError(
                        f"config: table {name} needs equal training.{key}, but {run} has {found} and {first} {expected[key]}",
                        f"set defaults.training.{key}, which every run of this table then has",
                    )

    # ---- sheet ----

    def sessions(self, sets: Iterable[str]) -> list[Key]:
        """(dataset, session) of the sets, in the order of the sheet."""
        return self.sets.union(sets)

    def labelled(self, sets: Iterable[str]) -> list[Participant]:
        """Participants of the sets that have labels."""
        return [p for key in self.sessions(sets) for p in self.by_session[key] if p.labels]

    def labelled_specs(self, sets: Iterable[str], by_split: bool = False) -> list[str]:
        """Specs of the sets' labelled people, the set's name behind the @.

        A session of several sets comes once for each; by_split: once, with its split.
        """
        sets = list(sets)
        of_set = {name: set(self.sets.keys(name)) for name in sets}
        specs = []
        for key in self.sessions(sets):
            people = [p for p in self.by_session[key] if p.labels]
            if not people:
                continue
            roles = ",".join(p.role for p in people)
            parts = [n.rpartition("/")[2] for n in of_set if key in of_set[n]]
            for part in [people[0].split] if by_split else parts:
                specs.append(f"{key[0]}/{key[1]}:{roles}@{part}")
        return specs

    def excluded_counts(self, dataset: str, sets: Iterable[str] = ()) -> list[str]:
        """split=N for every split with excluded participants: N sessions that lost somebody.

        The same for those of `sets` that are no split.
        """
        lost: dict[str, set[Key]] = {}
        for p in self.excluded:
            if p.dataset == dataset:
                lost.setdefault(p.split, set()).add((p.dataset, p.session))
        sessions = {key for found in lost.values() for key in found}
        for name in sets:
            if not self.sets.is_split(name) and (here := sessions & set(self.sets.everybody(name))):
                lost[name.rpartition("/")[2]] = here
        return [f"{split}={len(found)}" for split, found in sorted(lost.items())]

    # ---- paths ----

    def label_files(self, sets: Iterable[str]) -> list[str]:
        return [layout.labels(self.results, *p.id) for p in self.labelled(sets)]

    def datasets(self, run: Run) -> list[str]:
        return list(dict.fromkeys(s.split("/")[0] for s in run.evaluate))

    def evaluated(self, run: Run, dataset: str) -> list[str]:
        return [s for s in run.evaluate if s.split("/")[0] == dataset]

    def checkpoint(self, run: str, seed: int | str) -> str:
        """Model file that a run predicts with."""
        return layout.model(self.results, self.runs[run].weights, seed)

    def initial(self, run: str, seed: int | str) -> list[str]:
        """Model file that a run's training starts from, if it has one."""
        start = self.runs[run].initial
        return [self.checkpoint(start, seed)] if start else []

    def members(self, run: str, seed: int | str, dataset: str) -> list[str]:
        """Predictions that those of a run with members are made of."""
        r = self.runs[run]
        return [
            layout.predictions(self.results, member.name, s, dataset)
            for member in (self.runs[name] for name in r.members)
            for s in (member.seeds if r.combines == "seeds" else (seed,))
            if dataset in self.datasets(member)
        ]

    def trained(self, runs: Iterable[Run]) -> list[str]:
        """Names of the runs that are trained for these runs, each once."""
        return list(dict.fromkeys(t for run in runs for t in self.declared.trained(run.name)))

    def score_files(self, run: Run) -> list[str]:
        """Scores of a run: one per seed and per dataset that has labels."""
        return [
            layout.scores(self.results, run.name, seed, dataset)
            for seed in run.seeds
            for dataset in self.datasets(run)
            if self.labelled(self.evaluated(run, dataset))
        ]

    def table_runs(self, *tables: str) -> list[Run]:
        """Runs of the tables, each once; raises InputError where a table cannot be built."""
        for table in tables:
            if table in self.refused:
                raise self.refused[table]
        return [
            self.runs[n] for n in dict.fromkeys(n for t in tables for n in self.tables[t]["runs"])
        ]

    def tables_for(self, targets: Iterable[str]) -> list[str]:
        """Tables that the targets of a call build; without one on request, those of `all`."""
        targets = set(targets)
        return [n for n in self.on_request if n in targets] or self.tables_of_all

    def tables_made(self, targets: Iterable[str]) -> list[str]:
        """Those of them that there are; a call for one file makes none of the tables of `all`."""
        return [
            name
            for name in self.tables_for(targets)
            if name in self.on_request or os.path.exists(layout.table(self.results, name))
        ]

    def runs_of_all(self) -> list[Run]:
        """Runs of the tables that are not built on request."""
        return self.table_runs(*self.tables_of_all)

    def table_files(self, table: str) -> list[str]:
        """A table and the figures of its runs: what its target builds."""
        runs = self.table_runs(table)
        kinds = ("ccc", "challenge") if self.tables[table].get("challenge") else ("ccc",)
        files = [
            layout.table(self.results, table, kind, suffix)
            for kind in kinds
            for suffix in ("csv", "md", "tex")
        ]
        figures = self.tables[table].get("figures", [])
        if "training" in figures:
            files += self.training_figures(runs)
        if "similarity" in figures:
            files += [
                layout.curves(self.results, name, "similarity")
                for name in self.trained(runs)
                if self.runs[name].compares_groups
            ]
        return files

    def figures_of_all(self) -> list[str]:
        """Curves of every run of `all`: predictions per labelled data set, training."""
        runs = self.runs_of_all()
        return [
            layout.curves(self.results, run.name, dataset)
            for run in runs
            for dataset in self.datasets(run)
            if self.labelled(self.evaluated(run, dataset))
        ] + self.training_figures(runs)

    def targets(self) -> list[str]:
        """What `snakemake` without a target makes, beside the quality table."""
        tables = [path for name in self.tables_of_all for path in self.table_files(name)]
        # Sets without labels are predicted as well; nothing scores them.
        predictions = [
            layout.predictions(self.results, run.name, seed, dataset)
            for run in self.runs_of_all()
            for seed in run.seeds
            for dataset in self.datasets(run)
        ]
        return tables + self.figures_of_all() + predictions

    def training_figures(self, runs: Iterable[Run]) -> list[str]:
        """Training curves of the runs that are trained."""
        return [layout.curves(self.results, name, "training") for name in self.trained(runs)]

    def columns(self, table: dict) -> list[str]:
        """Evaluated sets with labels of a table's runs, in the order of the config."""
        named = dict.fromkeys(s for r in table["runs"] for s in self.runs[r].evaluate)
        return [s for s in named if self.labelled([s])]

    # ---- what models, predictions and tables depend on ----

    def run_settings(self, run: str) -> str:
        """Canonical JSON of a run's settings, for --settings."""
        settings = self.settings("training.train", self.runs[run].settings)
        return json.dumps(settings, sort_keys=True, separators=(",", ":"))

    def training_fingerprint(self, run: str) -> str:
        """Settings, training sessions and network that a run's weights depend on."""
        r = self.runs[run]
        settings = dict(r.settings) | {"train": [self.spec(k) for k in self.sessions(r.train)]}
        if r.reads_validation:
            settings["validate"] = [self.spec(k) for k in self.sessions(r.validate)]
        if r.initial:
            settings["initial"] = r.initial
        # Its own network's version, so that a change of one model leaves the runs of all others alone.
        settings["architecture"] = version(f"model.{settings['model']['name']}")
        return fingerprint("training.train", settings)

    def efficiency_fingerprint(self) -> str:
        """Sizes that are measured, and the versions of the measurement and of each network."""
        settings = dict(self.config["efficiency"])
        networks = {name: version(f"model.{name}") for name in settings["models"]}
        return fingerprint("evaluation.efficiency", settings | {"architecture": networks})

    def scored(self, run: str, dataset: str) -> dict:
        """What the scores of a run on a data set depend on beside predictions and labels."""
        sets = self.evaluated(self.runs[run], dataset)
        return self.score_settings() | {
            "sessions": self.labelled_specs(sets),
            "excluded": self.excluded_counts(dataset, sets),
        }

    def score_settings(self) -> dict:
        """Labels may outlast the predictions by what the media check lets through."""
        return {"max_beyond_s": self.config["media"]["length_tolerance_s"]}

    def prediction_settings(self, run: str) -> dict:
        """What predictions depend on beside the weights: command-line options of the stage."""
        return {"run": run, **self.settings("inference.predict", self.runs[run].prediction)}

    def combined(self, run: str) -> str:
        """How a run's predictions are made of its members', in words; "" for a run without."""
        r = self.runs[run]
        if r.combines == "folds":
            of = self.runs[r.members[0]]
            start = f", each starting from {of.initial}" if of.initial else ""
            return f"{run}: {len(r.members)} folds{start}; each session by the model that did not see it."
        if r.members:
            over = "all seeds of " if r.combines == "seeds" else ""
            return f"{run}: mean of the predictions of {over}{', '.join(r.members)}."
        return f"{run}: starts from {r.initial}." if r.initial else ""

    def reported(self, table: str) -> list[str]:
        """File of the published rows, where the table shows them."""
        return [os.path.relpath(REPORTED)] if self.tables[table].get("reported") else []

    def table_settings(self, table: str) -> dict:
        """What a table's numbers depend on beside its scores and the published rows."""
        t = self.tables[table]
        columns, selected = self.columns(t), []
        for name in t["runs"]:
            by = self.declared.selected_by(self.runs[name])
            marked = [c for c in columns if by & set(self.sets.keys(c))]
            selected += [f"{name}=best_val:{','.join(marked)}"] if marked else []
        settings = {
            "runs": t["runs"],
            "columns": columns,
            "selection": selected or None,
            "resamples": t.get("bootstrap"),
            "challenge": t.get("challenge"),
        }
        return self.settings("evaluation.tables", settings)

    def table_fingerprint(self, table: str) -> str:
        return self.fingerprint("evaluation.tables", self.table_settings(table))

    def table_options(self, table: str) -> str:
        """Command-line options of a table."""
        t = self.tables[table]
        notes = [self.config.get("note"), t.get("note"), *map(self.combined, t["runs"])]
        return options(
            self.table_settings(table)
            | {
                "reported": self.reported(table) or None,
                "note": "\n".join(" ".join(n.split()) for n in notes if n),
                "out_dir": layout.table_folder(self.results, table),
            }
        )
