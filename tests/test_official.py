"""The challenge's own scores and fairness figures: hand-computed cases and independent code."""

import json

import h5py
import numpy as np
import pytest
from evaluation_data import write_labels, write_predictions
from sklearn.metrics import cohen_kappa_score

from evaluation import fairness, official
from evaluation.handed_in import Submission
from evaluation.layouts import LAYOUTS
from evaluation.official import KINDS, combined, pair, score
from runtime import InputError

LAYOUT = LAYOUTS[2026]


def test_pairing_by_position_and_compacted():
    nan = np.nan
    truth = np.array([0.1, nan, 0.3, 0.4, nan])
    line = np.array([1.0, 2, 3, 4, 5])
    assert [x.tolist() for x in pair(truth, line, "positional")] == [[0.1, 0.3, 0.4], [1, 3, 4]]
    assert [x.tolist() for x in pair(truth, line, "compact")] == [[0.1, 0.3, 0.4], [1, 2, 3]]
    assert pair(truth, line[:4], "positional")[1].tolist() == [1, 3, 4]  # line 5 has no label
    for pairing, short in (("positional", 3), ("compact", 2)):
        with pytest.raises(ValueError, match=f"{short} predictions"):
            pair(truth, line[:short], pairing)


def tree(tmp_path, rows, name="engagement"):
    for (session, role), lines in rows.items():
        folder = tmp_path / "truth" / session
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{role}.{name}.annotation.csv").write_text("".join(f"{x}\n" for x in lines))
    return tmp_path / "truth"


def handed_in(tmp_path, folder, rows):
    root = tmp_path / "zip"
    for (session, role), lines in rows.items():
        path = root / LAYOUT.member(folder, session, role)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{x}\n" for x in lines))
    return Submission(root, LAYOUT)


def naive_ccc(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    vx = sum((a - mx) ** 2 for a in x) / len(x)
    vy = sum((b - my) ** 2 for b in y) / len(y)
    c = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / len(x)
    return 2 * c / (vx + vy + (mx - my) ** 2)


@pytest.mark.parametrize("pairing", ["positional", "compact"])
def test_ccc_is_pooled_over_all_sessions_and_roles(tmp_path, pairing):
    truth = {("002", "expert"): ["0.1", "nan", "0.3", "0.9"], ("006", "novice"): ["0.5", "", "0.2"]}
    lines = {("002", "expert"): [0.2, 0.9, 0.4, 0.7], ("006", "novice"): [0.4, 0.1, 0.3]}
    got = score(
        handed_in(tmp_path, "noxi-base", lines), {"noxi-base": tree(tmp_path, truth)}, pairing
    )
    x = [0.1, 0.3, 0.9, 0.5, 0.2]
    y = [0.2, 0.4, 0.7, 0.4, 0.3] if pairing == "positional" else [0.2, 0.9, 0.4, 0.4, 0.1]
    assert got["scores"]["noxi-base"] == pytest.approx(naive_ccc(x, y), abs=1e-12)
    assert got["frames"] == {"noxi-base": 5} and "combined" not in got
    single = [naive_ccc(x[:3], y[:3]), naive_ccc(x[3:], y[3:])]
    assert abs(np.mean(single) - got["scores"]["noxi-base"]) > 0.05  # not a mean of sessions


def rated(rng, kind, n=40, missing=0.2):
    """Words of a rating and of a prediction that is often right; empty lines where nobody rated."""
    words = np.array(KINDS[kind])
    truth = words[rng.integers(0, len(words), n)]
    guess = np.where(rng.random(n) < 0.5, truth, words[rng.integers(0, len(words), n)])
    return [str(w) if rng.random() > missing else "" for w in truth], guess.tolist()


def classes_tree(tmp_path, kinds=tuple(KINDS)):
    """Labels and submission of two sessions of children; {kind: pairs of words} where labelled."""
    rng, found = np.random.default_rng(8), {}
    for kind in kinds:
        rows = [((s, r), rated(rng, kind)) for s in ("07", "11") for r in ("purple", "yellow")]
        truth, lines = ({k: pair[i] for k, pair in rows} for i in (0, 1))
        root = tree(tmp_path, truth, kind)
        lines = {(s, f"{r}.{kind}"): words for (s, r), words in lines.items()}
        done = handed_in(tmp_path, "pinsoro-cc", lines)
        found[kind] = [(a, b) for _, (t, p) in rows for a, b in zip(t, p, strict=True) if a]
    return done, {"pinsoro-cc": root}, found


def test_kappa_of_both_ratings_equals_scikit_learn(tmp_path, caplog):
    done, truths, found = classes_tree(tmp_path)
    path = done.path / "pinsoro-cc/07/purple.social_engagement.engagement.prediction.csv"
    assert path.is_file()  # the name that the baseline of 2026 writes
    got = score(done, truths)
    kappas = {f"pinsoro-cc/{k}": cohen_kappa_score(*zip(*p, strict=True)) for k, p in found.items()}
    assert got["kappa"] == pytest.approx(kappas, abs=1e-12) and len(set(kappas.values())) == 2
    assert got["scores"]["pinsoro-cc"] == pytest.approx(np.mean(list(kappas.values())), abs=1e-12)
    assert got["frames"] == {f"pinsoro-cc/{k}": len(p) for k, p in found.items()}
    assert not caplog.records
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "2", *lines[4:]]) + "\n")  # a class by its number
    with pytest.raises(InputError, match=r"07/purple.*line 4: '2' is no class") as e:
        score(done, truths)
    assert "cooperative" in e.value.cure


