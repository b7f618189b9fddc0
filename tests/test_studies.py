"""The papers' tables: every row differs from its base in what the question asks, and in nothing else."""

import re

import pytest
import yaml
from test_reruns import PEOPLE, row

from evaluation import efficiency
from workflow.config import ROOT, load_config, merge
from workflow.fingerprint import version
from workflow.study import Study

RANDOM = {"random": 0, "directory": None, "repository": None, "revision": None}
CONFIGS = {"demo": [], "noxi": [ROOT / "presets/noxi.yaml"]}
TABLES = {
    "ablation",
    "comparison",
    "fusion",
    "partner",
    "context",
    "sensitivity",
    "missing",
    "inference",
}


@pytest.fixture(scope="module", params=CONFIGS)
def study(request, tmp_path_factory) -> Study:
    """The repository's config, without and with the preset of the real corpora, on a small sheet."""
    house = tmp_path_factory.mktemp("studies")
    lines = ["dataset\tsplit\tsession\trole\tvideo\taudio\tlabels"]
    for dataset, split, session, roles in PEOPLE:
        for role in roles:
            values = row(dataset, split, session, role)
            lines.append("\t".join(values))
            for name in values[4:]:
                (house / name).parent.mkdir(parents=True, exist_ok=True)
                (house / name).write_text("x")
    (house / "sessions.tsv").write_text("\n".join(lines) + "\n")
    over = {
        "sessions": str(house / "sessions.tsv"),
        "media_root": None,
        "demo": None,
        "features": {f: {"weights": RANDOM} for f in ("wav2vec2", "clip_face")},
        "defaults": {"evaluate": ["noxi/val", "noxi/test", "mpiigi/val"]},
    }
    return Study(merge(load_config(CONFIGS[request.param]), over))


def flat(value, place="") -> dict:
    if not isinstance(value, dict):
        return {place: value}
    return {k: v for n, child in value.items() for k, v in flat(child, f"{place}.{n}").items()}


def change(study: Study, run: str, base: str = "da_mamba") -> dict:
    """What a run's settings of model and training have otherwise than the base's."""
    own, other = (flat(study.runs[name].settings) for name in (run, base))
    assert own.keys() == other.keys()
    return {key.removeprefix("."): v for key, v in own.items() if v != other[key]}


def test_every_table_on_request_can_be_built(study):
    assert set(study.on_request) == TABLES
    assert {n: e.problem for n, e in study.refused.items()} == {}
    assert not study.unused_runs
    for name in study.on_request:
        rows = study.tables[name]["runs"]
        assert len(set(rows)) == len(rows) and study.table_files(name)
        assert study.training_fingerprint(study.table_runs(name)[0].weights)
    assert study.tables_of_all == ["main"]


def test_rows_of_a_table_are_not_the_same_run_twice(study):
    for name in study.on_request:
        seen = {}
        for run in study.table_runs(name):
            key = (study.training_fingerprint(run.weights), str(run.prediction))
            assert key not in seen, (name, run.name, seen[key])
            seen[key] = run.name


def test_ablation_has_the_rows_of_the_paper(study):
    # Published: Mamba or Transformer, modality fusion, partner fusion.
    published = {
        "da_mamba": ("mamba", True, True),
        "da_mamba_no_modality_fusion": ("mamba", False, True),
        "da_mamba_no_partner": ("mamba", True, False),
        "da_mamba_no_fusion": ("mamba", False, False),
        "da_mamba_transformer": ("transformer", True, True),
    }
    runs = {run.name: run for run in study.table_runs("ablation")}
    for name, expected in published.items():
        model = runs.pop(name).settings["model"]
        assert (model["mixer"], model["modality_fusion"], model["partner_fusion"]) == expected
        assert model["alignment"] and model["name"] == "da_mamba"
    assert list(runs) == ["da_mamba_no_alignment"]
    assert change(study, "da_mamba_no_alignment") == {"model.alignment": False}
    files = study.table_files("ablation")
    assert f"{study.results}/curves/da_mamba/similarity.png" in files
    assert f"{study.results}/curves/da_mamba_transformer/training.png" in files
    assert not any("no_alignment/similarity" in f or "no_fusion/similarity" in f for f in files)


def test_comparison_trains_every_model_alike(study):
    runs = study.table_runs("comparison")
    names = [run.settings["model"]["name"] for run in runs]
    assert names == [
        *("da_mamba", "dat", "coupled_mamba", "align_mamba", "dapa", "bilstm", "mlp", "constant")
    ]
    for key in ("window", "core", "stride", "batch", "epochs", "steps"):
        assert len({run.settings["training"][key] for run in runs}) == 1, key
    learned = [run for run in runs if run.name != "constant"]
    assert len({(run.seeds, run.features, run.train, run.evaluate) for run in learned}) == 1


