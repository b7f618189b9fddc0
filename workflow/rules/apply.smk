# A trained run on a new folder of recordings: predictions of every model, their mean, a csv per person.
rule apply:
    input:
        study.aligned_files,
        checkpoint=lambda w: study.models[w.model].path,
    output:
        predictions="<results>/predictions/{model}.h5",
        sidecar="<results>/predictions/{model}.json",
    log:
        "<logs>/apply/{model}.log",
    wildcard_constraints:
        model=constraint(study.models),
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=4000,
        gpu=GPU,
    params:
        fingerprint=lambda w: study.fingerprint(
            "model.predict", study.prediction_settings(w.model)
        ),
        options=lambda w: study.prediction_options(w.model),
    message:
        f"predicting {study.dataset} with {{wildcards.model}}"
    shell:
        "python -m model.predict --checkpoint {input.checkpoint:q} {params.options}"
        " --out {output.predictions:q} --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"


rule apply_mean:
    # An ensemble, or the folds of a run.
    input:
        study.prediction_files,
    output:
        predictions=f"<results>/predictions/mean/{study.run}.seed-{study.seed}.h5",
        sidecar=f"<results>/predictions/mean/{study.run}.seed-{study.seed}.json",
    log:
        f"<logs>/apply_mean/{study.run}.seed-{study.seed}.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=study.fingerprint("evaluation.ensemble"),
        options=study.mean_options(),
    message:
        f"the mean of {len(study.models)} models"
    shell:
        "python -m evaluation.ensemble --members {input:q} {params.options}"
        " --out {output.predictions:q} --fingerprint {params.fingerprint:q} --log {log:q}"


rule predict:
    # `snakemake predict --config corpus=FOLDER`
    input:
        (
            study.prediction_files
            if len(study.models) == 1
            else f"<results>/predictions/mean/{study.run}.seed-{study.seed}.h5"
        ),
    output:
        study.csv_files,
    log:
        "<logs>/engagement.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=study.fingerprint("evaluation.export"),
        options=study.export_options(),
        folder=f"{study.results}/engagement",
    message:
        "writing engagement per frame"
    shell:
        "python -m evaluation.export --predictions {input:q} --out-dir {params.folder:q} --format csv"
        " {params.options} --log {log:q}"
