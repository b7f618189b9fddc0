"""The extractors: what each reads, gives, costs and needs, declared once.

Taken from here: the command line (extractors/run.py), the rules (workflow/rules/extractors.smk), who
can have a feature (workflow/recordings.py), the estimate (workflow/plan.py), the models' modality
groups (workflow/run.py), and what alignment checks in a feature file. Nothing here computes, so that
a new extractor changes the numbers of no other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """A setting of an extractor: a key of its config block and an option of its command.

    type, choices, default and help are argparse's. changes_values : False for what may change
    speed only; such an option is in no config and in no sidecar.
    """

    name: str
    type: Callable
    default: object
    help: str
    choices: tuple[str, ...] | None = None
    changes_values: bool = True


@dataclass(frozen=True)
class CheckpointFiles:
    """The checkpoint that an extractor loads from a folder.

    patterns : files that belong to it; required : those that must be there beside the tensors.
    dim_at : file, and keys in it, that state the feature's columns; usual_dim : what the plan
    expects of a checkpoint that is not there yet.
    """

    patterns: tuple[str, ...]
    required: tuple[str, ...]
    dim_at: tuple[str, tuple[str, ...]]
    usual_dim: int


@dataclass(frozen=True)
class Extractor:
    """A feature that is computed from recordings by the function `rows` of the module of its name.

    name : of the feature, its module in `extractors`, its rule and its config block.
    title : what its jobs say they make. description : one sentence for the command line.
    reads : ``sound`` (a sound file, or a video's sound) or ``crops`` (faces file and crop store).
    group : the models' modality, ``audio`` or ``visual``.
    rate_hz : rows per second; None where they follow from the video or the checkpoint, then
    usual_rate_hz is what the plan expects. dim : settings -> columns; None: the checkpoint's.
    dtype : how values are stored unless the config says otherwise; dtype_note : why.
    settings : beside dtype and align. checkpoint : None for an extractor without weights.
    packages : distributions, beside av, h5py and numpy, whose versions the sidecar states.
    env : of envs/. gpu : whether it profits from one; gpu_threads : that prepare its inputs then. mem_mb, minutes : what a cluster is asked for,
    for a recording of half an hour; both grow with every attempt.
    """

    name: str
    title: str
    description: str
    reads: str
    group: str
    packages: tuple[str, ...]
    mem_mb: int
    rate_hz: float | None = None
    usual_rate_hz: float = 25.0
    dim: Callable[[Mapping], int] | None = None
    dtype: str = "float32"
    dtype_note: str = ""
    settings: tuple[Setting, ...] = ()
    checkpoint: CheckpointFiles | None = None
    env: str = "media"
    gpu: bool = False
    gpu_threads: int = 1
    minutes: int = 60

    @property
    def module(self) -> str:
        return f"extractors.{self.name}"

    @property
    def defaults(self) -> dict[str, object]:
        """Settings, and options that change no value, with their defaults."""
        return {s.name: s.default for s in self.settings}

    @property
    def keys(self) -> tuple[str, ...]:
        """Its own keys of the config, beside those that every feature has."""
        own = tuple(s.name for s in self.settings if s.changes_values)
        return ("weights", *own) if self.checkpoint else own


PRECISION = Setting(
    "precision",
    str,
    "fp32",
    "of weights and computation; bf16 is twice as fast on recent CPUs, fp16 is for GPUs",
    choices=("fp32", "bf16", "fp16"),
)
FLOW_PACKAGES = ("opencv-contrib-python",)

EXTRACTORS = {
    extractor.name: extractor
    for extractor in (
        Extractor(
            name="egemaps",
            title="eGeMAPS functionals",
            description="88 eGeMAPSv02 functionals over a sliding 1 s window, 25 rows per second.",
            reads="sound",
            group="audio",
            rate_hz=25.0,
            dim=lambda settings: 88,
            dtype_note="some functionals exceed float16",
            settings=(
                Setting(
                    "mode",
                    str,
                    "streaming",
                    "streaming: one pass, about 90x real time; exact: one openSMILE call per window, "
                    "as the challenge's extraction, about 2x real time",
                    choices=("streaming", "exact"),
                ),
            ),
            packages=("opensmile",),
            mem_mb=2000,
        ),
        Extractor(
            name="egemaps_lld",
            title="eGeMAPS descriptors",
            description="25 eGeMAPSv02 low-level descriptors, 100 rows per second.",
            reads="sound",
            group="audio",
            rate_hz=100.0,
            dim=lambda settings: 25,
            dtype_note="float16 rounds formants to 2-4 Hz",
            packages=("opensmile",),
            mem_mb=2000,
        ),
        Extractor(
            name="wav2vec2",
            title="speech embeddings",
            description="Hidden states of a Hugging Face audio encoder, 50 rows per second.",
            reads="sound",
            group="audio",
            usual_rate_hz=50.0,
            dtype="float16",
            settings=(
                Setting(
                    "layer",
                    int,
                    -1,
                    "hidden state: 0 input of the first layer, k output of layer k; -1: the model's output",
                ),
                Setting("chunk_s", float, 30.0, "longest chunk, seconds"),
                Setting(
                    "context_s",
                    float,
                    1.0,
                    "seconds at a chunk's inner edges that are left to its neighbours",
                ),
                PRECISION,
                Setting(
                    "batch_size",
                    int,
                    1,
                    "chunks per forward pass (GPU: 8; not a setting)",
                    changes_values=False,
                ),
            ),
            checkpoint=CheckpointFiles(
                patterns=("*.json", "*.safetensors"),
                required=("config.json", "preprocessor_config.json"),
                dim_at=("config.json", ("hidden_size",)),
                usual_dim=1024,
            ),
            packages=("torch", "transformers", "safetensors"),
            env="torch",
            gpu=True,
            mem_mb=8000,
        ),
        Extractor(
            name="clip_face",
            title="CLIP of the face",
            description="open_clip image embedding of the face region, one row per video frame.",
            reads="crops",
            group="visual",
            dtype="float16",
            settings=(
                PRECISION,
                Setting(
                    "batch_size",
                    int,
                    32,
                    "pictures per call of the model (not a setting)",
                    changes_values=False,
                ),
            ),
            checkpoint=CheckpointFiles(
                patterns=("open_clip_config.json", "open_clip_model.safetensors"),
                required=("open_clip_config.json",),
                dim_at=("open_clip_config.json", ("model_cfg", "embed_dim")),
                usual_dim=512,
            ),
            packages=("open_clip_torch", "pillow", "torch", "torchvision"),
            env="torch",
            gpu=True,
            gpu_threads=8,
            mem_mb=6000,
        ),
        Extractor(
            name="flow",
            title="optical flow of the face",
            description="Optical flow of the face region on a grid: mean u, v and orientation "
            "histogram per cell, in crop widths per second.",
            reads="crops",
            group="visual",
            # Mean u, v and the orientation bins, per cell.
            dim=lambda settings: settings["grid"] ** 2 * (2 + settings["bins"]),
            dtype="float16",
            settings=(
                Setting("grid", int, 4, "cells per side"),
                Setting("bins", int, 8, "orientation bins per cell"),
            ),
            packages=FLOW_PACKAGES,
            mem_mb=1500,
        ),
        Extractor(
            name="flow_magnitude",
            title="flow magnitude at landmarks",
            description="Length of the optical flow around 32 facial landmarks and over the whole "
            "face, in crop widths per second.",
            reads="crops",
            group="visual",
            dim=lambda settings: 33,
            dtype="float16",
            packages=FLOW_PACKAGES,
            mem_mb=1500,
        ),
    )
}
