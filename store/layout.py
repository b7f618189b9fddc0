"""Where everything lies below the results folder. No other module knows.

Commands call the functions; the rules say the same names (`{place.faces}.h5`), which they have
from `patterns`. `results` is the folder, the other arguments are names; paths are text and as relative
as `results`. Beside a computed file lies its sidecar, of the same name with the suffix .json.
"""

import os
from pathlib import Path

ORACLE = ("oracle", 0)  # run and seed of the generated corpus's ceiling

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


def curves(results: str | Path, run: str, of: str) -> str:
    """Figure of a run; of: a dataset, `training` or `similarity`."""
    return f"{results}/curves/{run}/{of}.png"


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


def applied_folder(results: str | Path) -> str:
    """Which folder the recordings are in."""
    return f"{results}/folder.json"


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
_SEED = ("{run}", "{seed}")


def patterns(results: str) -> dict[str, str]:
    """Name -> path of the rules' files with their wildcards, without the suffix; or their folder."""
    files = {
        "probe": probe(results, *_PERSON),
        "faces": faces(results, *_PERSON),
        "labels": labels(results, *_PERSON),
        "clock": clock(results, *_PERSON[:2]),
        "quality": quality(results, *_PERSON[:2]),
        "statistics": statistics(results, "{run}"),
        "model": model(results, *_SEED),
        "history": history(results, *_SEED),
        "predictions": predictions(results, *_SEED, "{dataset}"),
        "scores": scores(results, *_SEED, "{dataset}"),
        "oracle_predictions": predictions(results, *ORACLE, "{dataset}"),
        "oracle_scores": scores(results, *ORACLE, "{dataset}"),
        "applied_predictions": applied_predictions(results, "{model}", "{session}"),
        "engagement": engagement(results, *_PERSON),
        "quality_table": quality_table(results),
    }
    folders = {
        "features": os.path.dirname(feature(results, *_PERSON, "{feature}")),
        "aligned": os.path.dirname(aligned(results, *_PERSON, "{feature}")),
        "weights": os.path.dirname(checkpoint_record(results, "{feature}")),
        "curves": os.path.dirname(curves(results, "{run}", "{of}")),
        "table": table_folder(results, "{table}"),
        "efficiency": table_folder(results, "efficiency"),
    }
    return {name: os.path.splitext(path)[0] for name, path in files.items()} | folders


# First folder below the results -> numbers of parts that the path of a file with a place has from it on.
_DEPTHS: dict[str, set[int]] = {}
for _path in (
    faces("", *_PERSON), feature("", *_PERSON, "{feature}"), labels("", *_PERSON),
    aligned("", *_PERSON, "{feature}"), statistics("", "{run}"), model("", *_SEED),
    predictions("", *_SEED, "{dataset}"), applied_predictions("", "{model}", "{session}"),
):  # fmt: skip
    _DEPTHS.setdefault(_path.split("/")[1], set()).add(_path.count("/"))


def place_of(path: str | Path) -> str:
    """`faces/.../NAME` of a path that lies where the layout puts such files, "" of any other."""
    parts = Path(os.path.abspath(path)).parts
    for depth in (5, 4, 3):
        if len(parts) > depth and depth in _DEPTHS.get(parts[-depth], ()):
            return "/".join(parts[-depth:])
    return ""
