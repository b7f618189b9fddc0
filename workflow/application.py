"""A trained run applied to a new folder of recordings: no labels, no sheet, no training.

    snakemake predict --config corpus=FOLDER

FOLDER holds <session>/<role>.mp4 (and .wav) as in corpora.folder. Features, predictions and the csv
files lie in `<results>/applied/<name of FOLDER>/`, apart from those of the training corpora. The
model file says which features it needs and what made them. An ensemble, or a run of folds, predicts
with each of its models, and the mean of these is what the csv files hold.
"""

import dataclasses
import glob
import hashlib
import json
import os
from pathlib import Path

from corpora import folder
from corpora.layout import subfolders
from corpora.sheet import Participant
from extractors.declared import EXTRACTORS
from media.container import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from runtime import InputError
from store import layout
from store.atomic import write_text
from store.identity import Identity, cures, differences, in_words
from workflow.config import check_config
from workflow.corpus import NOT_NUMBERS, Corpus
from workflow.fingerprint import version
from workflow.options import options
from workflow.recordings import is_stream
from workflow.trained import Trained, features_of, trained_models
from workflow.unusable import unusable


def people_of(corpus: str) -> list[Participant]:
    """Everybody in a folder of recordings, with whole paths and without labels.

    Raises InputError for a folder without videos, saying what lies there instead, and for a path
    that the job graph cannot name.
    """
    root = folder.folder(corpus)
    if set(str(root)) & set("{}") or not str(root).isprintable():
        raise InputError(
            f"{root} holds a brace or control character, which the job graph cannot name",
            "rename the folder, or give a link to it",
        )
    files = [f for place in (root, *subfolders(root)) for f in place.iterdir() if f.is_file()]
    videos = [f for f in files if f.suffix.lower() in VIDEO_SUFFIXES]
    sounds = [f for f in files if f.suffix.lower() in AUDIO_SUFFIXES]
    if sounds and not videos:
        raise InputError(
            f"{root} holds sound files only ({len(sounds)}, the first {sounds[0].name})",
            "every participant needs a video, <session>/<role>.mp4; one of a still picture will do for"
            " a run that reads sound alone: ffmpeg -f lavfi -i color=black:r=25 -i X.wav -shortest X.mp4",
        )
    if videos and all(f.parent == root for f in videos):
        raise InputError(
            f"{root} holds {videos[0].name} itself, and no session's folder",
            "make a folder per conversation in it: <session>/<role>.mp4",
        )

    def whole(path: str) -> str:
        return os.path.join(corpus, path) if path else ""

    people = [
        dataclasses.replace(p, video=whole(p.video), audio=whole(p.audio), labels="")
        for p in folder.find(corpus)
    ]
    for path in (path for p in people for path in (p.video, p.audio)):
        if set(path) & set("{}") or not (path.isprintable() or not path):
            raise InputError(
                f"{path} holds a brace or control character, which the job graph cannot name",
                "rename the file or folder",
            )
    return people


