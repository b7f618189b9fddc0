"""Which rate a stream really has, when its header and the person's other streams disagree."""

from dataclasses import dataclass
from statistics import median

ABSURD = 1e12  # eGeMAPS really reaches 1e6; fills of 3.7e19 do not describe a voice
# Lengths of one person's streams differ by a few frames (NoXi-J: up to 60); more than this is
# another recording.
LENGTH_TOLERANCE_S = 2.5
RATE_TOLERANCE = 0.05  # of the duration: beyond it a header's rate or a length is wrong
USUAL_RATES_HZ = (25.0, 30.0, 50.0, 100.0)
USUAL_RATE_TOLERANCE = 0.01


def infer_rate(
    rows: int, declared_hz: float, reference_s: float | None, pause_s: float = 0.0
) -> float:
    """The rate of a stream whose person's other streams last `reference_s` seconds.

    pause_s : seconds of these in which the stream has no rows (StreamHeader.pause_s).

    A header is overruled only when its duration is off by more than 5 % and the rows fit one of
    the usual rates within 1 %: other lengths mean another recording, not another rate.
    """
    if not reference_s or not rows or reference_s <= pause_s:
        return declared_hz
    recorded_s = reference_s - pause_s
    if abs(rows / declared_hz - recorded_s) <= RATE_TOLERANCE * recorded_s:
        return declared_hz
    measured = rows / recorded_s
    near = min(USUAL_RATES_HZ, key=lambda rate: abs(rate - measured))
    return near if abs(near - measured) <= USUAL_RATE_TOLERANCE * near else declared_hz


def reference_duration(lengths: dict[str, float], feature: str) -> float | None:
    """Median seconds of the person's other streams, audio before video; None without any."""
    others = {name: s for name, s in lengths.items() if name != feature}
    audio = [s for name, s in others.items() if name.startswith("audio.")]
    durations = audio if len(audio) > 1 or feature.startswith("audio.") else list(others.values())
    return median(durations or others.values()) if others else None


@dataclass(frozen=True)
class Extent:
    """What a header states: rows, their rate, and the seconds without rows (StreamHeader.pause_s)."""

    rows: int
    rate_hz: float
    pause_s: float = 0.0

    def seconds(self, rate_hz: float | None = None) -> float:
        """From 0 s to the end of the last row; at the stated rate by default."""
        return self.pause_s + self.rows / (rate_hz or self.rate_hz)


def true_rates(streams: dict[str, Extent]) -> dict[str, float]:
    """Rate in Hz of every stream of one person."""
    lengths = {name: stated.seconds() for name, stated in streams.items() if stated.rows}
    return {
        name: infer_rate(s.rows, s.rate_hz, reference_duration(lengths, name), s.pause_s)
        for name, s in streams.items()
    }


def sound_length(lengths: dict[str, float], feature: str) -> float | None:
    """Median seconds of a person's audio streams other than `feature`; None without any.

    lengths : name -> seconds at the true rate.
    """
    sound = [s for name, s in lengths.items() if name.startswith("audio.") and name != feature]
    return median(sound) if sound else None
