"""DA-Mamba over whole sessions: piece by piece (carry) and frame by frame (stream)."""

from torch import nn

from runtime import InputError

WINDOW = "choose mode: window"


def check_live(model: nn.Module, name: str, partners: int) -> None:
    """InputError unless a model of this name can run with carried state and so many partners."""
    if name != "da_mamba":
        raise InputError(
            f"modes carry and stream need a model that carries its state; model.name is {name}",
            f"{WINDOW}, or train a run with model: {{name: da_mamba}}",
        )
    config = model.config
    if config.mixer != "mamba":
        why = {
            "bimamba": "its second half runs from the end of a window to the beginning",
            "transformer": "its attention sees the whole window, later frames too",
        }[config.mixer]
        raise InputError(
            f"modes carry and stream are causal, model.mixer {config.mixer} is not: {why}",
            f"{WINDOW}, or train a run with mixer: mamba",
        )
    if config.partner_fusion and config.partner_context == "concat" and partners > 1:
        raise InputError(
            f"partner_context: concat is not causal with {partners} partners: the second partner's "
            "first frame comes after the first partner's last",
            f"{WINDOW}, or train a run with partner_context: interleave or separate",
        )
