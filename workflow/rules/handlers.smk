# What Snakemake does before the first job, and what a person reads after the last.
from workflow.digest import digest, summary
from workflow.environment import one_job_per_gpu, spare_the_scheduler
from workflow.unfinished import forget_what_exists, plan_outputs
from workflow.versions import warn_about_versions


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
        print(summary(study, study.tables_made(workflow.dag_settings.targets)))


onerror:
    print(digest(study, log))