def test_one_rating_alone_is_no_score_of_the_folder(tmp_path, caplog):
    got = score(*classes_tree(tmp_path, ["task_engagement"])[:2])
    assert list(got["kappa"]) == ["pinsoro-cc/task_engagement"] and not got["scores"]
    assert "labels of one kind only" in caplog.text


def test_lines_beyond_the_labels_are_told(tmp_path, caplog):
    truth = tree(tmp_path, {("002", "expert"): ["0.1", "", "0.3", "0.9"]})
    lines = [0.2, 0.9, 0.4, 0.7, 0.1]
    longer = handed_in(tmp_path, "noxi-base", {("002", "expert"): lines})
    got = score(longer, {"noxi-base": truth})
    assert got["scores"]["noxi-base"] == pytest.approx(naive_ccc([0.1, 0.3, 0.9], [0.2, 0.4, 0.7]))
    assert "1 of 1 files of noxi-base have lines beyond the last label" in caplog.text
    caplog.clear()
    whole = handed_in(tmp_path, "noxi-base", {("002", "expert"): lines[:4]})
    score(whole, {"noxi-base": truth})
    assert not caplog.records
    score(whole, {"noxi-base": truth}, "compact")
    assert "compact pairs them with other frames" in caplog.text


def test_the_combined_score_of_a_whole_submission(tmp_path):
    """Six folders, one of them without any agreement: a sixth of each."""
    rng, truths, expected = np.random.default_rng(2), {}, []
    for i, folder in enumerate(LAYOUT.folders):
        root = tmp_path / folder
        if folder.startswith("pinsoro"):
            kinds = []
            for kind in KINDS:
                words, lines = rated(rng, kind)
                tree(root, {("07", "purple"): words}, kind)
                handed_in(tmp_path, folder, {("07", f"purple.{kind}"): lines})
                known = [(a, b) for a, b in zip(words, lines, strict=True) if a]
                kinds.append(cohen_kappa_score(*zip(*known, strict=True)))
            expected.append(np.mean(kinds))
        else:
            x = rng.random(30).round(3)
            y = np.full(30, 0.5) if i == 0 else (0.7 * x + 0.3 * rng.random(30)).round(3)
            tree(root, {("002", "a"): x})
            handed_in(tmp_path, folder, {("002", "a"): y})
            expected.append(naive_ccc(x, y))
        truths[folder] = root / "truth"
    got = score(Submission(tmp_path / "zip", LAYOUT), truths)
    assert got["scores"]["noxi-base"] == 0 and expected[0] == pytest.approx(0, abs=1e-12)
    assert list(got["scores"].values()) == pytest.approx(expected, abs=1e-12)
    assert got["combined"] == pytest.approx(sum(expected) / 6, abs=1e-12)
    some = {k: v for k, v in truths.items() if k != "pinsoro-cr"}
    assert "combined" not in score(Submission(tmp_path / "zip", LAYOUT), some)


