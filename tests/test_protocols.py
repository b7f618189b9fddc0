"""Sets of sessions, folds, runs that start from another, ensembles: what the config makes of them."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest
import yaml

from corpora.sheet import write_sheet
from corpora.synthetic_sheet import make_files, participants
from runtime import InputError
from workflow.config import ROOT, load_config, merge
from workflow.plan import member_lines, run_sizes
from workflow.study import Study

LANGUAGES = ("German", "French", "English")
RANDOM = {"random": 0, "directory": None, "repository": None, "revision": None}
FOLDS = {"of": "mpiigi/val", "by": "session"}
MPIIGI = {"train": ["mpiigi/val"], "evaluate": ["mpiigi/val", "mpiigi/test"]}
PROTOCOLS = sorted((ROOT / "presets/protocols").glob("*.yaml"))


def spoken(person) -> str:
    return LANGUAGES[int(person.session) % 3] if person.dataset == "noxi" else ""


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """The official sessions, everybody with empty media, NoXi with languages."""
    root = tmp_path_factory.mktemp("corpora")
    rows = [dataclasses.replace(p, language=spoken(p)) for p in participants()]
    rows = [dataclasses.replace(p, labels="" if p.split == "test" else p.labels) for p in rows]
    make_files(rows, root)
    (root / "sessions.tsv").write_text(write_sheet(rows))
    return root, rows


def config(root, *presets, **over) -> dict:
    base = {
        "sessions": str(root / "sessions.tsv"),
        "media_root": str(root),
        "demo": None,
        "features": {f: {"weights": RANDOM} for f in ("wav2vec2", "clip_face")},
    }
    return merge(merge(load_config(presets), base), over)


def study(corpora, runs, sets=None, rows=("x",), **over) -> Study:
    return Study(
        config(
            corpora[0],
            runs=runs,
            sets=sets or {},
            tables={"main": {"runs": list(rows)}},
            **over,
        )
    )


def refused(corpora, runs, sets=None, **over) -> InputError:
    with pytest.raises(InputError) as e:
        study(corpora, runs, sets, **over)
    assert e.value.cure
    return e.value


def sessions(found) -> list[str]:
    return [session for _, session in found]


# ---- sets ----


def test_sets_select_sessions_of_other_sets(corpora):
    sets = {
        "noxi/labelled": {"of": ["noxi/train", "noxi/val"]},
        "noxi/french": {"of": "noxi/labelled", "language": "french"},
        "noxi/paris": {"of": "noxi/labelled", "sessions": ["001..025"]},
        "noxi/rest": {"of": "noxi/labelled", "except": ["001..025", "077"]},
        "noxi/two": {"of": "noxi/train", "sessions": ["003", "013"]},
    }
    s = study(corpora, {"x": {}}, sets)
    everybody = sessions(s.sessions(["noxi/train", "noxi/val"]))
    assert len(everybody) == 48 and sessions(s.sets.keys("noxi/labelled")) == everybody
    assert sessions(s.sets.keys("noxi/french")) == [n for n in everybody if int(n) % 3 == 1]
    assert sessions(s.sets.keys("noxi/paris")) == [n for n in everybody if int(n) <= 25]
    rest = [n for n in everybody if int(n) > 25 and n != "077"]
    assert sessions(s.sets.keys("noxi/rest")) == rest
    assert sessions(s.sets.keys("noxi/two")) == ["003", "013"]


def test_selected_sets_have_columns_and_scores_of_their_own(corpora):
    sets = {"noxi/some": {"of": "noxi/val", "sessions": ["007", "009"]}}
    run = {"train": ["noxi/train"], "evaluate": ["noxi/val", "noxi/some"]}
    s = study(corpora, {"x": run}, sets)
    assert s.columns(s.tables["main"]) == ["noxi/val", "noxi/some"]
    specs = s.labelled_specs(s.evaluated(s.runs["x"], "noxi"))
    assert [t for t in specs if "/007:" in t] == [
        "noxi/007:expert,novice@val",
        "noxi/007:expert,novice@some",
    ]
    assert sum(t.endswith("@some") for t in specs) == 2
    assert len(s.labelled_specs(["noxi/val", "noxi/some"], by_split=True)) == 10


@pytest.mark.parametrize(
    ("selection", "problem", "cure"),
    [
        ({"of": "noxi/trian"}, "noxi/trian is no set", "did you mean 'noxi/train'"),
        ({"of": "noxi/val", "sessions": ["07"]}, "there is no session 07", "'007'"),
        ({"of": "noxi/val", "sessions": [7]}, "7 is a number to YAML", '"007"'),
        # [009, 011] unquoted: YAML 1.1 reads the text 009 and the octal number 9.
        ({"of": "noxi/val", "sessions": ["009", 9]}, "9 is a number", '"009" or "011"'),
        ({"of": "noxi/val", "language": "Frensh"}, "no session speaks Frensh", "'French'"),
        ({"of": "mpiigi/val", "language": "German"}, "has sessions of mpiigi", "declare one"),
        ({"of": "noxi/val", "except": ["000..999"]}, "selects no session", "loosen"),
        ({"of": "noxi/x"}, "leads back to itself", "splits"),
    ],
)
def test_wrong_sets_are_refused(corpora, selection, problem, cure):
    error = refused(corpora, {"x": {"evaluate": ["noxi/x"]}}, {"noxi/x": selection})
    assert problem in error.problem and cure in error.cure


def test_unquoted_numbers_that_mean_one_thing_are_sessions(corpora):
    s = study(corpora, {"x": {}}, {"noxi-j/y": {"of": "noxi-j/train", "sessions": [101, 135]}})
    assert sessions(s.sets.keys("noxi-j/y")) == ["101", "135"]


def test_unknown_set_of_a_run_names_run_and_key(corpora):
    sets = {"noxi/french": {"of": "noxi/val", "language": "French"}}
    error = refused(corpora, {"x": {"evaluate": ["noxi/frnech"]}}, sets)
    assert "noxi/frnech is no set (`evaluate` of run x)" in error.problem
    assert "did you mean 'noxi/french'" in error.cure


def test_a_language_is_not_guessed(corpora):
    sets = {"mpiigi/german": {"of": "mpiigi/val", "language": "German"}}
    error = refused(corpora, {"x": {"evaluate": ["mpiigi/german"]}}, sets)
    assert "mpiigi/008 has no language" in error.problem


# ---- leaks ----


def test_a_session_in_train_and_evaluate_is_refused(corpora):
    sets = {"noxi/some": {"of": ["noxi/train", "noxi/val"], "sessions": ["013", "007"]}}
    error = refused(corpora, {"x": {"evaluate": ["noxi/some"]}}, sets)
    assert "run x trains on session noxi/013 (noxi/train) and names it in `evaluate`" in str(error)
    selected = {"training": {"selection": "best_val"}, "validate": ["noxi/some"]}
    run = {"evaluate": ["noxi/test"]} | selected
    assert "noxi/013" in refused(corpora, {"x": run}, sets).problem
    run["training"] = {"selection": "last"}  # `validate` is not read
    study(corpora, {"x": run}, sets)


def test_a_session_of_the_run_it_starts_from_is_refused(corpora):
    start = {"train": ["mpiigi/val"], "evaluate": ["mpiigi/test"]}
    run = {"train": ["noxi/train"], "evaluate": ["mpiigi/val"], "initial": "start"}
    error = refused(corpora, {"start": start, "x": run})
    assert "run x trains on session mpiigi/008" in error.problem


def changed(corpora, tmp_path, **columns) -> str:
    """A sheet with other cells: column={(dataset, session, role): value}."""
    rows = [
        dataclasses.replace(
            p,
            **{
                column: cells[key]
                for column, cells in columns.items()
                if (key := (p.dataset, p.session, p.role)) in cells
            },
        )
        for p in corpora[1]
    ]
    path = tmp_path / "sessions.tsv"
    path.write_text(write_sheet(rows))
    return str(path)


def test_a_person_in_train_and_evaluate_is_refused(corpora, tmp_path):
    """Also where the name is spelled in another way; not where the person is excluded there."""
    who = {("noxi", "001", "novice"): "P 7", ("noxi-add", "015", "expert"): "p  7"}
    sheet = changed(corpora, tmp_path, identity=who)
    run = {"evaluate": ["noxi-add/test", "noxi/val"]}
    error = refused(corpora, {"x": run}, sessions=sheet)
    assert "trains on P 7 in session noxi/001, who is in session noxi-add/015" in error.problem
    study(corpora, {"x": {"evaluate": ["noxi/val"]}}, sessions=sheet)
    out = {("noxi-add", "015", "expert"): True}, {("noxi-add", "015", "expert"): "twice"}
    sheet = changed(corpora, tmp_path, identity=who, exclude=out[0], exclude_reason=out[1])
    study(corpora, {"x": run}, sessions=sheet)


def test_one_recording_in_two_sessions_is_refused(corpora, tmp_path):
    copy = {("noxi-add", "015", "expert"): "noxi/train/001/../001/novice.video.mp4"}
    sheet = changed(corpora, tmp_path, video=copy)
    error = refused(corpora, {"x": {"evaluate": ["noxi-add/test"]}}, sessions=sheet)
    assert "trains on session noxi/001 and names noxi-add/015 in `evaluate`" in error.problem
    assert "both are" in error.problem and "001/novice.video.mp4" in error.problem


def test_folds_keep_the_sessions_of_a_person_together(corpora, tmp_path):
    """008 - 026 - 028 by two people: one fold of three; by session it is a leak."""
    who = {("mpiigi", "008", "subjectPos1"): "A", ("mpiigi", "026", "subjectPos3"): "a"}
    who |= {("mpiigi", "026", "subjectPos2"): "B", ("mpiigi", "028", "subjectPos2"): "B"}
    sheet = changed(corpora, tmp_path, identity=who)
    s = study(corpora, {"x": MPIIGI | {"folds": FOLDS | {"by": 3}}}, sessions=sheet)
    held = [sessions(s.declared.held_out(s.runs[m])) for m in s.runs["x"].members]
    assert sorted(held) == [["008", "026", "028"], ["009", "027"], ["010"]]
    error = refused(corpora, {"x": MPIIGI | {"folds": FOLDS}}, sessions=sheet)
    assert "x.fold-008 trains on a in session mpiigi/026" in error.problem
    error = refused(corpora, {"x": MPIIGI | {"folds": FOLDS | {"by": 5}}}, sessions=sheet)
    assert "5 folds" in error.problem and "4 groups" in error.problem


BEST = {"training": {"selection": "best_val"}}


def test_a_checkpoint_selected_by_a_test_session_is_refused(corpora):
    """On the run itself, the run it starts from and a run that takes its weights."""
    x = BEST | {"validate": ["noxi/test"], "evaluate": ["noxi/test"]}
    error = refused(corpora, {"x": x})
    assert "selects its checkpoint by test session noxi/002" in error.problem
    start = BEST | {"validate": ["noxi/test"], "evaluate": ["mpiigi/val"]}
    for x in ({"weights_of": "s"}, {"initial": "s", "train": ["noxi/val"], "validate": []}):
        error = refused(corpora, {"s": start, "x": x | {"evaluate": ["noxi/test"]}})
        assert "run x selects its checkpoint by test session" in error.problem
    study(corpora, {"x": start})


def test_a_set_of_val_and_test_sessions_is_no_column(corpora):
    sets = {"noxi/all": {"of": ["noxi/val", "noxi/test"]}}
    error = refused(corpora, {"x": {"evaluate": ["noxi/all"]}}, sets)
    assert "has test session noxi/" in error.problem and "val session noxi/" in error.problem
    own = {"train": ["noxi/all"], "evaluate": ["noxi/all"]}
    folded = own | {"folds": {"of": "noxi/all", "by": "session"}}  # each fold holds one split only
    assert "run x evaluates noxi/all" in refused(corpora, {"x": folded}, sets).problem
    study(corpora, {"x": own | {"evaluate": ["mpiigi/val"]}}, sets)


def test_only_columns_with_selecting_sessions_are_marked(corpora):
    """Sets are compared by sessions, and the run that one starts from counts."""
    sets = {"noxi/two": {"of": "noxi/val", "sessions": ["007", "009"]}}
    start = BEST | {"validate": ["noxi/two"], "evaluate": ["noxi/val", "mpiigi/val"]}
    evaluate = {"evaluate": ["mpiigi/val", "noxi/two", "noxi/val"], "validate": []}
    runs = {"start": start, "x": {"initial": "start"} | evaluate, "y": evaluate}
    s = study(corpora, runs, sets, rows=("start", "x", "y"))
    words = s.table_options("main").split("--selection ")[1].split(" --")[0]
    marked = "noxi/val,noxi/two"
    assert words == f"start=best_val:{marked} x=best_val:{marked}"


# ---- folds ----


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
        what = re.search(r"python -m model\.(statistics|train) .*runs/(x2?)\.fold-(\d+)/", job)
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
