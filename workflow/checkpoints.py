"""Where the networks of the extractors come from: a folder, a hub, or random numbers."""

from pathlib import Path

from corpora.demo import weights_files
from runtime import InputError
from store import layout
from workflow.options import options

SOURCES = ("directory", "repository", "random")


class Checkpoints:
    """Checkpoints of the features that need one.

    features : enabled features with their settings; results : the config's folder, where fetched
    and random checkpoints lie.
    """

    def __init__(self, features: dict[str, dict], results: str):
        self.results = results
        self.features = {n: s["weights"] or {} for n, s in features.items() if "weights" in s}

    def source(self, feature: str) -> str:
        """Which of directory, repository, random is given; InputError unless it is exactly one."""
        weights = self.features[feature]
        given = [key for key in SOURCES if weights.get(key) is not None]
        if len(given) != 1:
            raise InputError(
                f"config: features.{feature}.weights names {' and '.join(given) or 'no source'}",
                "set exactly one of directory, repository (with revision) or random; null the others",
            )
        return given[0]

    def fetched(self, feature: str) -> bool:
        """Whether the checkpoint comes from a hub."""
        return feature in self.features and self.source(feature) == "repository"

    def random(self) -> dict[str, int]:
        """Features whose checkpoint is made on the spot -> seed."""
        made = [name for name in self.features if self.source(name) == "random"]
        return {name: self.features[name]["random"] for name in made}

    def folder(self, feature: str) -> str:
        """Folder a checkpoint is loaded from."""
        if self.source(feature) == "directory":
            return self.features[feature]["directory"]
        return layout.checkpoint_folder(self.results, feature)

    def inputs(self, feature: str) -> list[str]:
        """Files of a local checkpoint (none when it is fetched from a hub).

        Raises InputError for a folder without weights.
        """
        source, folder = self.source(feature), Path(self.folder(feature))
        if source == "repository":
            return []
        if source == "random":
            return [str(folder / name) for name in weights_files(feature)]
        files = sorted(
            str(p) for p in folder.glob("*") if p.suffix in (".json", ".safetensors", ".txt")
        )
        if not any(f.endswith(".safetensors") for f in files):
            raise InputError(
                f"features.{feature}.weights.directory: {folder} holds no .safetensors file",
                "put the checkpoint there, or set repository and revision",
            )
        return files

    def options(self, feature: str) -> str:
        """Command-line options that name the checkpoint."""
        if self.fetched(feature):
            return options({k: self.features[feature].get(k) for k in ("repository", "revision")})
        return options({"directory": self.folder(feature)})