def test_the_combined_score_by_hand():
    scores = {
        "noxi-base": 0.6,
        "noxi-additional": 0.5,
        "noxi-j": 0.3,
        "mpiigroupinteraction": 0.4,
        "pinsoro-cc": 0.1,
        "pinsoro-cr": 0.2,
    }
    assert combined(scores, LAYOUT) == pytest.approx((0.6 + 0.5 + 0.3 + 0.4) / 6 + 0.15 / 3)
    three = {k: scores[k] for k in LAYOUTS[2024].folders}
    assert combined(three, LAYOUTS[2024]) == pytest.approx(0.5)
    with pytest.raises(InputError, match="needs noxi-j"):
        combined(three, LAYOUTS[2025])


def test_what_cannot_be_scored_is_named(tmp_path, capsys):
    truth = tree(tmp_path, {("002", "expert"): ["0.1", "0.2", "0.3"]})
    short = handed_in(tmp_path, "noxi-base", {("002", "expert"): [0.1, 0.2]})
    with pytest.raises(InputError, match="2 predictions for 3 frames"):
        score(short, {"noxi-base": truth})
    words = handed_in(tmp_path, "noxi-base", {("002", "expert"): [0.1, "inf", 0.2]})
    with pytest.raises(InputError, match="line 2: 'inf' is no number"):
        score(words, {"noxi-base": truth})
    with pytest.raises(
        InputError, match=r"lacks noxi-base/002/expert\.engagement\.prediction\.csv"
    ):
        (tmp_path / "empty").mkdir()
        score(Submission(tmp_path / "empty", LAYOUT), {"noxi-base": truth})
    command = ["--submission", str(tmp_path / "zip"), "--truth", f"nonsense={truth}"]
    assert official.main(command) == 1
    assert "no folder of a 2026 submission" in capsys.readouterr().err


def test_disparity_by_hand():
    truth = np.array([0.05, 0.05, 0.05, 0.95, 0.95, 0.95, 0.5, 1.0, 0.05])
    prediction = np.array([0.2, 0.4, 0.6, 0.8, 0.5, 0.7, 0.9, 0.3, 0.1])
    gender = np.array(
        ["male", "male", "female", "male", "female", "female", "", "male", ""], object
    )
    language = np.array(["de", "fr", "fr", "de", "fr", "fr", "de", "fr", ""], object)
    got = fairness.cdd(truth, prediction, gender, language)
    # Bin 0: men .3, women .6; bin 9: men .8, women .6; bin 5 has neither; 1 lies in no bin.
    assert got["gender"] == pytest.approx(((0.3 - 0.6) + (0.8 - 0.6)) / 2)
    everybody = [0.4, 0.9, 2 / 3]  # bins 0, 5, 9, of the frames whose language is known
    de = np.mean([0.2 - everybody[0], 0.9 - everybody[1], 0.8 - everybody[2]])
    fr = np.mean([0.5 - everybody[0], 0.6 - everybody[2]])
    assert got["language"] == pytest.approx({"de": de, "fr": fr})
    closed = fairness.cdd(truth, prediction, gender, language, "closed")
    assert closed["gender"] == pytest.approx(((0.3 - 0.6) + ((0.8 + 0.3) / 2 - 0.6)) / 2)


