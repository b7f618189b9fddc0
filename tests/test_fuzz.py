"""2,000 mutated files through every parser; `make fuzz` takes 100,000."""

import random

from runtime import InputError
from tests.fuzz.__main__ import Inputs, fuzz, try_one
from tests.fuzz.mutate import mutate_bytes
from tests.fuzz.parsers import Parser


def test_no_input_escapes():
    counts, escapes = fuzz(2000, seed=20260101, show=False)
    assert not escapes, "\n".join(f"{e['parser']} input {e['input']}: {e['trace'][-300:]}" for e in escapes[:5])  # fmt: skip
    right, refused = (sum(c[i] for c in counts.values()) for i in (0, 1))
    assert right + refused == 2000
    assert right > 200 and refused > 500  # mutations neither harmless nor hopeless
    assert all(sum(c) >= 15 for c in counts.values()), counts


def test_an_escape_is_seen(tmp_path):
    """The harness itself: exceptions, failed checks and silent errors count, InputError does not."""

    def fails(error):
        def check(place):
            assert (place / "a").read_bytes() == b"x"
            raise error

        return Parser("p", 1, [{"a": b"x"}], check)

    files = {"a": b"x"}
    assert try_one(fails(InputError("a file", "a cure")), files, tmp_path) == "refused"
    assert "KeyError" in try_one(fails(KeyError("x")), files, tmp_path)
    assert "MemoryError" in try_one(fails(MemoryError()), files, tmp_path)
    assert "AssertionError" in try_one(fails(RuntimeError()), {"a": b"y"}, tmp_path)
    assert try_one(Parser("p", 1, [files], lambda place: None), files, tmp_path) == "right"


def test_an_input_depends_on_seed_and_number_alone():
    parser = Parser("p", 1, [{"a": bytes(range(200))}], lambda place: None)
    first, again, other = (Inputs([parser], seed) for seed in (1, 1, 2))
    backwards = [again.files(k) for k in reversed(range(20))][::-1]
    assert [first.files(k) for k in range(20)] == backwards
    assert [first.files(k) for k in range(20)] != [other.files(k) for k in range(20)]


def test_mutations_change_most_inputs():
    rng = random.Random(0)
    data = b"<stream/>" * 20
    changed = sum(mutate_bytes(rng, data, [b"other"], True) != data for _ in range(200))
    assert changed > 150
