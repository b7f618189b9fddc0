# A trained run on a new folder of recordings: predictions of every model, their mean, a csv per person.
# Session by session, so that a recording that fails harms its own session alone.
rule apply:
    input:
        lambda w: study.aligned([(study.dataset, w.session)], study.features),
        checkpoint=lambda w: study.models[w.model].path,
    output:
        predictions=f"{place.applied_predictions}.h5",
        sidecar=f"{place.applied_predictions}.json",
    log:
        "<logs>/apply/{model}.{session}.log",
    wildcard_constraints:
        model=constraint(study.models),
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=4000,
        gpu=GPU,
    params:
        fingerprint=lambda w: study.fingerprint(
            "inference.predict", study.prediction_settings(w.model)
        ),
        options=lambda w: study.prediction_options(w.model, w.session),
    message:
        "predicting {wildcards.session} with {wildcards.model}"
    shell:
        "python -m inference.predict --checkpoint {input.checkpoint:q} {params.options}"
        " --out {output.predictions:q} --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"


rule apply_mean:
    # An ensemble, or the folds of a run.
    input:
        lambda w: study.prediction_files(w.session),
    output:
        predictions=study.mean_file("{session}"),
        sidecar=sidecar_of(study.mean_file("{session}")),
    log:
        "<logs>/apply_mean/{session}.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=study.fingerprint("evaluation.ensemble"),
        options=lambda w: study.mean_options(w.session),
    message:
        f"the mean of {len(study.models)} models · {{wildcards.session}}"
    shell:
        "python -m evaluation.ensemble --members {input:q} {params.options}"
        " --out {output.predictions:q} --fingerprint {params.fingerprint:q} --log {log:q}"


rule engagement:
    input:
        lambda w: study.applied_file(w.session),
    output:
        f"{place.engagement}.csv",
    log:
        "<logs>/engagement/{dataset}.{session}.{role}.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=study.fingerprint("evaluation.export"),
        options=lambda w: study.export_options(w.session, w.role),
    message:
        "engagement per frame · {wildcards.session} {wildcards.role}"
    shell:
        "python -m evaluation.export --predictions {input:q} --format csv {params.options}"
        " --fingerprint {params.fingerprint:q} --log {log:q}"


rule predict:
    # `snakemake predict --config corpus=FOLDER`
    input:
        study.targets(),
    message:
        "engagement per frame is up to date"
