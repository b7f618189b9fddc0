"""Command line of the demo corpus: ``python -m corpora.demo {session,sheet,files,weights}``."""

import argparse
import json
import sys

from corpora.demo.composition import SCALES, SECONDS, session_files, sheet_text
from runtime.device import limit_threads
from runtime.job import add_job_arguments, run_job


def build_parser() -> argparse.ArgumentParser:
    """Parser of the four subcommands; `args.work` is the chosen one."""
    parser = argparse.ArgumentParser(
        prog="python -m corpora.demo",
        description="Drawn faces and synthetic voices with a known engagement (docs/demo.md).",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    session = commands.add_parser("session", help="generate one session below ROOT")
    session.add_argument("--seed", type=int, default=1, help="seed of the corpus (default 1)")
    session.add_argument("--dataset", required=True, help="noxi, noxi-add or mpiigi")
    session.add_argument("--session", required=True, help="session id, for example 001")
    session.add_argument("--out", required=True, metavar="ROOT", help="root folder of the corpus")
    session.add_argument(
        "--seconds", type=float, default=SECONDS, help="length in seconds (default 30)"
    )
    add_job_arguments(session)
    session.set_defaults(work=_session)

    sheet = commands.add_parser("sheet", help="print the sessions sheet (tab-separated)")
    sheet.add_argument("--scale", choices=SCALES, default="demo", help="how many sessions")
    sheet.set_defaults(work=lambda args: print(sheet_text(args.scale), end=""))

    files = commands.add_parser("files", help="print the files of a session (JSON, by role)")
    files.add_argument("--dataset", required=True, help="noxi, noxi-add or mpiigi")
    files.add_argument("--session", required=True, help="session id, for example 001")
    files.set_defaults(
        work=lambda args: print(json.dumps(session_files(args.dataset, args.session), indent=2))
    )

    weights = commands.add_parser("weights", help="write a small random checkpoint")
    weights.add_argument("--feature", required=True, help="wav2vec2 or clip_face")
    weights.add_argument("--out", required=True, metavar="DIR", help="folder of the checkpoint")
    weights.add_argument("--seed", type=int, default=0, help="seed of the weights (default 0)")
    add_job_arguments(weights)
    weights.set_defaults(work=_weights)
    return parser


def _session(args: argparse.Namespace) -> None:
    from corpora.demo.session import write_session

    limit_threads(args.threads)
    write_session(args.out, args.seed, args.dataset, args.session, args.seconds)


def _weights(args: argparse.Namespace) -> None:
    from corpora.demo.weights import write_weights

    limit_threads(args.threads)
    write_weights(args.feature, args.out, args.seed)


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; exit status as in runtime.job."""
    return run_job("corpora.demo", build_parser(), lambda args: args.work(args), argv)


if __name__ == "__main__":
    sys.exit(main())
