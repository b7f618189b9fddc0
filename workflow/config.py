"""Load and check the config: JSON schema, unknown keys answered with the nearest known one.

python -m workflow.config [--configfile presets/noxi.yaml]     # checks and prints the result
"""

import argparse
import difflib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from runtime import InputError
from runtime.job import run_job
from store.plain import read_plain
from workflow.recordings import complete, is_stream

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = Path(__file__).resolve().parent / "schemas" / "config.schema.yaml"
MOST_VALUES = 100_000
MOST_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which takes no key twice and no mapping that merges (<<) without end."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES // 10:
            raise yaml.constructor.ConstructorError(
                problem="merges (<<) into too many keys", problem_mark=node.start_mark
            )

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (k for k, _ in node.value if isinstance(k, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.composer.ComposerError(
                    problem=f"the key {key.value[:60]!r} is there twice",
                    problem_mark=key.start_mark,
                )
            seen.add(key.value)
        return node


def load_yaml(path: Path) -> dict:
    """Read a YAML mapping; InputError names file, line and column of a syntax error."""
    try:
        content = _Loader(read_plain(path, MOST_BYTES).decode("utf-8")).get_single_data()
    except UnicodeDecodeError as e:
        raise InputError(f"{path} is not UTF-8 (byte {e.start})", "save it as UTF-8") from e
    except yaml.MarkedYAMLError as e:
        at = f", line {e.problem_mark.line + 1}" if e.problem_mark else ""
        raise InputError(f"{path}{at}: {e.problem}", "correct the YAML there") from e
    except yaml.reader.ReaderError as e:
        raise InputError(
            f"{path} holds the control character {e.character!r} at {e.position}",
            "remove it; save the file as plain UTF-8 text",
        ) from e
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as e:  # from inside PyYAML
        raise InputError(
            f"{path} holds something that is no setting ({' '.join(str(e).split())[:100]})",
            "quote dates and other special words",
        ) from e
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no settings", "start from config.yaml")
    _check_size(content, str(path))
    return content


def _check_size(content: dict, name: str) -> None:
    if _size(content, {}) > MOST_VALUES:
        raise InputError(
            f"{name} repeats itself through anchors (&) into more than {MOST_VALUES} values",
            "write the settings out",
        )


def _size(value: object, known: dict[int, float]) -> float:
    """Number of values when everything an anchor names is written out; infinite for a circle."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")  # until it is counted: met again, it contains itself
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(v, known) for v in inside)
    return known[id(value)]


def _not_finite(value: object, where: str = "") -> str:
    """The first key that holds NaN or an infinity, which no limit of the schema stops; else ""."""
    if isinstance(value, float) and not math.isfinite(value):
        return where
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()  # fmt: skip
    found = (_not_finite(v, f"{where}.{k}" if where else str(k)) for k, v in inside)
    return next(filter(None, found), "")


def merge(base: dict, over: dict) -> dict:
    """`over` on top of `base`, mappings key by key (as Snakemake does with --configfile)."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def check_config(config: dict, name: str = "config", typed_in: dict | None = None) -> dict:
    """Validate against the schema and return the config, precomputed streams with their defaults.

    typed_in : what `--config` of the command line gave. Snakemake reads mappings and lists there as
    text throughout (`'predict={run: a, seed: 2}'` holds "2"): where the schema wants no text, the
    word is read as YAML. Raises InputError with the first problem and how many there are.
    """
    from jsonschema import Draft202012Validator

    _check_size(config, name)
    schema = load_yaml(SCHEMA)
    config = {key: value for key, value in config.items() if key != "pathvars"}
    if isinstance(config.get("features"), dict):
        ours = schema["properties"]["features"]["properties"]
        _check_feature_names(config["features"], ours)
        config["features"] = complete(config["features"])
        for feature, settings in config["features"].items():
            if isinstance(settings, dict) and is_stream(settings):
                ours[feature] = {"$ref": "#/$defs/stream_feature"}
    if odd := _not_finite(config):
        raise InputError(f"{name}: {odd} is no finite number", "write a number")
    validator = Draft202012Validator(schema)
    if typed_in:
        config = _read_words(config, typed_in, validator)
    errors = sorted(validator.iter_errors(config), key=lambda e: list(map(str, e.path)))
    if errors:
        problems = [_sentence(e) for e in errors]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{name}: {problems[0][0]}{more}", problems[0][1])
    if not os.path.exists(config["sessions"]) and (ours := ROOT / config["sessions"]).is_file():
        config["sessions"] = str(ours)  # the demo's sheet, asked for from another folder
    return config


def _read_words(config: dict, typed_in: dict, validator) -> dict:
    """`config` with the words of `typed_in` read as YAML, but for those that may be text.

    The schema says of most keys what they take; where it says nothing (settings of models and of
    training) a word is read like one of a file.
    """
    words = dict(_words(config, typed_in))

    def at_fault(config: dict) -> set[tuple]:
        return {tuple(e.absolute_path) for e in _innermost(validator.iter_errors(config))}

    wrong = at_fault(config)
    described = at_fault(_with(config, dict.fromkeys(words, object())))
    read = {}
    for path, word in words.items():
        if path in wrong or path not in described:
            try:
                read[path] = yaml.safe_load(word)
            except (yaml.YAMLError, ValueError):
                continue  # text it stays, and the schema says what is wanted
    return _with(config, read)


def _words(config: object, typed_in: object, at: tuple = ()) -> Iterator[tuple[tuple, str]]:
    """Path and text of every text of `config` that `typed_in` gave."""
    if isinstance(typed_in, dict) and isinstance(config, dict):
        for key in typed_in.keys() & config.keys():
            yield from _words(config[key], typed_in[key], (*at, key))
    elif isinstance(typed_in, list) and typed_in == config:
        for i, value in enumerate(config):
            yield from _words(value, value, (*at, i))
    elif isinstance(config, str) and config == typed_in:
        yield at, config


def _with(config: object, values: dict[tuple, object], at: tuple = ()) -> object:
    """A copy of `config` with other values at some paths."""
    if at in values:
        return values[at]
    if isinstance(config, dict):
        return {k: _with(v, values, (*at, k)) for k, v in config.items()}
    if isinstance(config, list):
        return [_with(v, values, (*at, i)) for i, v in enumerate(config)]
    return config


def _innermost(errors) -> Iterator:
    """The errors, and those of the alternatives (anyOf, oneOf) that they consist of."""
    for error in errors:
        yield error
        yield from _innermost(error.context)


def _check_feature_names(features: dict, ours: dict) -> None:
    """InputError for a feature that neither an extractor computes nor a stream holds."""
    for name, settings in features.items():
        name = str(name)
        if name not in ours and not (isinstance(settings, dict) and "from" in settings):
            near = difflib.get_close_matches(name, list(ours), 1)
            hint = f"did you mean `{near[0]}`? " if near else ""
            raise InputError(
                f"features.{name}: unknown key",
                f"{hint}extracted: {', '.join(ours)}; a precomputed stream needs `from: stream` and `name`",
            )


def _sentence(error) -> tuple[str, str]:
    """Problem and cure in plain words of one jsonschema error."""
    while error.context:
        error = min(error.context, key=lambda e: (e.validator == "type", -len(e.path)))
    where = ".".join(str(p) for p in error.absolute_path)
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = sorted(str(key) for key in set(error.instance) - set(known))
        key = f"{where}.{unknown[0]}" if where else unknown[0]
        near = difflib.get_close_matches(unknown[0], known, 1)
        cure = f"did you mean `{near[0]}`?" if near else f"known keys here: {', '.join(known)}"
        return f"{key}: unknown key", cure
    if error.validator == "required":
        missing = sorted(set(error.schema["required"]) - set(error.instance))
        return f"{where or 'top level'}: key `{missing[0]}` is missing", "copy it from config.yaml"
    if error.validator == "enum":
        allowed = [str(v) for v in error.schema["enum"]]
        near = difflib.get_close_matches(str(error.instance), allowed, 1)
        hint = f"did you mean `{near[0]}`? " if near else ""
        return f"{where}: {error.instance!r} is not allowed", f"{hint}allowed: {', '.join(allowed)}"
    about = error.schema.get("description", "")
    if (
        error.validator == "type"
        and "string" in error.validator_value
        and _is_number(error.instance)
    ):
        return f"{where}: {error.message}", (
            "Snakemake reads a word of digits (2024_05, 007) as a number: write a file or folder as"
            f" ./NAME ({where}=./2024_05), other text in quotes"
        )
    return f"{where}: {error.message}", f"this key is: {about}" if about else "see config.yaml"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def load_config(configfiles: list[str | Path] = ()) -> dict:
    """The settings as Snakemake has them when it is called here with --configfile `configfiles`.

    studies.yaml and config.yaml of the repository, on top a config.yaml of the working folder where
    that is another one, then `configfiles`; checked.
    """
    config = merge(load_yaml(ROOT / "studies.yaml"), load_yaml(ROOT / "config.yaml"))
    own = Path("config.yaml")
    if own.is_file() and not own.samefile(ROOT / "config.yaml"):
        config = merge(config, load_yaml(own))
    for path in configfiles:
        config = merge(config, load_yaml(Path(path)))
    return check_config(config, str(configfiles[-1]) if configfiles else "config.yaml")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workflow.config", description="Check the config and print it merged."
    )
    parser.add_argument("--configfile", nargs="*", default=[], help="presets on top of config.yaml")
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        config = load_config(args.configfile)
        yaml.safe_dump(config, sys.stdout, sort_keys=False, allow_unicode=True)

    return run_job("workflow.config", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
