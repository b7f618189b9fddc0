"""The digest names rule, item, last error, log and the cure."""

from types import SimpleNamespace

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
