"""Settings of models, free of torch: the workflow reads them too.

One module per `model.name` (its dataclass under the name `Config`), found by its file name. They
are imported by name; the values themselves stand in the run's resolved settings.
"""

import importlib
from pathlib import Path

from model.configs.base import ModelConfig

NOT_MODELS = ("__init__", "base")


def model_names() -> list[str]:
    """Every `model.name`, sorted."""
    names = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return sorted(name for name in names if name not in NOT_MODELS)


def model_config(name: str) -> type[ModelConfig]:
    """The settings dataclass of a model."""
    return importlib.import_module(f"model.configs.{name}").Config


def architecture(name: str) -> str:
    """Module of a model's network, by its name: importing it needs torch."""
    return f"model.architectures.{name}"
