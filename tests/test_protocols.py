"""Folds, runs that start from another, ensembles, presets: what the config makes of them."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from protocol_study import FOLDS, MPIIGI, config, make_corpora, refused, sessions, study

from corpora.sheet import write_sheet
from runtime import InputError
from workflow.config import ROOT, load_config
from workflow.plan import member_lines, run_sizes
from workflow.study import Study

PROTOCOLS = sorted((ROOT / "presets/protocols").glob("*.yaml"))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    return make_corpora(tmp_path_factory.mktemp("corpora"))


def test_folds_hold_out_every_session_once_and_train_on_the_others(corpora):
    s = study(corpora, {"x": MPIIGI | {"folds": FOLDS}})
    x = s.runs["x"]
    val = ["008", "009", "010", "026", "027", "028"]
    assert x.combines == "folds" and x.members == tuple(f"x.fold-{n}" for n in val)
    for name, out in zip(x.members, val, strict=True):
        fold = s.runs[name]
        assert sessions(s.sessions(fold.train)) == [n for n in val if n != out]
        assert sessions(s.declared.held_out(fold)) == [out]
        # The statistics, the training fingerprint and the predictions follow from the same sets.
        text = s.training_fingerprint(name)
        assert f"mpiigi/{out}:" not in text and text.count("mpiigi/") == 5
        predicted = s.sessions(s.evaluated(fold, "mpiigi"))
        assert sessions(predicted) == [*(f"00{i}" for i in range(1, 7)), out] or sessions(
            predicted
        ) == [out, *(f"00{i}" for i in range(1, 7))]
    assert s.columns(s.tables["main"]) == ["mpiigi/val"]  # one pooled score; test has no labels
    assert s.members("x", 1, "mpiigi") == [
        f"{s.results}/predictions/x.fold-{n}/seed-1/mpiigi.h5" for n in val
    ]
    assert len(s.score_files(x)) == 2  # one per seed, no fold has its own
    assert s.training_figures([x]) == [f"{s.results}/curves/x.fold-{n}/training.png" for n in val]
    text = member_lines(s, [x])
    assert "x: 6 folds" in text
    assert "x.fold-026: trains on 5 sessions, holds out mpiigi/026" in text
    sizes = run_sizes(s, {k: 60.0 for k in s.by_id})
    assert not sizes["x"].trained and sizes["x"].scored == 1
    assert sizes["x.fold-008"].trained and sizes["x.fold-008"].scored == 0


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("language", {"german", "french", "english"}),
        (3, {"1", "2", "3"}),
        ([["001..050"], ["051..084"]], {"1", "2"}),
        ({"early": ["001..050"], "late": ["051..084"]}, {"early", "late"}),
    ],
)
def test_ways_of_making_folds(corpora, by, names):
    both = ["noxi/train", "noxi/val"]
    run = {"train": both, "evaluate": both, "folds": {"of": both, "by": by}}
    s = study(corpora, {"x": run})
    held = [set(s.declared.held_out(s.runs[m])) for m in s.runs["x"].members]
    assert {m.removeprefix("x.fold-") for m in s.runs["x"].members} == names
    assert sum(map(len, held)) == len(set.union(*held)) == 48
    for member, out in zip(s.runs["x"].members, held, strict=True):
        assert set(s.sessions(s.runs[member].train)) == set(s.sessions(both)) - out


@pytest.mark.parametrize(
    ("folds", "problem"),
    [
        ({"of": "noxi/val", "by": "session"}, "which `train` of the run does not"),
        ({"of": "mpiigi/val", "by": 7}, "7 folds of 6 sessions"),
        ({"of": "mpiigi/val", "by": [["008"], ["009"]]}, "session mpiigi/010 is in no fold"),
        (
            {"of": "mpiigi/val", "by": [["008..028"], ["009"]]},
            "mpiigi/009 is in the folds 1 and 2",
        ),
        ({"of": "mpiigi/val", "by": "language"}, "mpiigi/008 has no language"),
        ({"of": "mpiigi/vall", "by": "session"}, "mpiigi/vall is no set"),
        ({"of": "mpiigi/train", "by": "session"}, "which the sheet does not have"),
    ],
)
def test_wrong_folds_are_refused(corpora, folds, problem):
    assert problem in refused(corpora, {"x": MPIIGI | {"folds": folds}}).problem


def test_a_set_cannot_take_the_name_of_a_folds_part(corpora):
    sets = {"mpiigi/val.x.without-008": {"of": "mpiigi/val"}}
    error = refused(corpora, {"x": MPIIGI | {"folds": FOLDS}}, sets)
    assert "has the name of a part that `folds` makes" in error.problem


def test_runs_on_folds(corpora):
    """base takes folds over, weights_of takes each fold's weights, initial starts each fold."""
    runs = {
        "noxi": {"evaluate": ["mpiigi/test"]},
        "folds": MPIIGI | {"folds": FOLDS, "initial": "noxi"},
        "wide": {"base": "folds", "initial": None, "model": {"d": 32}},
        "smooth": {"weights_of": "folds", "prediction": {"smooth_s": 1.0}},
    }
    s = study(corpora, runs, rows=("folds", "wide", "smooth"))
    assert len(s.runs["wide"].members) == len(s.runs["smooth"].members) == 6
    assert s.checkpoint("smooth.fold-009", 1).endswith(
        "runs/folds.fold-009/seed-1/model.safetensors"
    )
    assert s.prediction_settings("smooth.fold-009")["smooth_s"] == 1.0
    assert s.initial("folds.fold-008", 2) == [f"{s.results}/runs/noxi/seed-2/model.safetensors"]
    assert s.initial("wide.fold-008", 2) == []
    assert "initial=noxi" in s.training_fingerprint("folds.fold-008")
    assert "noxi" in s.trained([s.runs["smooth"]]) and len(s.trained([s.runs["smooth"]])) == 7
    assert sessions(s.declared.held_out(s.runs["smooth.fold-009"])) == ["009"]
    assert "starting from noxi" in s.table_options("main")
    assert not s.unused_runs or "noxi" not in s.unused_runs


