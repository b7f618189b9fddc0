"""Config and sheet checked against each other; command-line names of sessions."""

from types import SimpleNamespace

import pytest

from runtime import InputError
from workflow import stages
from workflow.config import load_config, merge
from workflow.options import options
from workflow.study import Study

ROWS = [
    ("noxi", "train", "001", "expert", "yes"),
    ("noxi", "train", "001", "novice", "yes"),
    ("noxi", "val", "007", "expert", "yes"),
    ("noxi", "val", "007", "novice", ""),
    ("mpiigi", "test", "001", "subjectPos1", ""),
    ("mpiigi", "test", "001", "subjectPos2", "yes"),
]


@pytest.fixture
def sheet(tmp_path):
    lines = ["dataset\tsplit\tsession\trole\tvideo\taudio\tlabels\texclude\texclude_reason"]
    for dataset, split, session, role, labelled in ROWS:
        stem = f"{dataset}/{session}/{role}"
        labels = f"{stem}.csv" if labelled else ""
        lines.append(f"{dataset}\t{split}\t{session}\t{role}\t{stem}.mp4\t\t{labels}\t\t")
        for name in filter(None, (f"{stem}.mp4", labels)):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
    path = tmp_path / "sessions.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


TABLE_OF_X = {"main": {"runs": ["da_mamba", "x"]}}


def study(sheet, **over) -> Study:
    base = {
        "sessions": str(sheet),
        "media_root": None,
        "demo": None,
        "defaults": {"evaluate": ["noxi/val", "mpiigi/test", "noxi/test"]},
    }
    return Study(merge(merge(load_config(), base), over))


def test_table_in_the_challenges_order(sheet):
    s = study(sheet, tables={"main": {"challenge": "test"}})
    assert "--challenge=test" in s.table_options("main")
    assert "--challenge" not in study(sheet).table_options("main")
    over = {"tables": {"main": {"challenge": "test"}}, "defaults": {"evaluate": ["noxi/val"]}}
    with pytest.raises(InputError, match="challenge: test, but the table has none of noxi/test"):
        study(sheet, **over)


def test_specs_and_sets(sheet):
    s = study(sheet)
    assert list(s.sets.splits) == ["noxi/train", "noxi/val", "mpiigi/test"]
    assert s.sessions(["noxi/train"]) == [("noxi", "001")]
    assert s.spec(("noxi", "001")) == "noxi/001:expert,novice@train"
    assert s.labelled_specs(["noxi/val", "mpiigi/test"]) == [
        "noxi/007:expert@val",
        "mpiigi/001:subjectPos2@test",
    ]
    assert s.runs["da_mamba"].evaluate == ("noxi/val", "mpiigi/test")  # noxi/test has no session
    assert s.columns(s.tables["main"]) == ["noxi/val", "mpiigi/test"]


def test_excluded_people_leave_every_stage_and_are_counted(sheet):
    text = sheet.read_text().splitlines()
    text[4] += "yes\tcamera fell"
    text[4] = text[4].replace("\t\tyes", "\tyes")
    sheet.write_text("\n".join(text) + "\n")
    s = study(sheet)
    assert s.spec(("noxi", "007")) == "noxi/007:expert@val"
    assert s.excluded_counts("noxi") == ["val=1"]
    assert not any("007/novice" in path for path in s.aligned(s.by_session, s.features))


