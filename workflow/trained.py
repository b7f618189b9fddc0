"""The trained models that a run predicts with, found without the sheet that it was trained on."""

import dataclasses
import glob
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.config import parse_prediction
from runtime import InputError
from store import layout
from store.identity import PRECOMPUTED, Identity
from store.intact import check_intact
from workflow.config import merge
from workflow.folds import fold_run
from workflow.run import keys_of, unknown_run


@dataclass(frozen=True)
class Trained:
    """A model file that is applied. name: of its predictions; run, seed: what they are stored as.

    prediction: the run's settings of prediction; features: what the model reads; streams: those of
    them that were precomputed; classes: 0 for values; made: identity of each feature it was trained
    on, as far as the file says.
    """

    name: str
    run: str
    seed: int
    path: str
    prediction: dict
    features: tuple[str, ...]
    streams: tuple[str, ...]
    classes: int
    made: dict[str, Identity]


def trained_models(config: dict, run: str, seed: int) -> list[Trained]:
    """The models whose mean a run predicts, one where it is no ensemble and has no folds.

    A run that is not in the config predicts with the settings of `defaults`. Raises InputError for a
    run or member that is unknown or not trained, for a seed it has not, and for members that are
    ensembles of unlike numbers of models.
    """
    given = {n: keys for n, keys in config["runs"].items() if keys is not None}
    found, sizes = [], {}
    for member, number in _members(config, given, run, seed):
        models = _models(config, given, member, number)
        sizes[member, number] = len(models)
        found += models
    if len(set(sizes.values())) > 1:
        raise InputError(
            f"config: run {run} averages runs of unlike numbers of models"
            f" ({', '.join(f'{m}: {n}' for (m, _), n in sizes.items())})",
            "apply one of its members (config: `predict`)",
        )
    return found


def _members(config: dict, given: dict, run: str, seed: int) -> list[tuple[str, int]]:
    """(run, seed) of everything that a run is the mean of."""
    own = given.get(run, {})
    if not own.get("ensemble_of"):
        return [(run, seed)]
    names = own["ensemble_of"]
    names = [names] if isinstance(names, str) else list(names)
    found = []
    for name in names:
        if name not in given:
            raise unknown_run(f"runs.{run}.ensemble_of", name, list(given))
        if given[name].get("ensemble_of"):
            raise InputError(
                f"config: run {run} is an ensemble of ensembles ({name})",
                f"apply {name} (config: `predict`), or an ensemble of its members",
            )
        source = given[name].get("weights_of", name)
        if source not in given:
            raise unknown_run(f"runs.{name}.weights_of", source, list(given))
        seeds = merge(keys_of(source, given, config["defaults"]), given[name])["seeds"]
        if own.get("ensemble") == "seeds":
            if seed != 0:
                raise InputError(
                    f"config: predict.seed is {seed}, but {run} is the mean of all seeds",
                    "its seed is called 0: predict: {run: " + run + ", seed: 0}",
                )
            found += [(name, number) for number in seeds]
        else:
            found.append((name, seed))
    return found


def _models(config: dict, given: dict, run: str, seed: int) -> list[Trained]:
    """A run's model, or those of its folds."""
    own = dict(given.get(run, {}))
    source = own.pop("weights_of", run)
    known = source in given
    keys = keys_of(source, given, config["defaults"]) if known else config["defaults"]
    if source != run:
        keys = merge(keys, own)
    prediction = dataclasses.asdict(parse_prediction(keys.get("prediction") or {}))
    results = config["results"].rstrip("/")
    of_run = layout.model(results, source, seed)
    paths = {run: of_run}
    if keys.get("folds"):
        start = fold_run(source, "")
        pattern = layout.model(glob.escape(results), glob.escape(start) + "*", seed)
        folds = sorted(glob.glob(pattern))
        paths = {Path(p).parts[-3].replace(source, run, 1): p for p in folds} or paths
    elif not known and not os.path.isfile(of_run):
        raise unknown_run("predict.run", source, list(given))
    return [_trained(name, seed, path, prediction) for name, path in paths.items()]


def _trained(run: str, seed: int, path: str, prediction: dict) -> Trained:
    metadata = model_metadata(path)
    settings, made_by = metadata["settings"], metadata.get("features", {})
    names = tuple(settings["features"])
    streams = tuple(n for n in names if made_by.get(n, {}).get("extractor") == PRECOMPUTED)
    classes = int(settings.get("classes") or 0)
    name = f"{run}.seed-{seed}"
    return Trained(name, run, seed, path, prediction, names, streams, classes, made_by)


def model_metadata(path: str) -> dict:
    """What a model file says of its training; InputError when it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        raise InputError(
            f"{path} does not exist: the run is not trained yet",
            "run snakemake without `corpus` first, or correct `predict` (run, seed) or `results`",
        )
    check_intact(path)
    try:
        with safe_open(path, framework="np") as f:
            metadata = json.loads(f.metadata()["json"])
        names, made_by = metadata["settings"]["features"], metadata.get("features", {})
        if (
            not names
            or not all(isinstance(n, str) for n in names)
            or not all(made_by[n] | {} for n in made_by)
        ):
            raise ValueError("its features have no names")
    except (SafetensorError, OSError, LookupError, AttributeError, TypeError, ValueError, RecursionError) as e:  # fmt: skip
        raise InputError(
            f"{path} is not a model file ({' '.join(str(e).split())[:100]})",
            f"delete it and train again: rm '{path}'",
        ) from e
    return metadata


def features_of(models: Sequence[Trained]) -> list[str]:
    """Every feature that one of the models reads, once."""
    return list(dict.fromkeys(name for m in models for name in m.features))
