"""Settings of a run: frozen dataclasses, presets, and one canonical form for the fingerprint.

A run's settings are a dict:
    {"preset": "paper" | "demo",
     "model": {"name": "da_mamba" | "mlp" | "constant", ...},
     "training": {...}, "features": [...], "frame_rate_hz": 25}
`resolve` fills in the preset and the defaults, checks every key and value, and returns a plain dict
in which nothing is left implicit. This module imports no torch, so that the workflow may use it.
"""

import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import Any

from runtime import InputError

FEATURES = ("egemaps", "wav2vec2", "clip_face", "flow", "flow_magnitude")
AUDIO = ("egemaps", "wav2vec2")  # a feature belongs to a group by the beginning of its name
VISUAL = ("clip_face", "flow")


@dataclass(frozen=True)
class DaMambaConfig:
    """DA-Mamba; defaults are the paper preset (d chosen to meet the paper's 28.7 M parameters)."""

    groups: dict[str, list[str]] = field(default_factory=dict)  # {} = audio and visual, by name
    d: int = 184
    depth: int = 4
    state: int = 16
    conv: int = 4
    expand: int = 2
    chunk: int = 32
    heads: int = 8
    mixer: str = "mamba"
    merge: str = "gate"
    modality_fusion: bool = True
    partner_fusion: bool = True
    partner_context: str = "concat"
    context_width: int = 0  # 0 = all groups side by side (5 d)
    temperature: float = 0.07
    dropout: float = 0.0
    input_clip: float = 10.0
    input_shift: float = 0.0

    CHOICES = {
        "mixer": ("mamba", "bimamba"),
        "merge": ("gate", "sum", "concat"),
        "partner_context": ("concat", "separate"),
    }
    MINIMUM = {
        "d": 1,
        "depth": 1,
        "state": 1,
        "conv": 1,
        "expand": 1,
        "chunk": 1,
        "heads": 1,
        "context_width": 0,
        "temperature": 1e-4,
        "dropout": 0,
        "input_clip": 0,
        "input_shift": 0,
    }


@dataclass(frozen=True)
class MlpConfig:
    """The challenge's per-frame baseline: three ReLU layers on the target's features."""

    hidden: int = 256
    layers: int = 3
    dropout: float = 0.0
    input_clip: float = 10.0
    input_shift: float = 0.0

    CHOICES = {}
    MINIMUM = {"hidden": 1, "layers": 1, "dropout": 0, "input_clip": 0, "input_shift": 0}


@dataclass(frozen=True)
class ConstantConfig:
    """The mean of the training labels, for every frame."""

    CHOICES = {}
    MINIMUM = {}


@dataclass(frozen=True)
class TrainingConfig:
    """Training; defaults are the paper's numbers where the paper gives them."""

    epochs: int = 40
    batch: int = 128  # target windows
    window: int = 96  # frames
    core: int = 32  # predicted frames in the centre; also the step from window to window
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup_steps: int = 500
    grad_clip: float = 5.0
    ema: float = 0.999
    score_loss: str = "ccc"
    score_weight: float = 1.0
    alignment_weight: float = 0.4
    loss_frames: str = "core"
    partners: str = "own"
    selection: str = "last"
    validate_every: int = 1  # epochs
    pool_gb: float = 4.0

    CHOICES = {
        "score_loss": ("ccc", "mse"),
        "loss_frames": ("core", "window"),
        "partners": ("own", "shuffled"),
        "selection": ("last", "best_val"),
    }
    MINIMUM = {
        "epochs": 1,
        "batch": 1,
        "window": 1,
        "core": 1,
        "learning_rate": 0,
        "weight_decay": 0,
        "warmup_steps": 0,
        "grad_clip": 1e-9,
        "ema": 0,
        "score_weight": 0,
        "alignment_weight": 0,
        "validate_every": 1,
        "pool_gb": 1e-6,
    }


MODEL_CONFIGS: dict[str, type] = {
    "da_mamba": DaMambaConfig,
    "mlp": MlpConfig,
    "constant": ConstantConfig,
}

# What a preset changes against the dataclass defaults, per model and for training.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "da_mamba": {},
        "mlp": {},
        "constant": {},
        "training": {},
    },
    "demo": {
        "da_mamba": {
            "d": 16,
            "depth": 1,
            "state": 8,
            "heads": 4,
            "partner_context": "separate",
            "context_width": 48,
            "dropout": 0.5,
            "input_shift": 0.5,
        },
        "mlp": {"hidden": 64, "dropout": 0.5, "input_shift": 0.5},
        "constant": {},
        "training": {
            "epochs": 12,
            "batch": 32,
            "learning_rate": 4e-3,
            "warmup_steps": 10,
            "ema": 0.95,
            "loss_frames": "window",
            "validate_every": 4,
        },
    },
}
TOP_LEVEL = ("preset", "model", "training", "features", "frame_rate_hz")


@dataclass(frozen=True)
class Settings:
    """A resolved run. `canonical()` is the plain dict of `resolve`."""

    name: str
    model: Any
    training: TrainingConfig
    features: tuple[str, ...]
    frame_rate_hz: float

    def canonical(self) -> dict[str, Any]:
        return {
            "model": {"name": self.name, **dataclasses.asdict(self.model)},
            "training": dataclasses.asdict(self.training),
            "features": list(self.features),
            "frame_rate_hz": self.frame_rate_hz,
        }


