"""The session's clock: every number of the record worked out by hand, every refusal at its border."""

import json
import math

import pytest

from alignment import clock as clock_module
from alignment.clock import MOST_TICKS, Clock, make_clock, read_clock, read_probe, write_clock
from runtime import InputError


def person(role="expert", duration_s=30.0, offset=0.0, session="001", dataset="noxi"):
    return {
        "dataset": dataset,
        "session": session,
        "role": role,
        "duration_s": duration_s,
        "offset": offset,
    }


def refused(*people, rate=100.0) -> str:
    with pytest.raises(InputError) as e:
        make_clock(list(people), rate)
    return e.value.problem


@pytest.mark.parametrize(
    ("duration_s", "rate", "ticks"),
    [(30.0, 100, 3000), (30.005, 100, 3001), (0.29, 100, 29), (1.1, 100, 110), (10.01, 25, 251), (1800.6, 100, 180060), (0.5, 1, 1), (1.0, 0.5, 1), (1e-9, 100, 1)],
)  # fmt: skip
def test_clock_has_every_tick_before_the_end_and_no_other(duration_s, rate, ticks):
    n = make_clock([person(duration_s=duration_s)], rate)["n_ticks"]
    assert n == ticks
    assert (n - 1) / rate < duration_s <= n / rate + 1e-8


@pytest.mark.parametrize(("beyond", "ticks"), [(0.9e-6, 500), (1.1e-6, 501)])
def test_float_noise_of_a_millionth_of_a_tick_makes_no_tick(beyond, ticks):
    assert make_clock([person(duration_s=(500 + beyond) / 100)], 100)["n_ticks"] == ticks


def test_clock_covers_the_recording_that_ends_last():
    """In whatever order; a probe without offset starts with the session, by its role's text."""
    people = [person("b", 28.0, offset=3.5), person("a", 30.0), person(7, 1.25)]
    del people[1]["offset"]
    people[2]["offset"] = None
    expected = {
        "rate_hz": 50.0,
        "n_ticks": 1575,  # (3.5 + 28) * 50
        "duration_s": 31.5,
        "dataset": "noxi",
        "session": "001",
        "participants": {
            "7": {"offset_s": 0.0, "end_s": 1.25},
            "a": {"offset_s": 0.0, "end_s": 30.0},
            "b": {"offset_s": 3.5, "end_s": 31.5},
        },
    }
    assert make_clock(people, 50) == make_clock(people[::-1], 50) == expected
    assert list(make_clock(people, 50)["participants"]) == ["7", "a", "b"]


def test_short_recordings_have_an_end_too():
    """Lengths below a second, and one that only begins late."""
    record = make_clock([person("a", 0.5), person("b", 0.25, 0.125)], 8)
    assert (record["n_ticks"], record["duration_s"]) == (4, 0.5)
    assert record["participants"]["b"] == {"offset_s": 0.125, "end_s": 0.375}


@pytest.mark.parametrize("rate", [0.0, -25.0, math.nan, math.inf])
def test_a_rate_that_is_none(rate):
    assert f"clock rate {rate} Hz" in refused(person(), rate=rate)


@pytest.mark.parametrize(
    ("people", "problem"),
    [
        ([], "a session without participants has no clock"),
        ([person("a"), person("b"), person("a")], "noxi/001 has the role a twice"),
        (
            [person("a"), person("b", session="002"), person("c", dataset="mpiigi")],
            "one clock cannot serve several sessions: mpiigi/001, noxi/001, noxi/002",
        ),
        ([person("a"), person("b", session="002")], "sessions: noxi/001, noxi/002"),
        ([person("a"), person("b", offset=-0.5)], "noxi/001/b: offset -0.5 s"),
        ([person("a", offset=math.inf)], "noxi/001/a: offset inf s"),
        ([person("a", offset=math.nan)], "noxi/001/a: offset nan s"),
        ([person("a", 0.0)], "noxi/001/a: the recording has no length (0 s)"),
        ([person("a", None)], "noxi/001/a: the recording has no length (0 s)"),
        ([person("a", -1.0)], "noxi/001/a: the recording has no length (-1 s)"),
        ([person("a", math.inf)], "noxi/001/a: the recording has no length (inf s)"),
        ([person("a"), person("b", 1.0, 1.1e7)], "noxi/001 lasts 11000001 s"),
    ],
)
def test_sessions_that_have_no_clock(people, problem):
    assert problem in refused(*people)


def test_the_longest_session_is_a_thousand_million_ticks():
    assert make_clock([person(duration_s=1e7)], 100)["n_ticks"] == 10**9 == MOST_TICKS
    assert "lasts" in refused(person(duration_s=1e7 + 1))


