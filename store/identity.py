"""The identity of a feature: everything that changes its values.

An identity is a record that goes into statistics and model files as JSON:

    extractor, model_id, model_revision : as in the feature file
    dims, columns : number of columns, and a digest of their names
    version, align_version : of what extraction and alignment compute, where their fingerprints say
    settings : every setting that changes the values (store.features); absent in files of an earlier
        version

Two features under one name are the same if nothing of that differs. Where a checkpoint makes the
feature, its content decides, whatever its folder is called.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Identity = dict[str, Any]
PRECOMPUTED = "extractors.stream"
# The words of a setting that is no line of the config.
WORDS = {
    "model_id": "model",
    "model_revision": "version of the model",
    "columns": "names of the columns",
    "dims": "number of columns",
    "faces.models": "models that find the face",
    "weights": "weights",
}
# Versions of our own code: no setting brings them back.
VERSIONS = {
    "version": "version of the extraction",
    "align_version": "version of the alignment",
    "faces.version": "version of the face tracking",
}


def stage_version(fingerprint: str) -> int | None:
    """The version that a fingerprint states (`stage=... version=2 ...`); None where it states none."""
    found = re.search(r"(?:^| )version=(\d+)(?: |$)", fingerprint)
    return int(found[1]) if found else None


def identity_of(attributes: Mapping[str, Any], dims: int) -> Identity:
    """The identity that the attributes of a feature file or an aligned file state.

    Raises ValueError or TypeError for attributes that no writer of ours leaves.
    """
    found: Identity = {
        key: str(attributes.get(key, "")) for key in ("extractor", "model_id", "model_revision")
    }
    names = json.dumps(json.loads(attributes["dim_names"]))
    found |= {"dims": dims, "columns": hashlib.sha256(names.encode()).hexdigest()[:12]}
    own, alignment = (str(attributes.get(k, "")) for k in ("feature_fingerprint", "fingerprint"))
    if "feature_fingerprint" not in attributes:  # a feature file, not yet on a clock
        own, alignment = alignment, ""
    for key, said in (("version", own), ("align_version", alignment)):
        if (number := stage_version(said)) is not None:
            found[key] = number
    if "settings" in attributes:
        found["settings"] = json.loads(attributes["settings"])
        if not isinstance(found["settings"], dict):
            raise TypeError("its settings are no record")
    return found


@dataclass(frozen=True)
class Difference:
    """One thing in which a feature is not what is wanted.

    name : of the setting, dotted (`layer`, `faces.margin`, `align.method`, `extractor` ...); there,
    wanted : the two identities.
    """

    feature: str
    name: str
    there: Identity
    wanted: Identity

    @property
    def words(self) -> str:
        """The setting and both values: `features.wav2vec2.layer is 0 instead of -1`."""
        what = WORDS | VERSIONS | {"extractor": "extractor"}
        if self.name in what:
            name = f"the {what[self.name]} of {self.feature}"
        else:
            section = "" if self.name.startswith("faces.") else f"features.{self.feature}."
            name = section + self.name
        values = (_text(self.value(i)) for i in (self.there, self.wanted))
        return f"{name} is {' instead of '.join(values)}"

    @property
    def cure(self) -> str:
        """What gives the feature the wanted value: a line of the config, or words where none does."""
        settings, value = self.wanted.get("settings", {}), self.value(self.wanted)
        if self.name == "extractor" and value != PRECOMPUTED:
            return f"leave `from` and `name` out of features.{self.feature}"
        if self.name == "extractor":
            return self._line({"from": "stream", "name": settings.get("name", "NAME")})
        if self.name == "weights":
            name = self.wanted["model_id"]
            return f"name the weights {name} ({value}) in features.{self.feature}.weights"
        if self.name in VERSIONS:
            return f"make {self.feature} with the release of the program that made the other"
        if self.name in WORDS:
            return f"see to it that the {WORDS[self.name]} of {self.feature} is {_text(value)}"
        group, _, key = self.name.rpartition(".")
        if group == "faces":
            return f"set `faces: {{{key}: {_text(value)}}}`"
        return self._line({group: {key: value}} if group else {key: value})

    def _line(self, settings: Mapping[str, object]) -> str:
        return f"set `features: {{{self.feature}: {_text(settings)}}}`"

    def value(self, identity: Identity) -> object:
        """What an identity has there."""
        return _stated(identity)[self.name]


def _text(value: object) -> str:
    """A value as the config writes it, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_text(v)}" for k, v in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)


def differences(feature: str, there: Identity, wanted: Identity) -> list[Difference]:
    """What differs among the things that both identities state; the extractor alone if it does."""
    a, b = _compared(there, wanted)
    odd = [name for name in sorted(a.keys() & b.keys()) if a[name] != b[name]]
    if "extractor" in odd:
        odd = ["extractor"]
    # Other columns follow from other settings.
    odd = [name for name in odd if name not in ("dims", "columns")] or odd
    return [Difference(feature, name, there, wanted) for name in odd]


def in_words(odd: list[Difference]) -> str:
    """All differences in words."""
    return "; ".join(d.words for d in odd)


def cures(odd: list[Difference]) -> str:
    """What gives the feature all that is wanted."""
    return ", ".join(dict.fromkeys(d.cure for d in odd))


def unsaid(there: Identity, wanted: Identity) -> list[str]:
    """Names of what only one of the two identities states: it cannot be compared."""
    a, b = _compared(there, wanted)
    return sorted(a.keys() ^ b.keys())


def _compared(there: Identity, wanted: Identity) -> tuple[dict[str, object], dict[str, object]]:
    a, b = _stated(there), _stated(wanted)
    streams = there.get("extractor") == wanted.get("extractor") == PRECOMPUTED
    key = "name" if streams else "weights"
    if key in a and key in b:  # says better what the model is
        for names in (a, b):
            names.pop("model_id", None), names.pop("model_revision", None)
    return a, b


def _stated(identity: Identity) -> dict[str, object]:
    """All that an identity states, by dotted name."""
    own = {key: value for key, value in identity.items() if key != "settings"}
    return own | _flat(identity.get("settings", {}))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
