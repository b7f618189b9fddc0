# What is asked for: refused where it cannot be built; `snakemake NAME` for every table on request.
from workflow.foreign import refuse_foreign
from workflow.targets import check_targets, named_targets

if workflow.is_main_process:
    try:
        targets = named_targets()
        if not applying:
            check_targets(study, targets)
        refuse_foreign(workflow, study, [] if applying else study.tables_for(targets))
    except InputError as e:
        raise WorkflowError("\n".join(e.lines())) from None


for name in [] if applying else study.on_request:
    if workflow.is_rule(name):
        raise WorkflowError(f"tables.{name}: there is a rule of that name; rename it")

    rule:
        name:
            name
        input:
            # The table, its runs and its figures.
            table_files(name),
        message:
            "table {rule} is up to date"
