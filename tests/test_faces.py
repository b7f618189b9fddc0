"""faces on drawn faces (whose place is known) and, where present, on real people."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.faces import agreement, crossed, drawn_face, first_frames, on_canvas, write_video
from extractors.crops import read_crops
from extractors.face_models import Face, Region, cut, iou
from extractors.face_search import Person, tiles
from extractors.faces import Smoother, _Row, extract, main
from runtime import InputError
from store.features import read_features

ROOT = Path(__file__).resolve().parent.parent
EMPTY = np.full((240, 320, 3), (150, 160, 170), np.uint8)


def true_box(k, width=320, height=240):
    """The drawn head's ellipse from brow to chin: what the landmarks span."""
    r = width // 16
    x, y = width // 2 + int(r * np.sin(k / 20)), height // 2
    return np.array([x - r, y - 0.75 * r, 2 * r, 2.1 * r])


def run(folder, frames, name="a", **settings):
    video = folder / f"{name}.mp4"
    write_video(video, frames)
    counts = extract(video, folder / f"{name}.h5", folder / f"{name}.mkv", **settings)
    return read_features(folder / f"{name}.h5"), counts


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """4 s with a face, but for frames 40..59."""
    folder = tmp_path_factory.mktemp("drawn")
    frames = [drawn_face(320, 240, k) if not 40 <= k < 60 else EMPTY for k in range(100)]
    return (*run(folder, frames, crop_size=96), folder)


def test_every_frame_has_a_row_and_the_face_is_where_it_was_drawn(drawn):
    faces, counts, _ = drawn
    absent = np.arange(100) // 20 == 2
    assert len(faces.time) == counts["frames"] == 100
    np.testing.assert_allclose(faces.time, np.arange(100) / 25, atol=1e-6)
    assert (faces.valid == ~absent).mean() >= 0.98 and not faces.valid[absent].any()
    for k in np.flatnonzero(faces.valid):
        assert iou(faces.extra["box"][k], true_box(k)) > 0.6
    assert (faces.extra["confidence"][faces.valid] > 0.5).all()
    assert counts["valid"] == faces.valid.sum() and counts["gaps"] >= 1
    assert counts["longest_gap_s"] == pytest.approx(0.76, abs=0.1)
    settings = {"margin": 1.6, "min_confidence": 0.5, "smoothing_s": 0.4, "crop_size": 96}
    assert json.loads(faces.attributes["settings"]) == settings


def test_a_frame_without_a_face_is_nan_and_black(drawn):
    faces, _, folder = drawn
    crops = list(read_crops(folder / "a.mkv", 100))
    for k in (45, 55):
        assert np.isnan(faces.values[k]).all() and np.isnan(faces.extra["box"][k]).all()
        assert np.isnan(faces.extra["crop_box"][k]).all() and faces.extra["confidence"][k] == 0
        assert crops[k].max() < 12
    assert crops[0].mean() > 60 and crops[99].mean() > 60


def test_landmarks_lie_in_the_crop_and_map_back_to_the_box(drawn):
    faces, _, _ = drawn
    assert faces.values.shape[1] == 936 and faces.dim_names[:2] == ["x0", "y0"]
    for k in np.flatnonzero(faces.valid)[::7]:
        x, y, side, height = faces.extra["crop_box"][k]
        assert side == height
        points = faces.values[k].reshape(468, 2) * side + (x, y)
        low, high = points.min(axis=0), points.max(axis=0)
        np.testing.assert_allclose(
            np.concatenate([low, high - low]), faces.extra["box"][k], atol=0.05
        )
        assert faces.values[k].min() > 0 and faces.values[k].max() < 1


def test_the_stored_crop_is_that_part_of_the_picture(drawn):
    faces, _, folder = drawn
    crops = list(read_crops(folder / "a.mkv", 100))
    for k in (10, 80):
        x, y, side, _ = faces.extra["crop_box"][k].astype(float)
        u = (np.arange(96) + 0.5) * side / 96 - 0.5  # pixel centres, sampled by another function
        expected = cv2.remap(
            drawn_face(320, 240, k),
            np.tile(np.float32(x + u), (96, 1)),
            np.tile(np.float32(y + u)[:, None], (1, 96)),
            cv2.INTER_LINEAR,
        )
        assert np.abs(crops[k].astype(int) - expected).mean() < 5


