"""What every model's settings share, and how values are checked."""

import dataclasses
import difflib
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from runtime import InputError

# A feature belongs to a group by the beginning of its name; texts are what the sound says.
AUDIO = ("egemaps", "wav2vec2", "audio", "w2v", "xlm", "soundnet", "gemaps")
VISUAL = (
    "clip",
    "flow",
    "openface",
    "openpose",
    "video",
    "dino",
    "swin",
    "imagebind",
    "kinect",
)

LARGEST = 1e100  # of any number in a config


@dataclass(frozen=True)
class Checked:
    """A mapping of the config as a frozen dataclass.

    CHOICES: allowed words of a key; MINIMUM: least value of a number (every number needs one).
    """

    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {}
    MINIMUM: ClassVar[dict[str, float]] = {}


@dataclass(frozen=True)
class ModelConfig(Checked):
    """Keys of every model.

    dropout : probability; input_clip : inputs are clipped at this many standard deviations, 0 off
    input_shift : training only: a constant offset per person-window and dimension, in standard
        deviations
    prompts : learned frames per domain (training dataset), put before every window; 0 off
    prompt_dropout : share of training windows whose domain is hidden, so that the prompt of unknown
        domains is learned too
    absent_rate : training only: share of a person-window's streams that are dropped, at least one
        stays

    PRESETS and TRAINING: what each preset changes in these keys and in those of `training`.
    PUBLISHED: further variants of the paper, by their names: the keys that make them.
    """

    dropout: float = 0.0
    input_clip: float = 10.0
    input_shift: float = 0.0
    prompts: int = 0
    prompt_dropout: float = 0.0
    absent_rate: float = 0.0

    BASE_MINIMUM: ClassVar[dict[str, float]] = {
        "dropout": 0,
        "input_clip": 0,
        "input_shift": 0,
        "prompts": 0,
        "prompt_dropout": 0,
        "absent_rate": 0,
    }
    SEES_TIME: ClassVar[bool] = True  # false: every frame for itself
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "demo": {}}
    TRAINING: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "demo": {}}
    PUBLISHED: ClassVar[dict[str, dict[str, Any]]] = {}

    @property
    def compares_groups(self) -> bool:
        """Whether the model embeds its groups in one space (python -m evaluation.similarity)."""
        return False

    def checked(self, features: list[str]) -> "ModelConfig":
        """The completed settings for a run of these features; InputError where keys disagree."""
        for key in ("dropout", "prompt_dropout"):
            if not getattr(self, key) < 1:
                raise InputError(f"model.{key} is {getattr(self, key)}", "choose 0 to below 1")
        check_absent_rate(self.absent_rate, len(features), "model.absent_rate")
        if self.prompts and not self.SEES_TIME:
            raise InputError(
                f"model.prompts is {self.prompts}, but this model sees every frame for itself",
                "choose prompts: 0, or a model that reads frames before the present one",
            )
        if self.prompt_dropout and not self.prompts:
            raise InputError(
                f"model.prompt_dropout is {self.prompt_dropout}, but model.prompts is 0",
                "choose prompts of at least 1, or prompt_dropout: 0",
            )
        return self


def check_absent_rate(rate: float, streams: int, key: str) -> None:
    """InputError for a share of dropped streams that would leave somebody without any."""
    most = (streams - 1) / streams
    if not 0 <= rate <= most + 1e-9:  # 2/3 written with nine digits is meant as 2/3
        shown = math.floor(1e4 * most) / 1e4
        raise InputError(
            f"{key} is {rate}, but one of {streams} streams must stay",
            f"choose at most {shown:g} ({streams - 1}/{streams} of the streams)",
        )


def group_of(feature: str) -> str:
    """Modality group that a feature's name tells: audio, visual, or "" where it tells none."""
    if feature.startswith(AUDIO):
        return "audio"
    return "visual" if feature.startswith(VISUAL) else ""


def complete_groups(groups: dict[str, list[str]], features: list[str]) -> dict[str, list[str]]:
    """Modality groups of a run: as given, or audio and visual by the features' names.

    Raises InputError unless every feature is in exactly one group.
    """
    groups = {g: list(members) for g, members in groups.items()}
    if not groups:
        groups = {g: [f for f in features if group_of(f) == g] for g in ("audio", "visual")}
        groups = {g: members for g, members in groups.items() if members}
    listed = [f for members in groups.values() for f in members]
    if not all(isinstance(f, str) for f in listed):
        raise InputError(f"model.groups is {groups}", "map each group to a list of feature names")
    if sorted(listed) != sorted(features) or not all(groups.values()):
        odd = sorted(set(features) ^ set(listed)) or listed
        raise InputError(
            f"model.groups {groups} and features {features} do not name the same streams ({odd[0]})",
            "list every feature in exactly one group, for example groups: {audio: [egemaps], visual: [clip_face]}",
        )
    return groups


def check_heads(heads: int, widths: dict[str, int]) -> None:
    """Raise InputError unless `heads` divides every width; widths: place -> width."""
    for place, width in widths.items():
        if width % heads:
            raise InputError(
                f"model.heads {heads} does not divide the width {width} of {place}",
                "change model.heads or the widths of the model",
            )


def build(kind: type[Checked], values: dict[str, Any], place: str) -> Any:
    """An instance of `kind` from a config mapping; InputError names the key and the cure."""
    known = {f.name: f for f in dataclasses.fields(kind)}
    check_keys(values, tuple(known), f"{place}.")
    minimum = getattr(kind, "BASE_MINIMUM", {}) | kind.MINIMUM
    checked = {}
    for key, value in values.items():
        name = f"{place}.{key}"
        expected = known[key].type
        if key in kind.CHOICES:
            check_choice(name, value, kind.CHOICES[key])
        elif expected is bool:
            if not isinstance(value, bool):
                raise InputError(f"{name} is {value!r}", "write true or false")
        elif expected in (int, float):
            value = number(name, value, expected)
            if value < minimum[key]:
                raise InputError(f"{name} is {value}", f"choose a value of at least {minimum[key]}")
        elif expected is str:  # a free word, checked by the model's own `checked`
            if not isinstance(value, str):
                raise InputError(f"{name} is {value!r}", "write a word")
        else:
            groups = mapping(value, name)
            if not all(isinstance(m, list | tuple) for m in groups.values()):
                raise InputError(f"{name} is {value!r}", "map each group to a list of features")
        checked[key] = value
    return kind(**checked)


def check_keys(values: dict[str, Any], known: tuple[str, ...], prefix: str) -> None:
    """InputError for a key that is not known, with the nearest one that is."""
    for key in values:
        if key not in known:
            raise InputError(
                f"unknown key {prefix}{key} in the run's settings", did_you_mean(key, known)
            )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """InputError for a word that is not among the choices."""
    if value not in choices:
        raise InputError(f"{name} is {value!r}", did_you_mean(str(value), choices))


def did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """The nearest known word, and all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}possible: {', '.join(known) or 'nothing'}"


def mapping(value: Any, name: str) -> dict[str, Any]:
    """The value, or InputError when it is not a mapping."""
    if not isinstance(value, dict):
        raise InputError(f"{name} is {value!r}", f"write {name} as keys and values")
    return value


def number(name: str, value: Any, kind: type) -> Any:
    """The value as int or float, or InputError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise InputError(f"{name} is {value!r}", "write a number")
    if abs(value) > LARGEST:
        raise InputError(f"{name} is {str(value)[:20]}", "write a finite number")
    if kind is int and int(value) != value:
        raise InputError(f"{name} is {value!r}", "write a whole number")
    return kind(value)
