"""Curves: which sessions are shown, what is drawn, and that pictures carry nothing else."""

import json

import numpy as np
import pytest
from evaluation_data import write_labels, write_predictions
from PIL import Image

from evaluation import curves
from evaluation.curves import SessionCurves, select
from runtime import InputError
from store.session_spec import SessionSpec

QUALITY = {"001": 0.2, "002": 0.9, "003": 0.5, "004": 0.7, "005": 0.4}


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    truth = {}
    for session in QUALITY:
        for role in ("expert", "novice"):
            values = 0.5 + 0.3 * np.sin(np.arange(500) / 20 + rng.random())
            values[100:130] = np.nan
            truth[session, role] = np.nan_to_num(values, nan=0.5)
            _, time = write_labels(tmp_path, "noxi", session, role, values)
    for seed in (1, 2):
        write_predictions(
            tmp_path / f"seed-{seed}" / "noxi.h5",
            {
                key: (time, 0.45 + 0.05 * seed + QUALITY[key[0]] * (v - 0.5))
                for key, v in truth.items()
            },
            seed=seed,
        )
    return tmp_path


def arguments(folder, out, sessions=QUALITY, seeds=(1, 2)):
    return [
        "--predictions",
        *(f"{folder}/seed-{s}/noxi.h5" for s in seeds),
        "--results",
        str(folder),
        "--sessions",
        *(f"noxi/{s}:expert,novice@test" for s in sessions),
        "--out",
        str(out),
    ]


def fake(session, ccc):
    return SessionCurves(SessionSpec("noxi", session, ("a",), "test"), [], [ccc])


def test_rule_of_selection():
    def names(*pairs):
        return [(name, s.spec.session) for name, s in select([fake(*p) for p in pairs])]

    five = [("1", 0.1), ("2", 0.9), ("3", 0.5), ("4", 0.7), ("5", -0.2)]
    assert names(*five) == [("best", "2"), ("median", "3"), ("worst", "5")]
    assert names(*five[:4]) == [("best", "2"), ("median", "3"), ("worst", "1")]
    assert names(*five[:2]) == [("best", "2"), ("worst", "1")]
    assert names(five[0]) == [("only", "1")]
    assert names(("b", 0.5), ("a", 0.5), ("c", 0.5)) == [
        ("best", "a"),
        ("median", "b"),
        ("worst", "c"),
    ]


def test_values_and_choice(folder):
    chosen = curves.curves(
        [folder / f"seed-{s}/noxi.h5" for s in (2, 1)],
        folder,
        [f"noxi/{s}:expert,novice@test" for s in QUALITY],
        folder / "c.png",
    )
    assert [(name, s.spec.session) for name, s in chosen] == [
        ("best", "002"),
        ("median", "003"),
        ("worst", "001"),
    ]
    best = chosen[0][1]
    assert [c.role for c in best.curves] == ["expert", "novice"]
    assert best.curves[0].seeds.shape == (2, 500)
    assert np.isnan(best.curves[0].truth[100:130]).all() and np.isfinite(best.curves[0].seeds).all()


def test_equal_input_gives_equal_bytes_and_no_text_chunks(folder):
    for name in ("one", "two"):
        assert curves.main(arguments(folder, folder / f"{name}.png")) == 0
    assert (folder / "one.png").read_bytes() == (folder / "two.png").read_bytes()
    with Image.open(folder / "one.png") as picture:
        picture.load()
        assert set(picture.info) <= {"dpi"}
        assert picture.width > 600 and picture.height > 500
    assert curves.main(["predictions", *arguments(folder, folder / "three.png")]) == 0
    assert (folder / "three.png").read_bytes() == (folder / "one.png").read_bytes()
    settings = json.loads((folder / "one.json").read_text())["settings"]
    assert settings["sessions"][0] == "noxi/001:expert,novice@test"


