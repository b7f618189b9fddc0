# Features at their native rates, one file per participant and feature.
rule weights:
    # The identity of a checkpoint: a changed weights file is a changed feature.
    input:
        lambda w: study.checkpoints.inputs(w.feature),
    output:
        "<results>/weights/{feature}.json",
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
        feature="<results>/features/<participant>/{feature}.h5",
        sidecar="<results>/features/<participant>/{feature}.json",
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


# Where the config gives an extractor's name to a stream, the stream it is.
ruleorder: stream > egemaps > egemaps_lld > wav2vec2 > clip_face > flow > flow_magnitude


rule faces:
    input:
        video=video_of,
    output:
        faces="<results>/faces/<participant>.h5",
        crops="<results>/faces/<participant>.crops.mkv",
        sidecar="<results>/faces/<participant>.json",
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


rule egemaps:
    input:
        audio=audio_of,
    output:
        feature="<results>/features/<participant>/egemaps.h5",
        sidecar="<results>/features/<participant>/egemaps.json",
    log:
        "<logs>/egemaps/{dataset}.{session}.{role}.log",
    benchmark:
        "<benchmarks>/egemaps/{dataset}.{session}.{role}.tsv"
    conda:
        "../../envs/media.yaml"
    resources:
        mem_mb=1500,
    params:
        fingerprint=study.feature_fingerprint("egemaps"),
        options=options(study.feature_settings("egemaps")),
        channel=channel_of,
    message:
        "eGeMAPS functionals · {wildcards.dataset}/{wildcards.session} {wildcards.role}"
    shell:
        "python -m extractors.egemaps --audio={input.audio:q} {params.channel} {params.options}"
        " --out {output.feature:q} --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"


rule egemaps_lld:
    input:
        audio=audio_of,
    output:
        feature="<results>/features/<participant>/egemaps_lld.h5",
        sidecar="<results>/features/<participant>/egemaps_lld.json",
    log:
        "<logs>/egemaps_lld/{dataset}.{session}.{role}.log",
    benchmark:
        "<benchmarks>/egemaps_lld/{dataset}.{session}.{role}.tsv"
    conda:
        "../../envs/media.yaml"
    resources:
        mem_mb=1500,
    params:
        fingerprint=study.feature_fingerprint("egemaps_lld"),
        options=options(study.feature_settings("egemaps_lld")),
        channel=channel_of,
    message:
        "eGeMAPS descriptors · {wildcards.dataset}/{wildcards.session} {wildcards.role}"
    shell:
        "python -m extractors.egemaps_lld --audio={input.audio:q} {params.channel} {params.options}"
        " --out {output.feature:q} --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"


rule wav2vec2:
    input:
        audio=audio_of,
        weights="<results>/weights/wav2vec2.json",
    output:
        feature="<results>/features/<participant>/wav2vec2.h5",
        sidecar="<results>/features/<participant>/wav2vec2.json",
    log:
        "<logs>/wav2vec2/{dataset}.{session}.{role}.log",
    benchmark:
        "<benchmarks>/wav2vec2/{dataset}.{session}.{role}.tsv"
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=6000,
        gpu=GPU,
    params:
        fingerprint=study.feature_fingerprint("wav2vec2"),
        options=options(study.feature_settings("wav2vec2")),
        channel=channel_of,
    message:
        "speech embeddings · {wildcards.dataset}/{wildcards.session} {wildcards.role}"
    shell:
        "python -m extractors.wav2vec2 --audio={input.audio:q} {params.channel}"
        " --weights {input.weights:q} {params.options} --out {output.feature:q}"
        " --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"


rule clip_face:
    input:
        faces="<results>/faces/<participant>.h5",
        crops="<results>/faces/<participant>.crops.mkv",
        weights="<results>/weights/clip_face.json",
    output:
        feature="<results>/features/<participant>/clip_face.h5",
        sidecar="<results>/features/<participant>/clip_face.json",
    log:
        "<logs>/clip_face/{dataset}.{session}.{role}.log",
    benchmark:
        "<benchmarks>/clip_face/{dataset}.{session}.{role}.tsv"
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=3000,
        gpu=GPU,
    params:
        fingerprint=study.feature_fingerprint("clip_face"),
        options=options(study.feature_settings("clip_face")),
    message:
        "CLIP of the face · {wildcards.dataset}/{wildcards.session} {wildcards.role}"
    shell:
        "python -m extractors.clip_face --faces {input.faces:q} --crops {input.crops:q}"
        " --weights {input.weights:q} {params.options} --out {output.feature:q}"
        " --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"


rule flow:
    input:
        faces="<results>/faces/<participant>.h5",
        crops="<results>/faces/<participant>.crops.mkv",
    output:
        feature="<results>/features/<participant>/flow.h5",
        sidecar="<results>/features/<participant>/flow.json",
    log:
        "<logs>/flow/{dataset}.{session}.{role}.log",
    benchmark:
        "<benchmarks>/flow/{dataset}.{session}.{role}.tsv"
    conda:
        "../../envs/media.yaml"
    resources:
        mem_mb=1000,
    params:
        fingerprint=study.feature_fingerprint("flow"),
        options=options(study.feature_settings("flow")),
    message:
        "optical flow of the face · {wildcards.dataset}/{wildcards.session} {wildcards.role}"
    shell:
        "python -m extractors.flow --faces {input.faces:q} --crops {input.crops:q} {params.options}"
        " --out {output.feature:q} --fingerprint {params.fingerprint:q} --threads {threads} --log {log:q}"


rule flow_magnitude:
    input:
        faces="<results>/faces/<participant>.h5",
        crops="<results>/faces/<participant>.crops.mkv",
    output:
        feature="<results>/features/<participant>/flow_magnitude.h5",
        sidecar="<results>/features/<participant>/flow_magnitude.json",
    log:
        "<logs>/flow_magnitude/{dataset}.{session}.{role}.log",
    benchmark:
        "<benchmarks>/flow_magnitude/{dataset}.{session}.{role}.tsv"
    conda:
        "../../envs/media.yaml"
    resources:
        mem_mb=1000,
    params:
        fingerprint=study.feature_fingerprint("flow_magnitude"),
        options=options(study.feature_settings("flow_magnitude")),
    message:
        "flow magnitude at landmarks · {wildcards.dataset}/{wildcards.session} {wildcards.role}"
    shell:
        "python -m extractors.flow_magnitude --faces {input.faces:q} --crops {input.crops:q}"
        " {params.options} --out {output.feature:q} --fingerprint {params.fingerprint:q}"
        " --threads {threads} --log {log:q}"
