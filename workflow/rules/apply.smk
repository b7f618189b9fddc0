# A trained run on a new folder of recordings: predictions, then a csv per person.
rule apply:
    input:
        study.aligned_files,
        checkpoint=study.model,
    output:
        predictions=f"<results>/predictions/{study.run}.seed-{study.seed}.h5",
        sidecar=f"<results>/predictions/{study.run}.seed-{study.seed}.json",
    log:
        f"<logs>/apply/{study.run}.seed-{study.seed}.log",
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=4000,
        gpu=GPU,
    params:
        fingerprint=study.fingerprint("model.predict", {"run": study.run}),
        options=study.prediction_options(),
    message:
        f"predicting {study.dataset} with {study.run}, seed {study.seed}"
    shell:
        "python -m model.predict --checkpoint {input.checkpoint:q} {params.options}"
        " --out {output.predictions:q} --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"


rule predict:
    # `snakemake predict --config corpus=FOLDER`
    input:
        f"<results>/predictions/{study.run}.seed-{study.seed}.h5",
    output:
        study.csv_files,
    log:
        "<logs>/engagement.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=study.fingerprint("evaluation.export"),
        folder=f"{study.results}/engagement",
    message:
        "writing engagement per frame"
    shell:
        "python -m evaluation.export --predictions {input:q} --out-dir {params.folder:q} --format csv"
        " --log {log:q}"
