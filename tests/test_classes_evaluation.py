"""Runs of classes: Cohen's kappa from labels and predictions to the table."""

import csv
import io
import json

import h5py
import numpy as np
import pytest
from evaluation_data import write_labels, write_predictions
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix

from evaluation import compare, curves, tables
from evaluation import score as score_module
from evaluation.bootstrap import Draws, interval, pooled_kappa, resample_counts
from evaluation.confusion import Confusion
from evaluation.metrics import Moments, merge_all
from evaluation.predictions import Series, sample
from runtime import InputError

save = curves.save
C = 4
SESSIONS = ("001", "002", "003", "004", "005")
ROLES = ("purple", "yellow")


def draw(rng, n, right=0.6):
    """True and predicted classes (n,), unevenly spread, the prediction right more often than not."""
    truth = rng.choice(C, n, p=[0.5, 0.3, 0.15, 0.05])
    return truth, np.where(rng.random(n) < right, truth, rng.integers(0, C, n))


WORDS = ("noplay", "aim_less", "a|b <i>", "goaloriented")


def write_run(
    folder, run="classes", seeds=(1, 2), right=0.6, dataset="pinsoro-cc", split="val", words=()
):
    """Labels, predictions and scores of a run of classes; {seed: {session: [pairs]}}, scores."""
    found, paths = {}, []
    for seed in seeds:
        found[seed], people = {}, {}
        for s, session in enumerate(SESSIONS):
            for r, role in enumerate(ROLES):
                n = 60 + 30 * s
                truth = (draw(np.random.default_rng([s, r]), n)[0] + s) % C  # sessions differ
                noise = np.random.default_rng([s, r, seed, len(run)])
                values = np.where(noise.random(n) < right, truth, noise.integers(0, C, n))
                missing = np.arange(n) % 7 == 3
                labels = np.where(missing, np.nan, truth)
                _, time = write_labels(folder, dataset, session, role, labels, classes=words)
                people[session, role] = (time, values)
                pair = truth[~missing], values[~missing]
                found[seed].setdefault(session, []).append(pair)
        path = folder / f"{run}-{seed}-{dataset}.h5"
        write_predictions(path, people, run, seed, dataset, split)
        with h5py.File(path, "r+") as f:
            f.attrs["classes"] = C
        paths.append(folder / f"scores/{run}-{seed}-{dataset}.json")
        specs = [f"{dataset}/{s}:{','.join(ROLES)}@{split}" for s in SESSIONS]
        score_module.score(path, folder, specs, None, [], paths[-1])
    return found, paths


def joined(sessions):
    """Truth and prediction of all sessions and roles, concatenated."""
    pairs = [pair for parts in sessions.values() for pair in parts]
    return (np.concatenate([p[i] for p in pairs]) for i in (0, 1))


@pytest.mark.parametrize("seed", range(6))
def test_kappa_accuracy_and_matrix_equal_sklearn(seed):
    rng = np.random.default_rng(seed)
    truth, values = draw(rng, 500, right=0.2 * seed)
    found = Confusion.of(truth, values, C)
    assert found.kappa == pytest.approx(cohen_kappa_score(truth, values), abs=1e-12)
    assert found.accuracy == pytest.approx(accuracy_score(truth, values), abs=1e-12)
    assert (found.counts == confusion_matrix(truth, values, labels=range(C))).all()
    cut = sorted(rng.integers(0, 500, 2))
    parts = [
        Confusion.of(t, v, C)
        for t, v in zip(np.split(truth, cut), np.split(values, cut), strict=True)
    ]
    assert (merge_all(parts).counts == found.counts).all()
    assert Confusion.from_rows(json.loads(json.dumps(found.rows()))).score == found.score