@pytest.mark.parametrize(
    ("over", "problem"),
    [
        (
            {"defaults": {"train": ["noxi/test"]}},
            "trains on noxi/test, which the sheet does not have",
        ),
        ({"defaults": {"evaluate": ["noxi/train"]}}, "trained and evaluated on noxi/train"),
        ({"defaults": {"features": ["egemaps_lld"]}}, "egemaps_lld, which is not enabled"),
        ({"tables": {"main": {"runs": ["da_mambo"]}}}, "da_mambo, which is no run"),
        ({"runs": {"constant": {"base": "da_mambo"}}}, "base names da_mambo, which is no run"),
        (
            {"runs": {"constant": {"base": "egemaps_mlp"}, "egemaps_mlp": {"base": "constant"}}},
            "leads back to",
        ),
        (
            {"runs": {"constant": {"weights_of": "da_mamba"}}},
            "takes the weights of da_mamba, but has other features",
        ),
        (
            {"runs": {"da_mamba_no_partner": {"weights_of": "da_mamba"}}},
            "takes the weights of da_mamba, but has other model",
        ),
        (
            {"runs": {"x": {"weights_of": "da_mamba", "seeds": [1, 9]}}, "tables": TABLE_OF_X},
            "not trained with seed 9",
        ),
        (
            {"runs": {"x": {"weights_of": "x"}}, "tables": TABLE_OF_X},
            "does not say plainly whose weights",
        ),
        (
            {"runs": {"da_mamba": {"prediction": {"merg": "mean"}}}},
            "run da_mamba: unknown key prediction.merg",
        ),
        (
            {"runs": {"da_mamba": {"prediction": {"absent_rate": 0.81}}}},
            "prediction.absent_rate is 0.81, but one of 5 streams must stay",
        ),
        (
            {
                "runs": {
                    "da_mamba": {"model": {"mixer": "bimamba"}, "prediction": {"mode": "carry"}}
                }
            },
            "run da_mamba: modes carry and stream are causal, model.mixer bimamba is not",
        ),
        (
            {"runs": {"da_mamba": {"model": {"mixr": "mamba"}}}},
            "run da_mamba: unknown key model.mixr",
        ),
        ({"features": {"clip_face": {"weights": {"repository": "a/b"}}}}, "repository and random"),
        (
            {"features": {"clip_face": {"weights": {"random": None, "directory": "nowhere"}}}},
            "holds no .safetensors",
        ),
        (
            {
                "defaults": {"validate": ["noxi/test"]},
                "runs": {"da_mamba": {"training": {"selection": "best_val"}}},
            },
            "best_val",
        ),
    ],
)
def test_what_does_not_fit_is_said(sheet, over, problem):
    with pytest.raises(InputError) as e:
        study(sheet, **over)
    assert problem in e.value.problem
    assert e.value.cure


def test_training_fingerprint_names_settings_and_sessions(sheet):
    s = study(sheet)
    text = s.training_fingerprint("da_mamba")
    assert text.startswith("stage=training.train version=")
    assert "train=[noxi/001:expert,novice@train]" in text
    assert "model.name=da_mamba" in text
    assert text != study(sheet, defaults={"training": {"epochs": 3}}).training_fingerprint(
        "da_mamba"
    )


def test_only_numbers_reach_an_extractor(sheet):
    s = study(sheet)
    assert options(s.feature_settings("wav2vec2")) == (
        "--chunk-s=30.0 --context-s=1.0 --dtype=float16 --layer=-1 --precision=fp32"
    )
    assert s.participant(SimpleNamespace(dataset="noxi", session="001", role="expert")).labels


def test_cures_name_the_nearest_key_and_run(sheet):
    with pytest.raises(InputError) as e:
        study(sheet, runs={"da_mamba": {"prediction": {"merg": "mean"}}})
    assert "did you mean 'merge'" in e.value.cure
    with pytest.raises(InputError) as e:
        study(sheet, tables={"main": {"runs": ["da_mambo"]}})
    assert "did you mean da_mamba?" in e.value.cure


def test_base_lies_between_defaults_and_the_run(sheet):
    runs = {
        "a": {"model": {"dropout": 0.3, "d": 32}, "training": {"epochs": 3}, "seeds": [5]},
        "b": {"base": "a", "model": {"d": 16}, "features": ["egemaps", "flow"]},
    }
    defaults = {"evaluate": ["noxi/val"], "training": {"batch": 8}}
    s = study(sheet, runs=runs, defaults=defaults, tables={"main": {"runs": ["b"]}})
    b = s.runs["b"]
    assert (b.settings["model"]["dropout"], b.settings["model"]["d"]) == (0.3, 16)
    assert (b.settings["training"]["epochs"], b.settings["training"]["batch"]) == (3, 8)
    assert b.seeds == (5,) and b.features == ("egemaps", "flow")
    assert b.weights == "b" and "a" not in s.runs  # nobody asks for a


