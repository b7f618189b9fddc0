"""Stages and fingerprints: values and versions agree; what counts as a change, and what does not."""

import json
import re
import shutil
from pathlib import Path

import golden_stages
import numpy as np
import pytest

from model.configs import model_names
from runtime import InputError
from workflow import stages
from workflow.fingerprint import fingerprint, without_neutral
from workflow.stages import ROOT, Stage, golden_digest, read_stages, stage

NAMES = sorted(read_stages())


@pytest.mark.parametrize("name", NAMES)
def test_values_change_with_the_version_only(name):
    """Where this fails, run what the message says: it decides what runs again for every user."""
    found = golden_stages.differences(name, golden_stages.compute(name))
    assert not found, (
        f"{name} computes other values than its version {stage(name).version}: {'; '.join(found[:5])}."
        f" If results must be made again: python -m workflow.stages raise {name}. If only the inputs of"
        f" its golden values changed: python -m workflow.stages confirm {name}"
    )


@pytest.mark.parametrize("name", NAMES)
def test_golden_values_are_those_of_the_version(name):
    """Golden values that were edited or written without `raise` or `confirm` are found."""
    assert golden_digest(name), f"{name} has no golden values"
    assert golden_digest(name) == stage(name).golden


def test_every_stage_of_the_rules_and_every_network_has_an_entry():
    used = {f"model.{name}" for name in model_names()}
    for path in [*(ROOT / "workflow").glob("*.py"), *(ROOT / "workflow/rules").glob("*.smk")]:
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r'\bfingerprint\(\s*"([a-z][\w.]*\.[\w.]+)"', text))
    from workflow.config import load_config

    used |= {f"extractors.{name}" for name in load_config([])["features"]}
    assert used == set(NAMES), f"no entry, or of no rule: {sorted(used ^ set(NAMES))}"
    files = {p.stem for p in (ROOT / "tests/golden").glob("*.json")}
    assert files == set(NAMES), "golden values of no stage, or none of a stage"


def test_a_fingerprint_is_stage_version_and_sorted_settings():
    one = fingerprint("alignment.clock", {"b": 1, "a": {"z": [1, 2], "y": None}})
    two = fingerprint("alignment.clock", {"a": {"y": None, "z": [1, 2]}, "b": 1})
    head = f"stage=alignment.clock version={stage('alignment.clock').version}"
    assert one == two == f"{head} a.y=None a.z=[1,2] b=1"
    with pytest.raises(InputError, match="no stage nobody"):
        fingerprint("nobody", {})


def test_a_later_setting_of_its_neutral_value_changes_nothing(monkeypatch):
    entry = Stage(1, "", {"gain": 1.0, "training.stride": 0})
    monkeypatch.setattr(stages, "read_stages", lambda: {"s": entry})
    before = {"mode": "exact", "training": {"epochs": 2}}
    neutral = {"mode": "exact", "gain": 1.0, "training": {"epochs": 2, "stride": 0}}
    other = {"mode": "exact", "gain": 2.0, "training": {"epochs": 2, "stride": 8}}
    assert without_neutral(neutral, "s") == before and without_neutral(other, "s") == other
    assert fingerprint("s", neutral) == fingerprint("s", before) != fingerprint("s", other)


@pytest.fixture
def scratch(tmp_path) -> Path:
    """A copy of what `raise` and `confirm` work on, with a stage whose values lie in a file."""
    (tmp_path / "workflow").mkdir()
    (tmp_path / "tests/golden").mkdir(parents=True)
    shutil.copy2(stages.STAGES, tmp_path / "workflow/stages.json")
    (tmp_path / "tests/golden_stages.py").write_text(
        "import pathlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    if name == 'odd': raise KeyError('odd has no golden values')\n"
        "    pathlib.Path(f'tests/golden/{name}.json').write_text('{\"x\": 1}')\n"
    )
    return tmp_path


def test_raise_confirm_and_show(scratch):
    path = scratch / "workflow/stages.json"
    before = read_stages(path)["alignment.clock"]
    stages.renew(["alignment.clock"], 0, scratch)
    read_stages.cache_clear()
    confirmed = read_stages(path)["alignment.clock"]
    assert confirmed.version == before.version and confirmed.golden != before.golden
    stages.renew(["alignment.clock", "extractors.rms"], 1, scratch)
    read_stages.cache_clear()
    raised = read_stages(path)
    assert raised["alignment.clock"].version == before.version + 1
    assert raised["extractors.rms"] == Stage(1, golden_digest("extractors.rms", scratch))
    others = {n: s for n, s in read_stages().items() if n != "alignment.clock"}
    assert others.items() <= raised.items()
    (scratch / "tests/golden/extractors.rms.json").write_text("{}")
    lines = {line.split()[0]: line for line in stages.table(scratch).splitlines()}
    assert "changed" in lines["extractors.rms"] and "changed" not in lines["alignment.clock"]
    assert "missing" in lines["extractors.flow"]
    with pytest.raises(InputError, match="odd has no golden values"):
        stages.renew(["odd"], 1, scratch)


@pytest.mark.parametrize("text", ["[]", "{", '{"a": {"version": 0}}', '{"a": {"v": 1}}'])
def test_entries_that_are_none_are_refused(tmp_path, text):
    (tmp_path / "stages.json").write_text(text)
    with pytest.raises(InputError, match=r"stages\.json"):
        read_stages(tmp_path / "stages.json")


def test_other_values_are_seen_and_rounding_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(golden_stages, "GOLDEN", tmp_path)
    x = np.linspace(-1, 1, 30)
    (tmp_path / "s.json").write_text(json.dumps({"x": golden_stages.summary(x)}))

    def differ(values):
        return golden_stages.differences("s", {"x": golden_stages.summary(values)})

    assert not differ(x) and not differ(x * (1 + 1e-6))
    for change in (x + 1e-3, x[::-1], x[:-1], np.where(x > 0.9, np.nan, x)):
        assert differ(change)
    assert golden_stages.differences("s", {}) == ["only kept: x"]
