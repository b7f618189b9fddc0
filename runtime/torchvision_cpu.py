"""Let PyPI's CUDA-built torchvision be imported beside a CPU-only torch.

Its compiled operators then fail to load, and the import dies on their missing schemas
("operator torchvision::nms does not exist"); transformers and open_clip both import it. Declaring
the schemas is enough for transforms and models; calling such an operator still raises.
"""


def allow_torchvision_without_cuda() -> None:
    """Call before the first import of torchvision, transformers models or open_clip."""
    import sys

    if "torchvision" in sys.modules or hasattr(allow_torchvision_without_cuda, "library"):
        return
    import torch

    if torch.version.cuda is not None:
        return
    from importlib import metadata

    try:
        if "+cpu" in metadata.version("torchvision"):
            return
    except metadata.PackageNotFoundError:
        return
    library = torch.library.Library("torchvision", "DEF")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        library.define(schema)
    # The library object must outlive this call, or the schemas vanish with it.
    allow_torchvision_without_cuda.library = library  # type: ignore[attr-defined]