def test_unequal_training_is_refused(study):
    config = merge(study.config, {"runs": {"dat": {"training": {"epochs": 7}}}})
    refused = Study(config).refused["comparison"]
    assert "needs equal training.epochs, but dat has 7" in refused.problem
    config = merge(study.config, {"tables": {"comparison": {"equal": ["epoch"]}}})
    assert "epochs" in Study(config).refused["comparison"].cure


def test_fusion_has_the_rows_of_both_papers(study):
    methods = {"average", "concat", "mamba", "cross_attention"}
    rows = study.tables["fusion"]["runs"]
    assert methods == {study.runs[f"fusion_{m}"].settings["model"]["method"] for m in methods}
    for state in (32, 64, 128):
        assert study.runs[f"coupled_mamba_state_{state}"].settings["model"]["state"] == state
    unaligned = {"model.local_alignment": False, "model.global_alignment": False}
    multi = change(study, "align_mamba_multi_stream", "align_mamba")
    layers = multi.pop("model.layers")  # fewer: each group has a stack of its own
    assert 0 < layers < study.runs["align_mamba"].settings["model"]["layers"]
    assert multi == {"model.streams": "multi", **unaligned}
    for name, expected in {
        "no_local": {"model.local_alignment": False},
        "no_global": {"model.global_alignment": False},
        "single_stream": {"model.streams": "single", **unaligned},
    }.items():
        assert change(study, f"align_mamba_{name}", "align_mamba") == expected
    every = set(study.runs["align_mamba"].features)
    lost = [every - set(study.runs[r].features) for r in rows]
    assert sorted(f for features in lost for f in features) == sorted(every)


def test_partner_changes_the_partners_way_only(study):
    for context in ("concat", "interleave", "separate"):
        own = study.runs[f"da_mamba_partner_{context}"].settings["model"]
        assert own["partner_context"] == context
        assert set(change(study, f"da_mamba_partner_{context}")) <= {"model.partner_context"}
    assert study.runs["coupled_mamba_partners"].settings["model"]["participants"] is True
    assert change(study, "da_mamba_no_partner") == {"model.partner_fusion": False}


def test_context_predicts_a_third_with_as_many_frames_a_step(study):
    runs = study.table_runs("context")
    training = [run.settings["training"] for run in runs]
    assert [t["window"] for t in training] == [96, 256, 512, 1024, 2048]
    assert len({t["steps"] for t in training}) == 1 and training[0]["steps"] > 0
    for t in training:
        assert t["core"] == pytest.approx(t["window"] / 3, rel=0.01)
        frames = training[0]["window"] * training[0]["batch"]
        assert t["window"] * t["batch"] == pytest.approx(frames, rel=0.34)
    for run in runs[1:]:
        keys = {"training.window", "training.core", "training.batch"}
        assert set(change(study, run.name, runs[0].name)) == keys


def test_sensitivity_changes_the_chunk_only(study):
    chunks = [run.settings["model"]["local_chunk"] for run in study.table_runs("sensitivity")]
    assert chunks == [8, 16, 32, 48, 96]
    for run in study.table_runs("sensitivity"):
        assert set(change(study, run.name)) <= {"model.local_chunk"}


def test_missing_goes_over_rates_on_the_same_weights(study):
    runs = study.table_runs("missing")
    for trained in ("da_mamba", "da_mamba_robust"):
        rates = [r.prediction["absent_rate"] for r in runs if r.weights == trained]
        assert rates == pytest.approx([k / 10 for k in range(8)])
    assert len({r.prediction["absent_seed"] for r in runs}) == 1
    assert set(change(study, "da_mamba_robust")) == {"model.absent_rate"}
    assert sum(not r.weights_of for r in runs) == 2


def test_inference_goes_over_ways_on_the_same_weights(study):
    ways = {
        (r.weights, r.prediction["mode"], r.prediction["merge"])
        for r in study.table_runs("inference")
    }
    causal = "da_mamba_causal"
    assert ways == {
        ("da_mamba", "window", "centre"),
        ("da_mamba", "window", "mean"),
        (causal, "window", "centre"),
        (causal, "window", "mean"),
        (causal, "carry", "centre"),
    }
    assert study.runs[causal].settings["model"]["causal"] is True


def test_efficiency_has_the_sizes_of_the_question(study):
    sizes = study.config["efficiency"]
    assert sizes["lengths"] == [64, 96, 128, 192, 512, 1024, 2048]
    assert sizes["persons"] == [2, 4, 6, 8, 12]
    assert sizes["models"] == ["da_mamba", "dat"]
    text = study.efficiency_fingerprint()
    for name in sizes["models"]:
        assert f"architecture.{name}={version(f'model.{name}')}" in text.split()
    known = {action.dest for action in efficiency.build_parser()._actions}
    assert set(sizes) <= known


def test_nothing_in_the_rules_names_a_table_or_a_run():
    declared = yaml.safe_load((ROOT / "studies.yaml").read_text(encoding="utf-8"))
    names = {*declared["tables"], *declared["runs"]} - {
        "context",
        "missing",
        "partner",
        "inference",
    }
    for path in [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]:
        code = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
        assert not names & set(re.findall(r"\w+", code)), path
