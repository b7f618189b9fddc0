"""The digest names rule, item, last error, log and the cure."""

from types import SimpleNamespace

from workflow.digest import digest, exclude_line, failures, last_error

SNAKEMAKE = """
[Sat Nov 21 03:00:00 2026]
Error in rule faces:
    message: finding and cropping the face · noxi/001 expert
    jobid: 3
    input: media/noxi/001/expert.mp4
    output: results/faces/noxi/001/expert.h5
    log: {log} (check log file(s) for error details)
    shell:
        python -m extractors.faces --video x
        (command exited with non-zero exit code)

Shutting down
"""


def test_digest(tmp_path):
    log = tmp_path / "expert.log"
    log.write_text(
        "python -m extractors.faces --video x\n"
        "10:00:00 INFO faces | starting\n"
        "10:00:01 ERROR job | error: media/noxi/001/expert.mp4 is truncated\n"
        "10:00:01 ERROR job | cure:  copy it again\n"
        "Traceback (most recent call last):\n  File x\nInputError: y\n"
    )
    text = SNAKEMAKE.format(log=log)
    assert failures(text) == [
        {
            "rule": "faces",
            "item": "finding and cropping the face · noxi/001 expert",
            "log": str(log),
        }
    ]
    snakemake_log = tmp_path / "snakemake.log"
    snakemake_log.write_text(text)
    out = digest(SimpleNamespace(config={"sessions": "sessions.tsv"}), str(snakemake_log))
    assert "faces · finding and cropping the face · noxi/001 expert" in out
    assert "expert.mp4 is truncated" in out
    assert str(log) in out
    assert "noxi 001 expert: set exclude=yes and exclude_reason=" in out
    assert "snakemake --unlock" in out


def test_last_error_without_a_log(tmp_path):
    assert "killed" in last_error(tmp_path / "nothing.log")
    log = tmp_path / "a.log"
    log.write_text("command\nlast words\n")
    assert last_error(log) == "last words"


def test_exclude_line_only_for_participants():
    assert exclude_line("table main", "x") is None