def test_kappa_by_hand_and_where_it_is_not_defined():
    # 50 papers, Cohen 1960 as in every textbook: 35 of 50 agree, chance 0.5.
    assert Confusion(np.array([[20, 5], [10, 15]])).kappa == pytest.approx(0.4)
    assert Confusion(np.array([[7, 0], [0, 0]])).kappa == 0  # one class throughout: all is chance
    assert Confusion(np.array([[0, 7], [0, 0]])).kappa == 0
    assert Confusion(np.array([[3, 0], [0, 4]])).kappa == 1
    assert Confusion(np.array([[0, 3], [3, 0]])).kappa == -1
    assert np.isnan(Confusion.empty(3).kappa) and np.isnan(Confusion.empty(3).accuracy)
    for wrong in ([0, 0.5], [0, C], [-1, 0], [0, np.nan]):
        with pytest.raises(ValueError, match="whole numbers"):
            Confusion.of(np.array(wrong, float), np.zeros(2), C)
    with pytest.raises(ValueError, match="merge"):
        Confusion.empty(2).merge(Confusion.empty(3))
    for rows in ([[1, 2]], [[1, 2], [3, -4]], [[1.5, 0], [0, 1]], [1, 2], [[1]], []):
        with pytest.raises(ValueError):
            Confusion.from_rows(rows)


def test_a_class_is_never_taken_from_between_two_frames():
    """From class 0 to class 3 a value in between would be class 1 or 2: nobody predicted it."""
    series = Series(np.array([0, 0.1, 0.2]), np.array([0.0, 3, 1]), np.array([1, 0, 1], bool), C)
    at = np.array([-1, 0, 0.04, 0.05, 0.06, 0.14, 0.16, 0.2, 9])
    values, valid = sample(series, at)
    assert values.tolist() == [0, 0, 0, 0, 3, 3, 1, 1, 1]
    assert valid.tolist() == [True, True, True, True, False, False, True, True, True]


def test_scores_file_holds_kappa_pooled_over_sessions_and_roles(tmp_path):
    found, paths = write_run(tmp_path, seeds=(1,))
    record = json.loads(paths[0].read_text())
    truth, values = joined(found[1])
    split = record["splits"]["val"]
    assert record["metric"] == "kappa" and "ccc" not in split
    assert split["kappa"] == pytest.approx(cohen_kappa_score(truth, values), abs=1e-12)
    assert split["accuracy"] == pytest.approx(accuracy_score(truth, values), abs=1e-12)
    assert split["confusion"] == confusion_matrix(truth, values, labels=range(C)).tolist()
    assert (split["n_frames"], split["n_sessions"]) == (len(truth), len(SESSIONS))
    own = [p["kappa"] for p in split["participants"]]
    pairs = [pair for parts in found[1].values() for pair in parts]
    assert own == pytest.approx([cohen_kappa_score(*p) for p in pairs], abs=1e-12)
    assert abs(np.mean(own) - split["kappa"]) > 1e-3  # pooled is not the mean of participants


def test_labels_that_are_no_class_are_refused(tmp_path):
    write_run(tmp_path, seeds=(1,))
    spec = ["pinsoro-cc/001:purple@val"]
    for value in (4.0, 0.5, -1.0):
        labels = np.zeros(60)
        labels[9] = value
        path, _ = write_labels(tmp_path, "pinsoro-cc", "001", "purple", labels)
        with pytest.raises(InputError, match="none of the 4 classes") as e:
            score_module.score(
                tmp_path / "classes-1-pinsoro-cc.h5", tmp_path, spec, None, [], tmp_path / "x.json"
            )
        assert str(path) in str(e.value) and "from 0 to 3" in e.value.cure
    assert not (tmp_path / "x.json").exists()