def resolve(settings: dict[str, Any]) -> dict[str, Any]:
    """Canonical dict of a run's settings: every key present, presets applied, values checked.

    Resolving a canonical dict gives it back. Raises InputError naming the key and the cure.
    """
    return parse(settings).canonical()


def parse(settings: dict[str, Any]) -> Settings:
    """Like `resolve`, as dataclasses."""
    _known(settings, TOP_LEVEL, "")
    preset = settings.get("preset", "paper")
    _choice("preset", preset, tuple(PRESETS))
    model = dict(_mapping(settings.get("model", {}), "model"))
    name = model.pop("name", "da_mamba")
    _choice("model.name", name, tuple(MODEL_CONFIGS))
    features = settings.get("features", list(FEATURES))
    if (
        not isinstance(features, list | tuple)
        or not features
        or not all(isinstance(f, str) for f in features)
        or len(set(features)) != len(features)
    ):
        raise InputError(
            f"features is {features!r}",
            f"give a list of distinct feature names, for example [{', '.join(FEATURES)}]",
        )
    config = _build(MODEL_CONFIGS[name], PRESETS[preset][name] | model, "model")
    if isinstance(config, DaMambaConfig):
        config = _check_da_mamba(config, list(features))
    overrides = _mapping(settings.get("training", {}), "training")
    training = _build(TrainingConfig, PRESETS[preset]["training"] | overrides, "training")
    if training.core > training.window or (training.window - training.core) % 2:
        raise InputError(
            f"training.window {training.window} does not hold {training.core} frames in its centre",
            "choose window >= core with an even difference, for example 96 and 32",
        )
    if not training.ema < 1:
        raise InputError(f"training.ema is {training.ema}", "choose 0 (off) to below 1")
    rate = _number("frame_rate_hz", settings.get("frame_rate_hz", 25.0), float)
    if not rate > 0:
        raise InputError(f"frame_rate_hz is {rate}", "choose a positive rate, usually 25 or 100")
    return Settings(name, config, training, tuple(features), rate)


def _check_da_mamba(config: DaMambaConfig, features: list[str]) -> DaMambaConfig:
    groups = {g: list(members) for g, members in config.groups.items()}
    if not groups:
        groups = {
            "audio": [f for f in features if f.startswith(AUDIO)],
            "visual": [f for f in features if f.startswith(VISUAL)],
        }
        groups = {g: members for g, members in groups.items() if members}
    listed = [f for members in groups.values() for f in members]
    if sorted(listed) != sorted(features) or not all(groups.values()):
        odd = sorted(set(features) ^ set(listed)) or listed
        raise InputError(
            f"model.groups {groups} and features {features} do not name the same streams ({odd[0]})",
            "list every feature in exactly one group, for example groups: {audio: [egemaps], visual: [clip_face]}",
        )
    if not config.dropout < 1:
        raise InputError(f"model.dropout is {config.dropout}", "choose 0 to below 1")
    widths = {f"group {g}": config.d * len(m) for g, m in groups.items()}
    if not config.modality_fusion:
        widths = {}
    if config.partner_fusion:
        widths["the partner context"] = config.context_width or config.d * len(features)
    for place, width in widths.items():
        if width % config.heads:
            raise InputError(
                f"model.heads {config.heads} does not divide the width {width} of {place}",
                "change model.d, model.heads or model.context_width",
            )
    return dataclasses.replace(config, groups=groups)


def _build(kind: type, values: dict[str, Any], place: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(kind)}
    _known(values, tuple(known), f"{place}.")
    checked = {}
    for key, value in values.items():
        name = f"{place}.{key}"
        expected = known[key].type
        if key in kind.CHOICES:
            _choice(name, value, kind.CHOICES[key])
        elif expected is bool:
            if not isinstance(value, bool):
                raise InputError(f"{name} is {value!r}", "write true or false")
        elif expected in (int, float):
            value = _number(name, value, expected)
            if value < kind.MINIMUM[key]:
                raise InputError(
                    f"{name} is {value}", f"choose a value of at least {kind.MINIMUM[key]}"
                )
        else:
            groups = _mapping(value, name)
            if not all(isinstance(m, list | tuple) for m in groups.values()):
                raise InputError(f"{name} is {value!r}", "map each group to a list of features")
        checked[key] = value
    return kind(**checked)


def _known(values: dict[str, Any], known: tuple[str, ...], prefix: str) -> None:
    for key in values:
        if key not in known:
            raise InputError(
                f"unknown key {prefix}{key} in the run's settings", _did_you_mean(key, known)
            )


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}", _did_you_mean(str(value), choices))


def _did_you_mean(word: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}possible: {', '.join(known) or 'nothing'}"


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{name} is {value!r}", f"write {name} as keys and values")
    return value


def _number(name: str, value: Any, kind: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise InputError(f"{name} is {value!r}", "write a number")
    if kind is int and int(value) != value:
        raise InputError(f"{name} is {value!r}", "write a whole number")
    return kind(value)
