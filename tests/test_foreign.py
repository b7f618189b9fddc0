"""Results copied to another clone, or left behind by a removed `.snakemake`, under another config."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from test_reruns import (  # noqa: F401  (fixtures)
    FIVE,
    ROOT,
    RUNS,
    built,
    configure,
    downstream,
    feature_chain,
    house,
    participants,
    raise_version,
    snakemake,
    stale,
    statistics,
    trained,
)

from runtime import InputError
from workflow import foreign
from workflow.unfinished import wanted


def layer(folder):
    configure(folder, lambda c: c["features"]["wav2vec2"].update(layer=0))


def wav2vec2_jobs():
    return feature_chain("wav2vec2") | statistics(FIVE) | trained(FIVE) | downstream(FIVE)


def refused(folder) -> str:
    """What Snakemake says where it stops at the start."""
    environment = dict(os.environ, STUB_JOBS="1", PYTHONPATH=str(ROOT / "tests" / "stub"))
    environment.pop("SNAKEMAKE_PROFILE", None)
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "2", "--configfile", "own.yaml"]
    done = subprocess.run(
        [*command, "--nocolor"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode, done.stdout[-2000:]
    return done.stdout + done.stderr


@pytest.fixture
def moved(house, monkeypatch):  # noqa: F811
    """The built study without Snakemake's memory, as the current folder."""
    shutil.rmtree(house / ".snakemake")
    monkeypatch.chdir(house)
    return house


def test_results_that_fit_are_taken_without_a_word(moved):
    assert stale(moved) == set()


def test_results_of_other_settings_are_refused_and_made_again(moved, capsys):
    layer(moved)
    configure(moved, lambda c: c.update(labels={"rate_hz": 30}))
    text = refused(moved)
    assert "Traceback" not in text
    people = participants()
    assert f"{2 * len(people)} results were made with other settings" in text
    assert "workflow.foreign show" in text
    assert foreign.main(["show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"layer -1 -> 0: {len(people)} results" in lines
    assert "  results/features/noxi/001/expert/wav2vec2.json" in lines
    assert foreign.main(["remake"]) == 0
    assert not (moved / "results/features/noxi/001/expert/wav2vec2.h5").exists()
    assert wav2vec2_jobs() | {f"labels/{d}/{s}/{r}.h5" for d, s, r in people} <= stale(moved)
    snakemake(moved)
    assert stale(moved) == set()


def test_exactly_what_follows_is_made_again(moved):
    layer(moved)
    refused(moved)
    assert foreign.main(["remake"]) == 0
    assert stale(moved) == wav2vec2_jobs()


def test_what_is_kept_stays_until_it_is_another_change(moved):
    raise_version(moved, "extractors.flow")
    assert "version 1 -> 2" in refused(moved)
    assert foreign.main(["keep"]) == 0
    assert stale(moved) == set()
    entry = json.loads((moved / "results/adopted.json").read_text())["features/noxi/001/expert/flow.json"]  # fmt: skip
    assert "version=1" in entry["made_as"] and "version=2" in entry["taken_as"]
    raise_version(moved, "extractors.flow")
    assert "version 1 -> 3" in refused(moved)


def test_what_the_call_does_not_need_is_left_alone(moved):
    """A feature that is off, a run of no table."""
    configure(moved, lambda c: c["features"].update(flow={"enabled": False}))
    features = ["egemaps", "wav2vec2", "clip_face", "flow_magnitude"]
    configure(moved, lambda c: c["defaults"].update(features=features))
    configure(moved, lambda c: c.update(tables={"main": {"runs": ["constant"]}}))
    raise_version(moved, "extractors.flow")
    raise_version(moved, "model.da_mamba")
    refused(moved)
    listed = json.loads((moved / ".snakemake/foreign.json").read_text())["stale"]
    assert [e["record"] for e in listed] == ["results/tables/main/ccc.json"]  # it has other rows


def test_what_the_sheet_says_counts(moved):
    """A channel of the sound, and somebody who is left out."""
    lines = (moved / "sessions.tsv").read_text().splitlines()
    lines[0] += "\taudio_channel\texclude\texclude_reason"
    for i, line in enumerate(lines[1:], 1):
        session, role = line.split("\t")[2:4]
        out = (session, role) == ("002", "novice")
        lines[i] += "\t" + ("1" if session == "001" else "") + ("\tyes\tcamera fell" if out else "\t\t")  # fmt: skip
    (moved / "sessions.tsv").write_text("\n".join(lines) + "\n")
    refused(moved)
    listed = json.loads((moved / ".snakemake/foreign.json").read_text())["stale"]
    records = {e["record"].removeprefix("results/") for e in listed}
    sound = {f"features/noxi/001/{r}/{f}.json" for r in ("expert", "novice") for f in ("egemaps", "wav2vec2")}  # fmt: skip
    scores = {f"scores/{r}/seed-{s}/noxi.json" for r, seeds in RUNS.items() for s in seeds}
    assert {"aligned/noxi/002/clock.json", *sound, *scores} <= records
    assert not any("flow" in r or "clip" in r or "mpiigi" in r for r in records)


def test_difference_in_words():
    old, new = "stage=a.b version=1 x=1 y=2", "stage=a.b version=2 x=1 z=3"
    assert foreign.difference(old, new) == "version 1 -> 2, z none -> 3, y 2 -> none"
    assert "did not record" in foreign.difference("code=12ab x=1", new)


def test_records_without_a_fingerprint_are_counted(tmp_path):
    for name, text in (("a", '{"fingerprint": ""}'), ("b", "no json"), ("c", '{"fingerprint": "s"}')):  # fmt: skip
        path = tmp_path / f"features/{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    found = foreign.foreign(str(tmp_path), lambda path: ("s", [path]), lambda path: False)
    assert found == ([], 2)
    assert foreign.foreign(str(tmp_path), lambda path: ("t", [path]), lambda path: True) == ([], 0)
    (stale_one,), unknown = foreign.foreign(str(tmp_path), lambda p: ("t", [p]), lambda p: False)
    assert stale_one["record"].endswith("c.json") and unknown == 2


def test_snakemakes_records_are_found_by_their_names(tmp_path):
    from snakemake.persistence.file import FilePersistence

    store = FilePersistence(nolock=True, path=tmp_path)
    paths = {"results/a.json", "results/Jürgen Ä/b.h5", "results/" + "long/" * 80 + "c.json"}
    for path in paths:
        store._io_write(store._metadata_path, {}, path)
    assert foreign.recorded_files(tmp_path / "metadata") == paths
    assert foreign.recorded_files(tmp_path / "none") == set()


def test_predictions_of_a_folder_are_wanted_while_it_has_the_session():
    study = SimpleNamespace(
        dataset="day1", by_session={("day1", "s1"): []}, config={"features": {}}
    )
    assert wanted("apply", {"model": "m", "session": "s1"}, study)
    assert not wanted("apply", {"model": "m", "session": "gone"}, study)


def test_nothing_found_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="found no results that do not fit"):
        foreign.show()
