"""The parsers under test: valid files to start from, and what a successful result must satisfy.

A check may raise InputError (refused in plain words) or return (a right result); anything else, a
failed assertion included, is a finding.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import yaml

from alignment.aligned import AlignedFeature
from alignment.clock import read_clock, read_probe
from corpora import metadata
from corpora.sheet import NAME, SPLITS, read_sheet, write_sheet
from evaluation.predictions import PredictionFile
from evaluation.scorefile import read_scores
from extractors.weights import resolve as resolve_weights
from formats import stream_files
from formats.label_csv import read_labels
from formats.ssi.annotation import (
    Annotation,
    Continuous,
    Discrete,
    Free,
    Item,
    read_annotation,
    write_annotation,
)
from formats.ssi.stream import open_stream, write_stream
from inference.config import parse_prediction
from runtime import InputError
from store import layout
from store.aligned import check_aligned
from store.describe import describe, validate
from store.features import read_features
from store.intact import check_intact, read_sidecar
from store.session_spec import parse_spec
from store.sidecar import write_sidecar
from tests.aligned_files import clock_file, feature_file, probe_record
from tests.evaluation_data import write_predictions, write_scores
from tests.fuzz.structured import Mutation, mutate_hdf5
from tests.model_data import write_session
from training.settings import parse, resolve
from training.statistics import read_statistics, statistics
from workflow.config import ROOT, check_config, load_yaml, merge

Files = dict[str, bytes]


@dataclass(frozen=True)
class Parser:
    """name; weight: share of the inputs; seeds: sets of valid files; check: reads the folder.

    text: the mutations suit text; settings: the one file is JSON, changed key by key as well;
    whole: files that are never changed; form: a mutation that keeps the file's form.
    """

    name: str
    weight: int
    seeds: list[Files]
    check: Callable[[Path], None]
    text: bool = False
    settings: bool = False
    whole: tuple[str, ...] = ()
    form: Mutation | None = None


def files_below(folder: Path) -> Files:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def each(folder: Path, *writers: Callable[[Path], object]) -> list[Files]:
    """The files that every writer leaves in a folder of its own."""
    seeds = []
    for i, write in enumerate(writers):
        place = folder / str(i)
        place.mkdir(parents=True)
        write(place)
        seeds.append(files_below(place))
    return seeds


def streams(folder: Path) -> Parser:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((20, 3)).astype(np.float32)

    def check(place: Path) -> None:
        stream = open_stream(place / "a.x.stream")
        assert stream.values.ndim == 2 and stream.values.shape[1] == stream.header.dim
        body = (place / "a.x.stream~").stat().st_size
        if stream.header.ftype == "BINARY":
            assert stream.values.nbytes + stream.surplus_bytes == body
        assert stream.times.shape == (len(stream.values),)
        assert stream.values.nbytes <= max(8 * body, 64)  # nothing a header claims takes memory
        for extent in stream_files.lengths(place / "a").values():
            assert extent.rows >= 0 and extent.rate_hz > 0 and extent.pause_s >= 0

    writers = [
        lambda p: write_stream(p / "a.x.stream", values, 25.0, meta={"role": "novice"}),
        lambda p: write_stream(p / "a.x.stream", values, 25.0, "ASCII"),
        lambda p: write_stream(p / "a.x.stream", (values * 9).astype(np.int16), 50.0, chunks=[(0.0, 5), (1.0, 15)]),
        lambda p: write_stream(p / "a.x.stream", values > 0, 25.0, "ASCII", delim=";"),
    ]  # fmt: skip
    return Parser("stream", 10, each(folder, *writers), check, text=True)


def annotations(folder: Path) -> Parser:
    n = 6
    times = np.arange(n) / 2.0
    conf = np.ones(n, np.float32)
    kinds: list[Annotation] = [
        Continuous("engagement", np.linspace(0, 1, n, dtype=np.float32), conf, 25.0, meta={"a": "b"}),
        Discrete("d", times, times + 0.4, np.arange(n, dtype=np.int32) % 2, conf, (Item(0, "no"), Item(1, "yes"))),
        Free("f", times, times + 0.4, ("a;b", "", "é", "x", "y", "z"), conf),
    ]  # fmt: skip

    def check(place: Path) -> None:
        found = read_annotation(place / "a.annotation")
        again = place / "again.annotation"
        write_annotation(again, found, "BINARY" if not isinstance(found, Free) else "ASCII")
        back = read_annotation(again)
        for field in dataclasses.fields(found):
            if field.name not in ("meta", "items", "name"):
                a, b = (np.asarray(getattr(x, field.name)) for x in (found, back))
                np.testing.assert_array_equal(a, b)

    writers = [
        lambda p, k=kind, f=form: write_annotation(p / "a.annotation", k, f)
        for kind in kinds
        for form in ("ASCII", "BINARY")
    ]
    return Parser("annotation", 10, each(folder, *writers), check, text=True)


def labels(folder: Path) -> Parser:
    def check(place: Path) -> None:
        try:
            values = read_labels(place / "l.csv")
            known = values[~np.isnan(values)]
            assert len(values) and ((known >= 0) & (known <= 1)).all()
        except InputError:
            read_labels(place / "l.csv", ("low", "high"))

    seeds = [
        {"l.csv": "".join(f"{i / 30:.4f}\n" for i in range(30)).encode()},
        {"l.csv": b"\xef\xbb\xbf0.5\r\nnan\r\n-nan(ind)\r\n\r\n1e-3\r\n"},
        {"l.csv": b"low\nhigh\n\nlow\n"},
    ]
    return Parser("label csv", 10, seeds, check, text=True)


def facts(folder: Path) -> Parser:
    def check(place: Path) -> None:
        for text in (metadata.language(place), metadata.gender(place, "r")):
            assert isinstance(text, str) and not set(text) & set("\t\r\n")
        age = metadata.age(place, "r")
        assert age is None or 0 < age < 150

    names = ("language.annotation.csv", "r.gender.annotation.csv", "r.age.annotation.csv")
    seeds = [
        {name: text for name in names}
        for text in (b"0;10;2;1\n", b"0;1;\xc3\xa9n;1\n", b"0;1;34;1\n")
    ]
    return Parser("metadata csv", 6, seeds, check, text=True)


def sheets(folder: Path) -> Parser:
    rows = (
        "dataset\tsplit\tsession\trole\tvideo\taudio\tlabels\taudio_channel\troi\toffset\tage\texclude\texclude_reason\n"
        "noxi\ttrain\t001\texpert\ta.mp4\ta.wav\tl.csv\t0\t0,0,64,48\t\t34\t\t\n"
        '# a remark\nnoxi\ttrain\t001\tnovice\t"a.mp4"\ta.wav\t\t1\t\t1.5\t\tyes\tno face\n'
        "mpiigi\tval\té\tsubjectPos1\ta.mp4\t\t\t\t\t\t\t\t\n"
    )

    def check(place: Path) -> None:
        people = read_sheet(place / "s.tsv", place)
        assert people and len({(p.dataset, p.session, p.role) for p in people}) == len(people)
        for p in people:
            for name in (p.dataset, p.session, p.role):
                assert (
                    NAME.fullmatch(name)
                    and name not in (".", "..")
                    and not set(name) & set("/\\\0")
                )
            assert p.split in SPLITS and math.isfinite(p.offset) and p.offset >= 0
            assert p.exclude or not p.video or Path(p.video).is_file()
        (place / "again.tsv").write_text(write_sheet(people), encoding="utf-8")
        assert read_sheet(place / "again.tsv", place, check_files=False) == people

    media = {"a.mp4": b"x", "a.wav": b"x", "l.csv": b"0.5\n"}
    seeds = [
        {"s.tsv": rows.encode(), **media},
        {"s.tsv": rows.replace("\n", "\r\n").encode(), **media},
    ]
    return Parser("sheet", 10, seeds, check, text=True, whole=tuple(media))


def configs(folder: Path) -> Parser:
    base = merge(load_yaml(ROOT / "studies.yaml"), load_yaml(ROOT / "config.yaml"))

    def check(place: Path) -> None:
        config = check_config(merge(base, load_yaml(place / "c.yaml")), "c.yaml")
        assert isinstance(config["results"], str) and config["clock"]["rate_hz"] >= 1

    own = {
        "results": "results", "media_root": None, "labels": {"rate_hz": 25},
        "defaults": {"train": ["noxi/train"], "seeds": [1, 2], "model": {"name": "dat"}},
        "runs": {"a": {"model": {"heads": 4}}, "b": None}, "tables": {"main": {"runs": ["a", "b"]}},
    }  # fmt: skip
    seeds = [{"c.yaml": yaml.safe_dump(own).encode()}, {"c.yaml": json.dumps(own).encode()}]
    seeds += [{"c.yaml": (ROOT / "presets" / "noxi.yaml").read_bytes()}]
    return Parser("config", 3, seeds, check, text=True)


def settings(folder: Path) -> Parser:
    run = {
        "preset": "demo",
        "model": {"name": "da_mamba"},
        "training": {"epochs": 2},
        "features": ["egemaps", "flow"],
    }
    names = ("da_mamba", "dat", "coupled_mamba", "align_mamba", "bilstm", "mlp", "constant")

    def check(place: Path) -> None:
        try:
            given = json.loads((place / "s.json").read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return  # readers of JSON are tested as records
        if not isinstance(given, dict):
            return
        prediction = given.pop("prediction", None)
        if prediction is not None:
            parse_prediction(prediction)
        canonical = resolve(given)
        assert resolve(canonical) == canonical or "nan" in str(canonical)
        assert parse(given).frame_rate_hz > 0

    seeds = [{"s.json": json.dumps(run | {"model": {"name": name}}).encode()} for name in names]
    seeds += [
        {"s.json": json.dumps(resolve(run | {"model": {"name": name}})).encode()} for name in names
    ]
    seeds += [
        {
            "s.json": json.dumps(
                run | {"prediction": dataclasses.asdict(parse_prediction({}))}
            ).encode()
        }
    ]
    return Parser("run settings", 8, seeds, check, settings=True)


def specs(folder: Path) -> Parser:
    def check(place: Path) -> None:
        spec = parse_spec((place / "spec").read_text(encoding="utf-8", errors="surrogateescape"))
        for name in (spec.dataset, spec.session, *spec.roles):
            assert NAME.fullmatch(name), name
        inside = Path(layout.aligned(place, *spec.key, spec.roles[0], "egemaps")).resolve()
        assert inside.is_relative_to(place.resolve())
        assert parse_spec(spec.text()) == spec

    seeds = [{"spec": s} for s in (b"noxi/001:expert,novice", b"mpiigi/008:subjectPos1@test")]
    return Parser("session spec", 8, seeds, check, text=True)


def records(folder: Path) -> Parser:
    """Sidecars, probes, clocks, scores, manifests of weights: JSON that the workflow reads again."""

    def write(place: Path) -> None:
        feature_file(place / "f.h5", np.zeros((4, 2)), np.arange(4) / 25)
        write_sidecar(place / "f.h5", inputs={}, settings={"a": 1}, fingerprint="x", packages=["numpy"], command="python -m x")  # fmt: skip
        clock_file(place / "clock.json", 2.0)
        (place / "probe.json").write_text(json.dumps(probe_record()))
        write_scores(place / "scores.json", "r", 1, "noxi", {"test": {"001": {"expert": (np.arange(4.0), np.arange(4.0))}}})  # fmt: skip
        weights = {"feature": "clip_face", "model_id": "m", "model_revision": "r", "directory": "none", "files": [{"name": "n", "sha256": "0", "bytes": 1}]}  # fmt: skip
        (place / "weights.json").write_text(json.dumps(weights))

    readers: dict[str, Callable[[Path], object]] = {
        "f.json": lambda p: (read_sidecar(p), check_intact(p.with_suffix(".h5"))),
        "clock.json": read_clock,
        "probe.json": read_probe,
        "scores.json": lambda p: read_scores([p]),
        "weights.json": lambda p: resolve_weights(p, "clip_face"),
    }

    def check(place: Path) -> None:
        for name, read in readers.items():
            if (place / name).exists():
                read(place / name)
        if (place / "clock.json").exists():
            clock = read_clock(place / "clock.json")
            assert math.isfinite(clock.rate_hz) and 0 < clock.n_ticks < 10**9

    write(folder)
    everything = files_below(folder)
    seeds = [{n: everything[n] for n in names} for names in (("f.h5", "f.json"), ("clock.json",), ("probe.json",), ("scores.json",), ("weights.json",))]  # fmt: skip
    return Parser("sidecar, json", 10, seeds, check, settings=True, whole=("f.h5",))


def guarded(folder: Path) -> Parser:
    """A file with its sidecar, one of them changed or another's: no change is read."""

    def write(place: Path, scale: float = 1.0) -> None:
        feature_file(place / "f.h5", scale * np.ones((4, 2)), np.arange(4) / 25)
        write_sidecar(place / "f.h5", inputs={}, settings={}, fingerprint="x", packages=[], command="python -m x")  # fmt: skip

    seeds = each(folder, write, lambda p: write(p, 2.0))

    def check(place: Path) -> None:
        read_features(place / "f.h5")
        data, said = (place / "f.h5").read_bytes(), json.loads((place / "f.json").read_bytes())
        # a sidecar of an earlier version has no digest of its own
        earlier = "place" not in said and "record_sha256" not in (said.get("run") or {})
        assert any(
            data == s["f.h5"] and (earlier or said == json.loads(s["f.json"])) for s in seeds
        )

    return Parser("HDF5 and sidecar", 6, seeds, check)


