"""Small checkpoints with random weights, in the real on-disk formats of the two encoders.

They let the whole workflow run without a download. Numbers from them say nothing about the real
encoders; tables made with them say so.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from corpora.demo.composition import weights_files
from runtime import get_logger
from runtime.torchvision_cpu import allow_torchvision_without_cuda
from store.atomic import write_text

WAV2VEC2 = {
    # The receptive field and strides of the real front end: 400 samples every 320, that is 50 Hz.
    "conv_dim": (48,) * 7,
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 8,
}
CLIP = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 96, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}
CLIP_PREPROCESSING = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}


def write_weights(feature: str, out: str | Path, seed: int = 0) -> list[Path]:
    """Write the checkpoint folder of `feature`; returns its files. Equal seed, equal bytes.

    wav2vec2: transformers' ``save_pretrained`` layout, 64 dims at 50 Hz. clip_face: open_clip's
    local folder layout (load with the model name ``local-dir:FOLDER``), 64 dims.
    InputError for another feature.
    """
    out = Path(out)
    names = weights_files(feature)
    out.mkdir(parents=True, exist_ok=True)
    {"wav2vec2": _wav2vec2, "clip_face": _clip}[feature](out, seed)
    files = [out / name for name in names]
    for file in files:
        file.chmod(0o644)  # safetensors writes files that others may not read
    get_logger("demo").info("%s: %s", feature, ", ".join(names))
    return files


def _random_weights(model: torch.nn.Module, seed: int) -> None:
    """Fill weight matrices with N(0, 1/fan_in): signals keep their scale from layer to layer.

    The libraries' own initial values (std 0.02) are made for training; unlike trained weights they
    would let the input fade away against the biases and positions. Numbers come from numpy, in the
    order of the parameters' names, so that they do not depend on the library that made the model.
    """
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.dim() < 2:
                continue  # biases and norms keep their neutral values
            fan_in = parameter[0].numel()
            values = rng.standard_normal(tuple(parameter.shape)) / np.sqrt(fan_in)
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))


def _wav2vec2(out: Path, seed: int) -> None:
    allow_torchvision_without_cuda()
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(seed)  # for the parameters that keep the library's initial values
    model = Wav2Vec2Model(Wav2Vec2Config(**WAV2VEC2))
    _random_weights(model, seed)
    model.eval().save_pretrained(out)
    Wav2Vec2FeatureExtractor(
        feature_size=1,
        sampling_rate=16000,
        padding_value=0.0,
        do_normalize=True,
        return_attention_mask=True,
    ).save_pretrained(out)


def _clip(out: Path, seed: int) -> None:
    allow_torchvision_without_cuda()
    from open_clip.model import CLIP as Model

    torch.manual_seed(seed)
    model = Model(**CLIP)
    _random_weights(model, seed)
    config = {"model_cfg": CLIP, "preprocess_cfg": CLIP_PREPROCESSING}
    write_text(out / "open_clip_config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, out / "open_clip_model.safetensors")
