"""The crop store: content, order, count, privacy, equal bytes."""

import os

import cv2
import numpy as np
import pytest

from extractors.crops import CropWriter, read_crops
from runtime import InputError


def pictures(n, size=64):
    """Smooth moving patterns; frame k is brighter in its own place."""
    y, x = np.mgrid[:size, :size]
    for k in range(n):
        wave = 128 + 60 * np.sin((x + 3 * k) / 9) + 40 * np.cos((y - k) / 7)
        yield np.stack([wave, 0.8 * wave + 20, 255 - wave], axis=2).astype(np.uint8)


def write(path, n, size=64):
    with CropWriter(path, size) as store:
        for picture in pictures(n, size):
            store.write(picture)
    return path


def test_frames_come_back_in_order_and_nearly_unchanged(tmp_path):
    path = write(tmp_path / "a.mkv", 40)
    back = list(read_crops(path, 40))
    originals = list(pictures(40))
    assert len(back) == 40 and back[0].shape == (64, 64, 3) and back[0].dtype == np.uint8
    errors = np.array(
        [[np.abs(a.astype(int) - b).mean() for b in originals[:12]] for a in back[:12]]
    )
    assert (errors.argmin(axis=1) == np.arange(12)).all()
    assert errors.diagonal().max() < 4


def test_grey_is_full_range_brightness(tmp_path):
    path = write(tmp_path / "a.mkv", 5)
    for grey, rgb in zip(read_crops(path, 5, gray=True), pictures(5), strict=True):
        assert grey.shape == (64, 64)
        assert np.abs(grey.astype(int) - cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)).mean() < 2


def test_resized_on_request(tmp_path):
    path = write(tmp_path / "a.mkv", 3)
    assert [c.shape for c in read_crops(path, 3, gray=True, size=32)] == [(32, 32)] * 3
    assert [c.shape for c in read_crops(path, 3, size=96)] == [(96, 96, 3)] * 3


@pytest.mark.parametrize("expected", [6, 8])
def test_another_count_is_an_error(tmp_path, expected):
    path = write(tmp_path / "a.mkv", 7)
    with pytest.raises(InputError, match=f"has {expected} rows"):
        list(read_crops(path, expected))


def test_damaged_and_missing_stores_are_input_errors(tmp_path):
    path = write(tmp_path / "a.mkv", 30)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for threads in (1, 3):
        with pytest.raises(InputError):
            list(read_crops(path, 30, threads=threads))
    path.write_bytes(b"no video")
    with pytest.raises(InputError):
        list(read_crops(path, 30))
    with pytest.raises(InputError):
        list(read_crops(tmp_path / "none.mkv", 30))


@pytest.mark.parametrize("options", [{}, {"gray": True, "size": 40}])
def test_threads_change_no_value_and_no_order(tmp_path, options):
    path = write(tmp_path / "a.mkv", 90)
    one = list(read_crops(path, 90, **options))
    four = list(read_crops(path, 90, threads=4, **options))
    np.testing.assert_array_equal(four, one)
    sums = list(read_crops(path, 90, threads=4, apply=np.sum, **options))
    assert sums == [np.sum(p) for p in one] and len(set(sums)) > 10
    with pytest.raises(InputError, match="holds 90 crops"):
        list(read_crops(path, 91, threads=4))


def test_only_the_owner_may_read_it(tmp_path):
    assert os.stat(write(tmp_path / "a.mkv", 2)).st_mode & 0o077 == 0


def test_equal_pictures_give_equal_bytes(tmp_path):
    contents = set()
    for k in range(4):
        # other allocations in between: some encoder modes depend on stale memory
        _ = [np.random.default_rng(k).bytes(10_000 * (k + 1)) for _ in range(20)]
        contents.add(write(tmp_path / f"{k}.mkv", 40, 224).read_bytes())
    assert len(contents) == 1


def test_a_failed_job_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), CropWriter(tmp_path / "a.mkv", 64) as store:
        store.write(next(pictures(1)))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
