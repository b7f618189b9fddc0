"""Files that claim more than they hold, never end, or lie elsewhere: refused before memory is taken."""

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import yaml

from corpora.metadata import annotation_value
from corpora.sheet import read_sheet
from formats.label_csv import read_labels
from formats.ssi.annotation import read_annotation
from formats.ssi.stream import open_stream, read_header, write_stream
from model.checkpoint import load_tensors, save_tensors
from model.registry import build
from runtime import InputError
from store.features import read_features
from store.hdf5 import open_hdf5
from tests.aligned_files import feature_file
from training.model_file import load_model, save_model
from training.settings import parse
from workflow.config import ROOT, check_config, load_config, load_yaml
from workflow.trained import model_metadata

LIMITED = """
import resource, sys
from pathlib import Path
{imports}
from runtime import InputError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + ({megabytes} << 20),) * 2)
for path in map(Path, sys.argv[1:]):
    try:
        {work}
        print("right")
    except InputError as e:
        print("refused", e.problem)
"""


def limited(imports, work, *paths, megabytes=100, seconds=60):
    """What each file comes to in a process that may take so much memory more than its libraries."""
    code = LIMITED.format(imports=imports, work=work, megabytes=megabytes)
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], cwd=ROOT, capture_output=True, text=True, timeout=seconds)  # fmt: skip
    assert done.returncode == 0, done.stderr[-800:]
    return done.stdout.splitlines()


# ---- no plain files ----


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "sparse"])
def test_what_is_no_plain_file_is_refused_at_once_by_every_reader_of_text(tmp_path, kind):
    """Reading a pipe waits for ever, a device or a sparse file fills the memory."""

    def put(name):
        path = tmp_path / name
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "folder":
            path.mkdir()
        else:
            path.touch()
            os.truncate(path, 1 << 41)
        return path

    write_stream(tmp_path / "good.stream", np.zeros((4, 2), np.float32), 25.0, "ASCII")
    (tmp_path / "good.stream~").unlink()
    header = '<annotation ssi-v="3"><info ftype="ASCII" size="1"/><scheme name="a" type="FREE"/></annotation>'
    (tmp_path / "good.annotation").write_text(header)
    for name, read in {
        "labels.csv": read_labels,
        "sheet.tsv": read_sheet,
        "config.yaml": load_yaml,
        "a.stream": read_header,
        "good.stream~": lambda p: open_stream(tmp_path / "good.stream"),
        "good.annotation~": lambda p: read_annotation(tmp_path / "good.annotation"),
    }.items():
        with pytest.raises(InputError):
            read(put(name))
    if kind != "sparse":
        assert annotation_value(put("language.annotation.csv")) == ""
    else:
        with pytest.raises(InputError):
            annotation_value(put("language.annotation.csv"))


def test_a_stream_of_10_to_the_12_rows_is_refused(tmp_path):
    """The header's claim is one thing; a sparse body of that many rows costs no disk either."""
    path = tmp_path / "a.x.stream"
    write_stream(path, np.zeros((4, 1), np.uint8), 25.0)
    path.write_text(path.read_text().replace('num="4"', f'num="{10**12}"'))
    os.truncate(tmp_path / "a.x.stream~", 10**12)
    with pytest.raises(InputError, match="rows"):
        open_stream(path)
    os.truncate(tmp_path / "a.x.stream~", 4)
    assert len(open_stream(path).times) == 4


# ---- XML ----