class Application(Corpus):
    """A folder of recordings and the trained models of one run.

    Raises InputError for a run that is not trained, and one naming all features of it that cannot
    be extracted from recordings.
    """

    def __init__(self, config: dict):
        checked = check_config(config)
        self.corpus = checked["corpus"]
        asked = checked["predict"]
        self.run, self.seed = asked["run"], asked["seed"]
        results = checked["results"].rstrip("/")
        found = trained_models(checked, self.run, self.seed)
        self.models = {m.name: m for m in found}
        self.classes = self._class_names(checked, {m.classes for m in found})
        needed = features_of(found)
        streams = {name for m in found for name in m.streams}
        features = checked["features"]
        alien = [
            name
            for name in needed
            if name in streams or name not in features or is_stream(features[name])
        ]
        if alien:
            raise InputError(
                f"run {self.run} reads {', '.join(alien)}: precomputed streams, which cannot be"
                f" extracted from the recordings in {self.corpus}",
                "train a run whose features are all ours: "
                + ", ".join(n for n, s in features.items() if not is_stream(s)),
            )
        people = people_of(self.corpus)
        self.dataset = people[0].dataset
        if all(p.exclude for p in people):
            raise InputError(
                f"{self.corpus}: no video has sound, and there is no sound file beside any",
                "put <role>.wav beside <role>.mp4",
            )
        here = {
            "results": layout.applied(results, self.dataset),
            "demo": None,
            "features": {n: s | {"enabled": n in needed} for n, s in features.items()},
        }
        super().__init__(checked | here, people, self.corpus)
        for person in self.participants:
            for feature in needed:
                self.check_feature(person, feature, f"run {self.run}")
        self._check_features(found)
        self._check_same_folder()

    def _check_features(self, models: list[Trained]) -> None:
        """InputError where the config makes other features than a model was trained on.

        Before anything is extracted; what the files say themselves, inference.predict compares.
        """
        for model in models:
            for feature in model.features:
                there = self.planned_identity(feature)
                if odd := differences(feature, there, model.made.get(feature, {})):
                    raise InputError(
                        f"{model.path} was trained on other features than this config makes:"
                        f" {in_words(odd)}",
                        f"in the config, {cures(odd)}; or train again with these features",
                    )

    def planned_identity(self, feature: str) -> Identity:
        """What is known of one of our own features before it is extracted (store.identity)."""
        declared = EXTRACTORS[feature]
        settings = {k: v for k, v in self.features[feature].items() if k not in NOT_NUMBERS}
        settings["align"] = dict(self.features[feature]["align"])
        if declared.reads == "crops":
            settings["faces"] = self.config["faces"] | {"version": version("extractors.faces")}
        return {
            "extractor": declared.module,
            "version": version(declared.module),
            "align_version": version("alignment.align"),
            "settings": settings,
        }

    def _check_same_folder(self) -> None:
        """InputError where the results of this name belong to another folder (a/day1, b/day1)."""
        try:
            kept = json.loads(self._origin.read_text(encoding="utf-8"))
            name, identity = kept["folder"], kept["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            return  # nothing was predicted under this name, or by an older version
        if identity != self._identity["identity"]:
            raise InputError(
                f"{self.results} holds the results of another folder of this name ({name}), not of"
                f" {self.corpus}",
                f"rename {self.corpus}, or move {self.results} away; if it is the same folder and was only"
                f" moved: rm '{self._origin}'",
            )

    @property
    def _origin(self) -> Path:
        return Path(layout.applied_folder(self.results))

    @property
    def _identity(self) -> dict[str, str]:
        """Which folder this is, without telling where on the machine it lies."""
        place = Path(self.corpus).resolve()
        digest = hashlib.sha256(os.fsencode(place)).hexdigest()
        return {"folder": "/".join(place.parts[-2:]).lstrip("/"), "identity": digest[:16]}

    def remember_folder(self) -> None:
        """Keep which folder the results belong to (call in onstart)."""
        self._origin.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._origin, json.dumps(self._identity, indent=2, ensure_ascii=False) + "\n")

    def _class_names(self, config: dict, numbers: set[int]) -> list[str]:
        """Names of the classes that the models predict; [] for values."""
        if len(numbers) > 1:
            raise InputError(
                f"config: the members of run {self.run} predict different things (task, classes)",
                "let all members have the same task and classes",
            )
        (number,) = numbers
        names = list(config["labels"].get("classes") or []) if number else []
        if len(names) != number:
            raise InputError(
                f"run {self.run} predicts {number} classes, labels.classes names {len(names)}",
                "give the config of its training, which names them: --configfile ...",
            )
        return names

    def prediction_files(self, session: str) -> list[str]:
        """Predictions of every model for a session."""
        return [layout.applied_predictions(self.results, name, session) for name in self.models]

    def mean_file(self, session: str) -> str:
        """The mean of several models for a session."""
        return layout.applied_mean(self.results, f"{self.run}.seed-{self.seed}", session)

    def applied_file(self, session: str) -> str:
        """What the csv files of a session are written from."""
        files = self.prediction_files(session)
        return files[0] if len(files) == 1 else self.mean_file(session)

    def targets(self) -> list[str]:
        """Engagement per frame, one csv file per participant."""
        return [layout.engagement(self.results, *p.id) for p in self.participants]

    def prediction_settings(self, run: str) -> dict:
        """What a model's predictions depend on; run: the model's name here."""
        model = self.models[run]
        return {"run": model.run, **model.prediction}

    def prediction_options(self, name: str, session: str) -> str:
        """Command-line options of inference.predict, as the run's section in the config has them."""
        place = {"sessions": [self.spec((self.dataset, session))], "results": self.results}
        return options(self.prediction_settings(name) | place)

    def mean_options(self, session: str) -> str:
        """Command-line options of evaluation.ensemble."""
        sessions = [self.spec((self.dataset, session))]
        return options({"sessions": sessions, "name": self.run, "seed": self.seed})

    def export_options(self, session: str, role: str) -> str:
        """Command-line options of evaluation.export: one person, a line per label frame."""
        return options(
            {
                "rate_hz": self.config["labels"]["rate_hz"],
                "classes": self.classes or None,
                "only": f"{session}/{role}",
                "out_dir": layout.engagement_folder(self.results),
            }
        )

    def closing(self) -> str:
        """What a person reads last."""
        files = set(self.targets())
        pattern = layout.engagement(self.results, self.dataset, "*", "*")
        lines = [f"engagement  {pattern} ({len(files)})"]
        found = layout.engagement(glob.escape(self.results), self.dataset, "*", "*")
        older = sorted(path for path in glob.glob(found) if path not in files)
        lines += [f"older       {path}: of nobody in {self.corpus}" for path in older]
        lines += [f"left out    {p.session}/{p.role}: {p.exclude_reason}" for p in self.excluded]
        lines += [f"unusable    {line}" for line in unusable(self)]
        return "\n".join(lines)