def test_the_band_is_drawn_for_several_seeds_only(folder):
    curves.main(arguments(folder, folder / "one.png", seeds=(1,)))
    curves.main(arguments(folder, folder / "both.png"))
    band = {}
    for name in ("one", "both"):
        with Image.open(folder / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
        # A quarter of the line's colour on white.
        shade = 255 - 0.25 * (255 - np.array([0x1F, 0x77, 0xB4]))
        band[name] = int((np.abs(pixels - shade).max(axis=1) <= 2).sum())
    assert band["both"] > 2000 + band["one"]  # the rest are soft edges of lines


def test_unlabelled_participants_are_left_out(folder):
    (folder / "labels/noxi/002/novice.h5").unlink()
    chosen = curves.curves(
        [folder / "seed-1/noxi.h5"], folder, ["noxi/002:expert,novice@test"], folder / "c.png"
    )
    assert [c.role for c in chosen[0][1].curves] == ["expert"]
    (folder / "labels/noxi/002/expert.h5").unlink()
    with pytest.raises(InputError, match="has labels"):
        curves.curves(
            [folder / "seed-1/noxi.h5"], folder, ["noxi/002:expert,novice@test"], folder / "d.png"
        )
    assert not (folder / "d.png").exists()


def test_seeds_must_belong_together(folder):
    paths = [folder / "seed-1/noxi.h5"] * 2
    with pytest.raises(InputError, match="not seeds of one run"):
        curves.curves(paths, folder, ["noxi/001:expert@test"], folder / "c.png")


def test_training_curves(tmp_path):
    paths = []
    for seed in (1, 2):
        path = tmp_path / f"da_mamba/seed-{seed}/history.jsonl"
        path.parent.mkdir(parents=True)
        records = [
            {"alignment": 2 / e, "epoch": e, "steps": 10 * e, "learning_rate": 1e-4, "loss": 1 / e}
            | ({"val_ccc": 0.1 * e} if e % 2 == 0 else {})
            for e in range(1, 6)
        ]
        path.write_text("".join(json.dumps(r) + "\n" for r in records))
        paths.append(str(path))
    series = curves.read_history(tmp_path / "da_mamba/seed-1/history.jsonl")
    assert list(series) == ["alignment", "learning_rate", "loss", "val_ccc"]
    panels = curves.panels_of(series)
    assert list(panels) == ["loss", "alignment", "val_ccc", "learning_rate"]
    assert panels["alignment"] == "alignment loss, before its weight"
    assert series["val_ccc"][0].tolist() == [2, 4]
    assert series["val_ccc"][1] == pytest.approx([0.2, 0.4])
    out = tmp_path / "training.png"
    assert curves.main(["training", "--history", *paths, "--out", str(out)]) == 0
    first = out.read_bytes()
    curves.main(["training", "--history", *paths, "--out", str(out)])
    assert out.read_bytes() == first
    empty = tmp_path / "constant/seed-1/history.jsonl"
    empty.parent.mkdir(parents=True)
    empty.write_text("")
    assert curves.main(["training", "--history", str(empty), "--out", str(out)]) == 0
    empty.write_text("{broken")
    assert curves.main(["training", "--history", str(empty), "--out", str(out)]) == 1


def test_names_are_no_formulas(tmp_path):
    """matplotlib would read what stands between dollar signs as mathematics, and fail here."""
    run, session = r"a$\frac$b", r"s$x_$1"
    _, time = write_labels(tmp_path, "noxi", session, "expert", np.linspace(0, 1, 50))
    people = {(session, "expert"): (time, np.linspace(0, 1, 50))}
    path = write_predictions(tmp_path / "p.h5", people, run=run)
    out = tmp_path / "c.png"
    curves.draw_predictions(
        select([curves.read_session([curves.PredictionFile(path)], tmp_path, spec_of(session))]),
        run,
        out,
    )
    assert out.read_bytes()[:4] == b"\x89PNG"


def spec_of(session):
    return SessionSpec("noxi", session, ("expert",), "test")
