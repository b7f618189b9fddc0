# Scores at the labels' own time stamps, tables over runs, curves.
from workflow.submission import submission


wildcard_constraints:
    table=constraint(study.tables),


rule score:
    input:
        lambda w: study.label_files(study.evaluated(study.runs[w.run], w.dataset)),
        predictions=f"{place.predictions}.h5",
    output:
        f"{place.scores}.json",
    log:
        "<logs>/score/{run}.seed-{seed}.{dataset}.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=lambda w: study.fingerprint(
            "evaluation.score", study.scored(w.run, w.dataset)
        ),
        options=lambda w: options(
            study.scored(w.run, w.dataset) | {"results": study.results}
        ),
    message:
        "scoring {wildcards.dataset} · {wildcards.run}, seed {wildcards.seed}"
    shell:
        "python -m evaluation.score --predictions {input.predictions:q} {params.options}"
        " --out {output:q} --fingerprint {params.fingerprint:q} --log {log:q}"


rule table:
    input:
        scores=table_scores,
        reported=lambda w: study.reported(w.table),
    output:
        f"{place.table}/ccc.csv",
        report(
            f"{place.table}/ccc.md",
            caption="../report/ccc_table.rst",
            category="CCC",
            labels={"table": "{table}"},
        ),
        f"{place.table}/ccc.tex",
        sessions=f"{place.table}/sessions.csv",
        metrics=f"{place.table}/metrics.csv",
        sidecar=f"{place.table}/ccc.json",
    log:
        "<logs>/table/{table}.log",
    wildcard_constraints:
        table=constraint(n for n, t in study.tables.items() if not t.get("challenge")),
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=lambda w: study.table_fingerprint(w.table),
        options=lambda w: study.table_options(w.table),
    message:
        "table {wildcards.table}"
    shell:
        "python -m evaluation.tables --scores {input.scores:q} {params.options}"
        " --fingerprint {params.fingerprint:q} --log {log:q}"


use rule table as challenge_table with:
    # A table that has one in the challenge's order beside it.
    output:
        f"{place.table}/ccc.csv",
        report(
            f"{place.table}/ccc.md",
            caption="../report/ccc_table.rst",
            category="CCC",
            labels={"table": "{table}"},
        ),
        f"{place.table}/ccc.tex",
        f"{place.table}/challenge.csv",
        report(
            f"{place.table}/challenge.md",
            caption="../report/ccc_table.rst",
            category="CCC",
            labels={"table": "{table}, challenge's order"},
        ),
        f"{place.table}/challenge.tex",
        sessions=f"{place.table}/sessions.csv",
        metrics=f"{place.table}/metrics.csv",
        sidecar=f"{place.table}/ccc.json",
    log:
        "<logs>/table/{table}.log",
    wildcard_constraints:
        table=constraint(n for n, t in study.tables.items() if t.get("challenge")),
    params:
        fingerprint=lambda w: study.table_fingerprint(w.table),
        options=lambda w: study.table_options(w.table),
    message:
        "table {wildcards.table}, and in the challenge's order"


rule fairness:
    # By its path, of any table: disparities by the sheet's gender and language.
    input:
        lambda w: study.label_files(sets_of_table(w.table)),
        predictions=table_predictions,
        sheet=study.config["sessions"],
    output:
        table=f"{place.table}/fairness.csv",
        sidecar=f"{place.table}/fairness.json",
    log:
        "<logs>/fairness/{table}.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=study.fingerprint("evaluation.fairness", study.score_settings()),
        options=options(study.score_settings() | {"results": study.results}),
    message:
        "disparities by gender and language · table {wildcards.table}"
    shell:
        "python -m evaluation.fairness --predictions {input.predictions:q} --sheet {input.sheet:q}"
        " {params.options} --out {output.table:q} --fingerprint {params.fingerprint:q} --log {log:q}"


