# The ceiling of a generated corpus: what a model would score that knew every latent. Asked for by
# the target `evidence` only; the truth lies in a tree of its own that no training rule reads.
if study.config["demo"] is not None:

    rule oracle:
        input:
            oracle_files,
        output:
            f"{place.oracle_predictions}.h5",
        log:
            "<logs>/oracle/{dataset}.log",
        conda:
            "../../envs/media.yaml"
        params:
            fingerprint=study.fingerprint("evaluation.oracle"),
            options=lambda w: options(
                {
                    "corpus": study.config["media_root"],
                    "sessions": oracle_specs(w, by_split=True),
                }
            ),
        message:
            "oracle of {wildcards.dataset}"
        shell:
            "python -m evaluation.oracle {params.options} --out {output:q}"
            " --fingerprint {params.fingerprint:q} --log {log:q}"

    rule score_oracle:
        input:
            lambda w: study.label_files(
                s for s in evaluated_sets() if s.split("/")[0] == w.dataset
            ),
            predictions=f"{place.oracle_predictions}.h5",
        output:
            f"{place.oracle_scores}.json",
        log:
            "<logs>/score/oracle.{dataset}.log",
        conda:
            "../../envs/media.yaml"
        params:
            fingerprint=study.fingerprint("evaluation.score", study.score_settings()),
            options=lambda w: options(
                study.score_settings()
                | {"sessions": oracle_specs(w), "results": study.results}
            ),
        message:
            "scoring the oracle on {wildcards.dataset}"
        shell:
            "python -m evaluation.score --predictions {input.predictions:q} {params.options}"
            " --out {output:q} --fingerprint {params.fingerprint:q} --log {log:q}"

    rule evidence:
        input:
            [path for run in study.runs_of_all() for path in study.score_files(run)],
            [
                layout.scores(study.results, *layout.ORACLE, dataset)
                for dataset in dict.fromkeys(s.split("/")[0] for s in evaluated_sets())
            ],
