"""Submissions: names, required participants, lengths, ranges, and their score."""

import json
import zipfile

import numpy as np
import pytest
from evaluation_data import write_predictions

from evaluation import official, submission
from evaluation.layouts import LAYOUTS
from evaluation.predictions import PredictionFile
from evaluation.submission import collect, lines_of, submit
from runtime import InputError

RNG = np.random.default_rng(5)
LAYOUT = LAYOUTS[2026]


def predictions(tmp_path, dataset="noxi", drop=(), n=60, scale=1.0, more=()):
    """Predictions of a challenge set, and the records of its recordings (n frames each)."""
    folder = next(f for f in LAYOUT.folders.values() if f.dataset == dataset)
    people = [p for p in (*folder.required(), *more) if p not in drop]
    for session, role in people:
        write_recording(tmp_path, dataset, session, role, n / 25)
    series = {p: (np.arange(n) / 25, scale * RNG.random(n)) for p in people}
    return write_predictions(tmp_path / f"{dataset}.h5", series, dataset=dataset)


def write_recording(results, dataset, session, role, seconds, clock=None, offset=0.0, streams=None):
    """What media.probe and alignment.clock leave of a recording."""
    names = {"dataset": dataset, "session": session}
    record = names | {"role": role, "offset": offset, "duration_s": seconds}
    if streams:
        record["streams"] = {n: {"duration_s": s} for n, s in streams.items()}
    axis = names | {"rate_hz": 100.0, "duration_s": clock or seconds}
    axis["n_ticks"] = round(axis["duration_s"] * 100)
    media, home = results / "media" / dataset / session, results / "aligned" / dataset / session
    for path, content in ((media / f"{role}.json", record), (home / "clock.json", axis)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


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
    submit(paths, 2026, tmp_path, out)
    with zipfile.ZipFile(out) as archive:
        names = archive.namelist()
        text = archive.read("noxi-base/002/expert.engagement.prediction.csv").decode()
    assert len(names) == 32 + 24 + 20 + 23 and names == sorted(names)
    assert "mpiigroupinteraction/001/subjectPos3.engagement.prediction.csv" in names
    assert "mpiigroupinteraction/001/subjectPos4.engagement.prediction.csv" not in names
    lines = text.splitlines()
    assert len(lines) == 60 and all(len(line) == 8 for line in lines)
    first = out.read_bytes()
    submit(paths, 2026, tmp_path, out)
    assert out.read_bytes() == first
    submit(paths[:2] + paths[3:], 2024, tmp_path, tmp_path / "old.zip")
    with zipfile.ZipFile(tmp_path / "old.zip") as archive:
        assert "noxi-additional/015/novice.engagement.annotation.csv" in archive.namelist()
    submit(paths[:1], 2023, tmp_path, tmp_path / "first.zip")
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        assert archive.namelist()[0] == "noxi/002/expert.engagement.annotation.csv"


def test_a_folder_is_left_out_on_purpose_only(tmp_path, caplog):
    paths = [predictions(tmp_path, d) for d in ("noxi", "noxi-add", "mpiigi")]
    with pytest.raises(InputError, match="no predictions for noxi-j, which a 2025 submission"):
        submit(paths, 2025, tmp_path, tmp_path / "x.zip")
    with pytest.raises(InputError, match="without: noxij is no folder of a 2025 submission"):
        submit(paths, 2025, tmp_path, tmp_path / "x.zip", without=["noxij"])
    with pytest.raises(InputError, match="--without noxi-base, and there are predictions"):
        submit(paths, 2025, tmp_path, tmp_path / "x.zip", without=["noxi-j", "noxi-base"])
    with pytest.raises(InputError, match="both hold noxi"):
        collect(paths[:1] * 2, LAYOUT, tmp_path)
    assert not (tmp_path / "x.zip").exists()
    submit(paths, 2026, tmp_path, tmp_path / "x.zip", without=["noxi-j"])
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert len(archive.namelist()) == 32 + 24 + 23
    assert "left out as told: noxi-j" in caplog.text and "pinsoro-cc, pinsoro-cr" in caplog.text


def test_one_line_per_frame_of_the_own_recording(tmp_path):
    """A partner's longer recording, a later start, and a stream of another recording."""
    values = np.arange(100) / 100
    path = write_predictions(
        tmp_path / "p.h5", {("9", r): (np.arange(100) / 25, values) for r in "abcd"}
    )
    for role, record in {
        "a": {"seconds": 4.0},
        "b": {"seconds": 2.4},
        "c": {"seconds": 2.0, "offset": 0.8},
        "d": {"seconds": 9.0, "streams": {"audio.egemapsv2": 2.0, "audio.x": 2.04, "clip": 9.0}},
    }.items():
        write_recording(tmp_path, "noxi", "9", role, **record, clock=4.0)
    with PredictionFile(path) as f:
        found = {r: lines_of(f, tmp_path, "9", r, clip=False) for r in "abcd"}
    for role, (first, n) in {"a": (0, 100), "b": (0, 60), "c": (20, 50), "d": (0, 51)}.items():
        np.testing.assert_allclose(found[role], values[first : first + n], atol=1e-7)


@pytest.mark.parametrize(
    ("predicted", "seconds", "wrong"),
    [(100, 4.0, False), (99, 4.0, False), (98, 4.0, True), (101, 4.0, True), (100, 4.04, False)],
)
def test_predictions_of_another_length_are_refused(tmp_path, predicted, seconds, wrong):
    """The last value may hold for one frame more; a second one would be invented."""
    series = (np.arange(predicted) / 25, np.full(predicted, 0.5))
    path = write_predictions(tmp_path / "p.h5", {("9", "a"): series})
    write_recording(tmp_path, "noxi", "9", "a", seconds)
    with PredictionFile(path) as f:
        if not wrong:
            assert len(lines_of(f, tmp_path, "9", "a", False)) == round(seconds * 25)
            return
        with pytest.raises(InputError, match="9/a is predicted from 0.00 to .* 100 frames from"):
            lines_of(f, tmp_path, "9", "a", False)


def test_values_that_are_no_number_or_out_of_range(tmp_path):
    write_recording(tmp_path, "noxi", "9", "a", 4.0)
    for odd, clip, problem in [
        (
            np.nan,
            False,
            r"1 of 100 values that are no number, the first \(nan\) in frame 7 at 0.28 s",
        ),
        (np.nan, True, "no number"),
        (np.inf, False, "no number"),
        (1.2, False, r"1 of 100 values outside 0..1, the first \(1.2\) in frame 7"),
        (-0.1, False, "outside"),
    ]:
        values = np.full(100, 0.5)
        values[7] = odd
        path = write_predictions(tmp_path / "p.h5", {("9", "a"): (np.arange(100) / 25, values)})
        with PredictionFile(path) as f, pytest.raises(InputError, match=problem):
            lines_of(f, tmp_path, "9", "a", clip)
    with PredictionFile(path) as f:
        assert lines_of(f, tmp_path, "9", "a", clip=True).min() == 0
    (tmp_path / "media/noxi/9/a.json").write_text("{}")
    with PredictionFile(path) as f, pytest.raises(InputError, match="a.json is no record"):
        lines_of(f, tmp_path, "9", "a", clip=True)


def test_what_is_missing_or_too_much_is_named(tmp_path):
    with pytest.raises(InputError, match="lacks 1 of 32 participants of noxi-base: 006/novice"):
        collect([predictions(tmp_path, drop=[("006", "novice")])], LAYOUT, tmp_path)
    with pytest.raises(InputError, match="holds 001/expert, which noxi-base of 2026 does not have"):
        collect([predictions(tmp_path, more=[("001", "expert")])], LAYOUT, tmp_path)
    with pytest.raises(InputError, match="values outside 0..1"):
        collect([predictions(tmp_path, scale=1.5)], LAYOUT, tmp_path)
    values = collect([predictions(tmp_path, scale=1.5)], LAYOUT, tmp_path, clip=True)
    assert max(v.max() for v in values.values()) == 1
    with pytest.raises(InputError, match="no part of a 2024 submission"):
        collect([predictions(tmp_path, "noxi-j")], LAYOUTS[2024], tmp_path)
    path = write_predictions(
        tmp_path / "x.h5", {("1", "purple"): ([0.0], [1.0])}, dataset="pinsoro-cc"
    )
    with pytest.raises(InputError, match="classes of pinsoro-cc: the challenge has published no"):
        collect([path], LAYOUT, tmp_path)
    command = ["--predictions", str(path), "--results", str(tmp_path)]
    assert submission.main([*command, "--out", str(tmp_path / "team.zip")]) == 1
    assert not (tmp_path / "team.zip").exists()


def tree(tmp_path, rows, name="engagement"):
    for (session, role), lines in rows.items():
        folder = tmp_path / "truth" / session
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{role}.{name}.annotation.csv").write_text("".join(f"{x}\n" for x in lines))
    return tmp_path / "truth"


def test_the_zip_holds_the_participants_own_frames_in_their_order(tmp_path):
    """One line per frame of the own recording, from its start to its end, written by hand here."""
    path = predictions(tmp_path, n=6)
    late = ("002", "expert")  # starts 0.08 s after its partner, and lasts 4 frames
    write_recording(tmp_path, "noxi", *late, seconds=0.16, clock=0.24, offset=0.08)
    values = {p: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6] for p in LAYOUT.folders["noxi-base"].required()}
    series = {p: (np.arange(6) / 25, v) for p, v in values.items()}
    write_predictions(path, series)
    others = ["noxi-additional", "noxi-j", "mpiigroupinteraction"]
    submit([path], 2026, tmp_path, tmp_path / "team.zip", without=others)
    with zipfile.ZipFile(tmp_path / "team.zip") as archive:
        texts = {n: archive.read(n).decode() for n in archive.namelist()}
    assert len(texts) == 32
    shifted = texts.pop("noxi-base/002/expert.engagement.prediction.csv")
    assert shifted == "0.300000\n0.400000\n0.500000\n0.600000\n"
    assert set(texts.values()) == {"0.100000\n0.200000\n0.300000\n0.400000\n0.500000\n0.600000\n"}


def test_a_submission_scores_as_the_predictions_it_was_made_of(tmp_path, capsys):
    """The expected score comes from the values predicted, not from the zip under test."""
    people = LAYOUT.folders["noxi-base"].required()
    truth = {p: RNG.random(60).round(3) for p in people}
    guess = {p: (0.5 * truth[p] + 0.4 * RNG.random(60)).round(6) for p in people}
    path = predictions(tmp_path)
    write_predictions(path, {p: (np.arange(60) / 25, v) for p, v in guess.items()})
    out = tmp_path / "team.zip"
    others = ["noxi-additional", "noxi-j", "mpiigroupinteraction"]
    submit([path], 2026, tmp_path, out, without=others)
    command = ["--submission", str(out), "--truth", f"noxi-base={tree(tmp_path, truth)}"]
    assert official.main(command) == 0
    got = json.loads(capsys.readouterr().out)["scores"]["noxi-base"]
    x, y = (np.concatenate([d[p] for p in people]) for d in (truth, guess))
    expected = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert 0.5 < expected < 0.95 and got == pytest.approx(expected, abs=2e-6)