def test_threads_change_no_byte(tmp_path):
    frames = [drawn_face(320, 240, k) for k in range(30)]
    for threads in (1, 2):
        run(tmp_path, frames, "video", threads=threads, crop_size=64)
        for suffix in ("h5", "mkv"):
            os.rename(tmp_path / f"video.{suffix}", tmp_path / f"{threads}.{suffix}")
    for suffix in ("h5", "mkv"):
        assert (tmp_path / f"1.{suffix}").read_bytes() == (tmp_path / f"2.{suffix}").read_bytes()


def test_small_drawn_face_anywhere(tmp_path):
    small = on_canvas((drawn_face(320, 240, k) for k in range(40)), 3, (522, 77))
    faces, _ = run(tmp_path, small)
    truth = [true_box(k) + np.array([522, 77, 0, 0]) for k in range(40)]
    hits = [
        v and iou(b, t) >= 0.5
        for v, b, t in zip(faces.valid, faces.extra["box"], truth, strict=True)
    ]
    assert np.mean(hits) >= 0.95


def test_roi_chooses_one_of_two_and_boxes_stay_in_the_full_picture(tmp_path):
    def pair(k):
        return np.hstack([drawn_face(320, 240, k), drawn_face(320, 240, k + 31)])

    faces, _ = run(tmp_path, [pair(k) for k in range(20)], roi="320,0,320,240", crop_size=64)
    for k in range(20):
        assert iou(faces.extra["box"][k], true_box(k + 31) + np.array([320, 0, 0, 0])) > 0.5
        assert faces.extra["crop_box"][k, 0] > 320


def test_a_larger_drawn_face_that_crosses_is_not_followed(tmp_path):
    frames = [drawn_face(320, 240, k) for k in range(160)]
    others = [np.ascontiguousarray(f[:, :, ::-1]) for f in frames]
    box = true_box(0)
    two = crossed(frames, others, box, 1.7, 50, 130.0)
    faces, _ = run(tmp_path, two, crop_size=64)
    overlap = [iou(b, true_box(k)) for k, b in enumerate(faces.extra["box"]) if faces.valid[k]]
    assert min(overlap) > 0.3, "a row shows another face"
    outside = np.r_[0:50, 130:160]
    assert faces.valid[outside].mean() > 0.95


def test_no_face_can_be_refused_and_leaves_no_file(tmp_path, capfd):
    video = tmp_path / "wall.mp4"
    write_video(video, [EMPTY] * 20)
    args = [
        "--video",
        str(video),
        "--out",
        str(tmp_path / "f.h5"),
        "--crops",
        str(tmp_path / "c.mkv"),
        *("--unusable", "refuse"),
    ]
    assert main([*args, "--log", str(tmp_path / "log")]) == 1
    screen = capfd.readouterr().err.strip().splitlines()
    assert len(screen) <= 3 and "wall.mp4" in screen[0] and "exclude" in screen[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "wall.mp4"]