def naive_cdd(truth, prediction, gender, language):
    """Frame by frame, by dictionaries of lists; NaN where nothing can be compared."""

    def means(wanted):
        bins = {}
        for t, p, w in zip(truth, prediction, wanted, strict=True):
            if w and t < 1:
                bins.setdefault(next(b for b in range(10) if t < (b + 1) / 10), []).append(p)
        return {b: sum(v) / len(v) for b, v in bins.items()}

    def difference(a, b):
        own = [a[k] - b[k] for k in a if k in b]
        return sum(own) / len(own) if own else float("nan")

    men, women = (means([g == w for g in gender]) for w in ("male", "female"))
    everybody = means([bool(x) for x in language])
    names = sorted({x for x in language if x})
    return {
        "gender": difference(men, women),
        "language": {n: difference(means([x == n for x in language]), everybody) for n in names},
    }


@pytest.mark.parametrize("n", [1, 2, 15, 400])
def test_disparity_equals_a_naive_one(n):
    """Labels on the borders of bins, empty bins, people of whom nothing is known."""
    for seed in range(10):
        rng = np.random.default_rng([seed, n])
        truth = (rng.integers(0, 41, n) / 40).astype(np.float32).astype(float)
        prediction = rng.random(n)
        gender = np.array(["male", "female", ""], object)[rng.integers(0, 3, n)]
        language = np.array(["German", "French", "Arabic", ""], object)[rng.integers(0, 4, n)]
        got = fairness.cdd(truth, prediction, gender, language)
        expected = naive_cdd(truth, prediction, gender, language)
        assert got["gender"] == pytest.approx(expected["gender"], abs=1e-12, nan_ok=True)
        assert got["language"] == pytest.approx(expected["language"], abs=1e-12, nan_ok=True)


def fairness_case(tmp_path, sheet_rows, values, classes=0):
    n = 50
    series = {(s, r): (np.arange(n) / 25, np.full(n, v)) for (s, r), v in values.items()}
    path = write_predictions(tmp_path / "p.h5", series)
    with h5py.File(path, "r+") as f:
        f.attrs["classes"] = classes
    for session, role in values:
        write_labels(tmp_path, "noxi", session, role, np.full(n, 0.5))
    sheet = tmp_path / "s.tsv"
    columns = "dataset\tsplit\tsession\trole\tvideo\tgender\tlanguage\texclude\texclude_reason\n"
    sheet.write_text(columns + "".join("\t".join(row) + "\n" for row in sheet_rows))
    return ["--predictions", str(path), "--results", str(tmp_path), "--sheet", str(sheet)]


PEOPLE = [
    ("noxi", "test", "001", "a", "x.mp4", "Male", "de"),
    ("noxi", "test", "001", "b", "x.mp4", "female", "de"),
    ("noxi", "val", "002", "a", "x.mp4", "male", ""),
    ("noxi", "val", "002", "b", "x.mp4", "male", "", "yes", "broken"),
]
VALUES = {("001", "a"): 0.7, ("001", "b"): 0.4, ("002", "a"): 0.1, ("002", "b"): 0.9}


def test_fairness_reads_the_sheets_metadata(tmp_path, capsys):
    """Val and test apart, the excluded left out; no figure where there is nobody to compare."""
    assert fairness.main(fairness_case(tmp_path, PEOPLE, VALUES)) == 0
    got = json.loads(capsys.readouterr().out)
    test, val = got["splits"]["test"], got["splits"]["val"]
    assert test["cdd_gender"] == pytest.approx(0.3) and test["frames"] == 100
    assert test["cdd_language"] == pytest.approx({"German": 0}) and test["participants"] == 2
    assert (val["participants"], val["cdd_gender"], val["cdd_language"]) == (1, None, {})
    unknown = [row[:5] for row in PEOPLE]
    assert fairness.main(fairness_case(tmp_path, unknown, VALUES)) == 1
    assert "no participant has both labels and a gender" in capsys.readouterr().err


SPELLED = [
    ("noxi", "test", "001", "a", "x.mp4", "M", "french"),
    ("noxi", "test", "001", "b", "x.mp4", "Female", "French"),
    ("noxi", "test", "002", "a", "x.mp4", "MALE", "FR"),
    ("noxi", "test", "002", "b", "x.mp4", "diverse", "n/a"),
]


