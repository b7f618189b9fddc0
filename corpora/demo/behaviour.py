"""From latents to what a camera and a microphone would catch: head poses and a voice.

Shown by the participant's own latent (`own_shown`): how far the mouth opens when it flaps and how
much it smiles; loudness (18 dB) and pitch (7 semitones) of the voice. Shown in reaction to the
partners (`reaction_shown`): the depth of nods at about 2 Hz and the height of the eyebrows;
brightness and breath of the voice at unchanged loudness. Speech pauses, vowels, blinks, gaze, slow
sway and everything about the person's looks and voice are nuisance.
"""

import numpy as np
from scipy.signal import lfilter

from corpora.demo.face import HEIGHT, WIDTH, Pose
from corpora.demo.truth import Latents, at, smooth_noise

AUDIO_RATE_HZ = 16000
NOD_DEPTH = 0.05  # head widths at reaction 1
NOD_RATE_HZ = 2.2
FLAP_RATE_HZ = 3.4
LOUDNESS_RANGE_DB = 18.0
PITCH_RANGE_OCTAVES = 0.6
NOISE_FLOOR = 3e-4


def speaking(rng: np.random.Generator, n: int, rate_hz: float) -> np.ndarray:
    """(n,) 0..1, about 80 % speech in turns of some seconds, with 60 ms ramps."""
    gate = np.zeros(n)
    position = int(-rng.uniform(0, 2) * rate_hz)
    while position < n:
        speech = int((1.2 + rng.exponential(2.2)) * rate_hz)
        gate[max(position, 0) : max(position + speech, 0)] = 1.0
        position += speech + int((0.25 + rng.exponential(0.5)) * rate_hz)
    ramp = max(1, int(0.06 * rate_hz))
    return np.convolve(gate, np.ones(ramp) / ramp, mode="same")


def _oscillation(rng: np.random.Generator, latents: Latents, rate_hz: float, times) -> np.ndarray:
    """Phase (radians) of an oscillation whose frequency wanders by some 8 %."""
    wander = smooth_noise(rng, len(latents.time), 1, smoothness_s=0.4)[0]
    phase = 2 * np.pi * np.cumsum(rate_hz * (1 + 0.08 * wander)) / 100.0
    return np.interp(times, latents.time, phase) + rng.uniform(0, 2 * np.pi)


def poses(
    rng: np.random.Generator, latents: Latents, times: np.ndarray, width_px: float
) -> list[Pose]:
    """Head pose at each frame time (s). The head rests near the middle of the upper half."""
    n = len(latents.time)
    own = at(latents, latents.own_shown["face"], times)
    reaction = at(latents, latents.reaction_shown["face"], times)
    talk = np.interp(times, latents.time, speaking(rng, n, 100.0))
    flap = 0.5 - 0.5 * np.cos(_oscillation(rng, latents, FLAP_RATE_HZ, times))
    nod = np.sin(_oscillation(rng, latents, NOD_RATE_HZ, times))
    drift = smooth_noise(rng, n, 4, smoothness_s=0.8)
    sway_x, sway_y, roll, gaze = (np.interp(times, latents.time, d) for d in drift)
    blink = np.zeros(len(times))
    moment = rng.uniform(0.5, 3.0)
    while moment < times[-1]:
        blink = np.maximum(blink, np.clip(1.4 - np.abs(times - moment) / 0.07, 0, 1))
        moment += 1.5 + rng.exponential(2.5)
    x, y = resting_place(rng, width_px)
    return [
        Pose(
            x=x + 0.04 * width_px * sway_x[k],
            y=y + width_px * (0.02 * sway_y[k] + NOD_DEPTH * reaction[k] * nod[k]),
            roll=float(2.0 * roll[k]),
            mouth=float(0.05 + own[k] * flap[k] * (0.7 + 0.25 * talk[k])),
            smile=float(own[k]),
            brow=float(reaction[k]),
            blink=float(blink[k]),
            gaze=float(np.clip(0.5 + 0.25 * gaze[k], 0, 1)),
        )
        for k in range(len(times))
    ]


