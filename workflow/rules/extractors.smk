# Features at their native rates, one file per participant and feature.
rule weights:
    # The identity of a checkpoint: a changed weights file is a changed feature.
    input:
        lambda w: study.checkpoints.inputs(w.feature),
    output:
        f"{place.weights}/{{feature}}.json",
    log:
        "<logs>/weights/{feature}.log",
    retries: 2 if any(study.checkpoints.fetched(f) for f in study.features) else 0
    # It may fetch one, and the nodes of a cluster have no network.
    localrule: True
    conda:
        "../../envs/torch.yaml"
    params:
        fingerprint=lambda w: study.fingerprint("extractors.weights"),
        options=lambda w: study.checkpoints.options(w.feature),
    message:
        "checking the weights of {wildcards.feature}"
    shell:
        "python -m extractors.weights --feature {wildcards.feature} {params.options}"
        " --out {output:q} --fingerprint {params.fingerprint:q} --log {log:q}"


rule stream:
    # A precomputed stream as a feature, whichever the config names; the others tell a wrong rate.
    input:
        lambda w: list(
            map(
                str,
                recordings.other_streams(
                    study.participant(w), study.features[w.feature]["name"]
                ).values(),
            )
        ),
        stream=stream_of,
        body=lambda w: f"{stream_of(w)}~",
    output:
        feature=f"{place.features}/{{feature}}.h5",
        sidecar=f"{place.features}/{{feature}}.json",
    log:
        "<logs>/stream/{dataset}.{session}.{role}.{feature}.log",
    wildcard_constraints:
        feature=constraint(study.streams),
    conda:
        "../../envs/media.yaml"
    resources:
        mem_mb=1000,
    params:
        fingerprint=lambda w: study.feature_fingerprint(w.feature),
        options=lambda w: study.stream_options(study.participant(w), w.feature),
    message:
        "stream {wildcards.feature} · {wildcards.dataset}/{wildcards.session} {wildcards.role}"
    shell:
        "python -m extractors.stream --stream {input.stream:q} --feature {wildcards.feature}"
        " {params.options} --out {output.feature:q} --fingerprint {params.fingerprint:q} --log {log:q}"


rule faces:
    input:
        video=video_of,
    output:
        faces=f"{place.faces}.h5",
        crops=f"{place.faces}.crops.mkv",
        sidecar=f"{place.faces}.json",
    log:
        "<logs>/faces/{dataset}.{session}.{role}.log",
    benchmark:
        "<benchmarks>/faces/{dataset}.{session}.{role}.tsv"
    conda:
        "../../envs/media.yaml"
    resources:
        mem_mb=2000,
        # No parameter: it changes no value, so with another setting a track need not be made again.
        unusable=study.config["media"]["unusable"],
    params:
        fingerprint=lambda w: study.fingerprint(
            "extractors.faces", study.face_settings(w)
        ),
        options=lambda w: options(study.face_settings(w)),
    message:
        "finding and cropping the face · {wildcards.dataset}/{wildcards.session} {wildcards.role}"
    shell:
        "python -m extractors.faces --video={input.video:q} {params.options} --out {output.faces:q}"
        " --crops {output.crops:q} --unusable {resources.unusable} --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"


# One rule for each declared extractor, all of the same form (extractors/declared.py).
for extractor in EXTRACTORS.values():

    rule:
        name:
            extractor.name
        input:
            **sources_of(extractor),
        output:
            feature=f"{place.features}/{{feature}}.h5",
            sidecar=f"{place.features}/{{feature}}.json",
        log:
            "<logs>/{feature}/{dataset}.{session}.{role}.log",
        benchmark:
            "<benchmarks>/{feature}/{dataset}.{session}.{role}.tsv"
        wildcard_constraints:
            # Where the config gives the name to a stream, the stream it is.
            feature=constraint({extractor.name} - set(study.streams)),
        conda:
            f"../../envs/{extractor.env}.yaml"
        threads: extractor.gpu_threads if GPU else 1
        resources:
            mem_mb=grows(extractor.mem_mb),
            runtime=grows(extractor.minutes),
            gpu=GPU if extractor.gpu else 0,
        params:
            fingerprint=lambda w: study.feature_fingerprint(
                w.feature, study.participant(w)
            ),
            options=lambda w: options(study.feature_settings(w.feature)),
            sources=source_options,
        message:
            # No parameter: other words are no reason to extract again.
            f"{extractor.title} · {{wildcards.dataset}}/{{wildcards.session}} {{wildcards.role}}"
        shell:
            "python -m extractors {wildcards.feature} {params.sources} {params.options}"
            " --out {output.feature:q} --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"