def features(folder: Path) -> Parser:
    rng = np.random.default_rng(0)

    def check(place: Path) -> None:
        found = read_features(place / "f.h5")
        assert found.values.ndim == 2 and len(found.values) == len(found.time) == len(found.valid)
        assert np.isfinite(found.values[found.valid]).all() and (np.diff(found.time) > 0).all()
        assert len(found.dim_names) == found.values.shape[1]

    def write(place: Path, dtype: str = "float32") -> None:
        feature_file(place / "f.h5", rng.standard_normal((40, 3)), np.arange(40) / 25, dtype=dtype)

    return Parser(
        "feature HDF5",
        8,
        each(folder, write, lambda p: write(p, "float16")),
        check,
        form=mutate_hdf5,
    )


def aligned(folder: Path) -> Parser:
    write_session(folder, "noxi", "001", ("expert",), 6.0, 0, {"egemaps": 3})
    whole = files_below(folder)
    seeds = [{"a.h5": data} for name, data in whole.items() if name.endswith("expert/egemaps.h5") and name.startswith("aligned")]  # fmt: skip
    assert seeds

    def check(place: Path) -> None:
        problems = check_aligned(place / "a.h5")
        with AlignedFeature(place / "a.h5") as feature:
            if problems or feature.n_ticks > 10**6:
                return
            for step in (1, 4):
                values, valid = feature.read(0, feature.n_ticks, step)
                assert len(values) == len(valid) and values.shape[1] == feature.dim
                assert np.isfinite(values[valid]).all()

    return Parser("aligned HDF5", 6, seeds, check, form=mutate_hdf5)


