"""A header that names another sample type than its body holds, sizes alone would let through."""

import numpy as np
import pytest
from stream_trees import put

from extractors.stream import extract
from formats.ssi.stream import body_path, open_stream, write_stream
from runtime import InputError

RNG = np.random.default_rng(3)
WALK = np.cumsum(RNG.normal(size=(1500, 88)), axis=0)
MATRICES = {
    "doubles": WALK,
    "one column": WALK[:, :1],
    "odd width": WALK[:, :3] * 1e4,
    "floats before": WALK.astype(np.float32).astype(np.float64),
    "integers": np.round(WALK * 50),
    "fractions": np.round(WALK * 64) / 64,
    "some zeros": np.where(RNG.random(WALK.shape) < 0.3, 0, WALK),
}


@pytest.mark.parametrize("doubled", ["refuse", "left", "right", "first", "second"])
@pytest.mark.parametrize("kind", MATRICES)
def test_doubles_under_a_header_of_floats_are_refused(tmp_path, kind, doubled):
    path = put(tmp_path, "expert", "audio.egemapsv2", MATRICES[kind].astype(np.float32))
    body_path(path).write_bytes(MATRICES[kind].astype("<f8").tobytes())
    with pytest.raises(InputError, match="holds 1500 rows of DOUBLE byte=8"):
        extract(str(path), str(tmp_path / "o.h5"), "egemaps", {}, doubled=doubled)
    # The cure is right: with that header every value is read back.
    text = path.read_text().replace('byte="4"', 'byte="8"').replace("FLOAT", "DOUBLE")
    path.write_text(text)
    np.testing.assert_array_equal(open_stream(path).values, MATRICES[kind])


@pytest.mark.parametrize("kind", MATRICES)
def test_floats_under_a_header_of_doubles_are_refused(tmp_path, kind):
    rows = MATRICES[kind].astype(np.float32)
    write_stream(tmp_path / "a.stream", rows.astype(np.float64), 25.0)
    body_path(tmp_path / "a.stream").write_bytes(rows.astype("<f4").tobytes())
    with pytest.raises(InputError, match="holds 1500 rows of FLOAT byte=4"):
        open_stream(tmp_path / "a.stream")


@pytest.mark.parametrize("kind", MATRICES)
def test_twice_the_rows_of_floats_stay_two_microphones(tmp_path, kind):
    rows = MATRICES[kind].astype(np.float32)
    for body in (np.vstack([rows, rows * 1.01]), np.hstack([rows, rows + 1]), rows.repeat(2, 0)):
        path = put(tmp_path, "expert", "x", body.reshape(3000, -1), rows=1500)
        assert len(open_stream(path).values) == 3000


def test_a_body_of_doubles_cut_in_half_is_only_short(tmp_path):
    write_stream(tmp_path / "a.stream", WALK, 25.0)
    body = body_path(tmp_path / "a.stream")
    body.write_bytes(body.read_bytes()[: WALK.nbytes // 2])
    assert len(open_stream(tmp_path / "a.stream").values) == 750


def test_zeros_tell_nothing(tmp_path):
    path = put(tmp_path, "expert", "x", np.zeros((3000, 4), np.float32), rows=1500)
    assert len(open_stream(path).values) == 3000
