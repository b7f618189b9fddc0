# Statistics of the training sets, one training per run and seed, one prediction job per dataset.
wildcard_constraints:
    run=constraint(study.runs),


rule statistics:
    input:
        statistics_files,
    output:
        statistics=f"{place.statistics}.h5",
        sidecar=f"{place.statistics}.json",
    log:
        "<logs>/statistics/{run}.log",
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=2000,
    params:
        fingerprint=lambda w: study.fingerprint(
            "training.statistics",
            {
                "features": run_of(w).features,
                "frame_rate_hz": run_of(w).settings["frame_rate_hz"],
                "sessions": specs(run_of(w).train),
            },
        ),
        options=lambda w: options(
            {
                "features": run_of(w).features,
                "frame_rate_hz": run_of(w).settings["frame_rate_hz"],
                "sessions": specs(run_of(w).train),
                "results": study.results,
            }
        ),
    message:
        "normalisation from the training sets · {wildcards.run}"
    shell:
        "python -m training.statistics {params.options} --out {output.statistics:q}"
        " --fingerprint {params.fingerprint:q} --log {log:q}"


rule train:
    input:
        training_files,
        initial=lambda w: study.initial(w.run, w.seed),
        statistics=f"{place.statistics}.h5",
    output:
        model=f"{place.model}.safetensors",
        history=f"{place.history}.jsonl",
        sidecar=f"{place.model}.json",
    log:
        "<logs>/train/{run}.seed-{seed}.log",
    benchmark:
        "<benchmarks>/train/{run}.seed-{seed}.tsv"
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=8000,
        gpu=GPU,
    params:
        fingerprint=lambda w: study.training_fingerprint(w.run),
        settings=lambda w: study.run_settings(w.run),
        options=lambda w: options(
            {
                "train": specs(run_of(w).train),
                "validate": (
                    specs(run_of(w).validate) if run_of(w).reads_validation else None
                ),
                "results": study.results,
                "initial": "".join(study.initial(w.run, w.seed)) or None,
                "checkpoint_dir": layout.resume_folder(study.results, w.run, w.seed),
            }
        ),
    message:
        "training {wildcards.run}, seed {wildcards.seed}"
    shell:
        "python -m training.train --run {wildcards.run} --seed {wildcards.seed}"
        " --settings {params.settings:q} {params.options} --statistics {input.statistics:q}"
        " --out {output.model:q} --history {output.history:q}"
        " --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"


rule predict:
    input:
        lambda w: study.aligned(predicted_sessions(w), run_of(w).features),
        checkpoint=lambda w: study.checkpoint(w.run, w.seed),
    output:
        predictions=f"{place.predictions}.h5",
        sidecar=f"{place.predictions}.json",
    log:
        "<logs>/predict/{run}.seed-{seed}.{dataset}.log",
    benchmark:
        "<benchmarks>/predict/{run}.seed-{seed}.{dataset}.tsv"
    wildcard_constraints:
        run=constraint(r.name for r in study.runs.values() if not r.members),
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=4000,
        gpu=GPU,
    params:
        fingerprint=lambda w: study.fingerprint(
            "inference.predict", study.prediction_settings(w.run)
        ),
        options=lambda w: options(
            study.prediction_settings(w.run)
            | {
                "sessions": [study.spec(key) for key in predicted_sessions(w)],
                "results": study.results,
            }
        ),
    message:
        "predicting {wildcards.dataset} with {wildcards.run}, seed {wildcards.seed}"
    shell:
        "python -m inference.predict --checkpoint {input.checkpoint:q} {params.options}"
        " --out {output.predictions:q} --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"


# Folds put together, or the mean of several runs or seeds.
rule combine:
    input:
        lambda w: study.members(w.run, w.seed, w.dataset),
    output:
        predictions=f"{place.predictions}.h5",
        sidecar=f"{place.predictions}.json",
    log:
        "<logs>/combine/{run}.seed-{seed}.{dataset}.log",
    wildcard_constraints:
        run=constraint(r.name for r in study.runs.values() if r.members),
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=study.fingerprint("evaluation.ensemble"),
        options=lambda w: options(
            {
                "folds": run_of(w).combines == "folds",
                "sessions": [study.spec(key) for key in predicted_sessions(w)],
                "name": w.run,
            }
        ),
    message:
        "combining {wildcards.dataset} of {wildcards.run}, seed {wildcards.seed}"
    shell:
        "python -m evaluation.ensemble --members {input:q} {params.options} --seed {wildcards.seed}"
        " --out {output.predictions:q} --fingerprint {params.fingerprint:q} --log {log:q}"
