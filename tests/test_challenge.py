"""Submissions and exports: hand-computed cases and other libraries."""

import csv
import json
import zipfile

import numpy as np
import pytest
from evaluation_data import write_predictions

from evaluation import export, official, submission
from evaluation.layouts import LAYOUTS
from evaluation.metrics import ccc
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


def tree(tmp_path, rows, name="engagement"):
    for (session, role), lines in rows.items():
        folder = tmp_path / "truth" / session
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{role}.{name}.annotation.csv").write_text("".join(f"{x}\n" for x in lines))
    return tmp_path / "truth"


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
