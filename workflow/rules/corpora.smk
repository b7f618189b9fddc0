# Recordings. Real ones are there already; the demo corpus is generated, session by session.
if study.config["demo"] is not None:

    def demo_files(dataset, session):
        root = study.config["media_root"]
        return [
            f"{root}/{path}"
            for files in session_files(dataset, session).values()
            for path in files.values()
        ]

    for dataset, session in study.by_session:

        rule:
            name:
                f"demo_session_{dataset}_{session}"
            output:
                demo_files(dataset, session),
            log:
                f"<logs>/demo_session/{dataset}.{session}.log",
            conda:
                "../../envs/media.yaml"
            params:
                fingerprint=study.fingerprint(
                    "corpora.demo.session", study.config["demo"]
                ),
                options=options(
                    {
                        "dataset": dataset,
                        "session": session,
                        "out": study.config["media_root"],
                    }
                    | {
                        "seed": study.config["demo"]["seed"],
                        "seconds": study.config["demo"]["seconds"],
                    }
                ),
            message:
                f"drawing demo recordings · {dataset}/{session}"
            shell:
                "python -m corpora.demo session {params.options} --fingerprint {params.fingerprint:q} --log {log:q}"


for feature, seed in study.checkpoints.random().items():

    rule:
        name:
            f"random_weights_{feature}"
        output:
            study.checkpoints.inputs(feature),
        log:
            f"<logs>/random_weights/{feature}.log",
        conda:
            "../../envs/torch.yaml"
        params:
            fingerprint=study.fingerprint("corpora.demo.weights", {"seed": seed}),
            options=options(
                {
                    "feature": feature,
                    "seed": seed,
                    "out": study.checkpoints.folder(feature),
                }
            ),
        message:
            f"making a small random checkpoint · {feature}"
        shell:
            "python -m corpora.demo weights {params.options} --fingerprint {params.fingerprint:q} --log {log:q}"
