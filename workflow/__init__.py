"""What holds the stages together. Who calls what:

common.smk (settings, and functions from wildcards to files, for all rules)
    config       loads and checks the settings
    study        the sheet with its runs and tables: `study` of the rules
    application  a trained run on a folder of recordings: `study` of `snakemake predict`
    options      settings as the words of a command line
    environment  Python, PATH and caches of the jobs; the scheduler's limits (handlers.smk)
    unusable     refuses faceless recordings; the digest names silent ones
targets.smk (what is asked for), handlers.smk (before the first job, after the last)
    targets      refuses what cannot be built
    foreign      refuses results that Snakemake did not make here
    unfinished   what a killed call left to be made (and common.smk: `all` asks for it)
    versions     warns of results of other library versions
    digest       the tables after a run, the failures after a broken one
evaluation.smk
    submission   what the challenge wants, checked against the sheet
study and application
    corpus       what both stand on: people, features, and what the files up to alignment need
    recordings   what a person's recording can give
    checkpoints  where the networks of the extractors come from
    fingerprint  what a job's numbers depend on; stages: the versions in it
    sets         sessions by name; folds: parts of them that are held out in turn
    runs         the runs of the config; run: one of them; leaks: nobody is tested who was trained on
    trained      model files of a run (application)
People call `python -m workflow.plan`, `config`, `digest`, `stages`, `foreign` and `preflight`.
"""
