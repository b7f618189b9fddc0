"""Predictions and features for other tools, read back by parsers that know only the form."""

import csv
import re
import xml.etree.ElementTree as ElementTree

import h5py
import numpy as np
import pytest
from aligned_files import feature_file
from evaluation_data import write_predictions

from evaluation import export
from formats.ssi import export as ssi_export
from formats.ssi.annotation import read_annotation
from formats.ssi.stream import open_stream
from runtime import InputError

RNG = np.random.default_rng(5)
WORDS = ("goal oriented", 'adult "seeking"', "noplay")


def naive(path):
    """Attributes of <info> and <scheme>, items, and the fields of every line of the body."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "annotation" and root.get("ssi-v") == "3"
    scheme = root.find("scheme")
    lines = path.with_name(path.name + "~").read_text().splitlines()
    assert root.find("info").get("ftype") == "ASCII" and int(root.find("info").get("size")) == len(
        lines
    )
    return scheme, [i.attrib for i in scheme.iter("item")], [line.split(";") for line in lines]


def table(path):
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


@pytest.mark.parametrize("form", export.FORMATS)
def test_values(tmp_path, form):
    n = 110
    values = RNG.random(n)
    valid = np.arange(n) != 7
    valid[50:75] = False  # a second without input
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
        scheme, items, lines = naive(written)
        assert (scheme.get("type"), float(scheme.get("sr")), items) == ("CONTINUOUS", 25, [])
        assert (float(scheme.get("min")), float(scheme.get("max"))) == (0, 1)
        np.testing.assert_allclose([float(line[0]) for line in lines], values, atol=1e-7)
        assert [float(line[1]) for line in lines] == valid.astype(float).tolist()
    elif form == "challenge":
        np.testing.assert_allclose(np.loadtxt(written), values, atol=1e-6)
    elif form == "csv":
        rows = table(written)
        np.testing.assert_allclose([float(r["engagement"]) for r in rows], values, atol=1e-6)
        np.testing.assert_allclose([float(r["time_s"]) for r in rows], np.arange(n) / 25)
        assert [r["valid"] for r in rows] == [str(int(v)) for v in valid]
    else:
        rows = table(written)
        assert [(r["Tier"], r["Begin"], r["End"]) for r in rows] == [
            ("engagement expert", "0.000", "1.000"),
            ("engagement expert", "1.000", "2.000"),
            ("engagement expert", "3.000", "4.000"),
            ("engagement expert", "4.000", "4.400"),
        ]
        first = values[:25][valid[:25]].mean()
        means = [first, values[25:50].mean(), values[75:100].mean(), values[100:].mean()]
        np.testing.assert_allclose([float(r["Annotation"]) for r in rows], means, atol=1e-3)


@pytest.fixture
def play(tmp_path):
    """Predictions of three classes at 30 Hz: (path, class per frame, valid)."""
    found = np.repeat([1, 1, 0, 2, 0], 30).astype(float)
    valid = np.ones(len(found), bool)
    valid[45:60] = False
    series = {("07", "purple"): (np.arange(len(found)) / 30, found, valid)}
    path = write_predictions(tmp_path / "p.h5", series, dataset="pinsoro-cc")
    with h5py.File(path, "r+") as f:
        f.attrs["classes"] = 3
    return path, found.astype(int), valid


@pytest.mark.parametrize("form", export.FORMATS)
def test_classes_go_by_their_names(play, tmp_path, form):
    path, found, valid = play
    command = ["--predictions", str(path), "--out-dir", str(tmp_path / "out"), "--rate-hz", "30"]
    command += ["--format", form, "--label", "task_engagement", "--classes", *WORDS]
    assert export.main(command) == 0
    written = next(p for p in (tmp_path / "out/pinsoro-cc/07").iterdir() if p.name[-1] != "~")
    assert written.name.startswith("purple.task_engagement.")
    # class, from, to, whether there was input
    pieces = [(1, 0, 1.5, 1), (1, 1.5, 2, 0), (0, 2, 3, 1), (2, 3, 4, 1), (0, 4, 5, 1)]
    if form == "challenge":
        assert written.read_text().splitlines() == [WORDS[c] for c in found]
    elif form == "csv":
        rows = table(written)
        assert list(rows[0]) == ["time_s", "task_engagement", "valid"]
        assert [r["task_engagement"] for r in rows] == [WORDS[c] for c in found]
        np.testing.assert_allclose([float(r["time_s"]) for r in rows], np.arange(150) / 30, 1e-5)
    elif form == "elan":
        assert [tuple(r.values()) for r in table(written)] == [
            ("task_engagement purple", f"{a:.3f}", f"{b:.3f}", WORDS[c])
            for c, a, b, there in pieces
            if there
        ]
    else:
        scheme, items, lines = naive(written)
        assert (scheme.get("type"), scheme.get("name")) == ("DISCRETE", "task_engagement")
        assert [(i["id"], i["name"]) for i in items] == list(zip("012", WORDS, strict=True))
        assert len({i["color"] for i in items}) == 3
        expected = [(a, b, c, there) for c, a, b, there in pieces]
        assert [tuple(map(float, line)) for line in lines] == expected
        back = read_annotation(written)
        assert [i.name for i in back.items] == list(WORDS) and back.id.tolist() == [1, 1, 0, 2, 0]
        # The frames come back from the spans.
        at = np.searchsorted(back.to_s, np.arange(150) / 30, side="right")
        assert back.id[at].tolist() == found.tolist()
        assert (back.conf[at] > 0).tolist() == valid.tolist()


def test_names_that_are_not_the_files_are_refused(play, tmp_path):
    path = play[0]
    values = write_predictions(tmp_path / "v.h5", {("1", "a"): ([0.0], [0.5])})
    for file, classes, label, problem in [
        (path, (), "engagement", "holds 3 classes, whose names it does not know"),
        (path, ("a", "b"), "engagement", "holds 3 classes, --classes has a, b"),
        (path, ("a", "b", "b"), "engagement", "--classes has a, b, b"),
        (values, ("a", "b"), "engagement", "holds values, no classes"),
        (values, (), "../x", "--label ../x cannot"),
    ]:
        with pytest.raises(InputError, match=problem):
            export.export(file, tmp_path / "out", classes=classes, label=label)
    for odd in (3.0, 0.5, np.nan, -1.0):
        with h5py.File(path, "r+") as f:
            f["07/purple/engagement"][4] = odd
        with pytest.raises(InputError, match=r"07/purple holds .* at 0.13 s"):
            export.export(path, tmp_path / "out", 30, classes=WORDS)
    with pytest.raises(InputError, match="holds nobody called 07/yellow"):
        export.export(path, tmp_path / "out", 30, classes=WORDS, only="07/yellow")
    odd = write_predictions(tmp_path / "n.h5", {("1", "a"): ([0.0, 0.04], [0.5, np.nan])})
    with pytest.raises(InputError, match="1/a holds nan at 0.04 s"):
        export.export(odd, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_our_features_as_a_stream_for_other_tools(tmp_path):
    """As the challenge's scripts read one: numbers out of the header's text, floats out of the body."""
    x = RNG.normal(size=(70, 5)).astype(np.float32)
    valid = np.arange(70) % 9 != 4
    time = 0.48 + np.arange(70) * 0.02
    feature = feature_file(tmp_path / "f.h5", x, time, valid=valid, name="wav2vec2")
    out = tmp_path / "Zoë.wav2vec2.stream"
    assert ssi_export.main([str(feature), "--out", str(out)]) == 0
    header = out.read_text()
    dim = int(re.search(r'\bdim="(\d+)"', header)[1])
    rate, start, end = (
        float(re.search(rf'\b{key}="([0-9.]+)"', header)[1]) for key in ("sr", "from", "to")
    )
    assert re.search(r'(?<!f)type="(\w+)"', header)[1] == "FLOAT" and 'byte="4"' in header
    assert (dim, rate, start, end) == (5, 50, 0.48, 1.88)
    body = np.fromfile(f"{out}~", "<f4").reshape(-1, dim)
    np.testing.assert_array_equal(body[valid], x[valid])
    assert np.isnan(body[~valid]).all()
    back = open_stream(out)
    np.testing.assert_array_equal(back.values, body)
    np.testing.assert_allclose(back.times, time)
