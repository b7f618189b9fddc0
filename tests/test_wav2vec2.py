"""wav2vec2: frame grid, chunks, normalisation and times against transformers' own full passes."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import InputError
from runtime.torchvision_cpu import allow_torchvision_without_cuda

allow_torchvision_without_cuda()

import torch  # noqa: E402
from transformers import (  # noqa: E402
    HubertConfig,
    HubertModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from extractors import wav2vec2  # noqa: E402
from extractors.chunks import cut, plan  # noqa: E402
from extractors.encoder import load_encoder  # noqa: E402
from extractors.run import extract  # noqa: E402
from extractors.sound import Sound  # noqa: E402
from store.features import read_features  # noqa: E402

RATE = 16000
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
CONV = {
    **SMALL,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LARGE_STYLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
MODELS = {
    "wav2vec2-base": (Wav2Vec2Model, Wav2Vec2Config, CONV),
    "xls-r": (Wav2Vec2Model, Wav2Vec2Config, {**CONV, **LARGE_STYLE}),
    "hubert": (HubertModel, HubertConfig, {**CONV, **LARGE_STYLE}),
    "wavlm": (WavLMModel, WavLMConfig, {**CONV, "num_buckets": 32, "max_bucket_distance": 80}),
    "w2v-bert": (Wav2Vec2BertModel, Wav2Vec2BertConfig, SMALL),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny random checkpoint of every architecture, in the real on-disk layout."""
    made = {}
    for name, (model, config, options) in MODELS.items():
        torch.manual_seed(0)
        made[name] = tmp_path_factory.mktemp(name)
        model(config(**options)).eval().save_pretrained(made[name])
        if name == "w2v-bert":
            extractor = SeamlessM4TFeatureExtractor()
        else:
            extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
        extractor.save_pretrained(made[name])
    return made


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (200 + 60 * np.sin(3 * t)) * t) * (1 + np.sin(2 * t))
    return (0.1 * tone + 0.02 * rng.standard_normal(len(t)) + 0.01).astype(np.float32)


def blocks_of(signal: np.ndarray, n: int = 30000):
    return [signal[i : i + n] for i in range(0, len(signal), n)]


def full_pass(folder, signal: np.ndarray, layer: int = -1) -> np.ndarray:
    """transformers alone, the documented way: feature extractor, model, whole recording."""
    from transformers import AutoFeatureExtractor, AutoModel

    extractor = AutoFeatureExtractor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    inputs = extractor(signal, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True)
    hidden = out.last_hidden_state if layer == -1 else out.hidden_states[layer]
    if "attention_mask" in inputs:  # w2v-BERT pads an odd last filter-bank frame and masks it
        hidden = hidden[:, inputs["attention_mask"][0].bool()]
    return hidden[0].numpy()


def chunked(folder, signal, chunk, context, batch=1, layer=-1):
    """Hidden states of a recording in chunks of `chunk` frames."""
    encoder = load_encoder(folder, layer, "fp32")
    encoder.fit(blocks_of(signal))
    chunks = plan(encoder.frames(len(signal)), chunk, context)
    return np.concatenate(
        list(wav2vec2.encode_chunks(encoder, blocks_of(signal, 7777), chunks, batch))
    )


