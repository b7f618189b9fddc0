"""A Hugging Face audio encoder from a local folder, with the geometry of its frames.

Safetensors only, no remote code, nothing from the network. Values agree between devices and batch
sizes within the tolerances that tests state; TF32 is off, so that fp32 means fp32 on a GPU too.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from runtime import InputError
from runtime.device import pick_device
from runtime.torchvision_cpu import allow_torchvision_without_cuda
from store.moments import RunningMoments

MODEL_RATE_HZ = 16000
# The filter banks of w2v-BERT 2.0 (SeamlessM4TFeatureExtractor): 25 ms windows every 10 ms.
FBANK_WINDOW, FBANK_HOP = 400, 160


class _Reached(Exception):
    """The wanted layer has run: the ones above it need not."""

    def __init__(self, hidden):
        super().__init__()
        self.hidden = hidden


class _FirstNorm:
    """Group norm after the first convolution, with whole-file statistics.

    wav2vec2-base, hubert-base and their kin (feat_extract_norm = "group") normalise every channel of
    their first convolution over time. In a chunk that would blow up a quiet stretch to the level of
    speech; here mean and variance come from the first pass over the recording, as in one full pass.
    The convolution is linear, so they follow from the mean (K,) and the second moments (K, K) of the
    raw samples under its kernel: no channel has to be computed.
    """

    def __init__(self, layer):
        import torch

        self.norm = layer.layer_norm
        # Statistics in double whatever the precision of the model
        self.kernel = layer.conv.weight.detach().double().cpu().numpy()[:, 0]  # (C, K)
        bias = layer.conv.bias
        self.bias = 0.0 if bias is None else bias.detach().double().cpu().numpy()
        self.stride = layer.conv.stride[0]
        self.reset()
        self.scale = self.shift = None

        class Affine(torch.nn.Module):
            def forward(module, hidden):  # (B, C, T)
                return torch.addcmul(self.shift, hidden.float(), self.scale).to(hidden.dtype)

        layer.layer_norm = Affine()

    def reset(self) -> None:
        size = self.kernel.shape[1]
        self.n = 0
        self.sums, self.products = np.zeros(size), np.zeros((size, size))
        self.held = np.zeros(0, np.float32)

    def add(self, block: np.ndarray) -> None:
        self.held = np.concatenate([self.held, block])
        size = self.kernel.shape[1]
        n = (len(self.held) - size) // self.stride + 1
        if n < 1:
            return
        windows = np.lib.stride_tricks.sliding_window_view(self.held, size)[:: self.stride]
        windows = windows[:n].astype(np.float64)  # (n, K)
        self.sums += windows.sum(axis=0)
        self.products += windows.T @ windows
        self.n += n
        self.held = self.held[n * self.stride :]

    def finish(self, mean: float, scale: float, device) -> None:
        """Statistics of the convolution of (x - mean) * scale, as one scale and shift (C, 1)."""
        import torch

        centre = self.sums / self.n - mean  # (K,)
        covariance = self.products / self.n - np.outer(self.sums, self.sums) / self.n**2
        variance = scale**2 * np.einsum("ck,kl,cl->c", self.kernel, covariance, self.kernel)
        gain = self.norm.weight.detach().double().cpu().numpy()
        gain = gain / np.sqrt(np.maximum(variance, 0.0) + self.norm.eps)  # (C,)
        level = scale * self.kernel @ centre + self.bias
        shift = self.norm.bias.detach().double().cpu().numpy() - level * gain
        self.scale = torch.from_numpy(gain[:, None]).float().to(device)
        self.shift = torch.from_numpy(shift[:, None]).float().to(device)


class Encoder:
    """Chunks of samples in, hidden states out; made by `load_encoder`.

    Attributes
    ----------
    rate_hz : sampling rate of the input.
    stride, receptive : samples from frame to frame, and behind one frame.
    dim : width of the hidden states. architecture : class of the model.
    n_samples : length of the recording, after `fit`.
    """

    def __init__(self, model, extractor, layer: int, precision: str):
        import torch

        self.model = model
        self.extractor = extractor
        self.layer = layer
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            precision
        ]
        self.device = pick_device()
        self.architecture = type(model).__name__
        self.dim = int(model.config.hidden_size)
        self.rate_hz = int(extractor.sampling_rate)
        self.filter_banks = extractor.model_input_names[0] == "input_features"
        if self.filter_banks:
            stack = int(extractor.stride)
            self.stride = stack * FBANK_HOP
            self.receptive = FBANK_WINDOW + (stack - 1) * FBANK_HOP
        else:
            self.stride, self.receptive = 1, 1
            for kernel, stride in zip(
                model.config.conv_kernel, model.config.conv_stride, strict=True
            ):
                self.receptive += (kernel - 1) * self.stride
                self.stride *= stride
        self.n_samples = 0
        self.mean: np.ndarray | None = None
        self.scale: np.ndarray | None = None
        self.first_norm = None
        if getattr(model.config, "feat_extract_norm", "") == "group":
            self.first_norm = _FirstNorm(model.feature_extractor.conv_layers[0])

    def frames(self, n_samples: int) -> int:
        """Frames of one full pass over n_samples."""
        return max(0, (n_samples - self.receptive) // self.stride + 1)

    def fit(self, blocks: Iterable[np.ndarray]) -> None:
        """First pass: length and whole-file statistics, as the model's feature extractor takes them.

        Waveform models with do_normalize: mean and population variance of the samples; with group
        norm, those of the first convolution too. Filter-bank models: mean and sample variance of
        every mel band.
        """
        moments = RunningMoments()
        self.n_samples = 0
        if self.first_norm:
            self.first_norm.reset()
        held = np.zeros(0, np.float32)
        for block in blocks:
            self.n_samples += len(block)
            if self.filter_banks:
                held = np.concatenate([held, block])
                n = (len(held) - FBANK_WINDOW) // FBANK_HOP + 1
                if n > 0:
                    moments.add(self._banks(held[: (n - 1) * FBANK_HOP + FBANK_WINDOW]))
                    held = held[n * FBANK_HOP :]
            else:
                if self.extractor.do_normalize:
                    moments.add(block)
                if self.first_norm:
                    self.first_norm.add(block)
        if moments.n:
            degrees = max(1, moments.n - 1) if self.filter_banks else moments.n
            self.mean = np.asarray(moments.mean, np.float32)
            self.scale = np.asarray(1 / np.sqrt(moments.squares / degrees + 1e-7), np.float32)
        if self.first_norm and self.first_norm.n:
            mean, scale = (self.mean, self.scale) if moments.n else (0.0, 1.0)
            self.first_norm.finish(float(mean), float(scale), self.device)

    def _banks(self, samples: np.ndarray) -> np.ndarray:
        """Log mel filter banks (n, mels) of samples."""
        return self.extractor._extract_fbank_features(samples)

    def inputs(self, chunks: np.ndarray) -> np.ndarray:
        """Samples (B, n) float32 -> what the model takes: (B, n), or (B, frames, stack * mels)."""
        if self.filter_banks:
            banks = np.stack([self._banks(c) for c in chunks])  # (B, F, mels)
            banks = (banks - self.mean) * self.scale
            even = banks.shape[1] - banks.shape[1] % self.extractor.stride
            return banks[:, :even].reshape(
                len(chunks), even // self.extractor.stride, -1
            )  # neighbours side by side
        if self.mean is not None:
            return (chunks - self.mean) * self.scale
        return chunks

    def __call__(self, chunks: np.ndarray) -> np.ndarray:
        """Hidden states of equally long chunks: samples (B, n) -> float32 (B, frames, D).

        Raises InputError when the model gives another number of frames than its configuration says.
        """
        import torch

        values = torch.from_numpy(np.ascontiguousarray(self.inputs(chunks), dtype=np.float32))
        values = values.to(self.device, self.dtype)
        with torch.inference_mode():
            try:
                hidden = self.model(values).last_hidden_state
            except _Reached as reached:
                hidden = reached.hidden
        expected = (len(chunks), self.frames(chunks.shape[1]), self.dim)
        if tuple(hidden.shape) != expected:
            raise InputError(
                f"{self.architecture} gives {tuple(hidden.shape)} for a chunk of {chunks.shape[1]} samples, "
                f"{expected} expected from its convolutions",
                "choose an encoder whose frames come from its convolutions alone (wav2vec2, HuBERT, WavLM, w2v-BERT)",
            )
        return hidden.float().cpu().numpy()


def load_encoder(directory: Path, layer: int, precision: str) -> Encoder:
    """Load a checkpoint folder and stop the model at `layer`.

    layer : 0 input of the first transformer layer, k output of layer k, -1 the model's output
    (with the final layer norm where it has one).

    Raises InputError for a folder that transformers cannot load, missing tensors, an adapter that
    changes the frame rate, or a layer the model does not have.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    allow_torchvision_without_cuda()
    import torch
    from transformers import AutoFeatureExtractor, AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        extractor = AutoFeatureExtractor.from_pretrained(directory, **local)
        model, report = AutoModel.from_pretrained(
            directory, use_safetensors=True, output_loading_info=True, **local
        )
    except Exception as e:  # transformers raises whatever its parts raise
        raise InputError(
            f"weights of wav2vec2: {directory} cannot be loaded ({type(e).__name__}: "
            f"{' '.join(str(e).split())[:150]})",
            "check that it is an audio encoder in Hugging Face layout (config.json, "
            "preprocessor_config.json, model.safetensors)",
        ) from e
    # The mask embedding serves pre-training only.
    missing = sorted(k for k in report["missing_keys"] if not k.endswith("masked_spec_embed"))
    missing += sorted(str(k) for k in report.get("mismatched_keys", ()))
    if missing:
        raise InputError(
            f"weights of wav2vec2: {directory} lacks {len(missing)} tensors of its model, first {missing[0]}",
            "the checkpoint is incomplete or of another model: copy or download it again",
        )
    layers = getattr(getattr(model, "encoder", None), "layers", None)
    inputs = getattr(extractor, "model_input_names", [""])[0]
    if layers is None or inputs not in ("input_values", "input_features"):
        raise InputError(
            f"weights of wav2vec2: {type(model).__name__} in {directory} is no audio encoder this extractor knows",
            "choose a wav2vec2, HuBERT, WavLM or w2v-BERT checkpoint",
        )
    if getattr(model.config, "add_adapter", False):
        raise InputError(
            f"weights of wav2vec2: {directory} has an adapter, which lowers the frame rate",
            'set "add_adapter" to false in its config.json',
        )
    if not -1 <= layer <= len(layers):
        raise InputError(
            f"layer {layer} does not exist: the model in {directory} has {len(layers)} layers",
            f"set features.wav2vec2.layer to 0 .. {len(layers)}, or -1 for the model's output",
        )
    encoder = Encoder(model, extractor, layer, precision)
    if encoder.rate_hz != MODEL_RATE_HZ:
        raise InputError(
            f"weights of wav2vec2: the model in {directory} wants {encoder.rate_hz} Hz audio",
            f"choose an encoder for {MODEL_RATE_HZ} Hz",
        )
    _stop_at(layers, layer)
    model.eval().to(encoder.device, encoder.dtype)
    return encoder


def _stop_at(layers, layer: int) -> None:
    """Leave the forward pass as soon as the wanted hidden state exists."""
    if layer == -1:
        return
    if layer == 0:

        def before(module, args, kwargs):
            raise _Reached(args[0] if args else kwargs["hidden_states"])

        layers[0].register_forward_pre_hook(before, with_kwargs=True)
        return

    def after(module, args, output):
        raise _Reached(output[0] if isinstance(output, tuple) else output)

    layers[layer - 1].register_forward_hook(after)
