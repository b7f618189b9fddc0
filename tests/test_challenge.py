"""Submissions, official scores, fairness, exports: hand-computed cases and other libraries."""

import csv
import json
import zipfile

import numpy as np
import pytest
from evaluation_data import write_labels, write_predictions
from sklearn.metrics import cohen_kappa_score

from evaluation import export, fairness, official, submission
from evaluation.layouts import LAYOUTS
from evaluation.metrics import ccc
from evaluation.official import Submission, cohen_kappa, combined, pair, score
from evaluation.submission import collect, submit
from runtime import InputError
from ssi.annotation import read_annotation

RNG = np.random.default_rng(5)
LAYOUT = LAYOUTS[2026]


def predictions(tmp_path, dataset="noxi", drop=(), n=60, scale=1.0, more=()):
    folder = next(f for f in LAYOUT.folders.values() if f.dataset == dataset)
    people = [p for p in (*folder.required(), *more) if p not in drop]
    series = {p: (np.arange(n) / 25, scale * RNG.random(n)) for p in people}
    return write_predictions(tmp_path / f"{dataset}.h5", series, dataset=dataset)


def test_the_required_participants_of_every_year():
    counts = {n: len(f.required()) for n, f in LAYOUT.folders.items()}
    assert counts == {
        "noxi-base": 32,
        "noxi-additional": 24,
        "noxi-j": 20,
        "mpiigroupinteraction": 23,
        "pinsoro-cc": 0,
        "pinsoro-cr": 0,
    }
    assert list(LAYOUTS[2024].folders) == ["noxi-base", "noxi-additional", "mpiigroupinteraction"]
    for layout in LAYOUTS.values():
        assert sum(layout.weights.values()) == pytest.approx(1)


def test_the_zip_of_a_submission(tmp_path):
    paths = [predictions(tmp_path, d) for d in ("noxi", "noxi-add", "noxi-j", "mpiigi")]
    out = tmp_path / "team.zip"
    submit(paths, 2026, out, clip=False)
    with zipfile.ZipFile(out) as archive:
        names = archive.namelist()
        text = archive.read("noxi-base/002/expert.engagement.prediction.csv").decode()
    assert len(names) == 32 + 24 + 20 + 23 and names == sorted(names)
    assert "mpiigroupinteraction/001/subjectPos3.engagement.prediction.csv" in names
    assert "mpiigroupinteraction/001/subjectPos4.engagement.prediction.csv" not in names
    lines = text.splitlines()
    assert len(lines) == 60 and all(len(line) == 8 for line in lines)
    first = out.read_bytes()
    submit(paths, 2026, out, clip=False)
    assert out.read_bytes() == first
    submit(paths[:2] + paths[3:], 2024, tmp_path / "old.zip", clip=False)
    with zipfile.ZipFile(tmp_path / "old.zip") as archive:
        assert "noxi-additional/015/novice.engagement.annotation.csv" in archive.namelist()


def test_what_is_missing_or_too_much_is_named(tmp_path):
    with pytest.raises(InputError, match="lacks 1 of 32 participants of noxi-base: 006/novice"):
        collect([predictions(tmp_path, drop=[("006", "novice")])], LAYOUT, False)
    with pytest.raises(InputError, match="holds 001/expert, which noxi-base of 2026 does not have"):
        collect([predictions(tmp_path, more=[("001", "expert")])], LAYOUT, False)
    with pytest.raises(InputError, match="values outside 0..1"):
        collect([predictions(tmp_path, scale=1.5)], LAYOUT, False)
    values = collect([predictions(tmp_path, scale=1.5)], LAYOUT, True)
    assert max(v.max() for v in values.values()) == 1
    with pytest.raises(InputError, match="no part of a 2024 submission"):
        collect([predictions(tmp_path, "noxi-j")], LAYOUTS[2024], False)
    path = write_predictions(
        tmp_path / "x.h5", {("1", "purple"): ([0.0], [1.0])}, dataset="pinsoro-cc"
    )
    with pytest.raises(InputError, match="classes of pinsoro-cc"):
        collect([path], LAYOUT, False)
    assert not (tmp_path / "team.zip").exists()
    out = str(tmp_path / "team.zip")
    assert submission.main(["--predictions", str(path), "--out", out]) == 1
    assert not (tmp_path / "team.zip").exists()


def test_pairing_by_position_and_compacted():
    nan = np.nan
    truth = np.array([0.1, nan, 0.3, 0.4, nan])
    line = np.array([1.0, 2, 3, 4, 5])
    assert [x.tolist() for x in pair(truth, line, "positional")] == [[0.1, 0.3, 0.4], [1, 3, 4]]
    assert [x.tolist() for x in pair(truth, line, "compact")] == [[0.1, 0.3, 0.4], [1, 2, 3]]
    assert pair(truth, line[:4], "positional")[1].tolist() == [1, 3, 4]  # line 5 has no label
    for pairing, short in (("positional", 3), ("compact", 2)):
        with pytest.raises(ValueError, match=f"{short} predictions"):
            pair(truth, line[:short], pairing)