def test_bootstrap_from_matrices_equals_that_of_concatenated_frames(tmp_path):
    found, _ = write_run(tmp_path, seeds=(1,))
    matrices = [merge_all(Confusion.of(*p, C) for p in found[1][s]) for s in SESSIONS]
    counts = resample_counts(len(SESSIONS), "pinsoro-cc/val", 40)
    draws = pooled_kappa(matrices, counts)
    for row, value in zip(counts, draws, strict=True):
        drawn = {
            k: found[1][s] * int(m) for k, (s, m) in enumerate(zip(SESSIONS, row, strict=True))
        }
        assert value == pytest.approx(cohen_kappa_score(*joined(drawn)), abs=1e-12)


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_table_of_classes(tmp_path):
    found, paths = write_run(tmp_path)
    out = tmp_path / "out"
    tables.make_tables(paths, out)
    (row,) = read_csv(out / "ccc.csv")
    kappas = [cohen_kappa_score(*joined(found[s])) for s in (1, 2)]
    assert float(row["pinsoro-cc/val"]) == pytest.approx(np.mean(kappas), abs=1e-6)
    assert float(row["pinsoro-cc/val std"]) == pytest.approx(np.std(kappas, ddof=1), abs=1e-6)
    assert row["pinsoro-cc/val metric"] == row["Combined kappa metric"] == "kappa"
    assert "Combined" not in row
    counts = resample_counts(len(SESSIONS), "pinsoro-cc/val")
    of_seeds = [
        pooled_kappa(
            [merge_all(Confusion.of(*p, C) for p in found[k][s]) for s in SESSIONS], counts
        )
        for k in (1, 2)
    ]
    low, high = interval(Draws((np.mean(of_seeds, axis=0),), (len(SESSIONS),)))
    assert float(row["pinsoro-cc/val low"]) == pytest.approx(low, abs=1e-6)
    assert float(row["pinsoro-cc/val high"]) == pytest.approx(high, abs=1e-6)
    text = (out / "ccc.md").read_text(encoding="utf-8")
    assert "CCC" not in text and "<br>Cohen's kappa, 5 sessions" in text
    (metrics,) = read_csv(out / "metrics.csv")
    accuracies = [accuracy_score(*joined(found[s])) for s in (1, 2)]
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(accuracies), abs=1e-6)
    own = [
        np.mean([cohen_kappa_score(*joined({0: found[k][s]})) for s in SESSIONS]) for k in (1, 2)
    ]
    assert float(metrics["session_kappa"]) == pytest.approx(np.mean(own), abs=1e-6)
    assert "ccc" not in metrics
    sessions = read_csv(out / "sessions.csv")
    assert len(sessions) == 2 * len(SESSIONS) * 2 and "mae" not in sessions[0]
    one = cohen_kappa_score(*found[2][SESSIONS[-1]][1])
    assert float(sessions[-1]["kappa"]) == pytest.approx(one, abs=1e-6)


def test_classes_go_by_their_names(tmp_path):
    """In scores, and below the table: shares of each true class, as sklearn has them."""
    found, paths = write_run(tmp_path, words=WORDS)
    split = json.loads(paths[0].read_text())["splits"]["val"]
    assert split["classes"] == list(WORDS) and "classes" not in split["participants"][0]
    tables.make_tables(paths, tmp_path / "out")
    text = (tmp_path / "out/ccc.md").read_text(encoding="utf-8")
    title, below = text.split("**classes on pinsoro-cc/val**")
    assert "class 0" not in text and "Cohen's kappa" in title
    header, _, *rows = [x for x in below.splitlines() if x.startswith("|")]
    names = r"| noplay | aim_less | a\|b \<i\> | goaloriented |"
    assert header == "| true class | frames " + names and len(rows) == C
    pairs = [list(joined(found[s])) for s in (1, 2)]
    truth, values = (np.concatenate([p[i] for p in pairs]) for i in (0, 1))
    shares = confusion_matrix(truth, values, labels=range(C), normalize="true")
    for i, row in enumerate(rows):
        _, n, *own = [cell.strip() for cell in row.strip("|").replace(r"\|", "").split("|")]
        assert int(n) == (pairs[0][0] == i).sum()
        assert [float(x) for x in own] == pytest.approx(shares[i], abs=0.00501)


