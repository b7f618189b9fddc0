"""What comes from elsewhere does no harm: names, paths, pickles, archives, headers, text in tables."""

import ast
import csv
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
import yaml

from alignment.clock import make_clock
from corpora.sheet import read_sheet
from evaluation.handed_in import Submission
from evaluation.layouts import LAYOUTS
from evaluation.render import Row, Table, to_csv, to_latex, to_markdown, to_terminal
from extractors.weights import checkpoint_files
from media.audio import audio_blocks
from media.container import MOST_PIXELS
from media.probe import probe
from model.checkpoint import load_tensors
from model.registry import build
from runtime import InputError
from store.session_spec import parse_spec
from tests.media_files import write_video
from training.model_file import load_model, save_model
from training.settings import parse

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = sorted(p.parent.name for p in ROOT.glob("*/__init__.py") if p.parent.name != "tests")

CLIMBING = [
    "..", ".", "../x", "a/b", "/etc", "a\\b", ".hidden", "-rf", "~", "~root", "a b", "a\0b", "$(id)", "`id`",
    "a;b", "a|b", "a:b", "a*", "*", "a\nb", "C:", "{x}", "%2e%2e", "a'b", 'a"b', "\u202egpj", " ", "x" * 81,
]  # fmt: skip


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize("column", ["dataset", "session", "role"])
def test_names_cannot_climb_out_of_their_folder(tmp_path, name, column):
    row = {"dataset": "d", "split": "train", "session": "s", "role": "r", "video": "v.mp4"}
    cells = [(row | {column: name})[c] for c in row]
    quoted = ["" + '"' + c.replace('"', '""') + '"' for c in cells]
    (tmp_path / "s.tsv").write_text("\t".join(row) + "\n" + "\t".join(quoted) + "\n")
    (tmp_path / "v.mp4").write_bytes(b"x")
    with pytest.raises(InputError):
        read_sheet(tmp_path / "s.tsv")
    spec = {"dataset": f"{name}/s:r", "session": f"d/{name}:r", "role": f"d/s:{name}"}[column]
    with pytest.raises(InputError):
        parse_spec(spec)


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "-x", "a b", "$(id)", ""])
def test_run_and_table_names_are_plain(name):
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    for section in ("runs", "tables"):
        pattern = schema["properties"][section]["propertyNames"]["pattern"]
        assert not re.search(pattern, name)


def trees():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


UNSAFE_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "telnetlib",
}
UNSAFE_CALLS = {
    "eval", "exec", "compile", "os.system", "os.popen", "torch.load", "yaml.load", "yaml.full_load",
    "yaml.unsafe_load", "np.fromfile", "pd.read_pickle", "torch.hub.load", "torch.jit.load", "zipfile.extractall",
}  # fmt: skip


