# What is in a recording: lengths, rates, streams. Unreadable media stop here, early and by name.
rule probe:
    input:
        lambda w: recordings.probe_files(study.participant(w)),
    output:
        f"{place.probe}.json",
    log:
        "<logs>/probe/{dataset}.{session}.{role}.log",
    conda:
        "../../envs/media.yaml"
    params:
        fingerprint=study.fingerprint("media.probe", study.config["media"]),
        options=lambda w: options(
            study.settings("media.probe", study.config["media"])
            | recordings.probe_options(study.participant(w))
            | {
                "dataset": w.dataset,
                "session": w.session,
                "role": w.role,
                "offset": study.participant(w).offset or None,
                "roi": study.participant(w).roi,
                "audio_channel": study.participant(w).audio_channel,
            }
        ),
    message:
        "looking into the recording · {wildcards.dataset}/{wildcards.session} {wildcards.role}"
    shell:
        "python -m media.probe {params.options} --out {output:q} --fingerprint {params.fingerprint:q} --log {log:q}"
