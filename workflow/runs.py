"""The runs of a config: what each trains on, with which settings, and how it predicts.

A run's keys are `defaults`, with the keys of the run that it names as `base` on top, and its own on
top of those. A run with `weights_of: other` trains nothing: it is the other run in all but the
settings of prediction, and predicts with its checkpoints. A run with `folds` is trained once per
fold (workflow.folds), a run with `ensemble_of` is the mean of other runs' predictions; both have
members and no checkpoint of their own. `initial: other` starts training from another run's weights.
"""

import dataclasses
from collections.abc import Sequence

from model.settings import other_network
from runtime import InputError
from training.settings import parse
from workflow.config import merge
from workflow.folds import expand
from workflow.leaks import check_leaks, check_mixture, check_selection
from workflow.run import Run, check_classes, keys_of, resolved, unknown_run
from workflow.sets import Sets

# A run of these keys has other weights than the run named by `weights_of`.
OF_TRAINING = (
    "features",
    "train",
    "validate",
    "frame_rate_hz",
    "preset",
    "model",
    "training",
    "task",
    "classes",
    "initial",
    "folds",
)
OF_ENSEMBLE = ("ensemble_of", "ensemble", "evaluate", "seeds")


class Runs:
    """Reads the runs of a config one at a time, so that a wrong one harms only who needs it.

    config : checked config; features : enabled features; sets : what a set's name means.
    """

    def __init__(self, config: dict, features: Sequence[str], sets: Sets):
        self.given = {n: keys for n, keys in config["runs"].items() if keys is not None}
        self.defaults = config["defaults"]
        self.features, self.sets = list(features), sets
        self._read: dict[str, Run | InputError] = {}
        self._reading: list[str] = []
        self.folds: dict[str, list[str]] = {}  # run -> the runs of its folds
        self.plain = list(self.given)  # runs as they stand in the config
        for name in self.plain:
            try:
                self._expand(name)
            except InputError as e:
                self._read[name] = e

    def _expand(self, name: str, before: tuple[str, ...] = ()) -> None:
        """Put the runs of the folds of a run beside it."""
        own = dict(self.given[name])
        source = own.pop("weights_of", None)
        if name in self.folds or own.get("ensemble_of"):
            return
        if source in self.given:  # each fold takes the weights of the same fold
            if source not in (*before, name):  # else `_run` says what is wrong
                self._expand(source, (*before, name))
            if source in self.folds:
                if "evaluate" in own or "folds" in own:
                    raise InputError(
                        f"config: run {name} takes the weights of the folds of {source}, but has other sets",
                        f"take `evaluate` and `folds` out of runs.{name}",
                    )
                runs = {n.replace(source, name, 1): n for n in self.folds[source]}
                self._add_folds(name, {n: own | {"weights_of": fold} for n, fold in runs.items()})
        elif not source:
            keys = self._keys(name)
            if keys.get("folds"):
                self._add_folds(name, expand(name, keys, self.sets))

    def _add_folds(self, name: str, runs: dict[str, dict]) -> None:
        for fold in runs:
            if fold in self.given:
                raise InputError(
                    f"config: the fold {fold} has the name of a run", f"rename runs.{fold}"
                )
        self.given |= runs
        self.folds[name] = list(runs)

    def __iter__(self):
        return iter(self.given)

    def get(self, name: str) -> Run:
        """A run by its name; raises InputError naming the run, the key and the cure."""
        if name not in self._read:
            if name in self._reading:
                raise InputError(
                    f"config: run {name} leads back to itself ({' -> '.join(self._reading)})",
                    "let one of these runs stand alone",
                )
            self._reading.append(name)
            try:
                self._read[name] = self._run(name)
            except InputError as e:
                self._read[name] = e
            finally:
                self._reading.pop()
        found = self._read[name]
        if isinstance(found, InputError):
            raise found
        return found

    def _keys(self, name: str) -> dict:
        return keys_of(name, self.given, self.defaults)

    def _run(self, name: str) -> Run:
        if self.given[name].get("ensemble_of"):
            return self._ensemble(name)
        if self.given[name].get("weights_of"):
            run = self._run_with_weights_of(name)
        else:
            run = resolved(name, self._keys(name), self.features, self.sets)
            if run.initial:
                self._check_initial(run)
        if name in self.folds:
            members = [self.get(fold) for fold in self.folds[name]]
            check_classes(name, members)
            check_mixture(name, run.evaluate, self.sets)
            run = dataclasses.replace(
                run,
                weights_of="",
                initial="",
                members=tuple(self.folds[name]),
                combines="folds",
                compares_groups=False,
            )
        else:
            self._check_leaks(run)
        return run

    def _ensemble(self, name: str) -> Run:
        own = self.given[name]
        for key in own:
            if key not in OF_ENSEMBLE:
                raise InputError(
                    f"config: run {name} is an ensemble, and has no {key} of its own",
                    f"an ensemble takes {', '.join(OF_ENSEMBLE)}; give {key} to its members",
                )
        names = own["ensemble_of"]
        names = [names] if isinstance(names, str) else list(names)
        for member in names:
            if member not in self.given:
                raise unknown_run(f"runs.{name}.ensemble_of", member, list(self.given))
        members = [self.get(member) for member in names]
        over = own.get("ensemble", "runs")
        if over == "runs" and len(names) < 2:
            raise InputError(
                f"config: run {name} is an ensemble of one run",
                "name several, or choose ensemble: seeds",
            )
        wanted = own.get("evaluate")
        evaluate = members[0].evaluate if wanted is None else [s for s in wanted if s in self.sets]
        for member in members:
            if missing := [s for s in evaluate if s not in member.evaluate]:
                raise InputError(
                    f"config: run {name} evaluates {missing[0]}, which its member {member.name} does not predict",
                    f"add {missing[0]} to runs.{member.name}.evaluate, or set runs.{name}.evaluate",
                )
        common = [s for s in members[0].seeds if all(s in m.seeds for m in members)]
        seeds = (0,) if over == "seeds" else tuple(own.get("seeds", common))
        if "seeds" in own and over == "seeds":
            raise InputError(
                f"config: run {name} is the mean over all seeds of its members",
                f"take `seeds` out of runs.{name}",
            )
        for seed in seeds if over == "runs" else ():
            if lacking := [m.name for m in members if seed not in m.seeds]:
                raise InputError(
                    f"config: run {name} has seed {seed}, its member {lacking[0]} has not",
                    f"seeds that all members have: {', '.join(map(str, common)) or 'none'}",
                )
        if not seeds:
            raise InputError(
                f"config: the members of run {name} have no seed in common",
                "choose ensemble: seeds",
            )
        check_classes(name, members)
        return dataclasses.replace(
            members[0],
            name=name,
            evaluate=tuple(evaluate),
            seeds=seeds,
            compares_groups=False,
            weights_of="",
            initial="",
            members=tuple(names),
            combines=over,
        )

    def trained(self, name: str) -> list[str]:
        """Runs whose trainings a run needs, each once: its own, its members', those it starts from."""
        run = self.get(name)
        if run.members:
            found = [t for member in run.members for t in self.trained(member)]
        else:
            start = self.get(run.weights).initial
            found = [run.weights, *(self.trained(start) if start else ())]
        return list(dict.fromkeys(found))

    def needed(self, name: str) -> list[str]:
        """A run and all runs that its predictions depend on."""
        run = self.get(name)
        below = [n for member in run.members for n in self.needed(member)]
        return list(dict.fromkeys([name, *below, *self.trained(name)]))

    def held_out(self, fold: Run) -> list:
        """Sessions that a fold holds out."""
        parts = [s for s in fold.evaluate if s.endswith(f".{self.get(fold.weights).name}")]
        return self.sets.union(parts)

    def training_sessions(self, run: Run) -> dict:
        """Sessions that a run's weights have seen, those it starts from included -> the set."""
        weights = self.get(run.weights) if run.weights != run.name else run
        seen = {k: s for s in weights.train for k in self.sets.keys(s)}
        if weights.initial:
            seen |= self.training_sessions(self.get(weights.initial))
        return seen

    def selected_by(self, run: Run) -> set:
        """Sessions whose score selected a checkpoint that a run needs, its members' included."""
        parts = [self.selected_by(self.get(name)) for name in run.members]
        if run.members:
            return set().union(*parts)
        weights = self.get(run.weights) if run.weights != run.name else run
        found = set(self.sets.union(weights.validate)) if weights.reads_validation else set()
        return found | (self.selected_by(self.get(weights.initial)) if weights.initial else set())

    def _check_leaks(self, run: Run) -> None:
        used = {"evaluate": run.evaluate}
        if run.reads_validation:
            used["validate"] = run.validate
        check_leaks(run.name, self.training_sessions(run), used, self.sets)
        check_selection(run.name, self.selected_by(run), run.evaluate, self.sets)
        check_mixture(run.name, run.evaluate, self.sets)

    def _run_with_weights_of(self, name: str) -> Run:
        own = dict(self.given[name])
        source_name = own.pop("weights_of")
        if source_name not in self.given:
            raise unknown_run(f"runs.{name}.weights_of", source_name, list(self.given))
        source_keys = self.given[source_name]
        if "base" in own or source_keys.get("weights_of") or source_keys.get("ensemble_of"):
            raise InputError(
                f"config: run {name} does not say plainly whose weights it takes",
                "let weights_of name a run that is trained, and leave `base` out",
            )
        source = self.get(source_name)
        run = resolved(name, merge(self._keys(source_name), own), self.features, self.sets)
        for key in OF_TRAINING:
            if key in own and self._of_training(run) != self._of_training(source):
                raise InputError(
                    f"config: run {name} takes the weights of {source_name}, but has other {key}",
                    f"take `{key}` out of runs.{name}, or train it: take weights_of out",
                )
        more = sorted(set(run.seeds) - set(source.seeds))
        if more:
            raise InputError(
                f"config: run {name} takes the weights of {source_name}, which is not trained with seed {more[0]}",
                f"take seeds out of runs.{name}, or choose from: {', '.join(map(str, source.seeds))}",
            )
        return dataclasses.replace(run, weights_of=source_name, initial="")

    @staticmethod
    def _of_training(run: Run) -> tuple:
        return run.features, run.train, run.validate, run.initial, run.settings

    def _check_initial(self, run: Run) -> None:
        """InputError unless the run that this one starts from has one checkpoint that fits."""
        place = f"runs.{run.name}.initial"
        if run.initial not in self.given:
            raise unknown_run(place, run.initial, list(self.given))
        if run.name in self.folds:  # its folds start from it, and are checked themselves
            return
        start = self.get(run.initial)
        if start.members:
            raise InputError(
                f"config: {place} names {start.name}, which has several models",
                f"name one of them: {', '.join(start.members)}",
            )
        if more := sorted(set(run.seeds) - set(start.seeds)):
            raise InputError(
                f"config: run {run.name} starts from {start.name}, which is not trained with seed {more[0]}",
                f"train {start.name} with it, or choose from: {', '.join(map(str, start.seeds))}",
            )
        if odd := other_network(parse(start.settings), parse(run.settings)):
            raise InputError(
                f"config: run {run.name} starts from {start.name}, which has other {odd}",
                f"let both runs have the same {odd}, for example with base: {start.name}",
            )
