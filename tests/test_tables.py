"""The results table: numbers, intervals, footnotes, escaping, reported rows."""

import csv
import io
import re

import numpy as np
import pytest
import yaml
from evaluation_data import write_scores

from evaluation import tables
from evaluation.render import csv_text, escape_latex, escape_markdown, to_terminal
from runtime import InputError

COLUMNS = ["noxi/val", "noxi/test", "noxi-add/test", "mpiigi/val", "mpiigi/test"]
DATASETS = {"noxi": ("val", "test"), "noxi-add": ("test",), "mpiigi": ("val", "test")}


def concordance(x, y):
    return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def make_frames(run, seed, dataset, split, n_sessions=6):
    """{session: {role: (truth, prediction)}}: the truth depends on the set alone."""
    truth_rng = np.random.default_rng([len(dataset), len(split)])
    noise_rng = np.random.default_rng([len(run), seed, len(dataset), len(split)])
    gain = {"good": 0.9, "weak": 0.4}.get(run, 0.0)
    frames = {}
    for k in range(n_sessions):
        frames[f"{k:03d}"] = {}
        for role in ("a", "b"):
            truth = truth_rng.random() + truth_rng.random(60)
            prediction = 0.8 + gain * (truth - 0.8) + 0.1 * gain * noise_rng.random(60)
            frames[f"{k:03d}"][role] = (truth, prediction)
    return frames


def write_run(folder, run, seeds=(1, 2, 3), datasets=DATASETS, n_sessions=6, excluded=1):
    return [
        write_scores(
            folder / run / f"seed-{seed}" / f"{dataset}.json",
            run,
            seed,
            dataset,
            {s: make_frames(run, seed, dataset, s, n_sessions) for s in splits},
            excluded,
        )
        for seed in seeds
        for dataset, splits in datasets.items()
    ]


def pooled(run, seed, column):
    dataset, split = column.rsplit("/", 1)
    pairs = [p for roles in make_frames(run, seed, dataset, split).values() for p in roles.values()]
    x, y = (np.concatenate([p[i] for p in pairs]) for i in (0, 1))
    return concordance(x, y)


def read_csv(folder, name="ccc.csv"):
    return list(csv.DictReader(io.StringIO((folder / name).read_text(encoding="utf-8"))))


@pytest.fixture
def scored(tmp_path):
    return write_run(tmp_path / "s", "good") + write_run(tmp_path / "s", "weak")


def test_numbers(tmp_path, scored):
    out = tmp_path / "out"
    tables.make_tables(scored, out, ["weak", "good"], COLUMNS)
    rows = read_csv(out)
    assert list(rows[0])[0] == "run" and [r["run"] for r in rows] == ["weak", "good"]
    for row in rows:
        for column in COLUMNS:
            values = [pooled(row["run"], s, column) for s in (1, 2, 3)]
            assert float(row[column]) == pytest.approx(np.mean(values), abs=1e-6)
            assert float(row[f"{column} std"]) == pytest.approx(np.std(values, ddof=1), abs=1e-6)
            assert float(row[f"{column} low"]) < float(row[f"{column} high"])
            assert [row[f"{column} n_{k}"] for k in ("seeds", "sessions", "excluded")] == list(
                "361"
            )
        for name, parts in (
            ("Combined", [c for c in COLUMNS if c.endswith("test")]),
            ("Combined val", [c for c in COLUMNS if c.endswith("val")]),
        ):
            per_seed = [np.mean([pooled(row["run"], s, c) for c in parts]) for s in (1, 2, 3)]
            assert float(row[name]) == pytest.approx(np.mean(per_seed), abs=1e-6)
            assert float(row[f"{name} std"]) == pytest.approx(np.std(per_seed, ddof=1), abs=1e-6)
            assert row[f"{name} n_sessions"] == str(6 * len(parts))