def unsafe(tree: ast.AST) -> list[str]:
    """Imports and calls in a module that could run what a file holds."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module] if node.module.split(".")[0] in UNSAFE_MODULES else []
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found += (
                [name]
                if name in UNSAFE_CALLS or name.endswith((".extractall", ".read_pickle"))
                else []
            )
            for keyword in node.keywords:
                constant = getattr(keyword.value, "value", None)
                if (keyword.arg, constant) in (("allow_pickle", True), ("shell", True), ("trust_remote_code", True), ("weights_only", False)):  # fmt: skip
                    found.append(f"{name}({keyword.arg}={constant})")
    return found


def test_no_code_of_ours_unpickles_or_runs_what_a_file_holds():
    found = {f"{path.relative_to(ROOT)}: {what}" for path, tree in trees() for what in unsafe(tree)}
    assert not found


def test_the_search_finds_what_it_is_for():
    text = "import pickle\nfrom joblib import load\ntorch.load(p)\nnp.load(p, allow_pickle=True)\nrun(x, shell=True)"
    assert len(unsafe(ast.parse(text))) == 5


class Payload:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_under_a_checkpoints_name_is_refused_and_not_run(tmp_path):
    path, sign = tmp_path / "model.safetensors", tmp_path / "executed"
    torch.save({"w": Payload(sign)}, path)
    for bad in (path, tmp_path / "plain.safetensors"):
        if bad != path:
            bad.write_bytes(pickle.dumps(Payload(sign)))
        for read in (load_tensors, load_model):
            with pytest.raises(InputError, match="is not a checkpoint"):
                read(bad)
    assert not sign.exists()


def test_loading_a_checkpoint_never_asks_pickle(tmp_path, monkeypatch):
    settings = parse({"preset": "demo", "model": {"name": "mlp"}, "features": ["egemaps"]})
    dims = {"egemaps": 3}
    about = {"run": "r", "seed": 1, "fingerprint": "f", "dims": dims}
    save_model(tmp_path / "m.safetensors", build(settings, dims).state_dict(), settings, about)

    def refuse(*args, **kwargs):
        raise AssertionError("pickle was asked")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert load_model(tmp_path / "m.safetensors").dims == dims


def test_shards_of_a_checkpoint_stay_in_its_folder(tmp_path):
    from safetensors.numpy import save_file

    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    save_file({"a": np.zeros(2)}, folder / "part.safetensors")
    save_file({"a": np.zeros(2)}, tmp_path / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "part.safetensors"}}')
    assert len(checkpoint_files(folder, "wav2vec2")) == 4
    for shard in ("../outside.safetensors", "/etc/passwd", "none.safetensors"):
        index.write_text(json.dumps({"weight_map": {"a": shard}}))
        with pytest.raises(InputError, match="not in the folder"):
            checkpoint_files(folder, "wav2vec2")


# ---- archives and links ----

LAYOUT = LAYOUTS[max(LAYOUTS)]
FOLDER = next(iter(LAYOUT.folders))


def archive(path, members, **keys):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, text in members.items():
            z.writestr(name, text)
    return path


def test_members_of_a_submission_are_read_and_never_unpacked(tmp_path, monkeypatch):
    inside = LAYOUT.member(FOLDER, "001", "expert")
    members = {inside: "0.5\n", "../../climbed": "x", "/tmp/climbed-absolute": "x"}
    path = archive(tmp_path / "deep" / "s.zip" if (tmp_path / "deep").mkdir() else tmp_path / "deep" / "s.zip", members)  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    assert Submission(path, LAYOUT).lines(FOLDER, "001", "expert") == ["0.5"]
    assert sorted(tmp_path.rglob("*")) == before
    assert not os.path.exists("/tmp/climbed-absolute")


def test_a_decompression_bomb_is_refused_before_memory_is_taken(tmp_path):
    inside = LAYOUT.member(FOLDER, "001", "expert")
    path = archive(tmp_path / "s.zip", {inside: b"0" * (300 << 20)})
    assert path.stat().st_size < 1 << 20
    code = (
        "import resource\nfrom pathlib import Path\nfrom evaluation.layouts import LAYOUTS\n"
        "from evaluation.handed_in import Submission\nfrom runtime import InputError\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (250 << 20),) * 2)\n"
        f"try:\n    Submission({str(path)!r}, LAYOUTS[{LAYOUT.year}]).lines({FOLDER!r}, '001', 'expert')\n"
        "except InputError as e:\n    print(e.problem)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "bytes" in done.stdout and done.returncode == 0, done.stderr[-500:]


def test_links_do_not_lead_out_of_a_submission(tmp_path):
    (tmp_path / "secret").write_text("password\n")
    member = tmp_path / "submission" / LAYOUT.member(FOLDER, "001", "expert")
    member.parent.mkdir(parents=True)
    member.symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="leaves the folder") as e:
        Submission(tmp_path / "submission", LAYOUT).lines(FOLDER, "001", "expert")
    assert "password" not in str(e.value)


# ---- absurd headers ----


def write_jpegs(path):
    """Five pictures of 64x48 as motion JPEG: container and stream both state the size in 16 bit."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")
            container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode())


