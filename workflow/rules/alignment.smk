# One time axis per session: features as index maps onto the clock, labels at their own time stamps.
rule clock:
    input:
        probes_of,
    output:
        f"{place.clock}.json",
    log:
        "<logs>/clock/{dataset}.{session}.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=lambda w: study.clock_fingerprint((w.dataset, w.session)),
        options=options(study.clock_settings()),
    message:
        "time axis · {wildcards.dataset}/{wildcards.session}"
    shell:
        "python -m alignment.clock --probe {input:q} {params.options} --out {output:q}"
        " --fingerprint {params.fingerprint:q} --log {log:q}"


rule align:
    input:
        feature=f"{place.features}/{{feature}}.h5",
        clock=f"{place.clock}.json",
    output:
        aligned=f"{place.aligned}/{{feature}}.h5",
        sidecar=f"{place.aligned}/{{feature}}.json",
    log:
        "<logs>/align/{dataset}.{session}.{role}.{feature}.log",
    conda:
        "../../envs/media.yaml"
    resources:
        mem_mb=1000,
    params:
        fingerprint=lambda w: study.fingerprint(
            "alignment.align", study.align_settings(w)
        ),
        options=lambda w: options(study.align_settings(w)),
        declared=lambda w: options(study.declared_feature(w.feature)),
    message:
        "aligning {wildcards.feature} · {wildcards.dataset}/{wildcards.session} {wildcards.role}"
    shell:
        "python -m alignment.align --feature {input.feature:q} --clock {input.clock:q}"
        " {params.options} {params.declared} --out {output.aligned:q} --fingerprint {params.fingerprint:q} --log {log:q}"


rule labels:
    input:
        labels=labels_of,
        probe=f"{place.probe}.json",
    output:
        labels=f"{place.labels}.h5",
        sidecar=f"{place.labels}.json",
    log:
        "<logs>/labels/{dataset}.{session}.{role}.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=lambda w: study.fingerprint(
            "alignment.labels", study.label_settings(w)
        ),
        options=lambda w: options(study.label_settings(w)),
    message:
        "reading labels · {wildcards.dataset}/{wildcards.session} {wildcards.role}"
    shell:
        "python -m alignment.labels --labels={input.labels:q} --probe {input.probe:q}"
        " {params.options} --out {output.labels:q} --fingerprint {params.fingerprint:q} --log {log:q}"


rule qc_session:
    input:
        lambda w: study.aligned([(w.dataset, w.session)], features_of(w)),
        labels=label_files_of,
        probes=probes_of,
        faces=faces_of,
        audio=lambda w: [path for _, path in sounds_of(w)],
    output:
        quality=f"{place.quality}.json",
        plot=report(
            f"{place.quality}.png",
            caption="../report/qc.rst",
            category="Quality",
            labels={"dataset": "{dataset}", "session": "{session}"},
        ),
    log:
        "<logs>/qc/{dataset}.{session}.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=study.fingerprint("alignment.qc"),
        session=spec_of,
        options=lambda w: options(
            {
                "features": features_of(w),
                "labels_roles": [p.role for p in people_of(w) if p.labels],
                "faces": bool(faces_of(w)),
                "audio": [
                    f"{p.role}={path}"
                    + (f"#{p.audio_channel}" if p.audio_channel is not None else "")
                    for p, path in sounds_of(w)
                ],
                "results": study.results,
            }
        ),
    message:
        "checking the session · {wildcards.dataset}/{wildcards.session}"
    shell:
        "python -m alignment.qc session --session {params.session:q} {params.options}"
        " --out {output.quality:q} --plot {output.plot:q} --fingerprint {params.fingerprint:q} --log {log:q}"


rule qc:
    input:
        [layout.quality(study.results, *key) for key in study.by_session],
    output:
        f"{place.quality_table}.tsv",
    log:
        "<logs>/qc.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=study.fingerprint("alignment.qc"),
    message:
        "quality of all sessions"
    shell:
        "python -m alignment.qc summary --inputs {input:q} --out {output:q}"
        " --fingerprint {params.fingerprint:q} --log {log:q}"
