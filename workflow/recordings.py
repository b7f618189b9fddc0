"""What a participant's recording can give: extracted features need media, others their stream.

A feature of the config is ours, computed from sound or picture, or (`from: stream`) a precomputed
stream that lies beside the participant, named in the sheet's column `streams`.
"""

from pathlib import Path

from corpora.sheet import Participant
from extractors.declared import EXTRACTORS, Extractor
from formats.stream_files import stream_files, stream_path
from runtime import InputError

STREAM_DEFAULTS = {
    "enabled": True,
    "drop": 0,
    "invalid_value": None,
    "doubled": "refuse",
    "max_length_difference": 2.5,
    "shifted": "refuse",
    "dtype": "float32",
    "align": {"method": "linear", "max_gap_s": 0.2},
}


def label_settings(labels: dict, dataset: str) -> dict:
    """Settings of a dataset's label files: the section `labels`, and over it `labels.datasets`.

    So that words 30 times a second and values 25 times a second stand in one study. `proxies` is
    none of them: it says what the tables may print, not how a file is read.
    """
    own = labels.get("datasets", {}).get(dataset, {})
    merged = {k: v for k, v in labels.items() if k not in ("datasets", "proxies")} | own
    return {k: v for k, v in merged.items() if v != []}


def is_stream(settings: dict) -> bool:
    """Whether a feature's section says `from: stream`."""
    return settings.get("from") == "stream"


def extractor_of(feature: str, settings: dict) -> Extractor | None:
    """The declared extractor of a feature; None for a precomputed stream, whatever its name."""
    return None if is_stream(settings) else EXTRACTORS[feature]


def complete(features: dict) -> dict:
    """The section `features` with the defaults of precomputed streams filled in.

    Where an extractor's name is given to a stream, the extractor's own keys (config.yaml has them)
    drop out.
    """
    completed = {}
    for name, settings in features.items():
        if isinstance(settings, dict) and is_stream(settings):
            ours = EXTRACTORS[name].keys if name in EXTRACTORS else ()
            kept = {k: v for k, v in settings.items() if k not in ours}
            settings = STREAM_DEFAULTS | kept
        completed[name] = settings
    return completed


def lacks(person: Participant, feature: str, settings: dict) -> str:
    """What a participant has not got that the feature needs, in words; "" when it is there."""
    if is_stream(settings):
        if not person.streams:
            return "has no precomputed streams (column `streams` of the sheet)"
        if stream_path(person.streams, settings["name"]) is None:
            return f"has no stream {person.streams}.{settings['name']}.stream"
        return ""
    reads = EXTRACTORS[feature].reads
    if reads == "crops" and not person.video:
        return "has no video"
    if reads == "sound" and not (person.audio or person.video):
        return "has no sound"
    return ""


def check(person: Participant, feature: str, settings: dict, place: str) -> None:
    """InputError when the participant cannot have the feature; place: who asks for it."""
    missing = lacks(person, feature, settings)
    if missing:
        name = f"{person.dataset}/{person.session} {person.role}"
        raise InputError(
            f"{place} reads the feature {feature}, but {name} {missing}",
            f"exclude the participant in the sheet (line {person.line}: exclude = yes), or take"
            f" {feature} out of the run's `features`",
        )


def stream_of(person: Participant, name: str) -> Path:
    """Header of a participant's stream; `check` must have passed."""
    path = stream_path(person.streams, name)
    if path is None:
        raise InputError(
            f"{person.streams}.{name}.stream does not exist",
            "exclude the participant, or leave the feature out of the run",
        )
    return path


def other_streams(person: Participant, name: str) -> dict[str, Path]:
    """The participant's other streams, feature -> header: they tell a wrong rate."""
    own = stream_path(person.streams, name)
    return {n: p for n, p in stream_files(person.streams).items() if p != own}


def probe_options(person: Participant) -> dict[str, str | None]:
    """What `media.probe` looks into: video and sound, or streams (and a sound file)."""
    if person.video:
        return {"video": person.video, "audio": person.audio or person.video}
    return {"streams": person.streams, "audio": person.audio or None}


def probe_files(person: Participant) -> list[str]:
    """Files behind `probe_options`."""
    if person.video:
        return list(dict.fromkeys((person.video, person.audio or person.video)))
    return [*map(str, stream_files(person.streams).values()), *filter(None, [person.audio])]