# ---- initial, ensembles ----


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        ({"initial": "strat"}, "names strat, which is no run"),
        ({"initial": "folded"}, "has several models"),
        ({"initial": "start", "model": {"d": 32}}, "has other model.d"),
        ({"initial": "start", "features": ["egemaps", "flow"]}, "has other features"),
        ({"initial": "start", "seeds": [1, 9]}, "not trained with seed 9"),
        ({"initial": "x"}, "leads back to itself"),
    ],
)
def test_runs_that_cannot_start_from_another(corpora, run, problem):
    runs = {"start": {"evaluate": ["mpiigi/val"]}, "folded": MPIIGI | {"folds": FOLDS}}
    run = {"train": ["noxi/val"], "evaluate": ["mpiigi/val"]} | run
    assert problem in refused(corpora, runs | {"x": run}).problem


def test_a_run_may_start_from_one_with_other_regularisation(corpora):
    runs = {"start": {"evaluate": ["mpiigi/val"]}}
    x = {"train": ["noxi/val"], "evaluate": ["mpiigi/val"], "initial": "start"}
    s = study(corpora, runs | {"x": x | {"model": {"dropout": 0.5}}})
    assert s.trained([s.runs["x"]]) == ["x", "start"]


def test_ensembles_over_runs_and_seeds(corpora):
    runs = {
        "mean": {"ensemble_of": ["da_mamba", "egemaps_mlp"], "evaluate": ["noxi/val"]},
        "seeds": {"ensemble_of": ["da_mamba"], "ensemble": "seeds"},
    }
    s = study(corpora, runs, rows=("mean", "seeds"))
    home = f"{s.results}/predictions"
    assert s.runs["mean"].seeds == (1, 2) and s.runs["seeds"].seeds == (0,)
    assert s.members("mean", 2, "noxi") == [
        f"{home}/{m}/seed-2/noxi.h5" for m in ("da_mamba", "egemaps_mlp")
    ]
    assert s.members("seeds", 0, "noxi") == [f"{home}/da_mamba/seed-{k}/noxi.h5" for k in (1, 2)]
    assert s.trained([s.runs["mean"]]) == ["da_mamba", "egemaps_mlp"]
    assert "mean of the predictions of all seeds of da_mamba" in s.table_options("main")


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        ({"ensemble_of": ["da_mamba"]}, "an ensemble of one run"),
        ({"ensemble_of": ["da_mamba", "da_mambo"]}, "da_mambo, which is no run"),
        ({"ensemble_of": ["da_mamba", "constant"], "seeds": [2]}, "its member constant has not"),
        ({"ensemble_of": ["da_mamba", "constant"], "training": {}}, "has no training of its own"),
        (
            {"ensemble_of": ["da_mamba", "constant"], "evaluate": ["noxi-j/val"]},
            "which its member da_mamba does not predict",
        ),
        ({"base": "ensemble"}, "no training of its own"),
        ({"weights_of": "ensemble"}, "does not say plainly"),
    ],
)
def test_wrong_ensembles_are_refused(corpora, run, problem):
    runs = {"ensemble": {"ensemble_of": ["da_mamba", "egemaps_mlp"]}}
    assert problem in refused(corpora, runs | {"x": run}).problem


# ---- presets, job graph ----