@pytest.mark.parametrize(
    "wrong", [{"crop_size": 97}, {"margin": 0.5}, {"min_confidence": 2.0}, {"smoothing_s": -1.0}]
)
def test_settings_out_of_range_are_named(tmp_path, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        extract(tmp_path / "v.mp4", tmp_path / "f.h5", tmp_path / "c.mkv", **wrong)


def row(time_s, x):
    if x is None:
        return _Row(time_s, None, np.zeros(1))
    points = np.array([[x - 10, 90], [x + 10, 110]], np.float32)
    return _Row(time_s, Face(points, 1.0), np.zeros(1))


def test_smoothing_keeps_steady_motion_never_crosses_gaps_and_holds_little():
    smoother = Smoother(margin=2.0, smoothing_s=0.4)
    track = [100.0 + 2 * k for k in range(400)]
    track[200:203] = [None] * 3
    track[203:] = [x + 500 for x in track[203:]]
    out, held = [], 0
    for k, x in enumerate(track):
        out += list(smoother.push(row(k / 25, x)))
        held = max(held, len(smoother._rows))
    out += list(smoother.push(None))
    assert len(out) == 400 and held <= 23
    assert [r.time_s for r, _ in out] == [k / 25 for k in range(400)]
    assert all((region is None) == (x is None) for (_, region), x in zip(out, track, strict=True))
    for k in (50, 120, 300):
        assert out[k][1].x == pytest.approx(track[k], abs=1e-3)  # symmetric mean of a line
        assert out[k][1].side == pytest.approx(40)
    assert out[199][1].x < 500 and out[203][1].x > 900


def test_smoothing_takes_jitter_out():
    rng = np.random.default_rng(0)
    smoother = Smoother(margin=2.0, smoothing_s=0.4)
    xs = 100 + rng.normal(0, 1, 300)
    out = [o for k, x in enumerate(xs) for o in smoother.push(row(k / 25, x))]
    assert np.std([region.x for _, region in out]) < 0.4


def test_cut_equals_slicing_and_averages_when_it_shrinks():
    picture = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    np.testing.assert_array_equal(cut(picture, Region(150, 100, 80), 80), picture[60:140, 110:190])
    noise = cut(picture, Region(150, 100, 80), 20)  # four sampled pixels would keep half of it
    assert noise.std() < 0.35 * picture.std()
    smooth = cv2.GaussianBlur(picture, (0, 0), 6)
    mean = smooth[60:140, 110:190].reshape(20, 4, 20, 4, 3).mean(axis=(1, 3))
    assert np.abs(cut(smooth, Region(150, 100, 80), 20) - mean).max() <= 2.5
    turned = cut(picture, Region(150, 100, 80, np.pi / 2), 80)
    np.testing.assert_array_equal(turned, np.rot90(picture[60:140, 110:190]))


def test_tiles_hold_every_small_square_whole():
    side, face = 100.0, 33.0
    regions = tiles(640, 480, side)
    rng = np.random.default_rng(0)
    for x, y in rng.uniform(face / 2, [640 - face / 2, 480 - face / 2], (500, 2)):
        reach = (side - face) / 2 + 1e-6
        assert any(abs(x - t.x) <= reach and abs(y - t.y) <= reach for t in regions)


def test_person_remembers_a_bounded_number_of_looks():
    rng = np.random.default_rng(0)
    person = Person(50.0, [np.eye(256)[0]], [(0.0, 1.0, 2.0), (9.0, 3.0, 4.0)])
    for _ in range(200):
        look = rng.normal(size=256)
        person.learn(look / np.linalg.norm(look))
    assert len(person.own) <= 32 and person.similarity(np.eye(256)[0]) == pytest.approx(1.0)
    assert person.expected(8.0).tolist() == [3.0, 4.0]


def realclips():
    folder = Path(os.environ.get("REALCLIPS") or ROOT.parent / "shared" / "corpora" / "realclips")
    found = sorted(folder.rglob("*.mp4"))
    if not found:
        reason = "the corpus of real clips is not beside the clone (set REALCLIPS)"
        print(f"skipped: {reason}")
        pytest.skip(reason)
    return found


@pytest.mark.realclips
@pytest.mark.parametrize("which, factor", [(14, 3), (3, 2)])
def test_real_people_filmed_from_afar(tmp_path, which, factor):
    frames = list(first_frames(realclips()[which], 2.4))
    truth, _ = run(tmp_path, frames, "near")
    corner = (417, 230)
    far, _ = run(tmp_path, on_canvas(frames, factor, corner), "far")
    found, false = agreement(far, truth, corner)
    assert truth.valid.mean() > 0.95 and found >= 0.95 and false < 0.005


@pytest.mark.realclips
def test_a_larger_real_face_crosses_a_real_person(tmp_path):
    chosen = realclips()
    frames, others = (list(first_frames(chosen[i], 4.4)) for i in (8, 20))
    truth, _ = run(tmp_path, frames, "one")
    other, _ = run(tmp_path, others, "other")
    box = np.nanmedian(other.extra["box"], axis=0)
    x, y, w, h = np.nanmedian(truth.extra["box"], axis=0)
    both, _ = run(tmp_path, crossed(frames, others, box, 1.6, 20, y + h / 2), "two")
    found, wrong = agreement(both, truth, (0, 0))
    assert wrong == 0 and found > 0.75
    assert both.valid[:20].all() and both.valid[100:].mean() > 0.9
