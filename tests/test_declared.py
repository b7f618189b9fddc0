"""Each extractor is declared once; config, schema, profiles and modules agree with the declaration."""

import dataclasses
import importlib
import inspect
import runpy

import pytest
import yaml

from extractors.declared import EXTRACTORS
from extractors.run import build_parser, complete
from workflow.config import SCHEMA
from workflow.run import with_groups
from workflow.stages import ROOT

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["features"]
WHOLE = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
SCHEMES = {
    name: WHOLE["$defs"][scheme["$ref"].rpartition("/")[2]] if "$ref" in scheme else scheme
    for name, scheme in WHOLE["properties"]["features"]["properties"].items()
}
COMMON = {"enabled", "dtype", "align"}
NAMES = list(EXTRACTORS)


def test_the_config_and_its_schema_know_exactly_the_declared_extractors():
    assert list(CONFIG) == list(SCHEMES) == NAMES
    assert all(name == e.name for name, e in EXTRACTORS.items())


@pytest.mark.parametrize("name", NAMES)
def test_config_and_schema_have_the_declared_settings_and_defaults(name):
    declared = EXTRACTORS[name]
    assert set(CONFIG[name]) == {*COMMON, *declared.keys}
    assert set(SCHEMES[name]["properties"]) == set(SCHEMES[name]["required"]) == set(CONFIG[name])
    assert CONFIG[name]["dtype"] == declared.dtype
    for s in declared.settings:
        if s.changes_values:
            assert CONFIG[name][s.name] == s.default, s.name
            choices = SCHEMES[name]["properties"][s.name].get("enum")
            assert choices is None or tuple(choices) == s.choices, s.name


@pytest.mark.parametrize("name", NAMES)
def test_the_module_takes_what_is_declared(name):
    declared = EXTRACTORS[name]
    rows = importlib.import_module(declared.module).rows
    source, *options = inspect.signature(rows).parameters.values()
    assert source.kind is source.POSITIONAL_OR_KEYWORD
    # No defaults of its own: they stand in the declaration.
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in options)
    weights = ["weights"] if declared.checkpoint else []
    assert sorted(p.name for p in options) == sorted([*declared.defaults, *weights])
    assert (ROOT / "envs" / f"{declared.env}.yaml").is_file()


def test_models_take_the_declared_groups_where_names_do_not_tell_them(monkeypatch):
    features = ["egemaps", "flow", "rms"]
    assert with_groups({"name": "da_mamba"}, features[:2]) == {"name": "da_mamba"}
    rms = dataclasses.replace(EXTRACTORS["egemaps"], name="rms")
    monkeypatch.setitem(EXTRACTORS, "rms", rms)
    groups = {"audio": ["egemaps", "rms"], "visual": ["flow"]}
    for name in ("da_mamba", "dapa"):
        assert with_groups({"name": name}, features) == {"name": name, "groups": groups}
    given = {"name": "da_mamba", "groups": {"one": features}}
    assert with_groups(given, features) == given
    for name in ("mlp", "constant"):  # they know no groups
        assert with_groups({"name": name}, features) == {"name": name}


@pytest.mark.parametrize("profile", ["slurm", "cluster-generic"])
def test_profiles_retry_every_extractor(profile):
    text = (ROOT / "profiles" / profile / "config.yaml").read_text(encoding="utf-8")
    assert set(NAMES) <= set(yaml.safe_load(text)["preemptible-rules"])


def test_an_unknown_setting_is_an_error_and_the_command_has_the_declared_options():
    with pytest.raises(TypeError, match="flow has no setting gird"):
        complete(EXTRACTORS["flow"], {"gird": 2})
    words = ["flow", "--faces", "f", "--crops", "c", "--out", "o", "--grid", "2"]
    args = build_parser().parse_args(words)
    assert (args.grid, args.bins, args.dtype) == (2, 8, "float16")
    with pytest.raises(SystemExit):
        build_parser().parse_args([*words, "--mode", "exact"])


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("name", EXTRACTORS)
def test_a_module_of_an_extractor_says_that_it_is_no_command(name):
    """Until there was one command for all it was: a script that calls it must not end in silence."""
    with pytest.raises(SystemExit, match=f"python -m extractors {name}$"):
        runpy.run_module(f"extractors.{name}", run_name="__main__")