def test_runs_with_the_weights_of_another(sheet):
    runs = {"x": {"weights_of": "da_mamba", "prediction": {"absent_rate": 0.25}, "seeds": [2]}}
    s = study(sheet, runs=runs, tables=TABLE_OF_X)
    x, trained = s.runs["x"], s.runs["da_mamba"]
    assert (x.settings, x.features, x.evaluate) == (
        trained.settings,
        trained.features,
        trained.evaluate,
    )
    assert s.checkpoint("x", 2) == "results/runs/da_mamba/seed-2/model.safetensors"
    assert s.prediction_settings("x") == s.prediction_settings("da_mamba") | {
        "run": "x",
        "absent_rate": 0.25,
    }
    assert s.training_figures([x, trained]) == ["results/curves/da_mamba/training.png"]


def test_tables_on_request_stand_apart(sheet):
    tables = {
        "fine": {"on_request": True, "runs": ["da_mamba", "x"], "figures": ["similarity"]},
        "unfit": {"on_request": True, "runs": ["da_mamba", "y"]},
    }
    runs = {
        "x": {"features": ["egemaps"], "model": {"name": "mlp"}},
        "y": {"features": ["egemaps_lld"]},
        "z": {"base": "template"},
        "template": {},
    }
    s = study(sheet, runs=runs, tables=tables)
    assert s.tables_of_all == ["main"] and {"fine", "unfit"} <= set(s.on_request)
    assert [r.name for r in s.runs_of_all()] == [
        "da_mamba",
        "da_mamba_no_partner",
        "egemaps_mlp",
        "constant",
    ]
    assert s.unused_runs == ["z"]
    kinds = [f"results/tables/fine/ccc.{kind}" for kind in ("csv", "md", "tex")]
    assert s.table_files("fine") == [*kinds, "results/curves/da_mamba/similarity.png"]
    with pytest.raises(InputError, match="run y reads the feature egemaps_lld"):
        s.table_files("unfit")
    s.results = str(sheet.parent)
    assert s.tables_made({"fine"}) == ["fine"] and s.tables_made({"all"}) == []
    (sheet.parent / "tables/main").mkdir(parents=True)
    (sheet.parent / "tables/main/ccc.csv").write_text("")
    assert s.tables_made({"fine"}) == ["fine"] and s.tables_made({"all"}) == ["main"]


def test_training_fingerprint_holds_the_version_of_its_own_network(sheet, monkeypatch):
    s = study(sheet)
    assert "train=" in s.training_fingerprint("constant")
    before = {run: s.training_fingerprint(run) for run in ("da_mamba", "egemaps_mlp", "constant")}
    raised = dict(stages.read_stages()) | {"model.mlp": stages.Stage(99)}
    monkeypatch.setattr(stages, "read_stages", lambda: raised)
    after = {run: s.training_fingerprint(run) for run in before}
    assert "architecture=99" in after.pop("egemaps_mlp").split()
    assert all(after[run] == before[run] for run in after)


@pytest.mark.parametrize(
    "over, words",
    [
        ({"demo": {"seed": 1, "seconds": 20}}, "the demo corpus is generated"),
        ({"labels": {"proxies": True}}, "the labels are proxies"),
    ],
)
def test_published_rows_never_stand_beside_generated_data_or_proxies(sheet, over, words):
    reported = {"tables": {"main": {"reported": True}}}
    assert study(sheet, **reported).reported("main")
    with pytest.raises(InputError, match=f"tables.main.reported is true, but {words}"):
        study(sheet, **reported, **over)
    study(sheet, **over)
