"""The latent engagement of a session: what drives faces, voices and labels.

Every participant i has two latents, uniform on [0, 1] over a session, smooth (1/e of the
autocorrelation after 1.5 s) and mutually uncorrelated within the session:

* own_i: shown by i (mouth and smile; loudness and pitch of the voice);
* hidden_i: shown by i's PARTNERS only (nods and eyebrows; brightness and breath of the voice).

    label_i = 0.5 + 0.2 * (sqrt(0.6) * z(own_i) + sqrt(0.4) * z(hidden_i)) + noise_i

with z(u) = (u - 1/2) * sqrt(12), so 60 % of the explained variance is own and 40 % hidden. Partner
j shows reaction_j: the unit-variance mean of the hidden latents of all others; in a dyad exactly
hidden_i. hidden_i is uncorrelated with everything i shows, so a model that does not see the
partners cannot know it.
"""

import hashlib
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtr

from corpora.demo.composition import Session

LATENT_RATE_HZ = 100
LABEL_RATE_HZ = 25
SMOOTHNESS_S = 0.75  # sigma of the Gaussian that smooths white noise; 1/e of autocorrelation: 2x
SHARE_OWN, SHARE_HIDDEN = 0.6, 0.4
CENTRE, SPREAD = 0.5, 0.2
NOISE_WHITE, NOISE_SLOW, NOISE_OFFSET = 0.02, 0.03, 0.02  # standard deviations of the label noise
CUE_NUISANCE = {"face": 0.05, "voice": 0.15}  # share of a shown cue's variance that means nothing


def generator(*key: object) -> np.random.Generator:
    """Random numbers that depend on the key alone (corpus seed, dataset, session, role, what)."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32).tolist())


@dataclass(frozen=True)
class Latents:
    """Latents of one participant on the 100 Hz grid k/100 s; all arrays (N,) float64 in [0, 1].

    The shown cues are own and reaction with a little meaningless variation of their own, which
    differs between face and voice.
    """

    time: np.ndarray
    own: np.ndarray
    hidden: np.ndarray
    reaction: np.ndarray
    own_shown: dict[str, np.ndarray]
    reaction_shown: dict[str, np.ndarray]

    def oracle(self) -> np.ndarray:
        """(N,) conditional expectation of the label, everything known but its noise."""
        return _label_mean(self.own, self.hidden)

    def oracle_own(self) -> np.ndarray:
        """(N,) conditional expectation of the label for one who cannot see the partners."""
        return _label_mean(self.own, np.full_like(self.hidden, 0.5))


def _label_mean(own: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    def z(u: np.ndarray) -> np.ndarray:
        return (u - 0.5) * sqrt(12.0)

    mean = CENTRE + SPREAD * (sqrt(SHARE_OWN) * z(own) + sqrt(SHARE_HIDDEN) * z(hidden))
    return np.clip(mean, 0.0, 1.0)


def smooth_noise(
    rng: np.random.Generator, n: int, count: int, smoothness_s: float = SMOOTHNESS_S
) -> np.ndarray:
    """(count, n) smooth Gaussian noise at 100 Hz, zero mean and unit variance over the session."""
    sigma = smoothness_s * LATENT_RATE_HZ
    margin = int(4 * sigma)
    white = rng.standard_normal((count, n + 2 * margin))
    smooth = gaussian_filter1d(white, sigma, axis=1, mode="constant")[:, margin : margin + n]
    smooth -= smooth.mean(axis=1, keepdims=True)
    return smooth / smooth.std(axis=1, keepdims=True)


def _uncorrelated(signals: np.ndarray) -> np.ndarray:
    """The nearest signals (rows, unit variance) without correlation among them (Loewdin)."""
    gram = signals @ signals.T / signals.shape[1]
    values, vectors = np.linalg.eigh(gram)
    if values[0] < 1e-3:  # a few seconds hold too few independent values: leave them as they are
        return signals
    return vectors @ np.diag(values**-0.5) @ vectors.T @ signals


def session_latents(seed: int, session: Session, seconds: float) -> dict[str, Latents]:
    """Latents of every participant, {role: Latents}, the same for every caller with equal input."""
    people = session.participants
    # One second more than the recording, so that interpolation at its last instants has support.
    n = int(round((seconds + 1.0) * LATENT_RATE_HZ))
    key = (seed, session.dataset, session.session)
    signals = _uncorrelated(smooth_noise(generator(*key, "latents"), n, 2 * len(people)))
    own, hidden = signals[: len(people)], signals[len(people) :]
    result = {}
    for i, person in enumerate(people):
        others = [k for k in range(len(people)) if k != i]
        reaction = hidden[others].sum(axis=0) / sqrt(len(others))
        shown: dict[str, dict[str, np.ndarray]] = {"own": {}, "reaction": {}}
        for channel, share in CUE_NUISANCE.items():
            noise = smooth_noise(generator(*key, person.role, "nuisance", channel), n, 2)
            for name, cue, extra in (("own", own[i], noise[0]), ("reaction", reaction, noise[1])):
                shown[name][channel] = ndtr(sqrt(1 - share) * cue + sqrt(share) * extra)
        result[person.role] = Latents(
            time=np.arange(n) / LATENT_RATE_HZ,
            own=ndtr(own[i]),
            hidden=ndtr(hidden[i]),
            reaction=ndtr(reaction),
            own_shown=shown["own"],
            reaction_shown=shown["reaction"],
        )
    return result


def at(latents: Latents, signal: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Signal of the 100 Hz grid at other instants (s), linearly interpolated."""
    return np.interp(times, latents.time, signal)


def labels(
    seed: int, session: Session, role: str, latents: Latents, seconds: float
) -> dict[str, np.ndarray]:
    """{"labels", "oracle", "oracle_own"}: (T,) float64 at 25 Hz, line k describes k/25 s."""
    n = int(round(seconds * LABEL_RATE_HZ))
    times = np.arange(n) / LABEL_RATE_HZ
    rng = generator(seed, session.dataset, session.session, role, "labels")
    slow = smooth_noise(rng, len(latents.time), 1, smoothness_s=0.5)[0]
    noise = (
        NOISE_WHITE * rng.standard_normal(n)
        + NOISE_SLOW * at(latents, slow, times)
        + NOISE_OFFSET * rng.standard_normal()
    )
    oracle = at(latents, latents.oracle(), times)
    return {
        "labels": np.clip(oracle + noise, 0.0, 1.0),
        "oracle": oracle,
        "oracle_own": at(latents, latents.oracle_own(), times),
    }


def missing_lines(seed: int, session: Session, role: str, n: int) -> np.ndarray:
    """(n,) bool: label lines that the annotators of this file left out (about 8 % in 4 runs)."""
    rng = generator(seed, session.dataset, session.session, role, "missing")
    missing = np.zeros(n, dtype=bool)
    run = max(1, n // 50)
    for start in rng.integers(0, max(1, n - run), size=4):
        missing[start : start + run] = True
    return missing