def test_a_class_that_never_occurs_has_no_share(tmp_path):
    """One class in truth and prediction of four: kappa 0, no division by nothing."""
    n = np.zeros(20)
    _, time = write_labels(tmp_path, "pinsoro-cc", "001", "purple", n, classes=WORDS)
    path = write_predictions(
        tmp_path / "p.h5", {("001", "purple"): (time, n)}, dataset="pinsoro-cc"
    )
    with h5py.File(path, "r+") as f:
        f.attrs["classes"] = C
    out = tmp_path / "s.json"
    score_module.score(path, tmp_path, ["pinsoro-cc/001:purple@val"], None, [], out)
    assert json.loads(out.read_text())["splits"]["val"]["kappa"] == 0
    tables.make_tables([out], tmp_path / "out")
    text = (tmp_path / "out/ccc.md").read_text(encoding="utf-8")
    assert "| noplay | 20 | 1.00 | 0.00 | 0.00 | 0.00 |" in text
    assert "| goaloriented | 0 |  |  |  |  |" in text


def test_names_that_do_not_fit_are_refused(tmp_path):
    _, paths = write_run(tmp_path, seeds=(1,), words=WORDS)
    predictions = tmp_path / "classes-1-pinsoro-cc.h5"
    specs = [f"pinsoro-cc/{s}:purple,yellow@val" for s in SESSIONS]

    def refused():
        with pytest.raises(InputError) as e:
            score_module.score(predictions, tmp_path, specs, None, [], tmp_path / "x.json")
        return e.value.problem

    path, _ = write_labels(
        tmp_path, "pinsoro-cc", "002", "purple", np.zeros(90), classes=WORDS[::-1]
    )
    assert (
        "pinsoro-cc/001/purple have the classes noplay" in refused() and "002/purple" in refused()
    )
    write_labels(tmp_path, "pinsoro-cc", "002", "purple", np.zeros(90), classes=WORDS[:3])
    assert f"{path}: 002/purple is rated by 3 words" in refused()
    with h5py.File(predictions, "r+") as f:
        f.attrs["classes"] = 0
    assert "run classes predicts values, no classes" in refused()
    record = json.loads(paths[0].read_text())
    record["splits"]["val"]["classes"] = list(WORDS[:2])
    paths[0].write_text(json.dumps(record))
    with pytest.raises(InputError, match="the names of classes are not as many"):
        tables.make_tables(paths, tmp_path / "out")


def write_values(folder, run="values", dataset="noxi", split="val", seeds=(1, 2)):
    """Scores of a run of values."""
    paths = []
    for seed in seeds:
        rng = np.random.default_rng([seed, len(dataset), len(split)])
        people = [
            {
                "session": s,
                "role": "a",
                "moments": Moments.of(x := rng.random(40), x + 0.2 * rng.random(40)).to_dict(),
            }
            for s in SESSIONS
        ]
        record = {"schema_version": 1, "run": run, "seed": seed, "dataset": dataset}
        record["splits"] = {split: {"participants": people, "n_excluded": 0}}
        paths.append(folder / f"{run}-{dataset}-{split}-{seed}.json")
        paths[-1].write_text(json.dumps(record))
    return paths


def test_kappa_and_ccc_are_labelled_and_never_averaged(tmp_path, capsys):
    """One run of values, one of classes: each column says its metric, and has its own mean."""
    paths = write_values(tmp_path) + write_values(tmp_path, dataset="mpiigi")
    for dataset in ("pinsoro-cc", "pinsoro-cr"):
        paths += write_run(tmp_path, right=0.8, dataset=dataset)[1]
    sets = ["noxi/val", "pinsoro-cc/val", "mpiigi/val", "pinsoro-cr/val"]
    out = tmp_path / "out"
    tables.make_tables(paths, out, ["values", "classes"], sets)
    values, classes = read_csv(out / "ccc.csv")
    assert [values[f"{s} metric"] or classes[f"{s} metric"] for s in sets] == ["ccc", "kappa"] * 2
    mean = (float(values["noxi/val"]) + float(values["mpiigi/val"])) / 2
    assert float(values["Combined"]) == pytest.approx(mean, abs=2e-6)
    mean = (float(classes["pinsoro-cc/val"]) + float(classes["pinsoro-cr/val"])) / 2
    assert float(classes["Combined kappa"]) == pytest.approx(mean, abs=2e-6)
    assert values["Combined kappa"] == classes["Combined"] == classes["noxi/val"] == ""
    header = (out / "ccc.md").read_text(encoding="utf-8").splitlines()[0].split("|")[2:-1]
    names = ["CCC", "Cohen's kappa"] * 2 + ["CCC", "Cohen's kappa"]
    assert [h.split("<br>")[1].split(",")[0] for h in header] == names
    assert (out / "ccc.tex").read_text().count("\\scriptsize Cohen's kappa, ") == 3
    tables.show(out / "ccc.csv")
    assert "Cohen's kappa, 5 sessions" in capsys.readouterr().out
    rows = read_csv(out / "metrics.csv")
    assert rows[0]["ccc"] and not rows[0]["kappa"] and rows[-1]["kappa"] and not rows[-1]["ccc"]


