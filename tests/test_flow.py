"""Flow features against pictures whose motion is known, and against naive loops."""

import json
import subprocess
import sys

import cv2
import h5py
import numpy as np
import pytest

from extractors import dense_flow, flow, flow_magnitude
from extractors.face_track import FaceCrops, read_track
from extractors.run import extract
from runtime import InputError
from store.features import check_features, read_features
from tests.face_files import MESH, rgb, shifted, texture, write_crops, write_faces

SIZE = 224


def moving(tmp_path, shifts, time, name="role", **faces):
    """Files of a texture at the given places (dx, dy in crop widths per frame, cumulative)."""
    base = texture(SIZE)
    pictures = [rgb(shifted(base, dx * SIZE, dy * SIZE)) for dx, dy in shifts]
    return (
        write_faces(tmp_path / f"{name}.h5", time, **faces),
        write_crops(tmp_path / f"{name}.crops.mkv", pictures),
    )


def test_translation_gives_its_velocity_in_every_cell(tmp_path):
    # 0.01 and -0.006 crop widths per frame at 25 fps.
    k = np.arange(8)
    faces, crops = moving(tmp_path, np.stack([0.01 * k, -0.006 * k], 1), k / 25)
    out = tmp_path / "flow.h5"
    extract("flow", out, FaceCrops(faces, crops), dtype="float32")
    assert check_features(out) == []
    f = read_features(out)
    assert f.values.shape == (8, 160)
    np.testing.assert_array_equal(f.valid, k > 0)
    np.testing.assert_array_equal(f.time, k / 25)
    cells = f.values[1:].reshape(7, 16, 10)
    inner = cells[:, [5, 6, 9, 10]]  # cells that no picture edge touches
    np.testing.assert_allclose(inner[..., 0], 0.25, rtol=0.06)
    np.testing.assert_allclose(inner[..., 1], -0.15, rtol=0.06)
    # Direction -31 degrees lies between bin 7 (-45) and bin 0 (0); bins add up to the speed.
    np.testing.assert_allclose(inner[..., 2:].sum(-1), np.hypot(0.25, 0.15), rtol=0.06)
    assert (inner[..., [2, 9]].sum(-1) > 0.95 * inner[..., 2:].sum(-1)).all()
    assert f.dim_names[0] == "cell_r0c0_u" and f.dim_names[-1] == "cell_r3c3_bin7"
    settings = json.loads(f.attributes["settings"])
    assert settings.pop("faces") == {"crop_size": 224, "models": "found by hand", "version": 4}
    assert settings == {"grid": 4, "bins": 8, "dtype": "float32"}


