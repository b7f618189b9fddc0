"""Frame times and upright pictures of recordings."""

from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import CLOCKWISE, ONE, corners, tone, write_video

from media.probe import probe
from media.video import parse_roi, upright, video_frames
from runtime import InputError


def times_of(path):
    return np.array([f.time_s for f in video_frames(path)])


@pytest.mark.parametrize(
    "name, rate",
    [
        ("a.mp4", 25),
        ("a.mkv", 30),
        ("a.mov", Fraction(30000, 1001)),
        ("a.mp4", Fraction(24000, 1001)),
    ],
)
def test_times_of_constant_rates(tmp_path, name, rate):
    path = write_video(tmp_path / name, frames=60, rate=rate)
    expected = np.arange(60) / float(rate)
    # Matroska stores milliseconds.
    np.testing.assert_allclose(times_of(path), expected, atol=6e-4 if "mkv" in name else 1e-6)
    info = probe(path).video
    assert info.frames == 60
    assert info.rate_hz == pytest.approx(float(rate), abs=0.01)
    assert not info.variable_rate


def test_variable_frame_rate_keeps_its_time_stamps(tmp_path):
    steps = np.random.default_rng(0).choice([0.02, 0.04, 0.1, 0.5], 80)
    times = np.round(np.concatenate([[0], np.cumsum(steps)]), 3)
    path = write_video(tmp_path / "vfr.mp4", times_s=[float(t) for t in times], time_base="1/1000")
    np.testing.assert_allclose(times_of(path), times, atol=1e-6)
    info = probe(path).video
    assert info.variable_rate
    assert (info.first_s, info.last_s) == (0.0, pytest.approx(times[-1]))
    assert info.rate_hz == pytest.approx(80 / times[-1], abs=1e-3)


def test_a_late_picture_is_time_zero_and_the_sound_begins_before_it(tmp_path):
    path = write_video(
        tmp_path / "late.mkv", times_s=[1.5 + k / 25 for k in range(100)], time_base="1/1000",
        audio=tone(6.0), audio_codec="flac",
    )  # fmt: skip
    np.testing.assert_allclose(times_of(path), np.arange(100) / 25, atol=6e-4)
    info = probe(path)
    assert info.video.first_s == 0.0 and info.video.frames == 100
    assert info.audio.start_s == pytest.approx(-1.5, abs=1e-3)
    assert info.audio.duration_s == pytest.approx(6.0, abs=1e-3)
    assert info.duration_s == pytest.approx(4.5, abs=1e-3)


def test_rotated_phone_video_is_upright(tmp_path):
    path = write_video(tmp_path / "phone.mp4", frames=10, matrix=CLOCKWISE)
    picture = next(video_frames(path)).rgb
    assert picture.shape == (64, 48, 3)
    assert picture.flags.c_contiguous
    # Turned clockwise, the top left (red) corner goes to the top right.
    expected = np.rot90(corners(), -1)
    for y, x in [(8, 8), (8, 40), (56, 8), (56, 40)]:
        np.testing.assert_allclose(picture[y, x].astype(int), expected[y, x], atol=12)
    info = probe(path).video
    assert (info.width, info.height, info.rotation) == (48, 64, 90)


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0),
                                    (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)])  # fmt: skip
def test_every_display_matrix_moves_points_as_the_standard_says(matrix):
    a, b, c, d = matrix
    picture = np.arange(6).reshape(2, 3)
    shown = {}
    for q in range(2):
        for p in range(3):
            shown[a * p + c * q, b * p + d * q] = picture[q, p]
    x0, y0 = min(x for x, _ in shown), min(y for _, y in shown)
    result = upright(picture, matrix)
    assert {(x - x0, y - y0): v for (x, y), v in shown.items()} == {
        (x, y): result[y, x] for y in range(result.shape[0]) for x in range(result.shape[1])
    }


def test_skewed_display_matrix_is_refused(tmp_path):
    s = int(ONE * 0.7071)
    path = write_video(tmp_path / "skew.mp4", frames=5, matrix=[s, s, 0, -s, s, 0, 0, 0, 1 << 30])
    with pytest.raises(InputError, match="multiple of 90"):
        next(video_frames(path))


def test_roi_is_cut_from_the_upright_picture(tmp_path):
    path = write_video(tmp_path / "phone.mp4", frames=3, matrix=CLOCKWISE)
    whole = next(video_frames(path)).rgb
    part = next(video_frames(path, "24,0,24,32")).rgb
    np.testing.assert_array_equal(part, whole[:32, 24:48])
    assert part.flags.c_contiguous
    with pytest.raises(InputError, match="beyond the picture"):
        next(video_frames(path, (40, 0, 24, 24)))  # fits the stored picture, not the upright one
    for text in ("1,2,3", "0,0,0,5", "a,b,c,d", "-1,0,5,5", "0;0;5;5"):
        with pytest.raises(InputError, match="roi"):
            parse_roi(text)


def test_threads_do_not_change_pictures(tmp_path):
    noise = np.random.default_rng(1).integers(0, 255, (96, 128, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", frames=12, picture=noise)
    one = [f.rgb for f in video_frames(path, threads=1)]
    two = [f.rgb for f in video_frames(path, threads=2)]
    np.testing.assert_array_equal(one, two)


def test_cover_art_is_no_video(tmp_path):
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        art = container.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 64, 48, "yuvj420p"
        art.disposition = av.stream.Disposition.attached_pic
        container.mux(art.encode(av.VideoFrame.from_ndarray(corners(), "rgb24")))
        container.mux(art.encode())
        frame = av.AudioFrame.from_ndarray(tone(1.0)[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(InputError, match="no video stream"):
        next(video_frames(path))
