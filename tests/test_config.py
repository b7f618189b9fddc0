"""The config schema answers every mistake with its place and the way out."""

import pytest
import yaml

from runtime import InputError
from workflow.config import ROOT, check_config, load_config, merge
from workflow.options import options


def test_config_and_presets_are_valid():
    load_config()
    for preset in sorted((ROOT / "presets").glob("*.yaml")):
        load_config([preset])


@pytest.mark.parametrize(
    ("over", "problem", "cure"),
    [
        ({"feature": {}}, "feature: unknown key", "did you mean `features`?"),
        ({"faces": {"margn": 2}}, "faces.margn: unknown key", "did you mean `margin`?"),
        (
            {"features": {"clip_face": {"precision": "fp8"}}},
            "features.clip_face.precision: 'fp8' is not allowed",
            "allowed: fp32, bf16, fp16",
        ),
        ({"runs": {"x": {"seed": [1]}}}, "runs.x.seed: unknown key", "did you mean `seeds`?"),
        ({"runs": {"x": {"train": ["noxi"]}}}, "runs.x.train.0", "dataset/split"),
        ({"faces": {"crop_size": "big"}}, "faces.crop_size", "pixels"),
        ({"clock": {"rate_hz": 0}}, "clock.rate_hz", "ticks per second"),
    ],
)
def test_mistakes_name_place_and_cure(over, problem, cure):
    with pytest.raises(InputError) as e:
        check_config(merge(load_config(), over))
    assert problem in e.value.problem
    assert cure in e.value.cure
    assert len(e.value.lines()) <= 3


def test_missing_key_is_named():
    config = load_config()
    del config["faces"]["margin"]
    with pytest.raises(InputError, match="faces: key `margin` is missing"):
        check_config(config)


def test_yaml_errors_name_the_line(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("a: 1\nb: [1,\n")
    with pytest.raises(InputError, match="line 3"):
        load_config([path])
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        load_config([path])


def test_every_config_key_has_a_comment_or_stands_below_one():
    """A comment per key: each key line of config.yaml follows a comment within its block."""
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    top = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    lines = text.splitlines()
    for key in top:
        if key.startswith("runs:"):
            continue
        i = lines.index(key)
        block = lines[max(0, i - 3) : i + 3]
        assert any(line.strip().startswith("#") for line in block), key


def test_schema_describes_every_key():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())

    def walk(node, path):
        for name, child in node.get("properties", {}).items():
            here = f"{path}.{name}"
            if "$ref" in child:
                continue
            assert (
                "description" in child or "properties" in child or "enum" in child or path == ""
            ), here
            walk(child, here)

    walk(schema, "")
    for name, definition in schema["$defs"].items():
        walk(definition, name)


def test_options_are_sorted_and_quoted():
    settings = {"b": [1, "x y"], "a_b": -1, "c": None, "d": True, "e": False}
    assert options(settings) == "--a-b=-1 --b 1 'x y' --d"


def test_words_of_the_command_line_are_read_where_the_schema_wants_no_text():
    """Snakemake gives the values of nested keys of `--config` as text."""
    from snakemake.cli import parse_config

    typed = parse_config(
        [
            "submission={year: 2026, run: da_mamba, seed: 1, clip: true}",
            "predict={run: '2', seed: 2}",
            "defaults={seeds: [1, 2], training: {epochs: 3, learning_rate: 0.001}, model: {name: mlp}}",
            "tables={main: ~}",
            'sets={noxi/few: {of: noxi/test, sessions: ["001", 010]}}',
            "demo=null",
        ]
    )
    assert typed["submission"]["seed"] == "1" and typed["demo"] == "null"
    config = check_config(merge(load_config(), typed), typed_in=typed)
    assert config["submission"] == {"year": 2026, "run": "da_mamba", "seed": 1, "clip": True}
    assert config["predict"] == {"run": "2", "seed": 2}
    assert config["defaults"]["seeds"] == [1, 2]
    training = config["defaults"]["training"]
    assert training["epochs"] == 3 and training["learning_rate"] == 0.001
    assert config["defaults"]["model"]["name"] == "mlp"
    assert config["tables"]["main"] is None and config["demo"] is None
    assert config["sets"]["noxi/few"]["sessions"] == ["001", "010"]  # names stay text
    wrong = parse_config(["submission={year: soon, run: da_mamba, seed: 1}"])
    with pytest.raises(InputError, match="submission.year"):
        check_config(merge(load_config(), wrong), typed_in=wrong)
    with pytest.raises(InputError, match="seed"):  # a file says text where it quotes
        check_config(merge(load_config(), {"predict": {"run": "a", "seed": "1"}}))
