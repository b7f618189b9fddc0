"""Were the results that exist made with the libraries that are installed now?

Library versions are no rerun trigger: an upgrade must not silently recompute weeks of features. They
stand in every sidecar, and a difference is said once at the start.
"""

import json
import sys
from importlib import metadata
from pathlib import Path

LOOKED_AT = 200  # sidecars read at most; enough to see every stage, cheap on a large study


def mismatches(sidecars: list[Path]) -> dict[str, tuple[str, str]]:
    """Package -> (version in a sidecar, version installed now) where they differ."""
    different: dict[str, tuple[str, str]] = {}
    for path in sidecars:
        try:
            recorded = json.loads(path.read_text(encoding="utf-8")).get("versions", {})
        except (OSError, ValueError, AttributeError):
            continue  # not a sidecar of ours, or half a file: its own stage will say so
        for package, version in recorded.items():
            try:
                installed = metadata.version(package)
            except metadata.PackageNotFoundError:
                installed = "not installed"
            if installed != version:
                different.setdefault(package, (version, installed))
    return different


def existing_sidecars(results: Path) -> list[Path]:
    """At most LOOKED_AT sidecars, spread evenly over the stages and participants."""
    stages = ("faces", "features", "aligned", "labels", "runs", "predictions")
    found = [p for stage in stages for p in sorted((results / stage).rglob("*.json"))]
    step = max(1, -(-len(found) // LOOKED_AT))
    return found[::step]


def warn_about_versions(study) -> None:
    """Print one warning that lists every difference, or nothing."""
    different = mismatches(existing_sidecars(Path(study.results)))
    if different:
        listed = ", ".join(f"{p} {old} -> {new}" for p, (old, new) in sorted(different.items()))
        print(
            f"warning: existing results were made with other library versions ({listed}). "
            f"They are kept; to remake them: snakemake --cores all --forceall",
            file=sys.stderr,
        )
