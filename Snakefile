# From raw conversation recordings to per-dataset CCC tables. Stages, in the order of the data:
#
#   recordings -> media (probe) -> faces, features -> aligned (100 Hz) -> runs -> predictions
#   -> scores -> tables, curves, qc, report
#
# Settings: config.yaml (the demo) or a preset with --configfile. Docs: README.md, docs/.
from snakemake.utils import min_version

min_version("9.20")


# Runs and tables of the papers' questions, built on request; config.yaml may change any of them.
configfile: f"{workflow.basedir}/studies.yaml"
configfile: f"{workflow.basedir}/config.yaml"


# A working folder elsewhere (--directory) may have settings of its own on top.
if not os.path.samefile(workflow.basedir, os.curdir) and os.path.isfile("config.yaml"):

    configfile: "config.yaml"


include: "workflow/rules/common.smk"


pathvars:
    results=study.results,
    logs=f"{study.results}/logs",
    benchmarks=f"{study.results}/benchmarks",


rule all:
    default_target: True
    input:
        study.targets(),
        f"{place.quality_table}.tsv",
        lambda wildcards: unfinished(workflow.rules, study),
    message:
        "everything is up to date"


include: "workflow/rules/corpora.smk"
include: "workflow/rules/media.smk"
include: "workflow/rules/extractors.smk"
include: "workflow/rules/alignment.smk"


if applying:

    include: "workflow/rules/apply.smk"

else:

    include: "workflow/rules/model.smk"
    include: "workflow/rules/evaluation.smk"
    include: "workflow/rules/evidence.smk"


include: "workflow/rules/targets.smk"
include: "workflow/rules/handlers.smk"