@pytest.mark.parametrize("rate", [30, 50])
def test_velocity_does_not_depend_on_the_frame_rate(tmp_path, rate):
    values = {}
    for fps in (25, rate):
        t = np.arange(fps // 5 + 1) / fps
        shifts = np.stack([0.2 * t, 0.1 * t], 1)
        faces, crops = moving(tmp_path, shifts, t, name=f"r{fps}")
        out = tmp_path / f"{fps}.h5"
        extract("flow", out, FaceCrops(faces, crops), grid=1, bins=4, dtype="float32")
        values[fps] = read_features(out).values[1:].mean(0)
    np.testing.assert_allclose(values[25][:2], [0.2, 0.1], rtol=0.06)
    np.testing.assert_allclose(values[rate], values[25], rtol=0.04, atol=0.002)


def test_variable_frame_rate_divides_by_the_true_interval(tmp_path):
    time = np.cumsum([0, 1 / 30, 1 / 15, 1 / 30, 1 / 20, 1 / 30, 1 / 30])
    faces, crops = moving(tmp_path, np.stack([0.2 * time, 0 * time], 1), time)
    out = tmp_path / "flow.h5"
    extract("flow", out, FaceCrops(faces, crops), grid=1, dtype="float32")
    np.testing.assert_allclose(read_features(out).values[1:, 0], 0.2, rtol=0.06)


def test_summary_equals_a_loop_over_pixels():
    size, grid, bins = 20, 3, 6
    field = np.random.default_rng(1).standard_normal((size, size, 2)).astype(np.float32)
    expected = np.zeros((grid, grid, 2 + bins))
    counts = np.zeros((grid, grid))
    for y in range(size):
        for x in range(size):
            r, c = y * grid // size, x * grid // size
            u, v = map(float, field[y, x])
            speed, angle = np.hypot(u, v), np.degrees(np.arctan2(v, u)) % 360
            counts[r, c] += 1
            expected[r, c, 0] += u
            expected[r, c, 1] += v
            for b in range(bins):
                distance = abs((angle - b * 60 + 180) % 360 - 180)
                expected[r, c, 2 + b] += speed * max(0.0, 1 - distance / 60)
    expected /= counts[..., None]
    summary = flow.GridSummary(grid, bins, size)
    np.testing.assert_allclose(summary(field), expected.ravel(), rtol=2e-5, atol=1e-6)
    assert summary.dim_names[(1 * grid + 2) * (2 + bins)] == "cell_r1c2_u"


@pytest.mark.parametrize(("degrees", "bin_"), [(0, 0), (90, 2), (180, 4), (-90, 6), (45, 1)])
def test_bins_turn_from_right_over_down(degrees, bin_):
    a = np.radians(degrees)
    field = np.broadcast_to(np.float32([np.cos(a), np.sin(a)]), (112, 112, 2))
    histogram = flow.GridSummary(2, 8)(field).reshape(4, 10)[:, 2:]
    np.testing.assert_allclose(histogram, np.tile(np.eye(8)[bin_], (4, 1)), atol=1e-5)


def test_rotation_turns_the_cells_around_the_centre(tmp_path):
    base = texture(SIZE, seed=3).astype(np.float32)
    omega = 0.5  # rad/s, clockwise on the screen: at the top to the right
    pictures = []
    for k in range(5):
        turn = cv2.getRotationMatrix2D((111.5, 111.5), -np.degrees(omega * k / 25), 1.0)
        pictures.append(rgb(cv2.warpAffine(base, turn, (SIZE, SIZE), flags=cv2.INTER_CUBIC)))
    faces = write_faces(tmp_path / "a.h5", np.arange(5) / 25)
    out = tmp_path / "flow.h5"
    crops = write_crops(tmp_path / "a.mkv", pictures)
    extract("flow", out, FaceCrops(faces, crops), dtype="float32")
    cells = read_features(out).values[1:].mean(0).reshape(4, 4, 10)
    for r, c in [(1, 1), (1, 2), (2, 1), (2, 2)]:
        x, y = (c + 0.5) / 4 - 0.5, (r + 0.5) / 4 - 0.5
        np.testing.assert_allclose(cells[r, c, :2], [-omega * y, omega * x], atol=0.008)


def test_magnitude_is_read_where_the_landmarks_are(tmp_path):
    # Only the left half of the picture moves, downwards.
    base, still = texture(SIZE, seed=4), texture(SIZE, seed=5)
    pictures = []
    for k in range(4):
        picture = still.copy()
        picture[:, :112] = shifted(base, 0, 0.01 * SIZE * k)[:, :112]
        pictures.append(rgb(picture))
    landmarks = np.full((4, MESH, 2), np.float32([0.75, 0.5]))
    names = flow_magnitude.LANDMARKS
    for name in ("chin", "nose_tip", "left_eye_outer"):
        landmarks[:, names[name]] = [0.25, 0.5]
    faces = write_faces(tmp_path / "a.h5", np.arange(4) / 25, landmarks=landmarks)
    crops = write_crops(tmp_path / "a.mkv", pictures)
    out = tmp_path / "magnitude.h5"
    extract("flow_magnitude", out, FaceCrops(faces, crops), dtype="float32")
    assert check_features(out) == []
    f = read_features(out)
    assert f.values.shape == (4, 33) and not f.valid[0] and f.valid[1:].all()
    row = dict(zip(f.dim_names, f.values[1:].mean(0), strict=True))
    for name in names:
        if name in ("chin", "nose_tip", "left_eye_outer"):
            assert row[name] == pytest.approx(0.25, rel=0.06), name
        else:
            assert row[name] < 0.02, name
    assert row["face"] == pytest.approx(0.25 * 3 / 468, abs=0.02)
    settings = json.loads(f.attributes["settings"])
    assert settings.pop("faces")["crop_size"] == 224 and settings == {"dtype": "float32"}


def test_gather_equals_a_naive_window_mean():
    rng = np.random.default_rng(2)
    field = rng.standard_normal((112, 112, 2)).astype(np.float32)
    landmarks = rng.uniform(0.1, 0.9, (468, 2)).astype(np.float32)
    # On pixel centres no interpolation is left.
    landmarks = (np.floor(landmarks * 112) + 0.5) / np.float32(112)
    got = flow_magnitude.gather(field, landmarks)
    speed = np.sqrt((field.astype(np.float64) ** 2).sum(-1))
    at = []
    for x, y in landmarks:
        j, i = int(x * 112), int(y * 112)
        at.append(speed[i - 3 : i + 4, j - 3 : j + 4].mean())
    expected = [at[i] for i in flow_magnitude.LANDMARKS.values()] + [np.mean(at)]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_landmark_names_agree_with_mediapipe():
    mesh = pytest.importorskip("mediapipe.python.solutions.face_mesh_connections")
    sets = {
        "right_brow": mesh.FACEMESH_RIGHT_EYEBROW,
        "left_brow": mesh.FACEMESH_LEFT_EYEBROW,
        "right_eye": mesh.FACEMESH_RIGHT_EYE,
        "left_eye": mesh.FACEMESH_LEFT_EYE,
        "lip": mesh.FACEMESH_LIPS,
        "mouth": mesh.FACEMESH_LIPS,
        "jaw": mesh.FACEMESH_FACE_OVAL,
        "chin": mesh.FACEMESH_FACE_OVAL,
    }
    for name, index in flow_magnitude.LANDMARKS.items():
        for part, connections in sets.items():
            if part in name:
                assert index in {i for pair in connections for i in pair}, name
    assert len(set(flow_magnitude.LANDMARKS.values())) == 32


def test_an_impulse_shows_in_its_own_row_only(tmp_path):
    k = np.arange(12)
    shifts = np.where(k[:, None] >= 7, [0.02, 0.0], [0.0, 0.0])
    faces, crops = moving(tmp_path, shifts, k / 25)
    extract("flow", tmp_path / "f.h5", FaceCrops(faces, crops), grid=1, dtype="float32")
    extract("flow_magnitude", tmp_path / "m.h5", FaceCrops(faces, crops), dtype="float32")
    for values in (
        read_features(tmp_path / "f.h5").values[:, 0],
        read_features(tmp_path / "m.h5").values[:, -1],
    ):
        assert values[7] == pytest.approx(0.5, rel=0.06)
        assert np.abs(np.delete(values, [0, 7])).max() < 1e-3


def test_rows_without_a_pair_of_faces_are_invalid(tmp_path):
    time = np.arange(14) / 25
    time[9:] += 0.2  # dropped frames: the next frame is six intervals later
    valid = np.ones(14, bool)
    valid[[4]] = False
    box = np.tile(np.float32([100, 80, 200, 200]), (14, 1))
    box[12:] += [60, 0, 0, 0]  # the square is placed anew
    shifts = np.stack([0.005 * np.arange(14), np.zeros(14)], 1)
    faces, crops = moving(tmp_path, shifts, time, valid=valid, crop_box=box)
    for name in ("flow", "flow_magnitude"):
        out = tmp_path / f"{name}.h5"
        extract(name, out, FaceCrops(faces, crops))
        f = read_features(out)
        assert set(np.flatnonzero(~f.valid)) == {0, 4, 5, 9, 12}
        assert np.isnan(f.values[~f.valid]).all() and np.isfinite(f.values[f.valid]).all()
        assert f.values.dtype == np.float16
        assert json.loads(out.with_suffix(".json").read_text())["counts"]["valid"] == 9


def test_long_recordings_are_written_in_pieces(tmp_path, monkeypatch):
    k = np.arange(23)
    faces, crops = moving(tmp_path, np.stack([0.01 * np.sin(k), 0 * k], 1), k / 25)
    results = []
    for rows in (512, 5):
        for module in (flow, flow_magnitude):
            monkeypatch.setattr(module, "ROWS", rows)
        extract("flow", tmp_path / f"f{rows}.h5", FaceCrops(faces, crops))
        extract("flow_magnitude", tmp_path / f"m{rows}.h5", FaceCrops(faces, crops))
        results.append([(tmp_path / f"{n}{rows}.h5").read_bytes() for n in "fm"])
    assert results[0] == results[1]


def test_result_does_not_depend_on_threads(tmp_path):
    k = np.arange(6)
    faces, crops = moving(tmp_path, np.stack([0.013 * k, 0.004 * k], 1), k / 25)
    for threads in (1, 2):
        extract("flow", tmp_path / f"{threads}.h5", FaceCrops(faces, crops), threads=threads)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_motion_is_given_on_the_grid_of_the_later_picture():
    # A disc of texture jumps: the flow must lie where it arrived.
    base, ground = texture(112, seed=6, blur=2), texture(112, seed=7, blur=2)
    y, x = np.mgrid[:112, :112]
    pictures = []
    for dx in (0, 6):
        disc = (x - 50 - dx) ** 2 + (y - 56) ** 2 < 18**2
        pictures.append(np.where(disc, np.roll(base, dx, 1), ground).astype(np.uint8))
    u = dense_flow.motion(*pictures, dense_flow.make_dis())[..., 0] * 112
    weight = np.clip(u, 0, None)
    assert (weight * x).sum() / weight.sum() == pytest.approx(56, abs=1.5)


def test_wrong_files_are_named(tmp_path):
    k = np.arange(5)
    faces, crops = moving(tmp_path, np.zeros((5, 2)), k / 25)
    longer = write_faces(tmp_path / "longer.h5", np.arange(9) / 25)
    few = write_faces(tmp_path / "few.h5", k / 25, landmarks=np.zeros((5, 68, 2), np.float32))
    out = tmp_path / "out.h5"
    with pytest.raises(InputError, match="role.crops.mkv"):
        extract("flow", out, FaceCrops(longer, crops))
    with pytest.raises(InputError, match="68 landmarks"):
        extract("flow_magnitude", out, FaceCrops(few, crops))
    with pytest.raises(InputError, match="out of range"):
        extract("flow", out, FaceCrops(faces, crops), grid=0)
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["values"] = np.zeros((5, 2))
    with pytest.raises(InputError, match="not a faces file"):
        read_track(tmp_path / "other.h5")
    assert not out.exists()


def test_command_line(tmp_path):
    k = np.arange(5)
    faces, crops = moving(tmp_path, np.stack([0.01 * k, 0 * k], 1), k / 25)
    for feature, extra in (("flow", ["--grid", "2", "--bins", "4"]), ("flow_magnitude", [])):
        out = tmp_path / f"{feature}.h5"
        command = [sys.executable, "-m", "extractors", feature, "--faces", str(faces)]
        command += ["--crops", str(crops), "--out", str(out), "--fingerprint", "code=1", *extra]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        f = read_features(out)
        assert f.attributes["feature"] == feature and f.attributes["fingerprint"] == "code=1"
        assert len(f.dim_names) == (24 if feature == "flow" else 33)
        record = json.loads(out.with_suffix(".json").read_text())
        assert record["run"]["command"].startswith(f"python -m extractors {feature} --faces")
    bad = subprocess.run(
        [*command[:5], str(tmp_path / "none.h5"), *command[6:]], capture_output=True, text=True
    )
    assert bad.returncode == 1 and "none.h5" in bad.stderr and "Traceback" not in bad.stderr
