"""The extractors: what each reads, gives, costs and needs, declared once.

Workflow, plan, profiles and readers take it from here: the rules (workflow/rules/extractors.smk), who
can have a feature (workflow/recordings.py), the estimate (workflow/plan.py), the modality group of
the models (workflow/run.py), and what alignment checks in a feature file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Extractor:
    """A feature that is computed from recordings, by the module of the same name.

    name : of the feature, its module in `extractors` and its rule. title : what its jobs say.
    reads : ``sound`` (a sound file, or a video's sound) or ``crops`` (faces file and crop store).
    group : ``audio`` or ``visual``, the models' modality.
    rate_hz : rows per second; None where they are the video's frames or follow from the checkpoint.
    dim : settings -> columns; None where they follow from the checkpoint.
    usual_rate_hz, usual_dim : what the plan expects where rate_hz and dim are None.
    dim_at : file of a local checkpoint, and keys in it, that state the columns.
    """

    name: str
    title: str
    reads: str
    group: str
    rate_hz: float | None = None
    dim: Callable[[Mapping], int] | None = None
    usual_rate_hz: float = 25.0
    usual_dim: int = 512
    dim_at: tuple[str, tuple[str, ...]] | None = None

    @property
    def module(self) -> str:
        return f"extractors.{self.name}"


EXTRACTORS = {
    extractor.name: extractor
    for extractor in (
        Extractor(
            name="egemaps",
            title="eGeMAPS functionals",
            reads="sound",
            group="audio",
            rate_hz=25.0,
            dim=lambda settings: 88,
        ),
        Extractor(
            name="egemaps_lld",
            title="eGeMAPS descriptors",
            reads="sound",
            group="audio",
            rate_hz=100.0,
            dim=lambda settings: 25,
        ),
        Extractor(
            name="wav2vec2",
            title="speech embeddings",
            reads="sound",
            group="audio",
            usual_rate_hz=50.0,
            usual_dim=1024,
            dim_at=("config.json", ("hidden_size",)),
        ),
        Extractor(
            name="clip_face",
            title="CLIP of the face",
            reads="crops",
            group="visual",
            dim_at=("open_clip_config.json", ("model_cfg", "embed_dim")),
        ),
        Extractor(
            name="flow",
            title="optical flow of the face",
            reads="crops",
            group="visual",
            # Mean u, v and the orientation bins, per cell.
            dim=lambda settings: settings["grid"] ** 2 * (2 + settings["bins"]),
        ),
        Extractor(
            name="flow_magnitude",
            title="flow magnitude at landmarks",
            reads="crops",
            group="visual",
            dim=lambda settings: 33,
        ),
    )
}
