"""A trained run applied to a new folder of recordings: no labels, no sheet, no training.

    snakemake predict --config corpus=FOLDER

FOLDER holds <session>/<role>.mp4 (and .wav) as in corpora.folder. Features, predictions and the csv
files lie in `<results>/applied/<name of FOLDER>/`, apart from those of the training corpora. The
model file says which features it needs and what made them.
"""

import dataclasses
import json
import os
from pathlib import Path

from corpora import folder
from corpora.sheet import Participant
from model.config import parse_prediction
from runtime import InputError
from runtime.intact import check_intact
from workflow.config import check_config, merge
from workflow.options import options
from workflow.recordings import is_stream
from workflow.study import Study

STREAM = "extractors.stream"


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
        if not all(isinstance(n, str) for n in names) or not all(made_by[n] | {} for n in made_by):
            raise ValueError("its features have no names")
    except (SafetensorError, OSError, LookupError, AttributeError, TypeError, ValueError, RecursionError) as e:  # fmt: skip
        raise InputError(
            f"{path} is not a model file ({' '.join(str(e).split())[:100]})",
            f"delete it and train again: rm '{path}'",
        ) from e
    return metadata


def people_of(corpus: str) -> list[Participant]:
    """Everybody in a folder of recordings, with whole paths and without labels."""

    def whole(path: str) -> str:
        return os.path.join(corpus, path) if path else ""

    return [
        dataclasses.replace(p, video=whole(p.video), audio=whole(p.audio), labels="")
        for p in folder.find(corpus)
    ]


class Application(Study):
    """A study of one folder of recordings and one trained model.

    Raises InputError for a run that is not trained, and one naming all features of it that cannot
    be extracted from recordings.
    """

    def __init__(self, config: dict):
        checked = check_config(config)
        self.corpus = checked["corpus"]
        asked = checked["predict"]
        self.run, self.seed = asked["run"], asked["seed"]
        results = checked["results"].rstrip("/")
        self.model = f"{results}/runs/{self.run}/seed-{self.seed}/model.safetensors"
        self.metadata = model_metadata(self.model)
        needed = list(self.metadata["settings"]["features"])
        made_by = self.metadata.get("features", {})
        features = checked["features"]
        alien = [
            name
            for name in needed
            if made_by.get(name, {}).get("extractor") == STREAM
            or name not in features
            or is_stream(features[name])
        ]
        if alien:
            raise InputError(
                f"run {self.run} reads {', '.join(alien)}: precomputed streams, which cannot be"
                f" extracted from the recordings in {self.corpus}",
                "train a run whose features are all ours: "
                + ", ".join(n for n, s in features.items() if not is_stream(s)),
            )
        self.people = people_of(self.corpus)
        self.dataset = self.people[0].dataset
        if all(p.exclude for p in self.people):
            raise InputError(
                f"{self.corpus}: no video has sound, and there is no sound file beside any",
                "put <role>.wav beside <role>.mp4",
            )
        super().__init__(
            checked
            | {
                "results": f"{results}/applied/{self.dataset}",
                "demo": None,
                "features": {n: s | {"enabled": n in needed} for n, s in features.items()},
            }
        )
        for person in self.participants:
            for feature in needed:
                self.check_feature(person, feature, f"run {self.run}")

    def rows(self) -> list[Participant]:
        return self.people

    def _read_tables(self) -> None:
        """No table and no run: nothing is trained or scored here."""
        self.tables, self.runs, self.refused = {}, {}, {}
        self.on_request, self.tables_of_all, self.unused_runs = [], [], []

    @property
    def aligned_files(self) -> list[str]:
        return self.aligned(self.by_session, self.features)

    @property
    def csv_files(self) -> list[str]:
        """Engagement per frame, one file per participant."""
        home = f"{self.results}/engagement"
        return [
            f"{home}/{p.dataset}/{p.session}/{p.role}.engagement.csv" for p in self.participants
        ]

    def prediction_options(self) -> str:
        """Command-line options of model.predict, as the run's section in the config has them."""
        own = (self.config["runs"].get(self.run) or {}).get("prediction") or {}
        given = merge(self.config["defaults"].get("prediction") or {}, own)
        settings = dataclasses.asdict(parse_prediction(given))
        sessions = [self.spec(key) for key in self.by_session]
        return options(settings | {"run": self.run, "sessions": sessions, "results": self.results})

    def closing(self) -> str:
        """What a person reads last."""
        return f"engagement  {Path(self.results) / 'engagement' / self.dataset}/*/*.engagement.csv"
