"""Targets of the command line that this study cannot build (called by workflow/rules/targets.smk).

Snakemake itself would answer `predict` without a folder with a sentence about wildcards, and wrap
other errors of a target into a traceback.
"""

import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from runtime import InputError
from workflow.study import Study
from workflow.submission import submission


def named_targets(argv: list[str] | None = None) -> set[str]:
    """Targets of a `snakemake` command line (default: this process's); empty for another program.

    Snakemake tells a Snakefile nothing of its targets (`workflow.dag_settings` is None while it is
    read), so its own parser reads the command line once more.
    """
    from snakemake.cli import parse_args

    argv = sys.argv if argv is None else argv
    program = Path(argv[0])
    if "snakemake" not in (program.name, program.parent.name):
        return set()
    with redirect_stderr(StringIO()):  # it tells the profile, which has been told
        return set(parse_args(argv[1:])[1].targets)


def check_targets(study: Study, targets: set[str]) -> None:
    """Raise InputError for the first target that cannot be built, with the way out.

    study: of a sheet, not of a folder of new recordings.
    """
    if "predict" in targets:
        asked = study.config["predict"]
        raise InputError(
            "predict needs a folder of new recordings",
            f"snakemake --cores all predict --config corpus=FOLDER (FOLDER/<session>/<role>.mp4; applies"
            f" run {asked['run']}, seed {asked['seed']}: config `predict`); predictions of the sheet's"
            " own sessions are made by `snakemake --cores all`",
        )
    if "submission" in targets:
        submission(study)
    for name in sorted(targets & set(study.refused)):
        raise study.refused[name]