def test_one_column_has_one_metric(tmp_path):
    paths = write_values(tmp_path, dataset="pinsoro-cc") + write_run(tmp_path)[1]
    with pytest.raises(InputError, match="CCC for run values and by Cohen's kappa for run classes"):
        tables.make_tables(paths, tmp_path / "out")
    other = write_values(tmp_path, run="classes", dataset="pinsoro-cc", seeds=(9,))
    with pytest.raises(InputError, match="run classes was scored on pinsoro-cc/val by"):
        tables.make_tables(other + paths[2:], tmp_path / "out", ["classes"])
    with pytest.raises(InputError, match="others by Cohen's kappa"):
        compare.compare(paths[:2], paths[2:])
    assert not (tmp_path / "out").exists()


def test_damaged_scores_of_classes_are_named(tmp_path):
    _, (path,) = write_run(tmp_path, seeds=(1,))
    sound = json.loads(path.read_text())
    for rows in ([[1, 2]], "x", [[1, 0], [0, 1]], [[0.5] * C] * C):
        sound["splits"]["val"]["participants"][0]["confusion"] = rows
        path.write_text(json.dumps(sound))
        with pytest.raises(InputError, match=path.name):
            tables.make_tables([path], tmp_path / "out")


def test_runs_of_classes_are_compared_by_kappa(tmp_path, capsys):
    good, paths_good = write_run(tmp_path, "good", right=0.9)
    weak, paths_weak = write_run(tmp_path, "weak", right=0.3)
    argv = ["--scores-a", *map(str, paths_good), "--scores-b", *map(str, paths_weak)]
    argv += ["--log", str(tmp_path / "log.txt")]
    assert compare.main(argv) == 0
    assert "pooled Cohen's kappa, good - weak" in capsys.readouterr().out
    (found,) = compare.compare(paths_good, paths_weak)[2]
    of = [np.mean([cohen_kappa_score(*joined(x[s])) for s in (1, 2)]) for x in (good, weak)]
    assert found.difference == pytest.approx(of[0] - of[1], abs=1e-12)
    assert 0 < found.low < found.difference < found.high


def test_curves_of_classes(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        curves, "save", lambda figure, out: drawn.append((figure, save(figure, out)))
    )
    found, _ = write_run(tmp_path, words=WORDS)
    files = [tmp_path / f"classes-{s}-pinsoro-cc.h5" for s in (1, 2)]
    specs = [f"pinsoro-cc/{s}:purple,yellow@val" for s in SESSIONS]
    chosen = curves.curves(files, tmp_path, specs, tmp_path / "c.png")
    kappas = {
        s: np.mean([cohen_kappa_score(*joined({0: found[k][s]})) for k in (1, 2)]) for s in SESSIONS
    }
    ranked = sorted(kappas, key=kappas.get, reverse=True)
    assert [s.spec.session for _, s in chosen] == [ranked[0], ranked[2], ranked[4]]
    assert chosen[0][1].score == pytest.approx(max(kappas.values()), abs=1e-12)
    assert chosen[0][1].metric == "Cohen's kappa"
    assert set(np.unique(chosen[0][1].curves[0].seeds)) <= set(range(C))
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    left = [p for p in drawn[0][0].axes if p.get_subplotspec().is_first_col()]
    assert len(left) == 3
    for panel in left:
        assert [label.get_text() for label in panel.get_yticklabels()] == list(WORDS)
