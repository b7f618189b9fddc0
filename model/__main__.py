"""`python -m model describe`: parameters per part of a model."""

import argparse
import json
import sys

from runtime import InputError
from runtime.job import add_job_arguments, run_job

PAPER_DIMS = "egemaps=88,wav2vec2=1024,clip_face=512,flow=714,flow_magnitude=139"


def describe(settings_json: str, dims_text: str) -> str:
    """Table of parameters per part. dims_text: "feature=dimension,..."; settings as JSON text."""
    from model.config import parse
    from model.registry import build, count_parameters

    try:
        settings = parse(json.loads(settings_json))
        dims = {name: int(n) for name, n in (item.split("=") for item in dims_text.split(","))}
    except ValueError as e:
        raise InputError(
            f"settings or dims are not readable ({e})", "see python -m model describe --help"
        ) from e
    missing = [name for name in settings.features if name not in dims]
    if missing:
        raise InputError(f"--dims names no {missing[0]}", f"add {missing[0]}=DIMENSION to --dims")
    counts = count_parameters(build(settings, dims))
    total = counts.pop("total")
    lines = [f"{settings.name}, inputs {dims_text}"]
    lines += [f"  {part:24s}{n:>12,d}  {100 * n / total:5.1f} %" for part, n in counts.items()]
    return "\n".join([*lines, f"  {'total':24s}{total:>12,d}"])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("describe", help="print the learned parameters per part")
    command.add_argument(
        "--settings",
        default='{"preset": "paper"}',
        metavar="JSON",
        help="a run's settings (default: the paper preset)",
    )
    command.add_argument(
        "--dims", default=PAPER_DIMS, help=f"input dimensions (default: {PAPER_DIMS})"
    )
    add_job_arguments(command)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job("model", build_parser(), lambda a: print(describe(a.settings, a.dims)), argv)


if __name__ == "__main__":
    sys.exit(main())