def tree(tmp_path, rows, name="engagement"):
    for (session, role), lines in rows.items():
        folder = tmp_path / "truth" / session
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{role}.{name}.annotation.csv").write_text("".join(f"{x}\n" for x in lines))
    return tmp_path / "truth"


def handed_in(tmp_path, folder, rows):
    root = tmp_path / "zip"
    for (session, role), lines in rows.items():
        path = root / LAYOUT.member(folder, session, role)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{x}\n" for x in lines))
    return Submission(root, LAYOUT)


def naive_ccc(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    vx = sum((a - mx) ** 2 for a in x) / len(x)
    vy = sum((b - my) ** 2 for b in y) / len(y)
    c = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / len(x)
    return 2 * c / (vx + vy + (mx - my) ** 2)


@pytest.mark.parametrize("pairing", ["positional", "compact"])
def test_ccc_is_pooled_over_all_sessions_and_roles(tmp_path, pairing):
    truth = {("002", "expert"): ["0.1", "nan", "0.3", "0.9"], ("006", "novice"): ["0.5", "", "0.2"]}
    lines = {("002", "expert"): [0.2, 0.9, 0.4, 0.7], ("006", "novice"): [0.4, 0.1, 0.3]}
    got = score(
        handed_in(tmp_path, "noxi-base", lines), {"noxi-base": tree(tmp_path, truth)}, pairing
    )
    x = [0.1, 0.3, 0.9, 0.5, 0.2]
    y = [0.2, 0.4, 0.7, 0.4, 0.3] if pairing == "positional" else [0.2, 0.9, 0.4, 0.4, 0.1]
    assert got["scores"]["noxi-base"] == pytest.approx(naive_ccc(x, y), abs=1e-12)
    assert got["frames"] == {"noxi-base": 5} and "combined" not in got
    single = [naive_ccc(x[:3], y[:3]), naive_ccc(x[3:], y[3:])]
    assert abs(np.mean(single) - got["scores"]["noxi-base"]) > 0.05  # not a mean of sessions


def test_kappa_equals_scikit_learn(tmp_path):
    classes = np.array(["goaloriented", "aimless", "adultseeking", "noplay"])
    for _ in range(20):
        a, b = classes[RNG.integers(0, 4, 50)], classes[RNG.integers(0, 4, 50)]
        b[:20] = a[:20]
        assert cohen_kappa(a, b) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)
    assert cohen_kappa(classes, classes) == 1
    assert cohen_kappa(classes[:1], classes[:1]) == 0
    truth = {("07", "purple"): ["aimless", "", "noplay", "aimless"]}
    lines = {("07", "purple"): ["aimless", "x", "aimless", "aimless"]}
    got = score(
        handed_in(tmp_path, "pinsoro-cc", lines),
        {"pinsoro-cc": tree(tmp_path, truth, "task_engagement")},
    )
    expected = cohen_kappa_score(["aimless", "noplay", "aimless"], ["aimless"] * 3)
    assert got["scores"]["pinsoro-cc"] == pytest.approx(expected)


def test_the_combined_score_by_hand():
    scores = {
        "noxi-base": 0.6,
        "noxi-additional": 0.5,
        "noxi-j": 0.3,
        "mpiigroupinteraction": 0.4,
        "pinsoro-cc": 0.1,
        "pinsoro-cr": 0.2,
    }
    assert combined(scores, LAYOUT) == pytest.approx((0.6 + 0.5 + 0.3 + 0.4) / 6 + 0.15 / 3)
    three = {k: scores[k] for k in LAYOUTS[2024].folders}
    assert combined(three, LAYOUTS[2024]) == pytest.approx(0.5)
    with pytest.raises(InputError, match="needs noxi-j"):
        combined(three, LAYOUTS[2025])


def test_what_cannot_be_scored_is_named(tmp_path, capsys):
    truth = tree(tmp_path, {("002", "expert"): ["0.1", "0.2", "0.3"]})
    short = handed_in(tmp_path, "noxi-base", {("002", "expert"): [0.1, 0.2]})
    with pytest.raises(InputError, match="2 predictions for 3 frames"):
        score(short, {"noxi-base": truth})
    words = handed_in(tmp_path, "noxi-base", {("002", "expert"): [0.1, "inf", 0.2]})
    with pytest.raises(InputError, match="line 2: 'inf' is no number"):
        score(words, {"noxi-base": truth})
    with pytest.raises(
        InputError, match=r"lacks noxi-base/002/expert\.engagement\.prediction\.csv"
    ):
        (tmp_path / "empty").mkdir()
        score(Submission(tmp_path / "empty", LAYOUT), {"noxi-base": truth})
    command = ["--submission", str(tmp_path / "zip"), "--truth", f"nonsense={truth}"]
    assert official.main(command) == 1
    assert "no folder of a 2026 submission" in capsys.readouterr().err


