"""Labels that are read at another rate than they were written at: shown by their number.

720 labels of 30 s, read at 25 a second, last 28.8 s: within what labels and recording may differ by,
and up to 1.2 s wrong. So many labels fit 24 a second to the label.
"""

from runtime import InputError

COMMON_RATES_HZ = (24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 50.0)
EXACT_LABELS = 1.5  # a recording's last label may be missing, or one too many
NOTICED_S = 0.25  # a smaller difference is the end of a rating, of no other rate


def fitting_rate(rows: int, rate_hz: float, media_s: float) -> float | None:
    """The common rate that `rows` labels of `media_s` seconds fit, where `rate_hz` does not; else None."""
    if abs(rows / rate_hz - media_s) <= NOTICED_S:
        return None
    off = {rate: abs(rows - rate * media_s) for rate in COMMON_RATES_HZ}
    best = min(off, key=off.__getitem__)
    return best if off[best] <= EXACT_LABELS and off[best] < abs(rows - rate_hz * media_s) else None


def check_rate(labels, rows: int, rate_hz: float, media_s: float) -> None:
    """InputError naming the common rate that the labels of a recording fit, where it is another."""
    rate = fitting_rate(rows, rate_hz, media_s)
    if rate is not None:
        raise InputError(
            f"{labels} holds {rows} labels, which are {rows / rate_hz:.2f} s at {rate_hz:g} Hz, but"
            f" {rows / rate:.2f} s at {rate:.5g} Hz, and the recording lasts {media_s:.2f} s",
            f"set labels.rate_hz to {rate:.5g} (of one dataset under labels.datasets); if they are"
            f" {rate_hz:g} a second and end elsewhere, write a line `nan` for each that is missing",
        )
