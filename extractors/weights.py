"""Checkpoints: where they lie, what exactly they are, and that they are safe to load.

A weights folder is always a local directory in the format's own layout:

    wav2vec2   Hugging Face save_pretrained: config.json, preprocessor_config.json,
               model.safetensors (or shards with model.safetensors.index.json)
    clip_face  open_clip's local directory: open_clip_config.json, open_clip_model.safetensors

Only safetensors and JSON are read: no pickle (.bin, .pt, .ckpt), no remote code. The command line
writes a manifest with the sha256 of every file, which the extractors take as ``--weights`` (a folder
is taken as well), check before they load, and record: a changed weights file is a changed feature.

    python -m extractors.weights --feature wav2vec2 --directory DIR --out results/weights/wav2vec2.json
    python -m extractors.weights --feature wav2vec2 --repository ORG/NAME --revision SHA --out ...

The second form downloads the pinned revision beside the manifest first (needs the network once).
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from extractors.declared import EXTRACTORS
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from store.atomic import write_text
from store.sidecar import sha256

log = get_logger("weights")

CHECKPOINTS = {e.name: e.checkpoint for e in EXTRACTORS.values() if e.checkpoint}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Weights:
    """A checked checkpoint.

    directory : where it lies. model_id : hub id, or the folder's name. model_revision : 40 hex
    digits of the hub, or ``sha256:`` and 12 digits over the files. files : name -> sha256.
    """

    directory: Path
    model_id: str
    model_revision: str
    files: dict[str, str]

    @property
    def digest(self) -> str:
        """``sha256:`` and 12 digits over names and content of the files, wherever they lie."""
        return _digest(self.files)

    @property
    def settings(self) -> dict[str, object]:
        """For the sidecar: identity without paths."""
        return {"id": self.model_id, "revision": self.model_revision, "files": self.files}


def resolve(path: str | Path, feature: str) -> Weights:
    """Read a manifest (or a folder), check every file, and return what may be loaded.

    Raises InputError for a missing folder or file, a changed file, a damaged safetensors file, and
    a folder that holds pickles only.
    """
    path = Path(path)
    if path.is_dir():
        return _from_directory(path, feature)
    if not path.exists():
        raise InputError(
            f"weights of {feature}: {path} does not exist",
            f"set features.{feature}.weights in the config to a folder that exists, or run the rule `weights`",
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        directory = Path(manifest["directory"])
        stated = {f["name"]: f["sha256"] for f in manifest["files"]}
        names = manifest["feature"], manifest["model_id"], manifest["model_revision"]
        directory.is_dir()  # raises for a name that the system does not take
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as e:
        raise InputError(
            f"{path} is not a weights manifest ({type(e).__name__}: {e})",
            f"delete it and run again, it will be remade: rm '{path}'",
        ) from e
    if names[0] != feature:
        raise InputError(
            f"{path} describes weights of {names[0]}, not of {feature}",
            "pass the manifest of this feature",
        )
    found = _from_directory(directory, feature)
    for name in sorted(stated.keys() | found.files.keys()):
        if stated.get(name) != found.files.get(name):
            raise InputError(
                f"{directory / name} is not the file that {path.name} names (sha256 differs)",
                f"delete the manifest and run again if the change is wanted: rm '{path}'",
            )
    return Weights(directory, names[1], names[2], found.files)


def _from_directory(directory: Path, feature: str) -> Weights:
    files = checkpoint_files(directory, feature)
    digests = {p.name: sha256(p) for p in files}
    return Weights(directory, directory.resolve().name, _digest(digests), digests)


def _digest(files: dict[str, str]) -> str:
    together = hashlib.sha256("".join(f"{n} {d}\n" for n, d in files.items()).encode())
    return f"sha256:{together.hexdigest()[:12]}"


def checkpoint_files(directory: Path, feature: str) -> list[Path]:
    """The files of a checkpoint, sorted by name; InputError if it is incomplete, damaged or pickled."""
    where = f"weights of {feature}: {directory}"
    setting = f"features.{feature}.weights"
    if not directory.is_dir():
        raise InputError(f"{where} is not a folder", f"correct {setting} in the config")
    files = sorted(
        {p for pattern in CHECKPOINTS[feature].patterns for p in directory.glob(pattern)}
    )
    tensors = [p for p in files if p.suffix == ".safetensors"]
    if not tensors:
        pickles = sorted(p.name for p in directory.iterdir() if p.suffix in PICKLES)
        held = f"only {pickles[0]} (pickle, refused)" if pickles else "no .safetensors file"
        raise InputError(
            f"{where} holds {held}",
            "convert the checkpoint to safetensors (docs/audio.md, Weights) or choose another folder",
        )
    for name in CHECKPOINTS[feature].required:
        if not (directory / name).is_file():
            raise InputError(f"{where} has no {name}", f"copy it there, or correct {setting}")
    for path in files:
        _check_file(path)
    return files


def _check_file(path: Path) -> None:
    """Header of a safetensors file or syntax of a JSON file."""
    from safetensors import SafetensorError, safe_open

    cure = "copy or download the file again"
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="numpy"):
                pass
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
            if path.name.endswith(".index.json"):
                shards = content["weight_map"].values()
                outside = [
                    s for s in shards if not (path.parent / Path(s).name).is_file() or "/" in s
                ]
                if outside:
                    raise ValueError(f"its shard {outside[0]!r} is not in the folder")
    except (SafetensorError, ValueError, OSError, LookupError, TypeError, AttributeError, RecursionError) as e:  # fmt: skip
        raise InputError(f"{path} is damaged ({' '.join(str(e).split())[:120]})", cure) from e


def download(
    feature: str, repository: str, revision: str, folder: Path, fetch: Callable | None = None
) -> Path:
    """Fetch the checkpoint files of a pinned hub revision into `folder`; returns it.

    Raises InputError for a revision that is not a full commit, a repository that cannot be reached
    or holds no safetensors. `fetch` stands in for huggingface_hub.snapshot_download in tests.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise InputError(
            f"weights of {feature}: revision {revision!r} of {repository} is not a full commit",
            "pin the 40 hex digits of the commit (the hub's page `Files and versions`), not a branch or tag",
        )
    if fetch is None:
        from huggingface_hub import snapshot_download as fetch
    try:
        fetch(
            repository,
            revision=revision,
            allow_patterns=list(CHECKPOINTS[feature].patterns),
            local_dir=folder,
        )
    except Exception as e:  # the hub's client raises a dozen unrelated types
        raise InputError(
            f"weights of {feature}: {repository} at {revision[:12]} cannot be downloaded "
            f"({type(e).__name__}: {' '.join(str(e).split())[:120]})",
            f"check the network, or download it elsewhere and set features.{feature}.weights.directory",
        ) from e
    if not list(Path(folder).glob("*.safetensors")):
        raise InputError(
            f"weights of {feature}: {repository} at {revision[:12]} holds no safetensors file",
            "choose a revision with safetensors, or convert it (docs/audio.md, Weights) and set "
            f"features.{feature}.weights.directory",
        )
    return Path(folder)