def test_a_submission_scores_as_our_own_scorer_does(tmp_path, capsys):
    path = predictions(tmp_path)
    out = tmp_path / "team.zip"
    submit([path], 2026, out, clip=False)
    rows, pooled = {}, ([], [])
    with zipfile.ZipFile(out) as archive:
        for session, role in LAYOUT.folders["noxi-base"].required():
            labels = RNG.random(60).round(3)
            rows[session, role] = labels
            member = archive.read(LAYOUT.member("noxi-base", session, role)).decode()
            pooled[0].append(labels)
            pooled[1].append(np.array(member.split(), float))
    command = ["--submission", str(out), "--truth", f"noxi-base={tree(tmp_path, rows)}"]
    assert official.main(command) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["scores"]["noxi-base"] == pytest.approx(ccc(*map(np.concatenate, pooled)), abs=1e-12)


def test_disparity_by_hand():
    truth = np.array([0.05, 0.05, 0.05, 0.95, 0.95, 1.0, 0.5])
    prediction = np.array([0.2, 0.4, 0.6, 0.8, 0.5, 0.7, 0.9])
    gender = np.array(["male", "male", "female", "male", "female", "female", ""], object)
    language = np.array(["de", "fr", "fr", "de", "fr", "", "de"], object)
    got = fairness.cdd(truth, prediction, gender, language)
    # bin 0: men .3, women .6; bin 9: men .8, women .6; bin 5 has neither
    assert got["gender"] == pytest.approx(((0.3 - 0.6) + (0.8 - 0.6)) / 2)
    everybody = [0.4, 0.9, (0.8 + 0.5 + 0.7) / 3]  # bins 0, 5, 9
    de = np.mean([0.2 - everybody[0], 0.9 - everybody[1], 0.8 - everybody[2]])
    fr = np.mean([0.5 - everybody[0], 0.5 - everybody[2]])
    assert got["language"] == pytest.approx({"de": de, "fr": fr})


def test_fairness_reads_the_sheets_metadata(tmp_path, capsys):
    n = 50
    series = {("001", r): (np.arange(n) / 25, np.full(n, v)) for r, v in (("a", 0.7), ("b", 0.4))}
    path = write_predictions(tmp_path / "p.h5", series)
    for role in ("a", "b"):
        write_labels(tmp_path, "noxi", "001", role, np.full(n, 0.5))
    sheet = tmp_path / "s.tsv"
    columns = "dataset\tsplit\tsession\trole\tvideo\tgender\tlanguage\n"
    row = "noxi\ttest\t001\t{}\tx.mp4\t{}\tde\n"
    sheet.write_text(columns + row.format("a", "male") + row.format("b", "female"))
    command = ["--predictions", str(path), "--results", str(tmp_path), "--sheet", str(sheet)]
    assert fairness.main(command) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["cdd_gender"] == pytest.approx(0.3) and got["frames"] == 100
    sheet.write_text(columns + row.replace("de", "").format("a", ""))
    assert fairness.main(command) == 1


@pytest.mark.parametrize("form", export.FORMATS)
def test_every_export_reads_back(tmp_path, form):
    n = 60
    values = RNG.random(n)
    valid = np.arange(n) != 7
    path = write_predictions(
        tmp_path / "p.h5", {("001", "expert"): (np.arange(n) / 25, values, valid)}
    )
    (written,) = export.export(path, tmp_path / "out", form=form)
    assert written.is_file() and written.parent == tmp_path / "out/noxi/001"
    if form == "nova":
        back = read_annotation(written)
        np.testing.assert_array_equal(back.score, values.astype(np.float32))
        np.testing.assert_array_equal(back.conf == 0, ~valid)
        assert (back.rate_hz, back.meta) == (25, {"role": "expert", "annotator": "da_mamba"})
        return
    if form == "challenge":
        np.testing.assert_allclose(np.loadtxt(written), values, atol=1e-6)
        return
    with open(written, newline="") as f:
        rows = list(csv.DictReader(f))
    if form == "csv":
        np.testing.assert_allclose([float(r["engagement"]) for r in rows], values, atol=1e-6)
        assert [r["time_s"] for r in rows[:3]] == ["0", "0.04", "0.08"] and rows[7]["valid"] == "0"
    else:
        assert [(r["Tier"], r["Begin"], r["End"]) for r in rows] == [
            ("engagement expert", "0.000", "1.000"),
            ("engagement expert", "1.000", "2.000"),
            ("engagement expert", "2.000", "2.400"),
        ]
        means = [values[:25].mean(), values[25:50].mean(), values[50:].mean()]
        np.testing.assert_allclose([float(r["Annotation"]) for r in rows], means, atol=1e-3)