# ---- files ----


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_of_a_clock(tmp_path):
    """Its bytes: keys in order, two spaces, names as they are."""
    probe = write(tmp_path / "p.json", json.dumps(person("Zoë", 4.0, 1.5), ensure_ascii=False))
    out = tmp_path / "clock.json"
    write_clock([str(probe)], 25, out, "version=1")
    assert (
        out.read_bytes()
        == """{
  "dataset": "noxi",
  "duration_s": 5.5,
  "fingerprint": "version=1",
  "n_ticks": 138,
  "participants": {
    "Zoë": {
      "end_s": 5.5,
      "offset_s": 1.5
    }
  },
  "rate_hz": 25.0,
  "session": "001"
}
""".encode()
    )
    assert read_clock(out) == Clock(25.0, 138, 5.5)
    write_clock([probe], 25, out)
    assert json.loads(out.read_text())["fingerprint"] == ""


def test_command_line_and_equal_bytes(tmp_path):
    for role, duration in (("expert", 4.0), ("novice", 5.0)):
        write(tmp_path / f"{role}.json", json.dumps(person(role, duration)))
    probes = [str(tmp_path / "expert.json"), str(tmp_path / "novice.json")]
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    assert clock_module.main(["--probe", *probes, "--out", str(first)]) == 0
    assert clock_module.main(["--probe", *reversed(probes), "--out", str(second)]) == 0
    assert first.read_bytes() == second.read_bytes()
    assert read_clock(first) == Clock(100.0, 500, 5.0)


RECORD = {"rate_hz": 100.0, "n_ticks": 500, "duration_s": 5.0}


def without(record, key):
    return json.dumps({k: v for k, v in record.items() if k != key})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not readable JSON (Expecting value: line 1 column 1 (char 0))"),
        ("[" * 100_000, "is not readable JSON (maximum recursion depth exceeded"),
        ('"a" ' + "x" * 200, "is not readable JSON (Extra data: line 1 column 5 (char 4))"),
        ("[]", "does not hold a JSON object"),
        ("{}", "no sound 'rate_hz' in the clock"),
        *((without(RECORD, key), f"no sound '{key}' in the clock") for key in RECORD),
        *((json.dumps(RECORD | {key: []}), "no sound") for key in RECORD),
        (json.dumps(RECORD | {"n_ticks": math.inf}), "no sound"),
        (json.dumps(RECORD | {"rate_hz": "fast"}), "no sound"),
        (json.dumps(RECORD | {"rate_hz": 0}), "500 ticks at 0 Hz is no clock"),
        (json.dumps(RECORD | {"rate_hz": -1}), "500 ticks at -1 Hz is no clock"),
        (json.dumps(RECORD | {"rate_hz": math.inf}), "500 ticks at inf Hz is no clock"),
        (json.dumps(RECORD | {"rate_hz": math.nan}), "500 ticks at nan Hz is no clock"),
        (json.dumps(RECORD | {"n_ticks": 0}), "0 ticks at 100 Hz is no clock"),
        (json.dumps(RECORD | {"n_ticks": 10**9 + 1}), "1000000001 ticks at 100 Hz is no clock"),
    ],
)
def test_damaged_clock_is_named(tmp_path, text, problem):
    path = write(tmp_path / "clock.json", text)
    with pytest.raises(InputError) as e:
        read_clock(path)
    assert e.value.problem.startswith(str(path)) and problem in e.value.problem
    assert e.value.cure == f"delete it and run again, it will be remade: rm '{path}'"


@pytest.mark.parametrize("change", [{"n_ticks": 1}, {"n_ticks": 10**9}, {"rate_hz": 0.5}])
def test_the_smallest_and_the_largest_clock(tmp_path, change):
    record = RECORD | change
    path = write(tmp_path / "clock.json", json.dumps(record | {"more": 1}))
    assert read_clock(path) == Clock(record["rate_hz"], record["n_ticks"], 5.0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="clock.json does not exist"):
        read_clock(tmp_path / "clock.json")


def test_a_probe_without_its_keys(tmp_path):
    record = person("Zoë")
    path = write(tmp_path / "p.json", json.dumps(record, ensure_ascii=False))
    assert read_probe(path) == record
    del record["offset"]  # from the sheet, may be absent
    assert read_probe(write(path, json.dumps(record))) == record
    for key in ("dataset", "session", "role", "duration_s"):
        with pytest.raises(InputError, match=f"p.json: keys missing: {key}\n"):
            read_probe(write(path, without(record, key)))
    with pytest.raises(InputError, match="keys missing: dataset, session, role, duration_s"):
        read_probe(write(path, "{}"))