@pytest.mark.parametrize("side", [65_535, 16_000, 8_200])
@pytest.mark.parametrize("where", ["container", "stream", "both"])
def test_a_picture_of_100000_pixels_is_refused_before_memory_is_taken(tmp_path, side, where):
    """65,535 is the most that these headers can say; the limit is far below."""
    write_jpegs(tmp_path / "big.mov")
    assert probe(tmp_path / "big.mov").video.width == 64
    data = (tmp_path / "big.mov").read_bytes()
    stated = side.to_bytes(2, "big") * 2
    if where != "stream":
        at = data.index(b"jpeg", data.index(b"stsd")) + 28
        assert data[at : at + 4] == b"\0\x40\0\x30"
        data = data[:at] + stated + data[at + 4 :]
    if where != "container":
        assert data.count(b"\xff\xc0\0\x11\x08\0\x30\0\x40") == 5
        data = data.replace(b"\xff\xc0\0\x11\x08\0\x30\0\x40", b"\xff\xc0\0\x11\x08" + stated)
    (tmp_path / "big.mov").write_bytes(data)
    code = (
        "import resource\nfrom pathlib import Path\nfrom media.probe import probe\nfrom runtime import InputError\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (150 << 20),) * 2)\n"
        f"try:\n    print(probe({str(tmp_path / 'big.mov')!r}).video)\n"
        "except InputError as e:\n    print('refused', e.problem)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    # The stream decides; a container's claim alone may be corrected by it.
    assert done.stdout.startswith("refused") or (where == "container" and "width=64" in done.stdout)
    assert MOST_PIXELS >= 7680 * 4320


def test_absurd_sound_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(4000), 16000)
    data = bytearray(path.read_bytes())
    data[24:28] = (2_000_000_000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError):
        audio_blocks(path)
    soundfile.write(path, np.zeros((400, 100)), 16000)
    with pytest.raises(InputError, match="channels"):
        audio_blocks(path)


def test_a_session_of_ages_is_refused():
    person = {"dataset": "d", "session": "s", "role": "r", "duration_s": 1e12}
    with pytest.raises(InputError, match="lasts"):
        make_clock([person], 100)


# ---- text in tables ----

HOSTILE = [
    r"\input{/etc/passwd}", "a & b % c $x^2$ #1 _u_ {v} ~", "<script>alert(1)</script>", "a|b\nc\rd", "\x1b[2Jgone",
    '"; DROP TABLE', "=1+1", "[x](javascript:alert(1))", "`id`", "é 漢字 ½", "\x00\x07", "-- ± † –",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_names_and_notes_are_escaped_in_every_form(text):
    row = Row(text, "reported", published={"noxi/test": "0.71"}, notes=[text])
    table = Table(["noxi/test"], {"noxi/test": text}, [row], [text])
    rows = list(csv.reader(io.StringIO(to_csv(table))))
    assert len({len(r) for r in rows}) == 1 and len(rows) == 2
    name = rows[1][0]
    assert name.removeprefix("'") == f"{text} (reported)" and name[0] not in "=+-@"  # no formula
    tex = to_latex(table)
    body = tex.split("\\midrule")[1].split("\\bottomrule")[0]
    assert body.count("&") - body.count(r"\&") == 1, "cells"
    plain = re.sub(
        r"\\textbackslash\{\}|\\text\w+\{\}|\\[&%$#_{}]|\$\\pm\$|\$\^\\dagger\$", "", body
    )
    assert not re.search(r"\\(?!\\)\w", plain), plain
    assert not set("%#$^~") & set(plain)
    md = to_markdown(table)
    for line in md.splitlines():
        bare = re.sub(r"\\[\\|<>*`\[\]_]", "", line.replace("<br>", ""))
        assert "<" not in bare and "`" not in bare and "[" not in bare
    assert len(md.split("\n\n")[0].splitlines()) == 3
    for form in (tex, md):
        assert all(c.isprintable() or c == "\n" for c in form)
    shown = to_terminal(to_csv(table))
    assert "\x1b" not in shown and "\x07" not in shown


# ---- end to end ----


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("{x}.mp4", "a brace"),
        ("a{output}", "a brace"),
        ("a\x1b[2J.mp4", r"U\+001B CONTROL"),
        ("\u202egpm.mp4", r"U\+202E RIGHT-TO-LEFT OVERRIDE"),
    ],
)
def test_paths_that_the_job_graph_cannot_name_are_refused(tmp_path, name, held):
    (tmp_path / "s.tsv").write_text(
        f"dataset\tsplit\tsession\trole\tvideo\nd\ttrain\ts\tr\t{name}\n"
    )
    with pytest.raises(InputError, match=f"holds {held}, which the job graph cannot name"):
        read_sheet(tmp_path / "s.tsv", check_files=False)