@pytest.mark.parametrize("preset", PROTOCOLS, ids=lambda p: p.stem)
def test_protocol_presets_on_the_official_sessions(corpora, preset):
    """Each makes its table, trains on nothing it evaluates, and holds out what it says."""
    s = Study(config(corpora[0], ROOT / "presets/noxi.yaml", preset))
    assert preset.stem in s.on_request
    if preset.stem == "pinsoro":  # tests/test_protocol_tables.py runs it
        assert "which the sheet does not have" in s.refused["pinsoro"].problem
        return
    assert preset.stem not in s.refused
    runs = s.table_runs(preset.stem)
    assert runs and s.table_files(preset.stem)
    load_config([ROOT / "presets/multimediate.yaml", preset])
    for name in s.trained(runs):
        run = s.runs[name]
        assert not set(s.sessions(run.train)) & set(s.sessions(run.evaluate)), name
    counts = {run.name: len(run.members) for run in runs if run.members}
    assert (
        counts
        == {
            "mpiigi_folds": {
                "da_mamba_mpiigi": 6,
                "da_mamba_noxi_mpiigi": 6,
                "egemaps_mlp_mpiigi": 6,
            },
            "noxi_j": {},
            "out_of_domain": {},
            "leave_language_out": dict.fromkeys(
                ("da_mamba_new_language", "da_mamba_known_language", "egemaps_mlp_new_language"), 3
            ),
            "leave_site_out": dict.fromkeys(
                ("da_mamba_new_site", "da_mamba_known_site", "egemaps_mlp_new_site"), 3
            ),
            "train_val": {
                "da_mamba_train_val_seeds": 1,
                "da_mamba_five_folds": 5,
                "da_mamba_five_folds_smooth": 5,
            },
        }[preset.stem]
    )
    if preset.stem == "leave_site_out":
        held = s.declared.held_out(s.runs["da_mamba_new_site.fold-Augsburg"])
        assert sessions(held) == [n for n in sessions(s.sessions(["noxi/labelled"])) if n >= "066"]
    if preset.stem == "train_val":
        handed_in = s.runs[s.config["submission"]["run"]]
        assert set(s.datasets(handed_in)) == {"noxi", "noxi-add", "noxi-j", "mpiigi"}


@pytest.mark.parametrize(("dataset", "preset"), [("mpiigi", "mpiigi_folds"), ("noxi-j", "noxi_j")])
def test_a_protocol_without_noxi_in_the_sheet(corpora, tmp_path, dataset, preset):
    """Who holds one corpus alone is told how, and has the table that needs no other."""
    sheet = tmp_path / "s.tsv"
    sheet.write_text(write_sheet(p for p in corpora[1] if p.dataset == dataset))
    files = ROOT / "presets/noxi.yaml", ROOT / f"presets/protocols/{preset}.yaml"
    with pytest.raises(InputError, match="da_mamba trains on noxi/train") as e:
        Study(config(corpora[0], *files, sessions=str(sheet)))
    assert "presets/without_noxi.yaml" in e.value.cure
    files = *files, ROOT / "presets/without_noxi.yaml"
    s = Study(config(corpora[0], *files, sessions=str(sheet)))
    table = "mpiigi_alone" if dataset == "mpiigi" else "noxi_j_alone"
    assert preset in s.refused and table not in s.refused
    assert {key.split("/")[0] for run in s.table_runs(table) for key in run.train} == {dataset}


def test_the_challenges_order_of_test_sets_needs_their_labels(corpora):
    preset = ROOT / "presets/protocols/out_of_domain.yaml"
    over = {"tables": {"out_of_domain": {"challenge": "test"}}}
    s = Study(config(corpora[0], preset, **over))
    assert "none of noxi/test" in s.refused["out_of_domain"].problem


def test_the_job_graph_of_folds_from_another_run(corpora, tmp_path):
    """Snakemake's own dry run: every fold is trained and predicts, the table's rows are scored.

    Neither the files nor the sessions of a fold's normalisation and training hold the one left out.
    """
    runs = {
        "noxi": {"base": "egemaps_mlp", "evaluate": ["mpiigi/test"]},
        "x": {"base": "egemaps_mlp", "folds": FOLDS, "initial": "noxi"} | MPIIGI,
        "both": {"ensemble_of": ["x", "x2"]},
        "x2": {"base": "x", "initial": None},
    }
    over = config(
        corpora[0],
        runs=runs,
        results="results",
        defaults={"seeds": [1]},
        tables={"main": None, "few": {"on_request": True, "runs": ["x", "both"]}},
    )
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(over))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "-p", "--cores", "1", "--nocolor"]
        + ["-s", str(ROOT / "Snakefile"), "--configfile", "own.yaml", "--directory", str(tmp_path)]
        + ["results/tables/few/ccc.csv"],
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
        env={k: v for k, v in os.environ.items() if k != "SNAKEMAKE_PROFILE"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    graph, _, counts = done.stdout.rpartition("Job stats:")
    jobs = dict(line.split() for line in counts.splitlines() if len(line.split()) == 2)
    expected = {"train": 13, "statistics": 13, "predict": 12, "combine": 3, "score": 2, "table": 1}
    assert {rule: int(jobs.get(rule, 0)) for rule in expected} == expected
    val, checked = {"008", "009", "010", "026", "027", "028"}, set()
    for job in graph.split("\n\n"):
        what = re.search(r"python -m training\.(statistics|train) .*runs/(x2?)\.fold-(\d+)/", job)
        if what:
            stage, run, out = what.groups()
            wanted = {f"mpiigi/{s}" for s in val - {out}}
            inputs = re.search(r"Input files updated by another job: (.*)", job)[1]
            assert set(re.findall(r"(?:aligned|labels)/(\w+/\w+)/", inputs)) == wanted
            assert set(re.findall(r" (\S+):subjectPos", what[0])) == wanted
            started = "runs/noxi/seed-1/model.safetensors" in inputs
            assert started == (run == "x" and stage == "train")
            checked.add(what.groups())
    assert len(checked) == 2 * 2 * 6
