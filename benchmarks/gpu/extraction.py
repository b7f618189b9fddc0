"""`clip_face` and `wav2vec2` against the bare model on ready inputs, on the same card."""

import time

from benchmarks.gpu.record import Options, Record
from runtime.torchvision_cpu import allow_torchvision_without_cuda

TITLE = "Extraction: clip_face and wav2vec2 against the bare model"
SECONDS = 110
CROPS_S, SOUND_S = 80.0, 1200.0


def run(record: Record, options: Options) -> None:
    """One table per extractor; an extractor whose packages are missing says so."""
    for part in (_clip, _wav2vec2):
        try:
            part(record, options)
        except ImportError as e:
            record.note(f"{part.__name__.strip('_')}: not run, {e}.")


def _clip(record: Record, options: Options) -> None:
    import itertools

    import torch

    from benchmarks import visual
    from benchmarks.gpu.timing import clock
    from benchmarks.gpu.utilisation import Utilisation
    from extractors import clip_face
    from extractors.face_track import read_track

    allow_torchvision_without_cuda()
    faces, crops = visual.synthetic(options.folder, 2.0 if options.quick else CROPS_S)
    weights = visual.random_vit_b_32(options.folder / "ViT-B-32")
    track = read_track(faces)
    torch.set_num_threads(options.threads)
    record.table(
        f"clip_face, ViT-B-32, {len(track)} crops of 224 pixels",
        *("numbers", "batch", "bare pictures/s", "encode pictures/s", "decode pictures/s"),
        *("whole pictures/s", "whole / bare", "GPU busy %", "x real time"),
    )
    ways = (
        [("fp32", 32), ("bf16", 32)]
        if options.quick
        else [("fp32", 32), ("bf16", 32), ("bf16", 256)]
    )
    for precision, batch in ways:
        tower = clip_face.ImageTower(weights, precision, options.device)
        ready = list(itertools.islice(clip_face.batches(crops, track, tower.prepare, batch), 4))
        pictures = ready[0][1]
        x = torch.zeros(len(pictures), 3, 224, 224, dtype=tower.dtype, device=options.device)
        x.normal_()
        calls = 1 if options.quick else max(4, 2048 // batch)

        def bare(tower=tower, x=x, calls=calls) -> None:
            with torch.inference_mode():
                for _ in range(calls):
                    tower.visual(x)

        def encode(tower=tower, pictures=pictures, calls=calls) -> None:
            for _ in range(calls):
                tower.encode(pictures)

        def whole(tower=tower, batch=batch) -> None:
            for _, given in clip_face.batches(crops, track, tower.prepare, batch):
                tower.encode(given)

        def decode(tower=tower, batch=batch) -> None:
            for _ in clip_face.batches(crops, track, tower.prepare, batch):
                pass

        clock(bare, options.device)
        n = len(pictures) * calls
        rates = [n / clock(work, options.device) for work in (bare, encode)]
        decoded = len(track) / clock(decode, options.device)
        start = time.monotonic()
        with Utilisation(options.device) as sampled:
            rate = len(track) / clock(whole, options.device)
        record.row(
            *(precision, batch, *rates, decoded, rate, rate / rates[0]),
            *(sampled.percent(since=start), rate / 25),
        )


def _wav2vec2(record: Record, options: Options) -> None:
    import numpy as np
    import soundfile

    from benchmarks import audio
    from benchmarks.gpu.timing import clock
    from benchmarks.gpu.utilisation import Utilisation
    from extractors.encoder import load_encoder
    from extractors.run import extract
    from extractors.sound import Sound

    shape, seconds = ("small", 62.0) if options.quick else ("large", SOUND_S)
    sound, out = options.folder / "a.wav", options.folder / "a.h5"
    soundfile.write(sound, audio.speech_like(seconds), audio.RATE_HZ)
    weights = audio.checkpoint(shape, options.folder)
    record.table(
        f"wav2vec2-{shape}, {seconds:g} s of sound in chunks of {audio.CHUNK_S:g} s",
        *(
            "numbers",
            "batch",
            "bare x real time",
            "whole x real time",
            "whole / bare",
            "GPU busy %",
        ),
    )
    ways = [("fp32", 1)] if options.quick else [("fp32", 1), ("fp32", 8), ("bf16", 8)]
    for precision, batch in ways:
        encoder = load_encoder(weights, -1, precision)
        frames = encoder.frames(round(audio.CHUNK_S * audio.RATE_HZ))
        n = (frames - 1) * encoder.stride + encoder.receptive
        chunks = np.stack([audio.speech_like(audio.CHUNK_S)[:n]] * batch)
        encoder.fit([chunks[0]])
        encoder(chunks)
        calls = 1 if options.quick else max(2, 16 // batch)
        bare = calls * batch * n / audio.RATE_HZ
        bare /= clock(lambda e=encoder, c=chunks, k=calls: [e(c) for _ in range(k)], options.device)
        start = time.monotonic()
        with Utilisation(options.device) as sampled:
            whole = seconds / clock(
                lambda p=precision, b=batch: extract(
                    "wav2vec2",
                    out,
                    Sound(sound),
                    weights=weights,
                    precision=p,
                    batch_size=b,
                    threads=options.threads,
                ),  # fmt: skip
                options.device,
            )
        busy = sampled.percent(since=start)
        record.row(precision, batch, bare, whole, whole / bare, busy)
    record.note(
        "The whole job reads its sound twice and loads the model once; both are in its time."
    )
