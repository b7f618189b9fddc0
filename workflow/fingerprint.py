"""What a job's numbers depend on beside its input files, as one sorted, readable line.

    stage=extractors.egemaps version=2 dtype=float32 mode=streaming

A stage's version (workflow/stages.json) stands for what its code computes: it is raised when the stage
computes other values, and golden values hold it to that. Where code lies, how it is written, what it
logs and how it writes do not count. Snakemake prints the line before and after as the reason of a
rerun.
"""

from collections.abc import Mapping

from workflow.stages import stage


def flat(settings: dict, prefix: str = "") -> dict[str, object]:
    """Nested keys joined by dots."""
    found = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        found |= flat(value, name + ".") if isinstance(value, dict) else {name: value}
    return found


def without_neutral(settings: dict, name: str) -> dict:
    """Settings of a stage without those that came later and have their neutral value.

    They are left out of commands, too, which Snakemake compares as well.
    """
    return _kept(settings, stage(name).added)


def _kept(settings: dict, added: Mapping[str, object], prefix: str = "") -> dict:
    kept = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            kept[key] = _kept(value, added, name + ".")
        elif name not in added or added[name] != value:
            kept[key] = value
    return kept


def _word(value: object) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list | tuple) else str(value)


def version(name: str) -> int:
    """Version of what a stage or a network computes."""
    return stage(name).version


def fingerprint(name: str, settings: dict) -> str:
    """One canonical line: stage, version, then the settings sorted by name.

    settings : all that change values, defaults included. InputError for an unknown stage.
    """
    words = flat(without_neutral(settings, name))
    head = [f"stage={name}", f"version={version(name)}"]
    return " ".join([*head, *(f"{key}={_word(words[key])}" for key in sorted(words))])
