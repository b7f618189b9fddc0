"""Where everything lies below the results folder. No other module knows.

Commands call the functions; the rules say the same names (`<aligned>.h5`), which the Snakefile takes
from `patterns`. `results` is the folder, the other arguments are names; paths are text and as relative
as `results`. Beside a computed file lies its sidecar, of the same name with the suffix .json.
"""

import os
from pathlib import Path

# ---- per participant and session ----


def probe(results: str | Path, dataset: str, session: str, role: str) -> str:
    """What media.probe found in a participant's recording."""
    return f"{results}/media/{dataset}/{session}/{role}.json"


def faces(results: str | Path, dataset: str, session: str, role: str) -> str:
    return f"{results}/faces/{dataset}/{session}/{role}.h5"


def crops(results: str | Path, dataset: str, session: str, role: str) -> str:
    return f"{results}/faces/{dataset}/{session}/{role}.crops.mkv"


def feature(results: str | Path, dataset: str, session: str, role: str, feature: str) -> str:
    """A feature at its native rate, in recording time."""
    return f"{results}/features/{dataset}/{session}/{role}/{feature}.h5"


def labels(results: str | Path, dataset: str, session: str, role: str) -> str:
    """Engagement at the labels' own time stamps, in session time."""
    return f"{results}/labels/{dataset}/{session}/{role}.h5"


def clock(results: str | Path, dataset: str, session: str) -> str:
    return f"{results}/aligned/{dataset}/{session}/clock.json"


def aligned(results: str | Path, dataset: str, session: str, role: str, feature: str) -> str:
    """A feature on the session's clock."""
    return f"{results}/aligned/{dataset}/{session}/{role}/{feature}.h5"


def quality(results: str | Path, dataset: str, session: str) -> str:
    """Quality record of a session; its picture has the suffix .png."""
    return f"{results}/qc/{dataset}/{session}.json"


def quality_table(results: str | Path) -> str:
    return f"{results}/qc/qc.tsv"


# ---- per run ----


def checkpoint_folder(results: str | Path, feature: str) -> str:
    """A pretrained network that was fetched, or made of random numbers."""
    return f"{results}/weights/{feature}"


def checkpoint_record(results: str | Path, feature: str) -> str:
    """Which pretrained network a feature is computed with: folder and sha256 of its files."""
    return f"{results}/weights/{feature}.json"


def statistics(results: str | Path, run: str) -> str:
    return f"{results}/runs/{run}/statistics.h5"


def model(results: str | Path, run: str, seed: int | str) -> str:
    return f"{results}/runs/{run}/seed-{seed}/model.safetensors"


def history(results: str | Path, run: str, seed: int | str) -> str:
    """One line per epoch of a training."""
    return f"{results}/runs/{run}/seed-{seed}/history.jsonl"


def resume_folder(results: str | Path, run: str, seed: int | str) -> str:
    """What an interrupted training goes on from."""
    return f"{results}/cache/{run}/seed-{seed}"


def predictions(results: str | Path, run: str, seed: int | str, dataset: str) -> str:
    return f"{results}/predictions/{run}/seed-{seed}/{dataset}.h5"


def scores(results: str | Path, run: str, seed: int | str, dataset: str) -> str:
    return f"{results}/scores/{run}/seed-{seed}/{dataset}.json"


def curves_folder(results: str | Path, run: str) -> str:
    return f"{results}/curves/{run}"


def curves(results: str | Path, run: str, of: str) -> str:
    """Figure of a run; of: a dataset, `training` or `similarity`."""
    return f"{curves_folder(results, run)}/{of}.png"


# ---- per table ----


def table_folder(results: str | Path, table: str) -> str:
    return f"{results}/tables/{table}"


def table(results: str | Path, table: str, kind: str = "ccc", suffix: str = "csv") -> str:
    """A table; kind: ccc, challenge, metrics, sessions, fairness; suffix: csv, md, tex."""
    return f"{table_folder(results, table)}/{kind}.{suffix}"


def submission(results: str | Path, run: str) -> str:
    return f"{results}/submission/{run}.zip"


# ---- a trained run on new recordings ----


def applied(results: str | Path, folder: str) -> str:
    """Results folder of a folder of new recordings; in it lies what lies in any results folder."""
    return f"{results}/applied/{folder}"


def applied_predictions(results: str | Path, model: str, session: str) -> str:
    """Predictions of one model for one session."""
    return f"{results}/predictions/{model}/{session}.h5"


def applied_mean(results: str | Path, run: str, session: str) -> str:
    """The mean of all models of a run for one session."""
    return f"{results}/predictions/mean/{run}/{session}.h5"


def engagement_folder(results: str | Path) -> str:
    return f"{results}/engagement"


def engagement(results: str | Path, dataset: str, session: str, role: str) -> str:
    """Engagement per frame of one participant."""
    return f"{results}/engagement/{dataset}/{session}/{role}.engagement.csv"


# ---- the same for the rules, and backwards ----

_PERSON = ("{dataset}", "{session}", "{role}")
_SESSION = ("{dataset}", "{session}")
_SEED = ("{run}", "{seed}")
# Files of a rule's wildcards.
_OF_RULES = {
    "probe": (probe, _PERSON),
    "faces": (faces, _PERSON),
    "feature": (feature, (*_PERSON, "{feature}")),
    "labels": (labels, _PERSON),
    "clock": (clock, _SESSION),
    "aligned": (aligned, (*_PERSON, "{feature}")),
    "quality": (quality, _SESSION),
    "statistics": (statistics, ("{run}",)),
    "model": (model, _SEED),
    "history": (history, _SEED),
    "predictions": (predictions, (*_SEED, "{dataset}")),
    "scores": (scores, (*_SEED, "{dataset}")),
    "curves": (curves_folder, ("{run}",)),
    "table": (table_folder, ("{table}",)),
    "weights": (checkpoint_record, ("{feature}",)),
    "applied_predictions": (applied_predictions, ("{model}", "{session}")),
    "applied_mean": (applied_mean, ("{run}", "{session}")),
    "engagement": (engagement, _PERSON),
}
# Those whose sidecars say for which place they were made.
_PLACED = (
    "faces", "feature", "labels", "aligned", "statistics", "model", "predictions",
    "applied_predictions",
)  # fmt: skip


def patterns(results: str) -> dict[str, str]:
    """Name -> path of the rules' files with their wildcards, without the suffix."""
    return {name: os.path.splitext(f(results, *w))[0] for name, (f, w) in _OF_RULES.items()}


# First folder below `results` -> numbers of parts that the path of a computed file has from there on.
_DEPTHS: dict[str, set[int]] = {}
for _name in _PLACED:
    _parts = patterns(".")[_name].split("/")[1:]
    _DEPTHS.setdefault(_parts[0], set()).add(len(_parts))


def place_of(path: str | Path) -> str:
    """`faces/.../NAME` of a path that lies where the layout puts such files, "" of any other."""
    parts = Path(os.path.abspath(path)).parts
    for depth in (5, 4, 3):
        if len(parts) > depth and depth in _DEPTHS.get(parts[-depth], ()):
            return "/".join(parts[-depth:])
    return ""