rule curves:
    input:
        lambda w: study.label_files(study.evaluated(study.runs[w.run], w.dataset)),
        predictions=lambda w: [
            layout.predictions(study.results, w.run, seed, w.dataset)
            for seed in study.runs[w.run].seeds
        ],
    output:
        report(
            f"{place.curves}/{{dataset}}.png",
            caption="../report/curves.rst",
            category="Curves",
            labels={"run": "{run}", "dataset": "{dataset}"},
        ),
    log:
        "<logs>/curves/{run}.{dataset}.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=study.fingerprint("evaluation.curves"),
        options=lambda w: options(
            {
                "sessions": study.labelled_specs(
                    study.evaluated(study.runs[w.run], w.dataset), by_split=True
                ),
                "results": study.results,
            }
        ),
    message:
        "curves of {wildcards.dataset} · {wildcards.run}"
    shell:
        "python -m evaluation.curves predictions --predictions {input.predictions:q}"
        " {params.options} --out {output:q}"
        " --fingerprint {params.fingerprint:q} --log {log:q}"


rule training_curves:
    input:
        lambda w: [
            layout.history(study.results, w.run, seed)
            for seed in study.runs[w.run].seeds
        ],
    output:
        report(
            f"{place.curves}/training.png",
            caption="../report/training.rst",
            category="Training",
            labels={"run": "{run}"},
        ),
    log:
        "<logs>/training_curves/{run}.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=study.fingerprint("evaluation.curves"),
    message:
        "training curves · {wildcards.run}"
    shell:
        "python -m evaluation.curves training --history {input:q} --out {output:q}"
        " --fingerprint {params.fingerprint:q} --log {log:q}"


rule similarity:
    input:
        lambda w: study.aligned(evaluated_sessions(w), run_of(w).features),
        checkpoint=lambda w: study.checkpoint(w.run, run_of(w).seeds[0]),
    output:
        picture=report(
            f"{place.curves}/similarity.png",
            caption="../report/similarity.rst",
            category="Similarity",
            labels={"run": "{run}"},
        ),
        numbers=f"{place.curves}/similarity.csv",
        sidecar=f"{place.curves}/similarity.json",
    log:
        "<logs>/similarity/{run}.log",
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=4000,
        gpu=GPU,
    params:
        fingerprint=lambda w: study.fingerprint("evaluation.similarity"),
        options=lambda w: options(
            {
                "sessions": [study.spec(key) for key in evaluated_sessions(w)],
                "results": study.results,
            }
        ),
    message:
        "similarity of the modality groups · {wildcards.run}"
    shell:
        "python -m evaluation.similarity --checkpoint {input.checkpoint:q} {params.options}"
        " --out {output.picture:q} --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"


rule efficiency:
    output:
        report(
            f"{place.efficiency}/efficiency.md",
            caption="../report/efficiency.rst",
            category="Efficiency",
        ),
        report(
            f"{place.efficiency}/efficiency.png",
            caption="../report/efficiency.rst",
            category="Efficiency",
        ),
        table=f"{place.efficiency}/efficiency.csv",
        tex=f"{place.efficiency}/efficiency.tex",
        sidecar=f"{place.efficiency}/efficiency.json",
    log:
        "<logs>/efficiency/efficiency.log",
    conda:
        "../../envs/torch.yaml"
    # All cores there are: nothing else may run while times are taken.
    threads: 1000
    resources:
        gpu=GPU,
    params:
        fingerprint=lambda w: study.efficiency_fingerprint(),
        folder=subpath(output.table, parent=True),
        options=options(
            study.settings("evaluation.efficiency", study.config["efficiency"])
        ),
    message:
        "measuring memory and time of windows"
    shell:
        "python -m evaluation.efficiency {params.options} --out-dir {params.folder:q}"
        " --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"


rule submission:
    # `snakemake submission`: the challenge's zip; checked before a byte of it is written.
    input:
        lambda w: submission(study)["records"],
        predictions=lambda w: submission(study)["files"],
    output:
        layout.submission(
            study.results, (study.config.get("submission") or {}).get("run", "none")
        ),
    log:
        "<logs>/submission.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=study.fingerprint("evaluation.submission"),
        options=lambda w: options(
            {key: submission(study)[key] for key in ("year", "clip")}
            | {
                "results": study.results,
                "without": submission(study)["without"] or None,
            }
        ),
    message:
        "writing the submission"
    shell:
        "python -m evaluation.submission --predictions {input.predictions:q} {params.options}"
        " --out {output:q} --fingerprint {params.fingerprint:q} --log {log:q}"