def test_interval_against_resampled_frames(tmp_path, scored):
    """The interval from moments = that of an explicit bootstrap over concatenated frames."""
    out = tmp_path / "out"
    tables.make_tables(scored, out, ["weak"], ["noxi/test"], resamples=20_000)
    rng = np.random.default_rng(0)
    draws = []
    seeds = [make_frames("weak", s, "noxi", "test") for s in (1, 2, 3)]
    for _ in range(6000):
        names = [f"{k:03d}" for k in rng.integers(0, 6, 6)]
        value = 0.0
        for frames in seeds:
            pairs = [p for name in names for p in frames[name].values()]
            value += concordance(*(np.concatenate([p[i] for p in pairs]) for i in (0, 1))) / 3
        draws.append(value)
    row = read_csv(out)[0]
    # Of 6 sessions the quantiles lie sqrt(6 / 5) t(5) = 2.8159 standard deviations out.
    low, high = np.quantile(draws, [0.0024319, 1 - 0.0024319])
    spread = high - low
    assert float(row["noxi/test low"]) == pytest.approx(low, abs=0.1 * spread)
    assert float(row["noxi/test high"]) == pytest.approx(high, abs=0.1 * spread)


def test_markdown_and_latex(tmp_path, scored):
    out = tmp_path / "out"
    tables.make_tables(scored, out, ["good", "weak"], COLUMNS, notes=["small random checkpoints"])
    text = (out / "ccc.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert lines[0].startswith("| run ") and "noxi/test<br>6 sessions, 1 excluded" in lines[0]
    cells = [c.strip() for c in lines[2].strip("|").split("|")]
    assert cells[0] == "good"
    for cell in cells[1:]:
        assert re.fullmatch(r"\d\.\d\d ± \d\.\d\d \\\[\d\.\d\d, \d\.\d\d\]", cell), cell
    assert "- small random checkpoints" in text and "Combined: mean of noxi/test" in text
    tex = (out / "ccc.tex").read_text(encoding="utf-8")
    body = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert len(body) == 4 and {line.count(" & ") for line in body} == {7}
    assert r"$\pm$" in tex and "±" not in tex and tex.isascii()


def test_every_line_of_notes_is_a_footnote(tmp_path, scored):
    arguments = ["--scores", *map(str, scored), "--out-dir", str(tmp_path), "--note=one\n\ntwo ≥ 2"]
    assert tables.main([*arguments, "--log", str(tmp_path / "log.txt")]) == 0
    text = (tmp_path / "ccc.md").read_text(encoding="utf-8")
    assert "\n- one\n- two ≥ 2\n" in text
    assert read_csv(tmp_path)[0]["notes"] == "one | two ≥ 2"
    assert "xelatex" in (tmp_path / "ccc.tex").read_text(encoding="utf-8").splitlines()[1]


def test_single_seed_has_no_std_and_single_session_no_interval(tmp_path):
    paths = write_run(tmp_path, "good", seeds=(7,), datasets={"noxi": ("test",)}, n_sessions=1)
    tables.make_tables(paths, tmp_path / "out")
    row = read_csv(tmp_path / "out")[0]
    assert float(row["noxi/test"]) > 0
    assert row["noxi/test std"] == row["noxi/test low"] == row["noxi/test high"] == ""
    assert row["Combined std"] == row["Combined low"] == ""
    text = (tmp_path / "out" / "ccc.md").read_text(encoding="utf-8")
    assert "±" not in [x for x in text.splitlines() if x.startswith("| good")][0]
    assert "noxi/test: 1 session, so no interval (it needs 5)." in text
    assert "Combined: no interval, as noxi/test has none." in text


def test_four_sessions_have_no_interval_and_five_have_one(tmp_path):
    for n in (4, 5):
        paths = write_run(tmp_path / str(n), "good", datasets={"noxi": ("test",)}, n_sessions=n)
        tables.make_tables(paths, tmp_path / "out")
        row = read_csv(tmp_path / "out")[0]
        assert bool(row["noxi/test low"]) == bool(row["Combined high"]) == (n == 5)
        text = (tmp_path / "out/ccc.md").read_text(encoding="utf-8")
        assert ("4 sessions, so no interval" in text) == (n == 4)


def test_constant_run_is_zero_not_empty(tmp_path):
    paths = write_run(tmp_path, "constant")
    tables.make_tables(paths, tmp_path / "out", columns=["noxi/test"])
    row = read_csv(tmp_path / "out")[0]
    assert [float(row[f"noxi/test{k}"]) for k in ("", " std", " low", " high")] == [0] * 4
    metrics = read_csv(tmp_path / "out", "metrics.csv")[0]
    assert metrics["pearson"] == "" and float(metrics["sd_ratio"]) == 0


def test_unlabelled_test_sets_leave_combined_to_val(tmp_path):
    """Where no test set has labels, Combined says it is the mean of val; never a mixture."""
    paths = write_run(tmp_path, "good", datasets={"noxi": ("val",), "mpiigi": ("val",)})
    empty = {"test": {}}
    paths += [
        write_scores(tmp_path / f"t{s}.json", "good", s, "noxi-add", empty) for s in (1, 2, 3)
    ]
    columns = ["noxi/val", "mpiigi/val", "noxi-add/test"]
    tables.make_tables(paths, tmp_path / "out", columns=columns)
    row = read_csv(tmp_path / "out")[0]
    assert row["noxi-add/test"] == "" and "Combined val" not in row
    expected = np.mean([pooled("good", s, c) for s in (1, 2, 3) for c in columns[:2]])
    assert float(row["Combined"]) == pytest.approx(expected, abs=1e-6)
    text = (tmp_path / "out" / "ccc.md").read_text(encoding="utf-8")
    assert "noxi-add/test: no labels" in text and "Combined: mean of noxi/val, mpiigi/val" in text


def test_a_run_that_lacks_a_dataset_has_no_combined(tmp_path, scored):
    part = write_run(tmp_path / "p", "half", datasets={"noxi": ("test",)})
    tables.make_tables(scored + part, tmp_path / "out", ["good", "half"], COLUMNS)
    row = read_csv(tmp_path / "out")[1]
    assert row["noxi/test"] and not row["mpiigi/test"] and not row["Combined"]


def test_val_used_for_selection_is_footnoted(tmp_path, scored):
    out = tmp_path / "out"
    options = ["good=best_val:noxi/val", "weak=last"]
    tables.make_tables(scored, out, ["good", "weak"], COLUMNS, selection=options)
    text = (out / "ccc.md").read_text(encoding="utf-8")
    marked = {
        (line.split("|")[1].strip(), i)
        for line in text.splitlines()
        if line.startswith("|")
        for i, cell in enumerate(line.strip("|").split("|"))
        if "†" in cell
    }
    # noxi/val is column 1; the mean over val sets (column 7) inherits the mark.
    assert marked == {("good", 1), ("good", 7)}
    assert "† The checkpoint was selected on sessions of this set (good)" in text
    assert r"$^\dagger$" in (out / "ccc.tex").read_text()
    rows = read_csv(out)
    assert "checkpoint selected on noxi/val" in rows[0]["notes"] and not rows[1]["notes"]
    tables.make_tables(scored, out, ["weak"], COLUMNS, selection=options)
    assert "†" not in (out / "ccc.md").read_text(encoding="utf-8")


def test_published_numbers_only_in_reported_rows(tmp_path, scored):
    out = tmp_path / "out"
    tables.make_tables(scored, out, ["good"], COLUMNS, reported=tables.REPORTED_FILE)
    rows = read_csv(out)
    assert [r["kind"] for r in rows] == ["computed"] + ["reported"] * (len(rows) - 1)
    assert all(r["run"].endswith(" (reported)") for r in rows[1:])
    dat = next(r for r in rows if r["run"] == "DAT (reported)")
    assert (dat["noxi/test"], dat["Combined"], dat["noxi/val"]) == ("0.76", "0.64", "")
    assert "MSA-LMC/DAT" in dat["notes"]
    # Without MPIIGI the published mean is over other sets than this table's Combined.
    tables.make_tables(scored, out, ["good"], ["noxi/test"], reported=tables.REPORTED_FILE)
    dat = next(r for r in read_csv(out) if r["run"] == "DAT (reported)")
    assert (dat["noxi/test"], dat["Combined"]) == ("0.76", "")
    tables.make_tables(scored, out, ["good"], COLUMNS)
    assert [r["kind"] for r in read_csv(out)] == ["computed"]


def test_published_rows_say_which_system_and_where_sources_disagree(tmp_path, scored):
    """The numbers as they stand in the tables of CEAM's and DA-Mamba's READMEs."""
    out = tmp_path / "out"
    tables.make_tables(scored, out, ["good"], COLUMNS, reported=tables.REPORTED_FILE)
    rows = {r["run"].removesuffix(" (reported)"): r for r in read_csv(out)}
    sets = ("noxi/test", "noxi-add/test", "mpiigi/test", "Combined")
    for run, numbers in (
        ("YLYJ", "0.60 0.52 0.30 0.47"),
        ("nox", "0.68 0.70 0.31 0.56"),
        ("SP-team", "0.68 0.65 0.34 0.56"),
        ("YKK", "0.68 0.66 0.40 0.58"),
        ("Xpace", "0.70 0.70 0.34 0.58"),
        ("ashk", "0.72 0.69 0.42 0.61"),
        ("Kumar et al.", "0.72 0.69 0.50 0.64"),
        ("DA-Mamba without modality-group fusion", "0.75 0.66 0.48 0.63"),
        ("DA-Mamba without both fusions", "0.68 0.65 0.45 0.59"),
        ("DA-Mamba with Transformer for Mamba", "0.75 0.64 0.49 0.63"),
    ):
        assert [rows[run][c] for c in sets] == numbers.split(), run
    of_ceam = [(rows[r]["noxi/val"], rows[r]["noxi/test"]) for r in rows if r.endswith("CEAM")]
    assert of_ceam == [("0.821", "0.691"), ("0.835", "0.704")]
    text = (out / "ccc.md").read_text(encoding="utf-8")
    assert "YKK (reported): README of MSA-LMC/DAT gives 0.36 and 0.54" in text
    assert "0.66, 0.35 and 0.57" in rows["nox"]["notes"]


def test_the_file_of_published_rows():
    """Published means are the means of the published parts, up to their rounding."""
    record = yaml.safe_load(tables.REPORTED_FILE.read_text(encoding="utf-8"))
    found = 0
    for row in record["rows"]:
        for name, value in row.get("combined", {}).items():
            parts = [float(row["values"][c]) for c in record["means"][name]]
            digits = len(value.partition(".")[2])
            assert abs(np.mean(parts) - float(value)) <= 0.51 * 10**-digits, row
            found += 1
    assert found > 8
    assert len({r["run"] for r in record["rows"]}) == len(record["rows"])


def test_names_are_escaped(tmp_path):
    name = 'a|b_c & "50%", x_'
    paths = write_run(tmp_path, "good", datasets={"noxi": ("test",)})
    for path in paths:
        path.write_text(path.read_text().replace('"good"', '"a|b_c & \\"50%\\", x_"'))
    tables.make_tables(paths, tmp_path / "out")
    assert read_csv(tmp_path / "out")[0]["run"] == name
    text = (tmp_path / "out" / "ccc.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| a"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 4 and r"a\|b_c" in row
    tex = (tmp_path / "out" / "ccc.tex").read_text()
    assert r"b\_c \& " in tex and r"50\%" in tex
    assert escape_markdown("_x_ *y*\nz") == r"\_x\_ \*y\* z"
    assert escape_latex("\\{~^}") == r"\textbackslash{}\{\textasciitilde{}\textasciicircum{}\}"


def test_session_and_metric_files(tmp_path, scored):
    tables.make_tables(scored, tmp_path / "out", ["good"], ["noxi/test"])
    rows = read_csv(tmp_path / "out", "sessions.csv")
    assert len(rows) == 3 * 6 * 2
    truth, prediction = make_frames("good", 2, "noxi", "test")["003"]["b"]
    row = next(r for r in rows if (r["seed"], r["session"], r["role"]) == ("2", "003", "b"))
    assert float(row["ccc"]) == pytest.approx(concordance(truth, prediction), abs=1e-6)
    assert float(row["pearson"]) == pytest.approx(np.corrcoef(truth, prediction)[0, 1], abs=1e-6)
    assert float(row["mae"]) == pytest.approx(np.abs(truth - prediction).mean(), abs=1e-6)
    metrics = read_csv(tmp_path / "out", "metrics.csv")
    assert len(metrics) == 1 and metrics[0]["n_frames"] == "720"
    means = []
    for seed in (1, 2, 3):
        sessions = make_frames("good", seed, "noxi", "test").values()
        for roles in sessions:
            x, y = (np.concatenate([p[i] for p in roles.values()]) for i in (0, 1))
            means.append(concordance(x, y))
    assert float(metrics[0]["session_ccc"]) == pytest.approx(np.mean(means), abs=1e-6)


def test_show_prints_the_table(tmp_path, scored, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    out = tmp_path / "out"
    tables.make_tables(
        scored, out, ["good", "weak"], COLUMNS, tables.REPORTED_FILE, notes=["a caveat"]
    )
    assert tables.main(["show", str(out / "ccc.csv")]) == 0
    screen = capsys.readouterr().out
    lines = screen.splitlines()
    assert lines[0].split()[:2] == ["run", "noxi/val"] and "6 sessions, 1 excluded" in lines[1]
    assert re.search(r"^good .* 0\.\d\d ± 0\.\d\d \[0\.\d\d, ", lines[2])
    assert "  * a caveat (good, weak)" in lines and "DAT (reported)" in screen
    tables.main(["show", str(out / "metrics.csv")])
    assert "session_ccc" in capsys.readouterr().out
    (out / "broken.csv").write_text("run,kind,noxi/test,noxi/test n_seeds,notes\nx,computed,1,1,\n")
    assert tables.main(["show", str(out / "broken.csv")]) == 1
    assert "not a table" in capsys.readouterr().err
    assert to_terminal("a,b\n1,22\n") == "a   b\n1  22"
    assert to_terminal("a,b,c\n1,22,3\n", width=6) == "a   b\n1  22\n\na  c\n1  3"


def test_command_line_and_equal_bytes(tmp_path, scored):
    arguments = ["--scores", *map(str, scored), "--runs", "good", "weak", "--columns", *COLUMNS]
    contents = []
    for name in ("one", "two"):
        out = tmp_path / name
        log = tmp_path / f"{name}.txt"
        assert tables.main([*arguments, "--out-dir", str(out), "--log", str(log)]) == 0
        contents.append([(out / f).read_bytes() for f in tables.FILES])
    assert contents[0] == contents[1]


def test_bad_input(tmp_path, scored):
    def make(paths=scored, **options):
        tables.make_tables(paths, tmp_path / "out", **options)

    with pytest.raises(InputError, match="no scores file of run 'god'"):
        make(runs=["god"])
    with pytest.raises(InputError, match="both hold scores"):
        make([*scored, scored[0]])
    with pytest.raises(InputError, match="best_val"):
        make(selection=["good=best"])
    with pytest.raises(InputError, match="twice"):
        make(runs=["good", "good"])
    broken = tmp_path / "broken.json"
    for text in ("{", "[]", '{"schema_version": 1, "splits": {"a": {}}, "dataset": "x"}'):
        broken.write_text(text)
        with pytest.raises(InputError, match="broken.json"):
            make([broken])
    published = tmp_path / "published.yaml"
    published.write_text("means: {}\nrows: [{run: x, source: y, values: {a/test: 0.5}}]")
    with pytest.raises(InputError, match="quoted"):
        make(reported=published)
    published.write_text("means: {}\nrows: [{run: x, source: y, values: {}, combined: {m: '0.5'}}]")
    with pytest.raises(InputError, match="m among `means`"):
        make(reported=published)
    other = write_run(tmp_path / "o", "good", seeds=(9,), n_sessions=3)
    with pytest.raises(InputError, match="other sessions"):
        make([*scored, *other])
    assert not (tmp_path / "out").exists()


FOUR = {"mpiigi": ("val", "test"), "noxi-j": ("val", "test"), **DATASETS, "pinsoro-cc": ("test",)}


def header(folder, name="challenge.md"):
    line = (folder / name).read_text(encoding="utf-8").splitlines()[0]
    return [c.strip().partition("<br>")[0] for c in line.strip("|").split("|")]


def test_the_challenges_order(tmp_path):
    """The README's columns whatever the order given; other sets are in neither columns nor mean."""
    paths = write_run(tmp_path / "s", "good", datasets=FOUR)
    columns = [f"{d}/{s}" for d, splits in FOUR.items() for s in splits]
    out = tmp_path / "out"
    arguments = ["--scores", *map(str, paths), "--columns", *columns, "--out-dir", str(out)]
    arguments += ["--reported", str(tables.REPORTED_FILE), "--log", str(tmp_path / "log.txt")]
    assert tables.main([*arguments, "--challenge", "test"]) == 0
    titles = ["run", "NoXi", "NoXi (Add.)", "NoXi-J", "MPIIGI", "Combined"]
    assert header(out) == titles
    assert " & ".join(titles) in (out / "challenge.tex").read_text()
    sets = [f"{d}/test" for d in ("noxi", "noxi-add", "noxi-j", "mpiigi")]
    row, *published = read_csv(out, "challenge.csv")
    assert [c for c in row if f"{c} n_seeds" in row] == [*sets, "Combined"]
    per_seed = [[pooled("good", s, c) for c in sets] for s in (1, 2, 3)]
    assert float(row["Combined"]) == pytest.approx(np.mean(per_seed), abs=1e-6)
    assert [float(row[c]) for c in sets] == pytest.approx(np.mean(per_seed, axis=0), abs=1e-6)
    dat = next(r for r in published if r["run"] == "DAT (reported)")
    # Its Combined is the mean of three sets, this table's of four.
    assert (dat["mpiigi/test"], dat["noxi-j/test"], dat["Combined"]) == ("0.49", "", "")
    baseline = next(r for r in published if "eGeMAPS" in r["run"])
    numbers = ["0.5535", "0.4909", "0.3132", "0.4539", "0.4529"]
    assert [baseline[c] for c in (*sets, "Combined")] == numbers  # the line of the README
    assert tables.main([*arguments, "--challenge", "val"]) == 0
    assert header(out) == ["run", "NoXi, val", "NoXi-J, val", "MPIIGI, val", "Combined"]
    assert all(r["kind"] == "computed" or r["noxi/val"] for r in read_csv(out, "challenge.csv"))
    with pytest.raises(InputError, match="challenge: val, but the table"):
        tables.make_tables(paths, tmp_path / "x", columns=["noxi/test"], challenge="val")


@pytest.mark.parametrize("shown", [("test", "val"), ("val",), ("test",)])
def test_val_and_test_never_share_a_column(tmp_path, shown):
    """Every column, a mean too, comes from one split; a published test number stays in test."""
    paths = write_run(tmp_path / "s", "good", datasets=FOUR)
    columns = [f"{d}/{s}" for d, splits in FOUR.items() for s in splits if s in shown]
    out = tmp_path / "out"
    table = tables.make_tables(paths, out, columns=columns, reported=tables.REPORTED_FILE)
    means = [note for note in table.footnotes if ": mean of " in note]
    assert len(means) == len([c for c in table.columns if "/" not in c]) == len(shown)
    for note in means:
        assert len(set(re.findall(r"/(val|test)\b", note))) == 1
    record = yaml.safe_load(tables.REPORTED_FILE.read_text(encoding="utf-8"))
    values = {f"{r['run']} (reported)": r["values"] for r in record["rows"]}
    for row in (r for r in table.rows if r.kind == "reported"):
        for column, value in row.published.items():
            assert "test" in shown or column.endswith("/val")
            assert column == "Combined" or values[row.run + " (reported)"][column] == value
    (computed,) = [r for r in read_csv(out) if r["kind"] == "computed"]
    for column in columns:
        expected = np.mean([pooled("good", s, column) for s in (1, 2, 3)])
        assert float(computed[column]) == pytest.approx(expected, abs=1e-6)


HOSTILE = [
    "=cmd|'/c calc'!A1",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "  =1+1",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt; & co",
    "\\input{/etc/passwd} \\write18{ls} $x^2$ 50% #1 ~_^",
    "[a](javascript:alert(1)) ![b](c) `d` *e* | f",
    "a\nb\tc",
    "# h",
    "1. one",
    "---",
    '"quoted", "twice"',
    "\\",
]


def plain_of_latex(text):
    """Invert escape_latex; fails on any character that TeX would act on."""
    names = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^"}
    names |= {"textless": "<", "textgreater": ">", "textbar": "|"}
    pattern = r"\\(text\w+)\{\}|\\([&%$#_{}])|([^\\&%$#_{}~^<>|])"
    out, at = [], 0
    while at < len(text):
        found = re.compile(pattern).match(text, at)
        assert found, text[at:]
        out.append(names[found[1]] if found[1] else found[2] or found[3])
        at = found.end()
    return "".join(out)


def test_hostile_names_in_every_format(tmp_path):
    """Names of runs, sessions and roles, notes: data in csv, text in Markdown, HTML and LaTeX."""
    paths = []
    for i, name in enumerate(HOSTILE):
        x = np.random.default_rng(i).random(20)
        frames = {"test": {name: {name: (x, x + 0.1)}, "x": {"a": (x, x + 0.2)}}}
        paths.append(write_scores(tmp_path / f"{i}.json", name, 1, "noxi", frames))
    out = tmp_path / "out"
    tables.make_tables(paths, out, notes=HOSTILE, resamples=20)
    for file in ("ccc.csv", "sessions.csv", "metrics.csv"):
        for row in csv.reader(io.StringIO((out / file).read_text(encoding="utf-8"), newline="")):
            for value in row:
                number = re.fullmatch(r"-?\d+(\.\d+)?", value)
                assert number or value.lstrip()[:1] not in set("=+-@") or not value, value
    rows = read_csv(out, "metrics.csv")
    assert [r["run"].removeprefix("'") for r in rows] == HOSTILE
    assert all(-1 <= float(r["bias"]) <= 1 for r in rows)
    lines = (out / "ccc.md").read_text(encoding="utf-8").splitlines()
    body = [line for line in lines if line.startswith("|")][2:]
    assert len(body) == len(HOSTILE)
    for line in lines:
        left = re.sub(r"\\.", "", line.replace("<br>", ""))
        assert not set("<>`") & set(left), line
    tex = (out / "ccc.tex").read_text()
    shown = re.findall(r"^\{(.*?)\} & ", tex, re.M)
    assert [plain_of_latex(s) for s in shown] == [" ".join(n.split()) for n in HOSTILE]


def test_markdown_shows_names_as_they_are():
    """Rendered by a CommonMark implementation, escaped text is one paragraph of just that text."""
    markdown = pytest.importorskip("markdown_it")
    for name in HOSTILE:
        html = (
            markdown.MarkdownIt()
            .enable("table")
            .enable("strikethrough")
            .render(f"- {escape_markdown(name)}\n")
        )
        inside = re.fullmatch(r"<ul>\n<li>(.*)</li>\n</ul>\n", html)
        assert inside and "<" not in inside[1], html
        plain = inside[1]
        for entity, c in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
            plain = plain.replace(entity, c)
        assert plain == " ".join(name.split()), html


def test_numbers_are_no_formulas():
    text = csv_text([["-0.5", "+1e-3", -0.5, "-", "- note", "=1", "", "a=b"]])
    assert next(csv.reader(io.StringIO(text))) == [
        "-0.5", "+1e-3", "-0.5", "'-", "'- note", "'=1", "", "a=b",
    ]  # fmt: skip