def resting_place(rng: np.random.Generator, width_px: float) -> tuple[float, float]:
    """Centre of the resting head in pixels."""
    x = WIDTH * rng.uniform(0.40, 0.60)
    return float(x), float(max(HEIGHT * rng.uniform(0.36, 0.44), 1.15 * width_px))


_VOWELS = (((730, 90), (1090, 110)), ((530, 80), (1840, 120)), ((570, 80), (840, 100)))


def _resonate(x: np.ndarray, formants, scale: float) -> np.ndarray:
    for frequency, bandwidth in (*formants, (2600, 180), (3500, 250)):
        r = np.exp(-np.pi * bandwidth / AUDIO_RATE_HZ)
        theta = 2 * np.pi * frequency * scale / AUDIO_RATE_HZ
        a = [1.0, -2 * r * np.cos(theta), r * r]
        x = lfilter([sum(a)], a, x)
    return x


def _level(x: np.ndarray) -> np.ndarray:
    """x at unit root mean square over some 80 ms everywhere."""
    pole = np.exp(-1 / (0.04 * AUDIO_RATE_HZ))
    power = lfilter([1 - pole], [1, -pole], x * x)
    power = lfilter([1 - pole], [1, -pole], power[::-1])[::-1]
    return x / np.sqrt(power + 1e-12)


def voice(
    rng: np.random.Generator, latents: Latents, seconds: float, pitch_hz: float
) -> np.ndarray:
    """Mono 16 kHz voice (N,) float64 in [-1, 1]; sample k is at k/16000 s.

    `pitch_hz` is the pitch at the middle of the participant's range.
    """
    n = int(round(seconds * AUDIO_RATE_HZ))
    times = np.arange(n) / AUDIO_RATE_HZ
    own = at(latents, latents.own_shown["voice"], times)
    reaction = at(latents, latents.reaction_shown["voice"], times)
    slow = smooth_noise(rng, len(latents.time), 1, smoothness_s=0.15)[0]
    vibrato = 0.01 * np.interp(times, latents.time, slow)
    pitch = pitch_hz * 2.0 ** (PITCH_RANGE_OCTAVES * (own - 0.5) + vibrato)
    phase = np.cumsum(pitch) / AUDIO_RATE_HZ + rng.uniform()
    # A pulse at every turn of the phase, shared between its two neighbouring samples.
    turns = np.flatnonzero(np.diff(np.floor(phase))) + 1
    late = (phase[turns] % 1.0) / (pitch[turns] / AUDIO_RATE_HZ)
    pulses = np.zeros(n)
    np.add.at(pulses, turns, 1 - np.clip(late, 0, 1))
    np.add.at(pulses, turns - 1, np.clip(late, 0, 1))
    dark = lfilter([1.0], [1.0, -0.97], pulses)
    dark = lfilter([1.0], [1.0, -0.90], dark)
    bright = lfilter([1.0], [1.0, -0.90], pulses)
    breath = lfilter([1.0, -0.7], [1.0], rng.standard_normal(n))
    scale = float(rng.uniform(0.92, 1.12))
    weights = np.exp(1.2 * smooth_noise(rng, len(latents.time), len(_VOWELS), smoothness_s=0.12))
    weights /= weights.sum(axis=0)

    def vocal_tract(source: np.ndarray) -> np.ndarray:
        total = np.zeros(n)
        for formants, weight in zip(_VOWELS, weights, strict=True):
            shaped = _resonate(source, formants, scale)
            total += shaped / shaped.std() * np.interp(times, latents.time, weight)
        return _level(total)

    mixed = _level(
        (1 - reaction) * vocal_tract(dark)
        + reaction * vocal_tract(bright)
        + 0.5 * reaction * _level(vocal_tract(breath))
    )
    syllables = 0.75 + 0.25 * np.sin(
        np.interp(times, latents.time, _oscillation(rng, latents, 4.3, latents.time))
    )
    gate = np.interp(times, latents.time, speaking(rng, len(latents.time), 100.0))
    gain = 10 ** ((-15.0 - LOUDNESS_RANGE_DB * (1 - own)) / 20)
    floor = NOISE_FLOOR * rng.standard_normal(n)
    return np.clip(mixed * gain * syllables * gate + floor, -1.0, 1.0)