# ---- plan ----


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 400), length=st.integers(1, 60), context=st.integers(0, 29))
def test_each_frame_comes_from_the_chunk_where_it_is_farthest_from_an_edge(n, length, context):
    if length <= 2 * context:
        with pytest.raises(InputError, match="context"):
            plan(n, length, context)
        return
    chunks = plan(n, length, context)
    assert [f for c in chunks for f in range(c.keep_from, c.keep_to)] == list(range(n))
    (same,) = {c.stop - c.start for c in chunks}
    assert same <= length and (len(chunks) == 1 or same > length // 2)
    assert all(a.start < b.start for a, b in zip(chunks, chunks[1:], strict=False))
    # Not more work than the overlaps ask for.
    assert same * len(chunks) < n + 2 * context * (len(chunks) - 1) + len(chunks)
    for chunk in chunks:
        for frame in range(chunk.keep_from, chunk.keep_to):

            def distance(c, frame=frame):
                left = np.inf if c.start == 0 else frame - c.start
                right = np.inf if c.stop == n else c.stop - 1 - frame
                return min(left, right) if c.start <= frame < c.stop else -1

            assert distance(chunk) == max(map(distance, chunks))
            assert distance(chunk) >= context


@settings(max_examples=100, deadline=None)
@given(n=st.integers(400, 60000), length=st.integers(3, 50), block=st.integers(1, 9000))
def test_cut_gives_the_samples_of_each_chunk(n, length, block):
    signal = np.arange(n, dtype=np.float32)
    chunks = plan((n - 400) // 320 + 1, length, 1)
    pieces = list(cut(blocks_of(signal, block), chunks, 320, 400, n))
    assert len(pieces) == len(chunks)
    for chunk, piece in zip(chunks, pieces, strict=True):
        stop = (chunk.stop - 1) * 320 + 400 if len(chunks) > 1 else n
        np.testing.assert_array_equal(piece, signal[chunk.start * 320 : stop])


# ---- geometry ----


@pytest.mark.parametrize("name", ["xls-r", "w2v-bert"])
def test_frame_count_is_that_of_a_full_pass(folders, name):
    encoder = load_encoder(folders[name], -1, "fp32")
    rng = np.random.default_rng(1)
    for n in [560, 719, 720, 879, 880, *rng.integers(1000, 40000, 12)]:
        signal = sound(3.0)[:n]
        assert encoder.frames(n) == len(full_pass(folders[name], signal)), n
    if name == "xls-r":
        lengths = np.arange(400, 20000)
        model = encoder.model._get_feat_extract_output_lengths(torch.as_tensor(lengths))
        assert [encoder.frames(n) for n in lengths] == model.tolist()
        assert encoder.frames(399) == 0


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layer", [-1, 0, 2])
def test_short_audio_is_one_full_pass(folders, name, layer):
    signal = sound(2.13)
    got = chunked(folders[name], signal, 500, 20, layer=layer)
    np.testing.assert_allclose(got, full_pass(folders[name], signal, layer), atol=2e-5)


@pytest.mark.parametrize("name", ["wav2vec2-base", "xls-r", "w2v-bert"])
def test_long_audio_equals_a_naive_loop_over_chunks(folders, name):
    """transformers alone: the front end sees the whole recording, the transformer one chunk."""
    from transformers import AutoFeatureExtractor, AutoModel

    # Quiet first half: statistics of a chunk differ from those of the file.
    signal = sound(7.33 if name == "w2v-bert" else 7.31, seed=4)
    signal[: len(signal) // 2] *= 0.03
    got = chunked(folders[name], signal, 100, 15)
    length, starts = 97, [0, 67, 134, 201, 268]  # 365 frames in 5 chunks, by hand
    model = AutoModel.from_pretrained(folders[name]).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folders[name])
    whole = extractor(signal, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        if name == "w2v-bert":
            frames = whole["input_features"][0][whole["attention_mask"][0].bool()]
            pieces = {a: model(frames[None, a : a + length])[0][0].numpy() for a in starts}
        else:
            frames = model.feature_extractor(whole["input_values"]).transpose(1, 2)[0]
            pieces = {}
            for a in starts:
                projected, _ = model.feature_projection(frames[None, a : a + length])
                pieces[a] = model.encoder(projected).last_hidden_state[0].numpy()
    n = len(frames)
    assert len(got) == n == 365
    for frame in range(n):

        def distance(a, frame=frame):
            left = 1e9 if a == 0 else frame - a
            right = 1e9 if a + length == n else a + length - 1 - frame
            return min(left, right) if a <= frame < a + length else -1

        best = max(starts, key=distance)  # the first of equals
        np.testing.assert_allclose(got[frame], pieces[best][frame - best], atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_values_do_not_depend_on_the_batch(folders, name):
    signal = sound(9.7, seed=2)
    one = chunked(folders[name], signal, 60, 5, batch=1)
    for batch in (3, 8):
        np.testing.assert_allclose(
            chunked(folders[name], signal, 60, 5, batch=batch), one, rtol=0, atol=1e-5
        )


def test_statistics_are_those_of_the_feature_extractor_on_the_whole_file(folders):
    signal = sound(5.0) * np.linspace(0.1, 2, 5 * RATE, dtype=np.float32) + 0.3
    encoder = load_encoder(folders["xls-r"], -1, "fp32")
    encoder.fit(blocks_of(signal, 12345))
    expected = encoder.extractor(signal, sampling_rate=RATE)["input_values"][0]
    np.testing.assert_allclose(encoder.inputs(signal[None])[0], expected, atol=1e-5)

    encoder = load_encoder(folders["w2v-bert"], -1, "fp32")
    encoder.fit(blocks_of(signal, 321))
    expected = encoder.extractor(signal, sampling_rate=RATE, return_tensors="np")
    got = encoder.inputs(signal[None])[0]
    np.testing.assert_allclose(got, expected["input_features"][0, : len(got)], atol=1e-4)


@pytest.mark.parametrize("name", ["wav2vec2-base", "xls-r", "w2v-bert"])
def test_half_precision_stays_close(folders, name):
    signal = sound(3.0)
    exact = full_pass(folders[name], signal)
    for precision, limit in (("bf16", 0.05), ("fp16", 0.01)):
        encoder = load_encoder(folders[name], -1, precision)
        encoder.fit([signal])
        (got,) = encoder(signal[None])
        deviation = np.sqrt(np.mean((got - exact) ** 2)) / exact.std()
        assert 0 < deviation < limit, (precision, deviation)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_devices_agree(folders, monkeypatch):
    from extractors import encoder as module

    signal = sound(6.0)
    on_gpu = chunked(folders["xls-r"], signal, 100, 10, batch=3)
    monkeypatch.setattr(module, "pick_device", lambda: torch.device("cpu"))
    np.testing.assert_allclose(on_gpu, chunked(folders["xls-r"], signal, 100, 10), atol=1e-4)


# ---- the job ----


def test_click_appears_at_its_time(folders, tmp_path):
    """Layer 0 sees the convolutions and the position convolution; where it moves most is the click."""
    signal = 0.01 * np.random.default_rng(0).standard_normal(RATE * 4).astype(np.float32)
    at = 2.345
    click = signal.copy()
    click[round(at * RATE) : round(at * RATE) + 16] += 0.9
    found = []
    for name, audio in (("a", signal), ("b", click)):
        soundfile.write(tmp_path / f"{name}.wav", audio, RATE, subtype="FLOAT")
        extract(
            "wav2vec2",
            tmp_path / f"{name}.h5",
            Sound(tmp_path / f"{name}.wav"),
            weights=folders["xls-r"],
            layer=0,
            chunk_s=1.5,
            context_s=0.3,
            dtype="float32",
        )
        found.append(read_features(tmp_path / f"{name}.h5"))
    np.testing.assert_allclose(found[0].time[:3], [0.0125, 0.0325, 0.0525], atol=1e-12)
    moved = np.abs(found[1].values - found[0].values).mean(axis=1)
    assert abs(found[0].time[np.argmax(moved)] - at) <= 0.0125 + 0.001
    assert found[0].attributes["native_rate_hz"] == 50


def test_command_line_is_deterministic_and_records_the_weights(folders, tmp_path):
    soundfile.write(tmp_path / "a.wav", sound(3.0), RATE)
    command = [sys.executable, "-m", "extractors", "wav2vec2", "--audio", tmp_path / "a.wav"]
    command += ["--weights", folders["xls-r"], "--log", tmp_path / "log", "--chunk-s", "1.2"]
    command += ["--context-s", "0.2"]
    for out in ("one.h5", "two.h5"):
        done = subprocess.run([*command, "--out", tmp_path / out], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
    f = read_features(tmp_path / "one.h5")
    assert f.values.shape == (149, 32) and f.values.dtype == np.float16 and f.valid.all()
    sidecar = json.loads((tmp_path / "one.json").read_text())
    recorded = sidecar["settings"]["weights"]["files"]
    assert set(recorded) == {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert f.attributes["model_revision"].startswith("sha256:")
    assert json.loads(f.attributes["settings"]) == {
        "weights": f.attributes["model_revision"],
        "layer": -1,
        "chunk_s": 1.2,
        "context_s": 0.2,
        "precision": "fp32",
        "dtype": "float16",
    }


def test_values_beyond_float16_are_refused(folders, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", sound(1.0), RATE)
    encode = wav2vec2.encode_chunks
    monkeypatch.setattr(
        wav2vec2, "encode_chunks", lambda *a: (1e5 * np.abs(v) + 1e5 for v in encode(*a))
    )
    with pytest.raises(InputError, match="does not fit into float16"):
        extract("wav2vec2", tmp_path / "a.h5", Sound(tmp_path / "a.wav"), weights=folders["xls-r"])
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize("rows", [7, 4096])
def test_of_a_silent_recording_every_row_stands_and_none_is_valid(
    folders, tmp_path, monkeypatch, rows
):
    monkeypatch.setattr(wav2vec2, "ROWS", rows)
    for name, samples in (("live", sound(1.0)), ("dead", np.zeros(RATE))):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
        source = Sound(tmp_path / f"{name}.wav")
        counts = extract("wav2vec2", tmp_path / f"{name}.h5", source, weights=folders["xls-r"])
    dead, live = read_features(tmp_path / "dead.h5"), read_features(tmp_path / "live.h5")
    np.testing.assert_array_equal(dead.time, live.time)
    assert live.valid.all() and not dead.valid.any() and np.isnan(dead.values).all()
    assert (counts["rows"], counts["valid"]) == (len(live.time), 0)


def test_bad_input_is_named(folders, tmp_path):
    soundfile.write(tmp_path / "a.wav", sound(1.0), RATE)
    soundfile.write(tmp_path / "short.wav", sound(1.0)[:399], RATE)

    def run(audio="a.wav", weights=folders["xls-r"], **options):
        sound = Sound(tmp_path / audio)
        extract("wav2vec2", tmp_path / "bad.h5", sound, weights=weights, **options)

    cases = [
        ("needed for one frame", {"audio": "short.wav"}),
        ("layer 9 does not exist", {"layer": 9}),
        ("leaves nothing between", {"chunk_s": 1.0, "context_s": 0.6}),
        ("does not exist", {"weights": tmp_path / "nowhere"}),
    ]
    for message, options in cases:
        with pytest.raises(InputError, match=message):
            run(**options)
    assert not (tmp_path / "bad.h5").exists()


def test_incomplete_or_foreign_checkpoints_are_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "incomplete"
    folder.mkdir()
    for path in folders["xls-r"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    dropped = sorted(k for k in tensors if "attention.k_proj.weight" in k)[0]
    del tensors[dropped]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 tensors"):
        load_encoder(folder, -1, "fp32")

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "add_adapter": True}))
    with pytest.raises(InputError, match="adapter|lacks"):
        load_encoder(folder, -1, "fp32")
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of"}))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_encoder(folder, -1, "fp32")


def test_late_audio_and_gaps(folders, tmp_path, monkeypatch):
    """Rows start at the audio's true time; rows over a gap of the track are not valid."""
    import extractors.sound

    class Late:
        start_s = 1.5
        gaps = [(2.0, 2.1)]

        def __init__(self, signal):
            self.signal = signal

        def __iter__(self):
            return iter(blocks_of(self.signal))

    signal = sound(2.0)
    monkeypatch.setattr(extractors.sound, "audio_blocks", lambda *a, **k: Late(signal))
    soundfile.write(tmp_path / "x.wav", signal, RATE)  # for the sidecar's checksum
    sound_file = Sound(tmp_path / "x.wav")
    extract("wav2vec2", tmp_path / "x.h5", sound_file, weights=folders["xls-r"])
    with h5py.File(tmp_path / "x.h5") as f:
        time, valid = f["time"][()], f["valid"][()]
    assert time[0] == pytest.approx(1.5125)
    overlap = (time + 0.0125 > 2.0) & (time - 0.0125 < 2.1)
    np.testing.assert_array_equal(valid, ~overlap)
