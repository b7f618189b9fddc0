"""More parsers under test (tests/fuzz/parsers.py): checkpoints, weights, histories, submissions, media."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from evaluation.curves import read_history
from evaluation.handed_in import Submission
from evaluation.layouts import LAYOUTS
from evaluation.official import numbers
from extractors.weights import checkpoint_files
from media.probe import probe
from model.checkpoint import load_tensors
from model.registry import build
from tests.fuzz import parsers as base
from tests.fuzz.parsers import Parser, each, files_below
from tests.fuzz.structured import mutate_safetensors, mutate_text, mutate_zip
from tests.media_files import write_video
from training.model_file import load_model, save_model
from training.optim import MovingAverage
from training.resume import State, load_resume, save_resume
from training.settings import parse
from workflow.trained import model_metadata


def parsers(house: Path) -> list[Parser]:
    """Every parser with its valid files, made below `house` with the real writers."""
    makers = (base.streams, base.annotations, base.labels, base.facts, base.sheets, base.configs, base.settings, base.specs,
              base.records, base.guarded, base.features, base.aligned, base.predicted, base.counted, base.described,
              checkpoints, resumed, weights, histories, submissions, recordings)  # fmt: skip
    found = []
    for maker in makers:
        folder = house / maker.__name__
        folder.mkdir(parents=True)
        found.append(maker(folder))
    return found


def checkpoints(folder: Path) -> Parser:
    dims = {"egemaps": 3}
    for name in ("mlp", "constant"):
        chosen = parse({"preset": "demo", "model": {"name": name}, "features": ["egemaps"]})
        torch.manual_seed(0)
        save_model(folder / f"{name}.safetensors", build(chosen, dims).state_dict(), chosen, {"run": "r", "seed": 1, "fingerprint": "f", "dims": dims})  # fmt: skip

    def check(place: Path) -> None:
        load_tensors(place / "m.safetensors")
        assert model_metadata(str(place / "m.safetensors"))["settings"]["features"]
        trained = load_model(place / "m.safetensors")
        assert trained.dims and all(
            isinstance(v, torch.Tensor) for v in trained.model.state_dict().values()
        )

    seeds = [{"m.safetensors": data} for data in files_below(folder).values()]
    return Parser("checkpoint", 5, seeds, check, form=mutate_safetensors)


def resumed(folder: Path) -> Parser:
    """A resume checkpoint is taken up whole or left alone; nothing of a damaged one is trained on."""
    dims = {"egemaps": 3}
    chosen = parse({"preset": "demo", "model": {"name": "mlp"}, "features": ["egemaps"]})

    def state() -> State:
        model = build(chosen, dims)
        return State(model, MovingAverage(model, 0.9), torch.optim.AdamW(model.parameters()))

    def write(place: Path) -> None:
        torch.manual_seed(0)
        s = state()
        sum(p.sum() for p in s.model.parameters()).backward()
        s.optimiser.step()
        s.step, s.sums, s.history = 3, {"loss": 1.0}, [{"epoch": 1, "loss": 0.5}]
        save_resume(place / "r.safetensors", "key", s)

    seeds = each(folder, write)

    def check(place: Path) -> None:
        torch.manual_seed(1)
        s = state()
        before = {n: t.clone() for n, t in s.model.state_dict().items()}
        load_resume(place / "r.safetensors", "key", s, torch.device("cpu"))
        if s.step == 0:
            assert all(torch.equal(before[n], t) for n, t in s.model.state_dict().items())
            return
        assert s.step == 3 and s.sums == {"loss": 1.0}
        good, _ = load_tensors(folder / "0" / "r.safetensors")
        assert all(torch.equal(good[f"model/{n}"], t) for n, t in s.model.state_dict().items())

    return Parser("resume checkpoint", 4, seeds, check, form=mutate_safetensors)


def weights(folder: Path) -> Parser:
    """A folder of pretrained weights, in shards."""

    def write(place: Path) -> None:
        for name in ("config.json", "preprocessor_config.json"):
            (place / name).write_text('{"hidden_size": 8}')
        save_file({"a": np.zeros(2, np.float32)}, place / "part.safetensors", {"format": "pt"})
        index = {"metadata": {"total_size": 8}, "weight_map": {"a": "part.safetensors"}}
        (place / "model.safetensors.index.json").write_text(json.dumps(index))

    def check(place: Path) -> None:
        found = checkpoint_files(place, "wav2vec2")
        assert all(p.parent == place for p in found)

    return Parser("weights folder", 4, each(folder, write), check, form=mutate_text)


def histories(folder: Path) -> Parser:
    def check(place: Path) -> None:
        for epochs, values in read_history(place / "h.jsonl").values():
            assert epochs.shape == values.shape and epochs.ndim == 1

    lines = [json.dumps({"epoch": k, "loss": 1 / k, "steps": k, "val_ccc": 0.1 * k}) for k in (1, 2, 3)]  # fmt: skip
    return Parser("history", 3, [{"h.jsonl": "\n".join(lines).encode()}], check, text=True)


def recordings(folder: Path) -> Parser:
    """Media of a few kilobytes: the containers are FFmpeg's business, what we make of them is ours."""
    write_video(folder / "v.mp4", frames=8)
    write_video(folder / "v.mkv", frames=8)
    import wave

    with wave.open(str(folder / "a.wav"), "wb") as f:
        f.setparams((1, 2, 8000, 0, "NONE", ""))
        f.writeframes(bytes(range(200)) * 20)

    def check(place: Path) -> None:
        info = probe(next(place.iterdir()))
        assert np.isfinite(info.duration_s) and (info.video or info.audio)
        assert not info.video or info.video.width * info.video.height <= 1 << 26

    return Parser("recording", 3, [{n: d} for n, d in files_below(folder).items()], check)


def submissions(folder: Path) -> Parser:
    layout = LAYOUTS[max(LAYOUTS)]
    name = next(iter(layout.folders))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(layout.member(name, "001", "expert"), "0.5\n" * 50)
        archive.writestr("../outside", "x")

    def check(place: Path) -> None:
        lines = Submission(place / "s.zip", layout).lines(name, "001", "expert")
        assert np.isfinite(numbers(lines, "s.zip")).all()
        assert {p.name for p in place.iterdir()} == {"s.zip"}  # members are read, never unpacked

    return Parser("submission zip", 4, [{"s.zip": out.getvalue()}], check, form=mutate_zip)