def test_shell_metacharacters_pass_through_the_rules(tmp_path):
    """Real jobs from recordings to the table: no word of a path is ever a command or an option.

    The working folder, the results folder, the sheet, the media's folder and files have such names.
    """
    folder = 'it\'s "a" $(touch PWNED) `touch PWNED` ; & | é漢 -v'
    house = tmp_path / "ho'use $(touch PWNED) *"
    results = '-r es\'ults "$(touch PWNED)" `touch PWNED`;é &'
    media = house / folder
    media.mkdir(parents=True)
    # (video, audio, labels) below the folder; leading dashes, braces, globs, newline-free everything
    names = {
        "expert": ("-y --help.mp4", "-n $HOME.wav", "--rate-hz=1 * ?.csv"),
        "novice": ("$(touch PWNED) [a-z]?*.mp4", "`touch PWNED`;#.wav", "'\" \\ !.csv"),
    }
    rows = ["dataset\tsplit\tsession\trole\tvideo\taudio\tlabels"]
    for i, (role, (video, audio, labels)) in enumerate(names.items()):
        sound = np.random.default_rng(i).normal(0, 0.1, 16000 * 5).astype(np.float32)
        write_video(tmp_path / "plain.mp4", frames=125 + i)
        shutil.move(tmp_path / "plain.mp4", media / video)
        soundfile.write(tmp_path / "plain.wav", sound, 16000)
        shutil.move(tmp_path / "plain.wav", media / audio)
        (media / labels).write_text("0.5\n" * 125)
        split, session = {"expert": ("train", "é001"), "novice": ("val", "é002")}[role]
        cells = ["noxi", split, session, role, video, audio, labels]
        rows.append("\t".join('"' + c.replace('"', '""') + '"' for c in cells))
    (media / "sessions.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for name in ("studies.yaml", "config.yaml"):
        shutil.copy(ROOT / name, house / name)
    own = {
        "results": results, "sessions": f"{folder}/sessions.tsv", "media_root": folder, "demo": None,
        "features": {"wav2vec2": {"enabled": False}, "clip_face": {"enabled": False}, "flow": {"enabled": False},
                     "flow_magnitude": {"enabled": False}},
        "defaults": {"features": ["egemaps"], "train": ["noxi/train"], "evaluate": ["noxi/val"],
                     "preset": "demo", "model": {"name": "mlp"}, "training": {"epochs": 1}, "seeds": [1]},
        "runs": {"only": {}}, "tables": {"main": {"runs": ["only"], "bootstrap": 10}}, "note": folder,
    }  # fmt: skip
    (house / "own.yaml").write_text(yaml.safe_dump(own, allow_unicode=True), encoding="utf-8")
    targets = [f"{results}/{t}" for t in ("tables/main/ccc.csv", "tables/main/ccc.md", "qc/qc.tsv")]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--cores", "2", "--directory", str(house),
         "--workflow-profile", "none", "--configfile", str(house / "own.yaml"), "--nocolor", "--", *targets],
        cwd=house, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    for target in targets:
        assert (house / target).is_file()
    assert not list(tmp_path.rglob("PWNED*")), "a name was run as a command"
    assert not (ROOT / "PWNED").exists()
    named = {p.name for p in house.iterdir()}
    assert named == {folder, results, ".snakemake", "own.yaml", "studies.yaml", "config.yaml"}
    # media at the top of the working folder, root "": a path may begin with a dash
    (house / "-x.wav").write_bytes((media / names["expert"][1]).read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "extractors", "egemaps", "--audio=-x.wav", "--out", "e.h5"],
        cwd=house, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "file", sorted((ROOT / "workflow" / "rules").glob("*.smk")), ids=lambda p: p.name
)
def test_every_word_of_a_command_is_quoted(file):
    """Paths of the sheet and the config reach a shell only as {...:q} or through `options`."""
    for command in re.findall(r"shell:\n((?:\s+\".*\"\n)+)", file.read_text()):
        for word in re.findall(r"\{((?:input|output|log)[^}]*)\}", command):
            assert word.endswith(":q"), f"{file.name}: {{{word}}}"
        for option in re.findall(r"(--\S+) \{input\.(?:video|audio|labels)", command):
            pytest.fail(
                f"{file.name}: {option} VALUE; a path may begin with a dash: {option}=VALUE"
            )
