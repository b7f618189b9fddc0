# What the rules share: the study (config + sheet) and functions from wildcards to files.
import gc
import re
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, workflow.basedir)

import snakemake.benchmark
from snakemake.exceptions import WorkflowError

from corpora.demo import session_files
from extractors.declared import EXTRACTORS
from runtime import InputError
from runtime.encoding import check_encoding
from runtime.gpus import gpus_visible
from store import layout
from store.intact import sidecar_of
from workflow import recordings
from workflow.config import check_config, load_yaml
from workflow.environment import use_this_python
from workflow.options import options
from workflow.study import Study
from workflow.unfinished import unfinished
from workflow.unusable import refuse_faceless

# A graph of thousands of jobs is millions of objects that stay: by default Python looks through them
# for cycles again and again, a sixth of the CPU time of a start (benchmarks/dag.py: 8.7 against 10.2 s).
gc.set_threshold(100_000, 20, 100)

try:
    check_encoding()
    # Snakemake takes the last of two equal keys without a word.
    for file in workflow.overwrite_configfiles if workflow.is_main_process else ():
        load_yaml(Path(file))
    settings = check_config(config, typed_in=workflow.config_settings.config)
    # A trained run on new recordings, or the sheet's corpora.
    applying = bool(settings["corpus"])
    if applying:
        from workflow.application import Application

        study = Application(settings)
    else:
        study = Study(settings)
    if workflow.is_main_process:
        refuse_faceless(study)
except InputError as e:
    raise WorkflowError("\n".join(e.lines())) from None

# Name -> path with wildcards. (Of pathvars Snakemake does not apply wildcard constraints.)
place = SimpleNamespace(**layout.patterns(study.results))

use_this_python()
# `benchmark:` samples memory by reading every mapping of the job's processes; twice a second, as is
# the default for the first half minute, that is time taken from the jobs themselves.
snakemake.benchmark.BENCHMARK_INTERVAL_SHORT = 5.0
# Jobs that profit from a GPU ask for one where there is one.
GPU = min(1, gpus_visible())


def constraint(names):
    return "|".join(re.escape(name) for name in dict.fromkeys(names)) or "none"


wildcard_constraints:
    dataset=constraint(p.dataset for p in study.participants),
    session=constraint(p.session for p in study.participants),
    role=constraint(p.role for p in study.participants),
    feature=constraint(study.config["features"]),
    seed=r"\d+",


report: "../report/workflow.rst"


def video_of(wildcards):
    return study.participant(wildcards).video


def audio_of(wildcards):
    p = study.participant(wildcards)
    return p.audio or p.video


def stream_of(wildcards):
    """Header of a participant's stream."""
    name = study.features[wildcards.feature]["name"]
    return str(recordings.stream_of(study.participant(wildcards), name))


def sources_of(extractor):
    """Input files of an extractor: what it reads, and the identity of its weights."""
    files = {
        "sound": {"audio": audio_of},
        "crops": {"faces": f"{place.faces}.h5", "crops": f"{place.faces}.crops.mkv"},
    }[extractor.reads]
    if extractor.checkpoint:
        files["weights"] = f"{place.weights}/{{feature}}.json"
    return files


def source_options(wildcards, input):
    """Command-line options of an extractor's input files."""
    files = {name: str(path) for name, path in input.items()}
    if "audio" in files:
        files["audio_channel"] = study.participant(wildcards).audio_channel
    return options(files)


def grows(amount):
    """A resource that every attempt asks for more of."""
    return lambda wildcards, attempt: amount * attempt


def labels_of(wildcards):
    return study.participant(wildcards).labels


def people_of(wildcards):
    return study.by_session[wildcards.dataset, wildcards.session]


def label_files_of(wildcards):
    """Aligned labels of a session's people."""
    people = people_of(wildcards)
    return [layout.labels(study.results, *p.id) for p in people if p.labels]


def features_of(wildcards):
    return study.session_features((wildcards.dataset, wildcards.session))


def sounds_of(wildcards):
    """(participant, sound file) of a session, of those who have one."""
    return [(p, p.audio or p.video) for p in people_of(wildcards) if p.audio or p.video]


def faces_of(wildcards):
    """Face tracks of a session: of those with a video, where a feature comes from the picture."""
    extractors = [study.extractor(f) for f in features_of(wildcards)]
    if not any(e and e.reads == "crops" for e in extractors):
        return []
    people = people_of(wildcards)
    return [layout.faces(study.results, *p.id) for p in people if p.video]


def probes_of(wildcards):
    return [layout.probe(study.results, *p.id) for p in people_of(wildcards)]


def spec_of(wildcards):
    return study.spec((wildcards.dataset, wildcards.session))


def table_files(name):
    # A function of the wildcards, so that a table that cannot be built is refused when asked for.
    return lambda wildcards: study.table_files(name) + unfinished(
        workflow.rules, study, name
    )


def run_of(wildcards):
    return study.runs[wildcards.run]


def training_files(wildcards):
    run = run_of(wildcards)
    sets = run.train + (run.validate if run.reads_validation else ())
    return study.aligned(study.sessions(sets), run.features) + study.label_files(sets)


def statistics_files(wildcards):
    run = run_of(wildcards)
    return study.aligned(study.sessions(run.train), run.features) + study.label_files(
        run.train
    )


def specs(sets):
    return [study.spec(key) for key in study.sessions(sets)]


def predicted_sessions(wildcards):
    return study.sessions(study.evaluated(run_of(wildcards), wildcards.dataset))


def evaluated_sessions(wildcards):
    return study.sessions(run_of(wildcards).evaluate)


def table_scores(wildcards):
    runs = study.table_runs(wildcards.table)
    return [path for run in runs for path in study.score_files(run)]


def sets_of_table(table):
    return list(
        dict.fromkeys(s for run in study.table_runs(table) for s in run.evaluate)
    )


def table_predictions(wildcards):
    # Of the sets that have labels.
    return [
        layout.predictions(study.results, run.name, seed, dataset)
        for run in study.table_runs(wildcards.table)
        for seed in run.seeds
        for dataset in study.datasets(run)
        if study.labelled(study.evaluated(run, dataset))
    ]


def evaluated_sets():
    return list(dict.fromkeys(s for run in study.runs_of_all() for s in run.evaluate))


def oracle_files(wildcards):
    root = study.config["media_root"]
    return [
        f"{root}/{session_files(p.dataset, p.session)[p.role]['oracle']}"
        for p in study.labelled(evaluated_sets())
        if p.dataset == wildcards.dataset
    ]


def oracle_specs(wildcards, by_split=False):
    sets = [s for s in evaluated_sets() if s.split("/")[0] == wildcards.dataset]
    return study.labelled_specs(sets, by_split)
