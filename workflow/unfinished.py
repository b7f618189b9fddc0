"""Outputs that a killed call had begun to make again and that are gone now.

Snakemake deletes the outputs of a job when it starts, and asks for a missing file only where a job
that must run needs it. So after a kill during, say, `faces` for a replaced video, its finished
descendants of the old video would pass for up to date. (Its own marks of incomplete outputs are
written after the deletion: a kill between the two leaves neither file nor mark.) Every call
therefore writes down, before it starts a job, which existing files it is going to make again; what
of these is missing later is asked for by `all` and by tables on request, so that it is made, and its
descendants after it. What did not exist before needs no such help: nothing of an older version
descends from it, and a plain call must not train what only an abandoned call had wanted.
"""

import os
from pathlib import Path

from store.planned import PLANNED, plan, planned

# Rules between the recordings and the tables; what `all` names itself needs no help.
RULES = (
    "probe", "faces", "weights", "clock", "labels", "align", "qc_session", "statistics", "train", "predict",
    "combine", "score",
)  # fmt: skip
PREFIXES = ("demo_session_", "random_weights_")  # generated inputs: a rule each


def plan_outputs(workflow, file: Path = PLANNED) -> None:
    """Write down which existing files this call will make again (call in onstart)."""
    if workflow.is_main_process:
        outputs = (path for job in workflow.dag.needrun_jobs() for path in job.output)
        plan(filter(os.path.exists, outputs), file)


def forget_what_exists(file: Path = PLANNED) -> None:
    """Keep only what is still missing (call in onsuccess)."""
    left = planned(file)
    file.unlink(missing_ok=True)
    if left:
        plan(left, file)


def wanted(rule: str, w: dict[str, str], study) -> bool:
    """Whether the study, as it is now, still makes this output."""
    if "role" in w:
        person = study.by_id.get((w["dataset"], w["session"], w["role"]))
        if person is None or (rule == "faces" and not person.video):
            return False
        if rule == "labels":
            return bool(person.labels)
    if "session" in w:
        # A folder of new recordings is one data set, which its rules do not name.
        key = (w.get("dataset") or study.dataset, w["session"])
        if key not in study.by_session:
            return False
        if rule in (*study.config["features"], "align", "stream"):
            return w.get("feature", rule) in study.session_features(key)
    elif "feature" in w:
        return w["feature"] in study.features
    if "run" in w:
        run = study.runs.get(w["run"])
        if run is None or ("seed" in w and int(w["seed"]) not in run.seeds):
            return False
        if rule in ("train", "statistics"):
            return run.weights == run.name
        if "dataset" in w:
            return w["dataset"] in study.datasets(run)
    return True


def unfinished(rules, study, table: str = "", file: Path = PLANNED) -> list[str]:
    """Outputs planned by an earlier call that do not exist and that a rule of this study makes.

    table: of these, what the runs of one table need (features and labels of everybody included).
    """
    found = []
    runs = {n for r in study.table_runs(table) for n in study.declared.needed(r.name)} if table else None  # fmt: skip
    names = {*RULES, *study.features, "stream"}
    makers = [rule for rule in rules if rule.name in names or rule.name.startswith(PREFIXES)]
    for path in planned(file):
        for rule in makers:
            if rule.is_producer(path):
                wildcards = dict(rule.get_wildcards(path))
                asked = runs is None or "run" not in wildcards or wildcards["run"] in runs
                if asked and wanted(rule.name, wildcards, study):
                    found.append(path)
                break
    return found