def test_xml_without_entities_ends_or_depth(tmp_path):
    laughs = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    info = '<info ftype="BINARY" sr="25" dim="1" byte="4" type="FLOAT" delim=" "/>'
    texts = {
        "laughs": f'<!DOCTYPE s [<!ENTITY a0 "ha">{laughs}]><stream>{info}<meta x="&a11;"/></stream>',
        "quadratic": f'<!DOCTYPE s [<!ENTITY a "{"x" * 50_000}">]><stream>{info}{"&a;" * 50_000}</stream>',
        "external": f'<!DOCTYPE s [<!ENTITY a SYSTEM "file:///etc/passwd">]><stream>{info}&a;</stream>',
        "parameter": f'<!DOCTYPE s [<!ENTITY % a SYSTEM "http://127.0.0.1:9/a">%a;]><stream>{info}</stream>',
        "dtd": f'<!DOCTYPE s SYSTEM "http://127.0.0.1:9/a.dtd"><stream>{info}</stream>',
        "large": "<a>" * 33_000_000,
        "wide": f"<stream>{info}{'<chunk/>' * 131_000}</stream>",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.stream").write_text(text)
    # a megabyte of nested tags is within the size; it must neither crash nor take much
    nested = f"<stream>{'<a>' * 149_000}{'</a>' * 149_000}{info}</stream>"
    (tmp_path / "nested.stream").write_text(nested)
    files = sorted(tmp_path.glob("*.stream"))
    said = limited("from formats.ssi.stream import read_header", "read_header(path)", *files)
    for path, result in zip(files, said, strict=True):
        assert result.startswith("refused") or path.stem == "nested", (path, result)
        assert "root:" not in result


# ---- HDF5 ----


def absurd(folder):
    """name -> HDF5 file of a few kilobytes that claims gigabytes or lies elsewhere."""
    folder.mkdir()
    secret = folder / "secret.bin"
    secret.write_bytes(bytes(8000))
    found = {}

    def feature(name, change):
        path = feature_file(folder / f"{name}.h5", np.ones((40, 2)), np.arange(40) / 25)
        with h5py.File(path, "r+") as f:
            change(f)
        found[name] = path

    def anew(f, name, shape, dtype="f4", **keys):
        if name in f:
            del f[name]
        return f.create_dataset(name, shape, dtype, **keys)

    def bomb(f):
        data = anew(f, "values", (1 << 29, 2), chunks=(1 << 20, 2), compression="gzip")
        for at in range(0, 1 << 29, 1 << 26):  # a part is there; the rest is fill value
            data[at : at + 2] = 1

    feature("fill value", lambda f: anew(f, "values", (10**12, 2), chunks=(1000, 2)))
    feature("fill value of time", lambda f: anew(f, "time", (10**12,), "f8", chunks=(1000,)))
    feature("deflated", bomb)
    feature(
        "chunk",
        lambda f: anew(
            f, "time", (4,), "f8", maxshape=(None,), chunks=(1 << 28,), compression="gzip"
        ),
    )
    feature("external", lambda f: anew(f, "time", (40,), "f8", external=[(str(secret), 0, 320)]))
    layout = h5py.VirtualLayout((40,), "f8")
    layout[:] = h5py.VirtualSource(str(found["external"]), "time", (40,))

    def virtual(f):
        del f["time"]
        f.create_virtual_dataset("time", layout)

    def link(target):
        def change(f):
            del f["time"]
            f["time"] = target

        return change

    feature("virtual", virtual)
    feature("soft link", link(h5py.SoftLink("/values")))
    feature("external link", link(h5py.ExternalLink(str(found["external"]), "/time")))
    feature("climbing link", link(h5py.ExternalLink("../../../etc/x.h5", "/")))
    return found


def test_hdf5_that_claims_gigabytes_or_lies_elsewhere_is_refused(tmp_path):
    found = absurd(tmp_path / "h")
    work = "read_features(path)"
    said = limited("from store.features import read_features", work, *found.values(), megabytes=400)
    for name, result in zip(found, said, strict=True):
        assert result.startswith("refused"), (name, result)
        assert str(found[name]) in result
    for name in ("external", "virtual", "soft link", "external link", "climbing link"):
        with pytest.raises(InputError, match="another (file|place)"):
            open_hdf5(found[name])


def test_what_deflates_well_in_earnest_is_read(tmp_path):
    """A mask of eleven hours that is false throughout: a thousand to one."""
    n = 1_000_000
    path = feature_file(tmp_path / "f.h5", np.full((n, 1), np.nan), np.arange(n) / 25, valid=np.zeros(n, bool))  # fmt: skip
    assert len(read_features(path).valid) == n


# ---- checkpoints ----


def checkpoint(folder):
    settings = parse({"preset": "demo", "model": {"name": "da_mamba"}, "features": ["egemaps"]})
    about = {"run": "r", "seed": 1, "fingerprint": "f", "dims": {"egemaps": 3}}
    model = build(settings, about["dims"])
    save_model(folder / "m.safetensors", model.state_dict(), settings, about)
    return folder / "m.safetensors"


def test_a_checkpoint_that_claims_a_network_of_gigabytes_is_refused(tmp_path):
    path = checkpoint(tmp_path)
    tensors, metadata = load_tensors(path)
    paths = []
    for key, value in {"d": 50_000, "depth": 10**9, "state": 10**8, "context_width": 10**5, "local_chunk": 10**9, "conv": 10**9}.items():  # fmt: skip
        settings = metadata["settings"] | {"model": metadata["settings"]["model"] | {key: value}}
        paths.append(tmp_path / f"{key}.safetensors")
        save_tensors(paths[-1], tensors, metadata | {"settings": settings})
    for dims in (10**6, 10**15):
        paths.append(tmp_path / f"{dims}.safetensors")
        save_tensors(paths[-1], tensors, metadata | {"dims": {"egemaps": dims}})
    said = limited("from training.model_file import load_model", "load_model(path)", path, *paths, megabytes=300)  # fmt: skip
    assert said[0] == "right"
    for name, result in zip(paths, said[1:], strict=True):
        # a size that no tensor depends on may be right
        assert result.startswith("refused") or name.stem == "local_chunk", (name, result)


@pytest.mark.parametrize(
    "change",
    [{"dims": {"egemaps": "3"}}, {"dims": {"egemaps": 2.5}}, {"dims": [1]}, {"dims": None}, {"dims": {}}, {"dims": {"egemaps": True}},
     {"settings": None}, {"settings": []}, {"settings": {"model": {"name": ["x"]}}}, {"domains": 3}, {"schema_version": "1"}],
    ids=str,
)  # fmt: skip
def test_metadata_of_a_checkpoint_of_the_wrong_kind_are_refused(tmp_path, change):
    path = checkpoint(tmp_path)
    tensors, metadata = load_tensors(path)
    save_tensors(path, tensors, metadata | change)
    with pytest.raises(InputError):
        load_model(path)
    for text in ("[]", "1", "null", "[" * 5000 + "]" * 5000, '"x"'):
        from safetensors.torch import save_file

        save_file(tensors, path, {"json": text})
        for read in (load_model, load_tensors, model_metadata):
            with pytest.raises(InputError):
                read(str(path))


# ---- configs ----


def config(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_configs_without_end_are_refused_in_time_and_memory(tmp_path):
    laugh = ["a0: &a0 [x, y]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]  # fmt: skip
    merged = ["a0: &a0 {x: 1, y: 2}"] + [f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]  # fmt: skip
    texts = {
        "laugh": "\n".join(laugh),
        "merge": "\n".join(merged),
        "circle": "note: &a [*a]",
        "deep": "note: " + "[" * 3000 + "]" * 3000,
        "digits": "results: 1" + "0" * 5000,
        "large": "note: " + "x" * (2 << 20),
        "python": "note: !!python/object/apply:os.system [touch PWNED]",
        "expression": '__use_yte__: true\nnote: ?__import__("os").system("touch PWNED")',
    }
    files = []
    for name, text in texts.items():
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(text + "\n")
    work = "load_config([path])"
    said = limited("from workflow.config import load_config", work, *files, megabytes=400)
    assert all(s.startswith("refused") for s in said), said
    assert not list(ROOT.glob("PWNED")) and not list(tmp_path.glob("PWNED"))
    circle: dict = {}
    circle["runs"] = circle
    with pytest.raises(InputError, match="repeats itself"):
        check_config(circle)  # as Snakemake hands it over


@pytest.mark.parametrize(
    "text, said",
    [
        ("results: a\nresults: b\n", "twice"),
        ("media: {min_duration_s: 4, min_duration_s: 5}\n", "twice"),
        ("media: {min_duration_s: .nan}\n", "finite"),
        ("media: {length_tolerance_s: .inf}\n", "finite"),
        ("? [a, b]\n: c\n", "line 1"),
        (b"results: r\0\n", "control character"),
        (b"results: \xff\n", "UTF-8"),
        ("2001-99-99\n", "no setting"),
    ],
    ids=str,
)
def test_odd_configs_are_refused_with_the_place(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        load_config([config(tmp_path, text)])


def test_configs_of_other_editors_are_read(tmp_path):
    """A byte order mark, Windows line ends, JSON, a key that an anchor brings and the mapping changes."""
    assert load_config([config(tmp_path, b"\xef\xbb\xbfresults: r\r\n")])["results"] == "r"
    assert load_config([config(tmp_path, json.dumps({"results": "é"}))])["results"] == "é"
    own = "runs:\n  a: &a {model: {name: dat}}\n  b: {<<: *a, seeds: [1]}\n  c: {<<: *a, model: {name: mlp}}\n"  # fmt: skip
    assert load_config([config(tmp_path, own)])["runs"]["c"]["model"] == {"name": "mlp"}
    assert yaml.safe_load(own)["runs"]["b"]["seeds"] == [1]


def test_the_limits_are_limits_of_this_process(tmp_path):
    """The harness itself: what takes memory is seen."""
    (tmp_path / "x").touch()
    code = LIMITED.format(imports="", work="bytes(200 << 20)", megabytes=100)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], cwd=ROOT, capture_output=True, text=True)  # fmt: skip
    assert "MemoryError" in done.stderr


@pytest.mark.parametrize("value, kept", [("=HYPERLINK(1)", ""), ("@x", ""), ("-cmd|x", ""), ("German", "German"), ("-1", "-1")])  # fmt: skip
def test_facts_that_a_spreadsheet_would_run_are_left_out_of_the_sheet(tmp_path, value, kept):
    (tmp_path / "language.annotation.csv").write_text(f"0;1;{value};1\n")
    assert annotation_value(tmp_path / "language.annotation.csv") == kept
