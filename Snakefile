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


wildcard_constraints:
    dataset=constraint(p.dataset for p in study.participants),
    session=constraint(p.session for p in study.participants),
    role=constraint(p.role for p in study.participants),
    feature=constraint(study.config["features"]),
    run=constraint(study.runs),
    table=constraint(study.tables),
    seed=r"\d+",


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        tables(),
        study.figures_of_all(),
        predictions(),
        study.csv_files if applying else [],
        layout.quality_table(study.results),
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


if workflow.is_main_process:
    from workflow.foreign import refuse_foreign
    from workflow.targets import check_targets, named_targets

    try:
        targets = named_targets()
        if not applying:
            check_targets(study, targets)
        refuse_foreign(workflow, study, [] if applying else study.tables_for(targets))
    except InputError as e:
        raise WorkflowError("\n".join(e.lines())) from None


# `snakemake NAME` for every table on request: the table, its runs and its figures.
for name in study.on_request:
    if workflow.is_rule(name):
        raise WorkflowError(f"tables.{name}: there is a rule of that name; rename it")

    rule:
        name:
            name
        input:
            table_files(name),
        message:
            "table {rule} is up to date"


onstart:
    spare_the_scheduler(workflow)
    one_job_per_gpu(workflow)
    warn_about_versions(study)
    plan_outputs(workflow)
    if applying:
        study.remember_folder()


onsuccess:
    forget_what_exists()
    if applying:
        print(study.closing())
    else:
        print(summary(study, study.tables_among(workflow.dag_settings.targets)))


onerror:
    print(digest(study, log))
