"""Scoring: what is paired with what, what counts, what is refused."""

import json
import subprocess
import sys

import numpy as np
import pytest
from evaluation_data import write_labels, write_predictions

from evaluation import export, score
from evaluation.metrics import Moments
from evaluation.predictions import PredictionFile, Series, sample
from evaluation.score import score as run_score
from runtime import InputError
from store.session_spec import parse_spec


def concordance(x, y):
    """Independent: CCC from numpy's population moments."""
    return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def score_noxi(tmp_path, *sessions, sets=None, excluded=()):
    out = tmp_path / "scores.json"
    predictions = tmp_path / "noxi.h5"
    run_score(predictions, tmp_path, list(sessions), sets, list(excluded), out)
    return json.loads(out.read_text())


def test_pooled_over_sessions_and_roles(tmp_path, rng):
    """The split's CCC is that of the concatenated frames, not a mean of session CCCs."""
    participants, truths, values = {}, [], []
    for session, n in (("001", 200), ("002", 75)):
        for role in ("expert", "novice"):
            truth = rng.random() + 0.3 * rng.random(n)
            predicted = (truth + 0.1 * rng.random(n)).astype(np.float32)
            _, time = write_labels(tmp_path, "noxi", session, role, truth)
            participants[session, role] = (time, predicted)
            truths.append(truth.astype(np.float32).astype(float))
            values.append(predicted.astype(float))
    write_predictions(tmp_path / "noxi.h5", participants)
    record = score_noxi(
        tmp_path, "noxi/001:expert,novice@test", "noxi/002:expert,novice@test", excluded=["test=3"]
    )
    assert (record["run"], record["seed"], record["dataset"]) == ("da_mamba", 1, "noxi")
    split = record["splits"]["test"]
    assert split["ccc"] == pytest.approx(
        concordance(np.concatenate(truths), np.concatenate(values)), abs=1e-9
    )
    own = [p["ccc"] for p in split["participants"]]
    assert own == pytest.approx(
        [concordance(t, v) for t, v in zip(truths, values, strict=True)], abs=1e-9
    )
    assert abs(np.mean(own) - split["ccc"]) > 0.01
    assert split["mae"] == pytest.approx(
        np.abs(np.concatenate(truths) - np.concatenate(values)).mean(), abs=1e-9
    )
    assert (split["n_sessions"], split["n_participants"], split["n_frames"]) == (2, 4, 550)
    assert (split["n_excluded"], split["n_unlabelled"]) == (3, 0)


def test_missing_labels_are_masked_not_compacted(tmp_path, rng):
    """Frames around a missing label keep their own time: no shift, no zero."""
    truth = rng.random(100)
    missing = truth.copy()
    missing[10:30] = np.nan
    _, time = write_labels(tmp_path, "noxi", "001", "expert", missing)
    write_predictions(tmp_path / "noxi.h5", {("001", "expert"): (time, truth)})
    split = score_noxi(tmp_path, "noxi/001:expert@test")["splits"]["test"]
    assert split["ccc"] == pytest.approx(1, abs=1e-6)
    assert (split["n_frames"], split["n_masked"]) == (80, 20)


def test_scored_at_the_labels_time_stamps(tmp_path):
    """A 100 Hz prediction of a late recording meets its labels; a shift by one frame would show."""

    def signal(t):
        return 0.5 + 0.4 * np.sin(2 * np.pi * 1.3 * t)

    grid = np.arange(0, 1000) * 0.01
    truth_time = 1.24 + np.arange(200) * 0.04
    write_labels(tmp_path, "noxi", "001", "expert", signal(truth_time), start=1.24)
    write_predictions(tmp_path / "noxi.h5", {("001", "expert"): (grid, signal(grid))})
    assert score_noxi(tmp_path, "noxi/001:expert@test")["splits"]["test"]["mae"] < 1e-6
    write_predictions(tmp_path / "noxi.h5", {("001", "expert"): (grid, signal(grid - 0.04))})
    assert score_noxi(tmp_path, "noxi/001:expert@test")["splits"]["test"]["mae"] > 0.05


