"""Settings of prediction: they change predictions and scores, never a trained model."""

from dataclasses import dataclass
from typing import Any, ClassVar

from model.configs.base import Checked, ModelConfig, build, mapping
from runtime import InputError


@dataclass(frozen=True)
class PredictionConfig(Checked):
    """How a trained model is applied to whole sessions.

    mode : `window` (windows as in training), `carry` (one pass, state carried from chunk to chunk),
        `stream` (frame by frame, as live)
    merge : of windows: `centre` (the predicted centre, as in the paper) or `mean` of all windows
        that hold the frame
    partner_context : frames of partner context in carry and stream, 0 = the training window
    absent_rate : share of streams that are taken away (a test of missing modalities), per window
    absent_seed : which ones
    smooth_s : centred moving average over this many seconds of each person's recording, 0 off
    clip : whether engagement is clipped to [0, 1], after smoothing
    """

    mode: str = "window"
    merge: str = "centre"
    partner_context: int = 0
    absent_rate: float = 0.0
    absent_seed: int = 0
    smooth_s: float = 0.0
    clip: bool = False

    CHOICES: ClassVar = {"mode": ("window", "carry", "stream"), "merge": ("centre", "mean")}
    MINIMUM: ClassVar = {"partner_context": 0, "absent_rate": 0, "absent_seed": 0, "smooth_s": 0}

    def checked(self) -> "PredictionConfig":
        """Itself; InputError where a key would be without effect in this mode."""
        if self.mode == "window" and self.partner_context:
            raise InputError(
                f"prediction.partner_context is {self.partner_context}, but in mode: window "
                "partners are heard over the window",
                "leave it out, or choose mode: carry or stream",
            )
        if self.mode != "window" and self.merge != "centre":
            raise InputError(
                f"prediction.merge is {self.merge}, but mode: {self.mode} has no windows to merge",
                "leave it out, or choose mode: window",
            )
        if self.mode != "window" and self.absent_rate:
            raise InputError(
                f"prediction.absent_rate is {self.absent_rate}, but mode: {self.mode} has no windows "
                "to take streams from",
                "choose mode: window",
            )
        if self.mode != "window" and self.smooth_s:
            raise InputError(
                f"prediction.smooth_s is {self.smooth_s}, but mode: {self.mode} is causal, and a "
                "centred mean reads frames to come",
                "leave it out, or choose mode: window",
            )
        return self


def parse_prediction(settings: dict[str, Any]) -> PredictionConfig:
    """Checked settings of prediction; `dataclasses.asdict` gives the canonical dict."""
    return build(PredictionConfig, mapping(settings, "prediction"), "prediction").checked()


def frames_each_side(smooth_s: float, rate_hz: float) -> int:
    """Frames before and after a frame that a moving average over `smooth_s` seconds takes in."""
    return round((smooth_s * rate_hz - 1) / 2) if smooth_s else 0


def check_finish(config: PredictionConfig, rate_hz: float, classes: int = 0) -> None:
    """InputError where smoothing would have no effect, or is asked for classes."""
    if classes and (config.smooth_s or config.clip):
        key = "smooth_s" if config.smooth_s else "clip"
        raise InputError(
            f"prediction.{key} is set, but classes have no mean and no range", f"leave {key} out"
        )
    if config.smooth_s and frames_each_side(config.smooth_s, rate_hz) < 1:
        raise InputError(
            f"prediction.smooth_s is {config.smooth_s}, less than three frames of {rate_hz:g} Hz",
            f"choose at least {3 / rate_hz:g} s, or 0",
        )


def check_live(name: str, model: ModelConfig, partners: int = 1) -> None:
    """InputError unless a model of this name and settings carries its state (carry, stream).

    partners: of any target; with several, `concat` is not causal.
    """
    window = "choose mode: window"
    if name != "da_mamba":
        raise InputError(
            f"modes carry and stream need a model that carries its state; model.name is {name}",
            f"{window}, or train a run with model: {{name: da_mamba}}",
        )
    if model.mixer != "mamba":
        why = {
            "bimamba": "its second half runs from the end of a window to the beginning",
            "transformer": "its attention sees the whole window, later frames too",
        }[model.mixer]
        raise InputError(
            f"modes carry and stream are causal, model.mixer {model.mixer} is not: {why}",
            f"{window}, or train a run with mixer: mamba",
        )
    if model.partner_fusion and model.partner_context == "concat" and partners > 1:
        raise InputError(
            f"partner_context: concat is not causal with {partners} partners: the second partner's "
            "first frame comes after the first partner's last",
            f"{window}, or train a run with partner_context: interleave or separate",
        )
