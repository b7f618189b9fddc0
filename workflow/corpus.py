"""Who takes part, what their recordings can give, and what the files up to the aligned features need.

The rules of media, extractors and alignment ask here. Two things build on it: `workflow.study` (the
sheet, its runs and tables) and `workflow.application` (a trained run on a folder of recordings).
"""

import os
from collections.abc import Iterable

from corpora.sheet import Participant
from extractors.declared import Extractor
from runtime import InputError
from store import layout
from workflow import recordings
from workflow.checkpoints import Checkpoints
from workflow.fingerprint import fingerprint, without_neutral
from workflow.options import options
from workflow.sets import Key

NOT_NUMBERS = ("enabled", "align", "weights", "from")


class Corpus:
    """Participants and enabled features. A pure function of config, people and code.

    config : checked; people : everybody, the excluded too; place : what names them, for messages.
    Paths are relative to the working directory; `results` is the config's folder. Raises InputError
    where nobody is left, and where a feature's checkpoint is not to be found.
    """

    def __init__(self, config: dict, people: list[Participant], place: str):
        self.config = config
        self.results = config["results"].rstrip("/")
        self.participants = [p for p in people if not p.exclude]
        self.excluded = [p for p in people if p.exclude]
        if not self.participants:
            raise InputError(f"{place}: every participant is excluded", "include at least one")
        self._lacks: dict[tuple[str, ...], str] = {}
        self.by_id = {p.id: p for p in self.participants}
        self.by_session: dict[Key, list[Participant]] = {}
        for p in self.participants:
            self.by_session.setdefault((p.dataset, p.session), []).append(p)
        self.features = {n: s for n, s in config["features"].items() if s["enabled"]}
        self.streams = [n for n, s in self.features.items() if recordings.is_stream(s)]
        self.checkpoints = Checkpoints(self.features, self.results)
        for name in self.checkpoints.features:
            if any(not self.lacks(p, name) for p in self.participants):
                self.checkpoints.inputs(name)  # raises where none can be found

    def check_feature(self, person: Participant, feature: str, place: str) -> None:
        """InputError when the participant cannot have the feature; place: who asks for it."""
        if self.lacks(person, feature):
            recordings.check(person, feature, self.features[feature], place)

    def lacks(self, person: Participant, feature: str) -> str:
        """What the participant has not got that the feature needs; "" when it is there."""
        key = *person.id, feature
        if key not in self._lacks:
            self._lacks[key] = recordings.lacks(person, feature, self.features[feature])
        return self._lacks[key]

    def session_features(self, key: tuple[str, str]) -> list[str]:
        """Enabled features that everybody of a session can have: those of its quality record."""
        people = self.by_session[key]
        return sorted(f for f in self.features if not any(self.lacks(p, f) for p in people))

    def participant(self, wildcards) -> Participant:
        return self.by_id[wildcards.dataset, wildcards.session, wildcards.role]

    def spec(self, key: tuple[str, str]) -> str:
        """dataset/session:role1,role2@split: how command lines name a session."""
        people = self.by_session[key]
        roles = ",".join(p.role for p in people)
        return f"{key[0]}/{key[1]}:{roles}@{people[0].split}"

    def aligned(self, keys: Iterable[tuple[str, str]], features: Iterable[str]) -> list[str]:
        """Aligned files of every participant of the sessions."""
        features = list(features)
        return [
            layout.aligned(self.results, *p.id, feature)
            for key in keys
            for p in self.by_session[key]
            for feature in features
        ]

    # ---- what the values of features and labels depend on ----

    def fingerprint(self, stage: str, settings: dict | None = None) -> str:
        """Fingerprint of a stage, for example ``fingerprint("alignment.clock", {...})``."""
        return fingerprint(stage, settings or {})

    def settings(self, stage: str, settings: dict) -> dict:
        """Settings for a stage's command, without later ones that have their neutral value."""
        return without_neutral(settings, stage)

    def extractor(self, feature: str) -> Extractor | None:
        """The declared extractor of an enabled feature; None for a precomputed stream."""
        return recordings.extractor_of(feature, self.features[feature])

    def feature_settings(self, feature: str) -> dict:
        """Settings of an extractor that change its numbers and are command-line options."""
        settings = self.config["features"][feature]
        left_out = (*NOT_NUMBERS, "name") if feature in self.streams else NOT_NUMBERS
        stage = "extractors.stream" if feature in self.streams else f"extractors.{feature}"
        return self.settings(stage, {k: v for k, v in settings.items() if k not in left_out})

    def feature_fingerprint(self, feature: str, person: Participant | None = None) -> str:
        """Fingerprint of a feature; of a participant: with the channel of the sound that it reads."""
        settings = self.feature_settings(feature)
        if feature in self.streams:
            settings["name"] = self.features[feature]["name"]
            return fingerprint("extractors.stream", settings)
        weights = self.config["features"][feature].get("weights") or {}
        if weights.get("repository"):
            settings["weights"] = f"{weights['repository']}@{weights['revision']}"
        channel = person.audio_channel if person else None
        if channel is not None and self.extractor(feature).reads == "sound":
            settings["audio_channel"] = channel
        return fingerprint(f"extractors.{feature}", settings)

    def declared_feature(self, feature: str) -> dict:
        """What the feature's file must be: options of the alignment, which checks it."""
        extractor = self.extractor(feature)
        if extractor is None:
            return {"extractor": "extractors.stream"}
        return {
            "extractor": extractor.module,
            "dimensions": extractor.dim(self.features[feature]) if extractor.dim else None,
            "native_rate_hz": extractor.rate_hz,
        }

    def stream_options(self, person: Participant, feature: str) -> str:
        """Command-line options of a precomputed stream of a participant."""
        others = recordings.other_streams(person, self.features[feature]["name"])
        references = [f"{name}={path}" for name, path in others.items()]
        role = os.path.basename(person.streams)  # needed only where a dot leaves it open
        return options(
            self.feature_settings(feature)
            | {"role": role if "." in role else None, "references": references or None}
        )

    def face_settings(self, wildcards) -> dict:
        """How a participant's face is looked for, and where the sheet says that it is."""
        roi = self.participant(wildcards).roi
        settings = self.config["faces"] | ({"roi": roi} if roi else {})
        return self.settings("extractors.faces", settings)

    def clock_settings(self) -> dict:
        return self.settings("alignment.clock", self.config["clock"])

    def clock_fingerprint(self, key: Key) -> str:
        """Fingerprint of a session's clock, which covers everybody in it."""
        roles = [p.role for p in self.by_session[key]]
        return self.fingerprint("alignment.clock", self.clock_settings() | {"roles": roles})

    def align_settings(self, wildcards) -> dict:
        """How a participant's feature is put on the session's clock."""
        settings = self.config["features"][wildcards.feature]["align"] | self._offset(wildcards)
        return self.settings("alignment.align", settings)

    def label_settings(self, wildcards) -> dict:
        """How a participant's label file is read."""
        settings = recordings.label_settings(self.config["labels"], wildcards.dataset)
        settings["length_tolerance_s"] = self.config["media"]["length_tolerance_s"]
        return self.settings("alignment.labels", settings | self._offset(wildcards))

    def _offset(self, wildcards) -> dict:
        offset = self.participant(wildcards).offset
        return {"offset": offset} if offset else {}
