"""The digest names rule, item, last error, log and the cure."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from workflow.digest import digest, failures, last_error

SNAKEMAKE = """
[Sat Nov 21 03:00:00 2026]
Error in rule faces:
    message: None
    jobid: 3
    input: media/noxi/001/expert.mp4
    output: results/faces/noxi/001/expert.h5
    log: {log} (check log file(s) for error details)
    shell:
        python -m extractors.faces --video x
        (command exited with non-zero exit code)

Shutting down
"""
PERSON = SimpleNamespace(dataset="noxi", session="001", role="expert", line=7)
STUDY = SimpleNamespace(config={"sessions": "sessions.tsv"}, participants=[PERSON])


def test_digest(tmp_path):
    log = tmp_path / "noxi.001.expert.log"
    log.write_text(
        "python -m extractors.faces --video x\n"
        "10:00:00 INFO faces | starting\n"
        "10:00:01 ERROR job | error: media/noxi/001/expert.mp4 is truncated\n"
        "10:00:01 ERROR job | cure:  copy it again\n"
        "Traceback (most recent call last):\n  File x\nInputError: y\n"
    )
    text = SNAKEMAKE.format(log=log)
    assert failures(text + text) == [{"rule": "faces", "log": str(log)}]
    snakemake_log = tmp_path / "snakemake.log"
    snakemake_log.write_text(text)
    for given in (str(snakemake_log), [str(snakemake_log)]):
        out = digest(STUDY, given)
        assert "- faces · noxi/001 expert" in out
        assert "expert.mp4 is truncated" in out
        assert f"log: {log}" in out
        assert "sessions.tsv, line 7: exclude = yes, exclude_reason = faces: " in out
        assert "snakemake --unlock" in out


def test_last_error_without_a_log(tmp_path):
    assert "killed" in last_error(tmp_path / "nothing.log")
    log = tmp_path / "a.log"
    log.write_text("command\nlast words\n")
    assert last_error(log) == "last words"


def test_jobs_of_no_participant_have_no_exclude_line(tmp_path):
    log = tmp_path / "main.log"
    log.write_text("command\n")
    snakemake_log = tmp_path / "snakemake.log"
    snakemake_log.write_text(SNAKEMAKE.format(log=log).replace("faces", "table"))
    assert "exclude" not in digest(STUDY, str(snakemake_log))


def test_failures_of_a_quiet_call():
    command = (
        "set -euo pipefail;  python -m inference.predict --out a.h5 --threads 1 --log logs/x.log"
    )
    quiet = f"RuleException:\nCalledProcessError in file y:\nCommand '{command}' returned non-zero exit status 3.\n"
    assert failures(quiet + quiet) == [{"rule": "predict", "log": "logs/x.log"}]
    loud = SNAKEMAKE.format(log="logs/x.log")
    assert failures(loud + quiet) == [{"rule": "faces", "log": "logs/x.log"}]


def test_a_job_that_slurm_killed(tmp_path):
    log = tmp_path / "noxi.001.expert.log"
    log.write_text("python -m extractors.faces --video x\n10:00:00 INFO faces | 20 %\n")
    both = f"{log}, /data/.snakemake/slurm_logs/rule_faces/noxi_001_expert/7.log"
    text = SNAKEMAKE.format(log=both)
    assert failures(text) == [{"rule": "faces", "log": str(log)}]
    message = "message: SLURM-job '7' failed, SLURM status is: '{}'. For further error details"
    killed = text.replace("message: None", message.format("OUT_OF_MEMORY"))
    snakemake_log = tmp_path / "snakemake.log"
    snakemake_log.write_text(killed + text.replace("message: None", message.format("FAILED")))
    out = digest(STUDY, str(snakemake_log))
    assert "- faces · noxi/001 expert\n    SLURM ended the job: OUT_OF_MEMORY" in out
    assert "INFO faces | 20 %" in out  # of the job that failed by itself: its own last line
    assert "slurm_logs" not in out


@pytest.mark.parametrize(
    ("work", "reason", "excludes"),
    [
        ("os.kill(os.getpid(), 9)", "ended from outside (signal 9, SIGKILL)", False),
        ("os.kill(os.getpid(), 15)", "ended from outside (signal 15, SIGTERM)", False),
        ("sys.exit(128 + 15)", "ended from outside (signal 15, SIGTERM)", False),
        ("os.kill(os.getpid(), 11)", "crashed (signal 11, SIGSEGV)", True),
        ("sys.exit(3)", "10:00:00 INFO faces | 20 %", True),
    ],
)
@pytest.mark.parametrize("quiet", [True, False])
def test_a_job_that_was_ended_is_not_told_by_its_last_line(tmp_path, work, reason, excludes, quiet):
    """Snakemake's own log, of a job that a signal ends while its log looks like work."""
    (tmp_path / "work.py").write_text(
        "import os, sys\n"
        "open(sys.argv[-1], 'w').write('python -m work\\n10:00:00 INFO faces | 20 %\\n')\n" + work
    )
    log = str(tmp_path / "logs of all/noxi.001.expert.log")
    (tmp_path / "Snakefile").write_text(
        f"rule faces:\n    output: 'x.h5'\n    log: {log!r}\n"
        f"    shell: '{Path(sys.executable).parent}/python -m work --log {{log:q}}'\n"
    )
    words = ["--quiet", "rules"] if quiet else []
    subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--nocolor", *words],
        cwd=tmp_path, env=dict(os.environ, PYTHONPATH=str(tmp_path)), capture_output=True, timeout=120,
    )  # fmt: skip
    (found,) = (tmp_path / ".snakemake/log").glob("*.log")
    text = digest(STUDY, str(found))
    assert f"noxi/001 expert\n    {reason}" in text
    assert ("exclude = yes" in text) == excludes
    assert text.count("- faces") + text.count("- work") == 1