def write_manifest(weights: Weights, feature: str, out: str | Path, fingerprint: str = "") -> None:
    """Write the manifest; equal checkpoints at equal places give equal bytes."""
    record = {
        "manifest_version": MANIFEST_VERSION,
        "feature": feature,
        "fingerprint": fingerprint,
        "model_id": weights.model_id,
        "model_revision": weights.model_revision,
        "directory": str(weights.directory),
        "files": [
            {"name": name, "bytes": (weights.directory / name).stat().st_size, "sha256": digest}
            for name, digest in weights.files.items()
        ],
    }
    write_text(out, json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def make_manifest(
    feature: str,
    out: str | Path,
    directory: str | None = None,
    repository: str | None = None,
    revision: str | None = None,
    fingerprint: str = "",
) -> Weights:
    """Check a folder, or download a pinned revision beside `out`, and write the manifest."""
    if (directory is None) == (repository is None):
        raise InputError(
            f"weights of {feature}: give either --directory or --repository with --revision",
            f"set exactly one of them under features.{feature}.weights",
        )
    if directory is not None:
        weights = _from_directory(Path(directory), feature)
    else:
        folder = download(feature, repository, revision or "", Path(out).with_suffix(""))
        files = _from_directory(folder, feature).files
        weights = Weights(folder, repository, revision, files)
    write_manifest(weights, feature, out, fingerprint)
    return weights


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m extractors.weights",
        description="Check (or download) a checkpoint and write its manifest with checksums.",
    )
    parser.add_argument(
        "--feature", required=True, choices=sorted(CHECKPOINTS), help="who reads it"
    )
    parser.add_argument("--directory", help="local weights folder")
    parser.add_argument("--repository", help="hub id ORG/NAME (with --revision)")
    parser.add_argument("--revision", help="commit of the repository, 40 hex digits")
    parser.add_argument("--out", required=True, help="manifest to write (.json)")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        weights = make_manifest(
            args.feature,
            args.out,
            args.directory,
            args.repository,
            args.revision,
            args.fingerprint,
        )
        log.info("%s %s, %d files", weights.model_id, weights.model_revision, len(weights.files))

    return run_job("extractors.weights", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