def test_everybody_counts_in_the_right_group_however_it_is_spelled(tmp_path, capsys):
    """Men .7 and .1, women .4; French .7, .4 and .1; the fourth is in no figure, and named."""
    arguments = fairness_case(tmp_path, SPELLED, VALUES)
    assert fairness.main(arguments) == 0
    printed = capsys.readouterr()
    test = json.loads(printed.out)["splits"]["test"]
    assert test["cdd_gender"] == pytest.approx((0.7 + 0.1) / 2 - 0.4, abs=1e-6)
    assert test["cdd_language"] == pytest.approx({"French": 0}, abs=1e-6)
    counts = {g: (n["participants"], n["frames"]) for g, n in test["of_gender"].items()}
    assert counts == {"diverse": (1, 50), "female": (1, 50), "male": (2, 100)}
    assert test["of_language"]["unknown"] == {"participants": 1, "frames": 50}
    assert "1 of 4 participants of noxi/test are in no figure by gender (1 diverse)" in printed.err
    assert "in no figure by language (1 unknown)" in printed.err
    out = tmp_path / "fairness.csv"
    assert fairness.main([*arguments, "--out", str(out)]) == 0
    rows = [line.split(",")[3:5] + line.split(",")[8:] for line in out.read_text().splitlines()]
    names = ["participants", "frames", "participants_in_set", "frames_in_set"]
    assert rows == [
        ["by", "group", *names],
        ["gender", "male - female", "3", "150", "4", "200"],
        ["language", "French", "3", "150", "4", "200"],
    ]


def test_fairness_of_several_runs_is_a_table(tmp_path, capsys):
    """Mean and std over seeds; a set where nobody is known is left out, all of them an error."""
    arguments, paths = fairness_case(tmp_path, PEOPLE, VALUES), []
    for seed, gap in ((1, 0.3), (2, 0.1)):
        n = np.arange(50) / 25
        series = {("001", "a"): (n, np.full(50, 0.4 + gap)), ("001", "b"): (n, np.full(50, 0.4))}
        paths.append(write_predictions(tmp_path / f"{seed}.h5", series, seed=seed))
    unknown = {("009", "a"): (np.arange(50) / 25, np.full(50, 0.4))}
    paths.append(write_predictions(tmp_path / "u.h5", unknown, dataset="mpiigi"))
    out = tmp_path / "fairness.csv"
    more = ["--out", str(out), "--log", str(tmp_path / "log.txt")]
    assert fairness.main(["--predictions", *map(str, paths), *arguments[2:], *more]) == 0
    rows = [line.split(",") for line in out.read_text().splitlines()]
    assert rows[1][:5] == ["da_mamba", "noxi", "test", "gender", "male - female"]
    assert [float(x) for x in rows[1][5:7]] == pytest.approx(
        [0.2, np.std([0.3, 0.1], ddof=1)], abs=1e-6
    )
    assert rows[1][7:] == ["2", "2", "100", "2", "100"]
    assert [r[3:5] for r in rows[2:]] == [["language", "German"]]
    assert "u.h5: no participant" in (tmp_path / "log.txt").read_text()
    assert fairness.main(["--predictions", str(paths[-1]), *arguments[2:], *more]) == 1
    assert (
        fairness.main(["--predictions", str(paths[0]), str(paths[0]), *arguments[2:], *more]) == 1
    )
    assert "two predictions files are of run da_mamba, seed 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "classes", "problem"),
    [
        (VALUES | {("001", "b"): np.nan}, 0, "001/b at 0.00 s is not a number"),
        (VALUES, 4, "holds classes, which have no mean"),
    ],
)
def test_fairness_refuses_what_has_no_mean(tmp_path, capsys, values, classes, problem):
    assert fairness.main(fairness_case(tmp_path, PEOPLE, values, classes)) == 1
    assert problem in capsys.readouterr().err