def predicted(folder: Path) -> Parser:
    def write(place: Path) -> None:
        time = np.arange(30) / 25
        write_predictions(
            place / "p.h5",
            {("001", "expert"): (time, time / 2), ("001", "novice"): (time, time / 3)},
        )

    def check(place: Path) -> None:
        with PredictionFile(place / "p.h5") as f:
            for session, role in f.participants():
                series = f.read(session, role)
                assert len(series.time) == len(series.values) == len(series.valid) > 0
                assert np.isfinite(series.time).all()  # evaluation.score refuses NaN by its time

    return Parser("predictions HDF5", 5, each(folder, write), check, form=mutate_hdf5)


def counted(folder: Path) -> Parser:
    spec = write_session(
        folder / "r", "noxi", "001", ("expert", "novice"), 6.0, 0, {"egemaps": 3, "flow": 2}
    )
    statistics(folder / "r", [spec], ["egemaps", "flow"], 25.0, folder / "s.h5")

    def check(place: Path) -> None:
        found, label = read_statistics(place / "s.h5")
        for f in found.values():
            assert f["mean"].shape == f["std"].shape and f["mean"].ndim == 1 and f["count"] >= 1
            assert (
                np.isfinite(f["mean"]).all()
                and (f["std"] > 0).all()
                and np.isfinite(f["std"]).all()
            )
        assert np.isfinite(label["mean"]) and label["std"] > 0

    return Parser(
        "statistics HDF5", 4, [{"s.h5": (folder / "s.h5").read_bytes()}], check, form=mutate_hdf5
    )


def described(folder: Path) -> Parser:
    """`python -m store describe` and `validate` on every kind, foreign files too."""
    others = [
        maker(folder / maker.__name__)
        for maker in map(_housed, (features, aligned, predicted, counted))
    ]
    seeds = [
        {"x.h5": data} for parser in others for files in parser.seeds for data in files.values()
    ]
    with h5py.File(folder / "foreign.h5", "w") as f:
        f["group/table"] = np.arange(5)
    seeds.append({"x.h5": (folder / "foreign.h5").read_bytes()})

    def check(place: Path) -> None:
        if "not a file of this workflow" not in describe(place / "x.h5"):
            validate(place / "x.h5")

    return Parser("describe, validate", 5, seeds, check, form=mutate_hdf5)


def _housed(maker: Callable[[Path], Parser]) -> Callable[[Path], Parser]:
    def make(folder: Path) -> Parser:
        folder.mkdir(parents=True)
        return maker(folder)

    make.__name__ = maker.__name__
    return make
