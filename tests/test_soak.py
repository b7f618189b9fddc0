"""Snakemake and its jobs are killed, started twice, fed with damage: real runs of a tiny study."""

import csv
import json
import os
import re
import signal
import subprocess
import time
from types import SimpleNamespace

import psutil
import pytest

from store.planned import PLANNED, plan
from tests.soak.__main__ import jobs_below, soak
from tests.soak.study import (
    CONFIG,
    command,
    content,
    differences,
    digests,
    environment,
    make_house,
    run,
)
from workflow.unfinished import plan_outputs, unfinished

# Sound alone: jobs of a second.
SOUND = {
    **CONFIG,
    "features": {
        n: {"enabled": False} for n in ("wav2vec2", "clip_face", "flow", "flow_magnitude")
    },
    "defaults": {**CONFIG["defaults"], "features": ["egemaps"], "evaluate": ["noxi/test"]},
    "runs": {"mlp": {"model": {"name": "mlp"}}},
    "tables": {"main": {"runs": ["mlp"], "bootstrap": 50}},
}
PEOPLE = {("noxi", "001", "expert"), ("noxi", "002", "expert"), ("noxi", "002", "novice")}


def test_what_is_compared_is_everything_but_the_runs_themselves(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for root, seconds in ((a, 1), (b, 2)):
        (root / "logs").mkdir(parents=True)
        (root / "logs" / "x.log").write_text(str(seconds))
        (root / "f.json").write_text(
            json.dumps({"sha256": "0", "file": "f.h5", "run": {"seconds": seconds}})
        )
        (root / "f.h5").write_bytes(b"same")
    assert differences(digests(a), digests(b)) == []
    (b / "f.h5").write_bytes(b"sane")
    (b / ".f.h5.x.tmp").write_bytes(b"")
    assert differences(digests(a), digests(b)) == [".f.h5.x.tmp", "f.h5"]
    assert b"run" not in content(a / "f.json")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A finished study of sound alone, and what it made."""
    house = make_house(tmp_path_factory.mktemp("faults") / "house", PEOPLE, SOUND)
    done = run(house)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return house, digests(house / "results")


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_three_kills_change_no_byte(built, tmp_path):
    said = []
    seed = int(os.environ.get("SOAK_SEED", "7"))
    hit = soak(3, seed, tmp_path, said.append, people=PEOPLE, config=SOUND, expected=built[1])
    assert "3 kills" in said[-1] and "byte-equal" in said[-1]
    assert sum(hit.values()) >= 1, said


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_damaged_files_are_found_refused_and_made_again(built):
    house, expected = built
    results = house / "results"
    victims = ["aligned/noxi/001/expert/egemaps.h5", "features/noxi/002/novice/egemaps.h5", "runs/mlp/seed-1/model.safetensors", "predictions/mlp/seed-1/noxi.h5"]  # fmt: skip
    for name in victims:
        damage(results / name)
    words = ["python", "-m", "store", "verify", "results"]
    env = environment() | {"PATH": f"{os.path.dirname(command()[0])}:{os.environ['PATH']}"}
    found = subprocess.run(words, cwd=house, env=env, capture_output=True, text=True)
    assert found.returncode == 1 and "4 of " in found.stderr and "--remove" in found.stderr
    failed = run(house, "--forcerun", "statistics")
    assert failed.returncode != 0 and "egemaps.h5" in failed.stdout + failed.stderr
    assert "sha256 differs" in failed.stdout + failed.stderr
    removed = subprocess.run(
        [*words, "--remove"], cwd=house, env=env, capture_output=True, text=True
    )
    assert removed.returncode == 0 and all(name in removed.stdout for name in victims), removed.stderr  # fmt: skip
    again = run(house)
    assert again.returncode == 0, again.stdout[-2000:]
    assert differences(expected, digests(results)) == []


def test_what_a_call_had_planned_and_is_gone_is_made_again(built):
    """A kill between Snakemake's deletion of outputs and its own mark leaves nothing but the plan."""
    house, expected = built
    gone = [f"results/features/noxi/002/novice/egemaps.{e}" for e in ("h5", "json")]
    gone += [f"results/runs/mlp/seed-1/model.{e}" for e in ("safetensors", "json")]
    gone += [f"results/qc/noxi/001.{e}" for e in ("json", "png")]
    removed_from_sheet = "results/features/noxi/999/expert/egemaps.h5"
    plan([*gone, removed_from_sheet], house / PLANNED)
    for path in gone:
        (house / path).unlink()
    # Deleted by its owner, to save space: not planned, so not made.
    own = house / "results/features/noxi/001/expert/egemaps.h5"
    own.rename(house / "elsewhere.h5")
    done = run(house)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert not own.exists()
    (house / "elsewhere.h5").rename(own)
    assert differences(expected, digests(house / "results")) == []
    assert (house / PLANNED).read_text().split() == [removed_from_sheet]
    assert "Nothing to be done" in run(house).stdout + run(house).stderr


class Rule:
    """A rule of Snakemake as `unfinished` sees it."""

    def __init__(self, name, pattern):
        self.name, self.pattern = name, re.compile(pattern)

    def is_producer(self, path):
        return bool(self.pattern.fullmatch(path))

    def get_wildcards(self, path):
        return self.pattern.fullmatch(path).groupdict()


def test_a_table_on_request_asks_for_its_own_runs_and_nothing_new_is_planned(tmp_path):
    plan_file = tmp_path / "planned.txt"
    (tmp_path / "old").touch()
    job = SimpleNamespace(output=[str(tmp_path / "old"), str(tmp_path / "new")])
    call = SimpleNamespace(is_main_process=True, dag=SimpleNamespace(needrun_jobs=lambda: [job]))
    plan_outputs(call, plan_file)
    assert plan_file.read_text().split() == [str(tmp_path / "old")]
    plan(["p/a/1/noxi.h5", "p/b/1/noxi.h5", "p/gone/1/noxi.h5", "m/noxi/001/x.h5"], plan_file)
    run = lambda name: SimpleNamespace(name=name, weights=name, seeds=[1])  # noqa: E731
    study = SimpleNamespace(
        features=[], config={"features": {}}, runs={"a": run("a"), "b": run("b")}, by_id={("noxi", "001", "x"): None}, datasets=lambda r: ["noxi"],
        table_runs=lambda table: [run("a")], declared=SimpleNamespace(needed=lambda name: [name]),
    )  # fmt: skip
    study.by_id["noxi", "001", "x"] = SimpleNamespace(video="v", labels="")
    study.by_session = {("noxi", "001"): []}
    rules = [
        Rule("combine", r"p/(?P<run>\w+)/(?P<seed>\d)/(?P<dataset>\w+)\.h5"),
        Rule("faces", r"m/(?P<dataset>\w+)/(?P<session>\w+)/(?P<role>\w+)\.h5"),
    ]
    everything = ["m/noxi/001/x.h5", "p/a/1/noxi.h5", "p/b/1/noxi.h5"]
    assert unfinished(rules, study, file=plan_file) == everything
    assert unfinished(rules, study, "t", plan_file) == everything[:2]


@pytest.mark.soak
@pytest.mark.parametrize(
    "rule, module",
    [("egemaps", "extractors egemaps"), ("train", "training.train"), ("probe", "media.probe")],
)
def test_what_a_killed_call_had_deleted_is_made_again(built, rule, module):
    """Snakemake itself takes a missing file for unneeded when its descendants exist."""
    house, expected = built
    call = subprocess.Popen(command("--forcerun", rule), cwd=house, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    main = psutil.Process(call.pid)
    while call.poll() is None and module not in jobs_below(main):
        time.sleep(0.005)
    assert call.poll() is None, "the job was not seen"
    os.killpg(call.pid, signal.SIGKILL)
    call.wait()
    assert differences(expected, digests(house / "results")), "something is gone"
    assert run(house, "--unlock").returncode == 0
    done = run(house)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert differences(expected, digests(house / "results")) == []
    assert "Nothing to be done" in run(house).stdout + run(house).stderr


def test_a_second_call_is_refused_and_harms_nothing(built):
    house, expected = built
    first = subprocess.Popen(command("--forcerun", "egemaps"), cwd=house, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    locks = house / ".snakemake" / "locks"
    end = time.monotonic() + 60
    while not (locks.is_dir() and any(locks.iterdir())) and time.monotonic() < end:
        time.sleep(0.02)
    second = run(house)
    out, _ = first.communicate(timeout=300)
    assert first.returncode == 0, out[-2000:]
    said = second.stdout + second.stderr
    assert second.returncode != 0 and "lock" in said.lower() and "Traceback" not in said, said
    assert differences(expected, digests(house / "results")) == []


def test_a_session_that_fails_stops_the_table_until_it_is_excluded_with_a_reason(built):
    house, _ = built
    results = house / "results"
    sheet = house / "sessions.tsv"
    rows = list(csv.reader(sheet.open(encoding="utf-8"), delimiter="\t"))
    header = rows[0]
    bad = next(r for r in rows[1:] if r[2:4] == ["002", "expert"])
    audio = results / "demo/corpus" / bad[header.index("audio")]
    audio.write_bytes(audio.read_bytes()[:1000])
    (results / "features/noxi/002/novice/egemaps.h5").unlink()
    for name in ("tables", "predictions", "scores"):
        for path in (results / name).rglob("*.*"):
            path.unlink()
    failed = run(house)
    said = failed.stdout + failed.stderr
    assert failed.returncode != 0 and "expert.audio.wav" in said and "exclude" in said
    assert (results / "features/noxi/002/novice/egemaps.h5").is_file(), "the rest completes"
    assert not (results / "tables/main/ccc.csv").exists(), "no table over less than was asked for"
    width = len(header)
    bad += [""] * (width - len(bad))
    bad[header.index("exclude")] = "yes"
    sheet.write_text("".join("\t".join(r) + "\n" for r in rows), encoding="utf-8")
    refused = run(house)
    assert refused.returncode != 0 and "exclude_reason" in refused.stdout + refused.stderr
    bad[header.index("exclude_reason")] = "sound cut off"
    sheet.write_text("".join("\t".join(r) + "\n" for r in rows), encoding="utf-8")
    done = run(house)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    with open(results / "tables/main/ccc.csv", encoding="utf-8") as f:
        row = next(csv.DictReader(f))
    assert row["noxi/test n_excluded"] == "1" and row["noxi/test n_sessions"] == "1"
    assert "1 excluded" in (results / "tables/main/ccc.md").read_text(encoding="utf-8")