def test_sampling_between_frames_is_linear_and_keeps_validity():
    series = Series(np.array([0, 0.1, 0.2]), np.array([0.0, 1.0, 3.0]), np.array([1, 1, 0], bool))
    values, valid = sample(series, np.array([-0.2, 0, 0.05, 0.1 + 1e-9, 0.125, 0.2, 0.3]))
    assert values == pytest.approx([0, 0, 0.5, 1, 1.5, 3, 3], abs=1e-12)
    assert values[3] == 1.0  # within a microsecond: the frame itself, bit for bit
    assert valid.tolist() == [True, True, True, True, False, False, False]
    alone = Series(np.array([0.5]), np.array([0.7]), np.array([True]))
    assert sample(alone, np.array([0.4, 0.5, 0.6]))[0].tolist() == [0.7] * 3


def test_frames_without_input_are_scored_and_counted(tmp_path, rng):
    truth = rng.random(50).astype(np.float32)
    _, time = write_labels(tmp_path, "noxi", "001", "expert", truth)
    valid = np.ones(50, bool)
    valid[40:] = False
    write_predictions(tmp_path / "noxi.h5", {("001", "expert"): (time, 1 - truth, valid)})
    split = score_noxi(tmp_path, "noxi/001:expert@test")["splits"]["test"]
    assert (split["n_frames"], split["n_without_input"]) == (50, 10)
    assert split["ccc"] == pytest.approx(concordance(truth.astype(float), 1.0 - truth), abs=1e-6)


def test_constant_prediction(tmp_path, rng):
    _, time = write_labels(tmp_path, "noxi", "001", "expert", rng.random(50))
    write_predictions(tmp_path / "noxi.h5", {("001", "expert"): (time, np.full(50, 0.1))})
    split = score_noxi(tmp_path, "noxi/001:expert@test")["splits"]["test"]
    assert split["ccc"] == 0.0 and split["pearson"] is None


def test_participants_without_labels_are_counted(tmp_path, rng):
    """Unlabelled participants and whole unlabelled sets are no error and no score."""
    _, time = write_labels(tmp_path, "noxi", "001", "expert", rng.random(50))
    everyone = [("001", "expert"), ("001", "novice"), ("002", "expert"), ("002", "novice")]
    write_predictions(tmp_path / "noxi.h5", {name: (time, rng.random(50)) for name in everyone})
    record = score_noxi(
        tmp_path,
        "noxi/001:expert,novice@val",
        "noxi/002:expert,novice@test",
        sets=["noxi/val", "noxi/test", "noxi/train"],
    )
    val, test, train = (record["splits"][s] for s in ("val", "test", "train"))
    assert (val["n_sessions"], val["n_participants"], val["n_unlabelled"]) == (1, 1, 1)
    assert (test["ccc"], test["n_sessions"], test["n_unlabelled"]) == (None, 0, 2)
    assert (train["ccc"], train["participants"]) == (None, [])


def test_labels_may_outlast_predictions_a_little(tmp_path, rng):
    truth = rng.random(100)
    path, time = write_labels(tmp_path, "noxi", "001", "expert", truth)
    write_predictions(tmp_path / "noxi.h5", {("001", "expert"): (time[:90], truth[:90])})
    split = score_noxi(tmp_path, "noxi/001:expert@test")["splits"]["test"]
    assert split["n_frames"] == 100 and split["participants"][0]["n_beyond"] == 10
    write_predictions(tmp_path / "noxi.h5", {("001", "expert"): (time[:80], truth[:80])})
    with pytest.raises(InputError) as error:
        score_noxi(tmp_path, "noxi/001:expert@test")
    assert str(path) in error.value.problem and "noxi.h5" in error.value.problem
    out = tmp_path / "wide.json"
    arguments = f"--predictions {tmp_path}/noxi.h5 --results {tmp_path} --out {out}"
    arguments += " --sessions noxi/001:expert@test --max-beyond-s 2"
    assert score.main(arguments.split()) == 0 and out.exists()


def test_equal_input_gives_equal_bytes(tmp_path, rng):
    _, time = write_labels(tmp_path, "noxi", "001", "expert", rng.random(50))
    write_labels(tmp_path, "noxi", "002", "expert", rng.random(50))
    write_predictions(
        tmp_path / "noxi.h5", {(s, "expert"): (time, rng.random(50)) for s in ("001", "002")}
    )
    specs = ["noxi/002:expert@test", "noxi/001:expert@test"]
    score_noxi(tmp_path, *specs)
    first = (tmp_path / "scores.json").read_bytes()
    score_noxi(tmp_path, *reversed(specs))
    assert (tmp_path / "scores.json").read_bytes() == first
    stored = json.loads(first)["splits"]["test"]["participants"][0]["moments"]
    assert Moments.from_dict(stored).n == 50


def bad_nan(tmp_path, time, truth):
    values = truth.copy()
    values[3] = np.nan
    write_predictions(tmp_path / "noxi.h5", {("001", "expert"): (time, values)})


def bad_role(tmp_path, time, truth):
    write_predictions(tmp_path / "noxi.h5", {("001", "novice"): (time, truth)})


def bad_dataset(tmp_path, time, truth):
    write_predictions(tmp_path / "noxi.h5", {("001", "expert"): (time, truth)}, dataset="mpiigi")


def bad_schema(tmp_path, time, truth):
    write_predictions(tmp_path / "noxi.h5", {("001", "expert"): (time, truth)}, schema=9)


def bad_time(tmp_path, time, truth):
    write_predictions(tmp_path / "noxi.h5", {("001", "expert"): (time[::-1], truth)})


def bad_bytes(tmp_path, time, truth):
    (tmp_path / "noxi.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 50)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (bad_nan, "001/expert at 0.12 s is not a number"),
        (bad_role, "no predictions for 001/expert"),
        (bad_dataset, "does not belong"),
        (bad_schema, "schema 1"),
        (bad_time, "does not increase"),
        (bad_bytes, "not a readable HDF5 file"),
    ],
)
def test_bad_predictions_name_file_and_cure(tmp_path, rng, capsys, spoil, says):
    truth = rng.random(50)
    _, time = write_labels(tmp_path, "noxi", "001", "expert", truth)
    spoil(tmp_path, time, truth)
    out, log = tmp_path / "out.json", tmp_path / "log.txt"
    status = score.main(
        f"--predictions {tmp_path}/noxi.h5 --results {tmp_path} --log {log} "
        f"--sessions noxi/001:expert@test --out {out}".split()
    )
    screen = capsys.readouterr().err
    assert status == 1 and says in screen and "noxi.h5" in screen and "cure:" in screen
    assert screen.count("\n") <= 3 and "Traceback" not in screen
    assert "Traceback" in log.read_text() and not out.exists()


@pytest.mark.parametrize(
    "text",
    ["noxi/001@test", "001:expert@test", "noxi/001:expert", "noxi/001:a,a@test", "noxi/1:a,@t"],
)
def test_bad_specs(text):
    with pytest.raises(InputError, match="dataset/session:role1,role2@split"):
        parse_spec(text, with_split=True)


def test_bad_arguments(tmp_path, rng):
    _, time = write_labels(tmp_path, "noxi", "001", "expert", rng.random(50))
    write_predictions(tmp_path / "noxi.h5", {("001", "expert"): (time, rng.random(50))})
    spec = "noxi/001:expert@test"
    with pytest.raises(InputError, match="twice"):
        score_noxi(tmp_path, spec, "noxi/001:expert@val")
    with pytest.raises(InputError, match="--sets"):
        score_noxi(tmp_path, spec, sets=["noxi/val"])
    with pytest.raises(InputError, match="split=N"):
        score_noxi(tmp_path, spec, excluded=["test"])


def test_command_line_is_light(tmp_path, rng):
    """Score and tables load neither torch nor pandas nor matplotlib."""
    code = (
        "import sys, evaluation.score, evaluation.tables, evaluation.compare, evaluation.evidence;"
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'scipy.stats') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_export_writes_one_value_per_label_frame(tmp_path):
    grid = np.arange(0, 401) * 0.01  # 100 Hz, 4 s
    write_predictions(
        tmp_path / "noxi.h5",
        {
            ("001", "expert"): (grid, 0.1 * grid),
            ("001", "novice"): (np.arange(50) * 0.04, np.arange(50) / 64),
        },
    )
    out = tmp_path / "out"
    assert export.main(["--predictions", str(tmp_path / "noxi.h5"), "--out-dir", str(out)]) == 0
    expert = (out / "noxi/001/expert.engagement.prediction.csv").read_text().splitlines()
    assert len(expert) == 101 and expert[:3] == ["0.000000", "0.004000", "0.008000"]
    novice = np.loadtxt(out / "noxi/001/novice.engagement.prediction.csv")
    assert (novice == np.arange(50) / 64).all()
    with PredictionFile(tmp_path / "noxi.h5") as f:
        assert f.participants() == [("001", "expert"), ("001", "novice")]
