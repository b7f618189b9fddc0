"""Golden values of the stages from recordings to aligned features."""

import json
from pathlib import Path

import numpy as np
from aligned_files import clock_file, feature_file, probe_record, results_folder
from face_files import rgb, shifted, texture, write_crops, write_faces
from golden_stages import golden, outputs, run
from media_files import tone, write_video, write_wav
from stream_trees import EGEMAPS, put, values

SPEECH = "noxi/001:expert,novice"


def voice(seconds: float = 3.0, rate: int = 16000) -> np.ndarray:
    """Something like speech: harmonics of a gliding pitch, syllables, breath; (n,) in -1..1."""
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.7 * t)) / rate
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 3 * t), 0, None)
    noise = np.random.default_rng(4).standard_normal(len(t))
    return 0.2 * harmonics * syllables + 0.005 * noise


def crops(folder: Path, size: int = 224):
    """Faces file and crop store of a texture that moves, one row without a face."""
    pictures = [rgb(shifted(texture(size, blur=5), 0.8 * i, -0.5 * i)) for i in range(8)]
    time = np.arange(8) / 25
    valid = time != time[5]
    rng = np.random.default_rng(2)
    marks = 0.5 + 0.1 * rng.standard_normal((1, 478, 2)) + 0.002 * np.arange(8)[:, None, None]
    faces = write_faces(folder / "faces.h5", time, valid, marks.astype(np.float32))
    return faces, write_crops(folder / "faces.crops.mkv", pictures)


@golden("media.probe")
def probe(folder):
    video = write_video(folder / "v.mp4", frames=125, audio=tone(5)[None])
    sound = write_wav(folder / "v.wav", tone(5.2))
    who = ["--dataset", "noxi", "--session", "001", "--role", "expert"]
    run("media.probe", "--video", video, "--audio", sound, *who, "--out", folder / "probe.json")
    return outputs(folder / "probe.json")


@golden("extractors.weights")
def weights(folder):
    from corpora.demo.weights import write_weights

    write_weights("clip_face", folder / "w")
    command = ["--feature", "clip_face", "--directory", folder / "w"]
    run("extractors.weights", *command, "--out", folder / "weights.json")
    record = json.loads((folder / "weights.json").read_text())
    return {"sizes": [f["bytes"] for f in record["files"]]}


@golden("extractors.stream")
def stream(folder):
    x = values(125, 4)
    x[40:50] = -1
    path = put(folder, "novice", "clip", x, 40.0)
    other = put(folder, "novice", EGEMAPS, values(125, 88))
    common = ["--stream", path, "--feature", "clip", "--references", f"{EGEMAPS}={other}"]
    run("extractors.stream", *common, "--out", folder / "plain.h5")
    run("extractors.stream", *common, "--drop", 1, "--invalid-value", -1, "--out", folder / "b.h5")
    return outputs(folder / "plain.h5", folder / "b.h5")


def demo_session(folder, seconds=4):
    where = ["--dataset", "noxi", "--session", "001", "--out", folder]
    run("corpora.demo.__main__", "session", *where, "--seconds", seconds)
    from corpora.demo import session_files

    return {k: folder / p for k, p in session_files("noxi", "001")["expert"].items()}


@golden("corpora.demo.session")
def demo(folder):
    import av
    import soundfile

    files = demo_session(folder)
    found = outputs(*(p for p in files.values() if p.suffix == ".csv"))
    found["sound"] = soundfile.read(files["audio"])[0]
    with av.open(str(files["video"])) as container:
        found["pictures"] = [f.to_ndarray(format="gray").mean() for f in container.decode(video=0)]
    return found


@golden("corpora.demo.weights")
def demo_weights(folder):
    run("corpora.demo.__main__", "weights", "--feature", "wav2vec2", "--out", folder / "a")
    run("corpora.demo.__main__", "weights", "--feature", "clip_face", "--out", folder / "b")
    return outputs(*sorted(folder.glob("*/*.safetensors")))


@golden("extractors.faces")
def faces(folder):
    video = demo_session(folder, 4)["video"]
    command = [
        "--video",
        video,
        "--out",
        folder / "faces.h5",
        "--crops",
        folder / "faces.crops.mkv",
    ]
    run("extractors.faces", *command)
    return outputs(folder / "faces.h5")


def sound_feature(name, *settings):
    def make(folder):
        sound = write_wav(folder / "a.wav", voice())
        run("extractors.run", name, "--audio", sound, *settings, "--out", folder / f"{name}.h5")
        return outputs(folder / f"{name}.h5")

    return make


@golden("extractors.egemaps")
def egemaps(folder):
    found = sound_feature("egemaps")(folder)
    sound = folder / "a.wav"
    run(
        "extractors.run",
        "egemaps",
        "--audio",
        sound,
        "--mode",
        "exact",
        "--out",
        folder / "exact.h5",
    )
    return found | outputs(folder / "exact.h5")


golden("extractors.egemaps_lld")(sound_feature("egemaps_lld"))


@golden("extractors.wav2vec2")
def wav2vec2(folder):
    from corpora.demo.weights import write_weights

    write_weights("wav2vec2", folder / "w")
    return sound_feature("wav2vec2", "--weights", folder / "w")(folder)


@golden("extractors.clip_face")
def clip_face(folder):
    from corpora.demo.weights import write_weights

    write_weights("clip_face", folder / "w")
    face, crop = crops(folder)
    command = ["--faces", face, "--crops", crop, "--weights", folder / "w"]
    run("extractors.run", "clip_face", *command, "--out", folder / "clip_face.h5")
    return outputs(folder / "clip_face.h5")


def crop_feature(name):
    def make(folder):
        face, crop = crops(folder)
        out = folder / f"{name}.h5"
        run("extractors.run", name, "--faces", face, "--crops", crop, "--out", out)
        return outputs(out)

    return make


golden("extractors.flow")(crop_feature("flow"))
golden("extractors.flow_magnitude")(crop_feature("flow_magnitude"))


@golden("alignment.clock")
def clock(folder):
    paths = []
    for role, seconds, offset in (("expert", 6.013, 0.0), ("novice", 5.0, 1.5)):
        paths.append(folder / f"{role}.json")
        paths[-1].write_text(json.dumps(probe_record(role, seconds, offset)))
    run("alignment.clock", "--probe", *paths, "--out", folder / "clock.json")
    return outputs(folder / "clock.json")


@golden("alignment.align")
def align(folder):
    rng = np.random.default_rng(1)
    time = np.arange(150) / 25 + 0.013
    valid = ~((time > 2) & (time < 2.9))
    source = feature_file(folder / "x.h5", rng.standard_normal((150, 3)), time, valid)
    clock = clock_file(folder / "clock.json", 6.5)
    common = ["--feature", source, "--clock", clock]
    run("alignment.align", *common, "--out", folder / "plain.h5")
    run("alignment.align", *common, "--method", "hold", "--offset", 0.25, "--out", folder / "b.h5")
    return outputs(folder / "plain.h5", folder / "b.h5")


@golden("alignment.labels")
def labels(folder):
    csv = folder / "labels.csv"
    csv.write_text("".join("nan\n" if 50 <= i < 60 else f"{i / 150:.4f}\n" for i in range(150)))
    (folder / "probe.json").write_text(json.dumps(probe_record("expert", 6.0, 0.5)))
    command = ["--labels", csv, "--probe", folder / "probe.json", "--offset", 0.5]
    run("alignment.labels", *command, "--out", folder / "labels.h5")
    return outputs(folder / "labels.h5")


@golden("alignment.qc")
def quality(folder):
    results = results_folder(folder)
    sound = write_wav(folder / "expert.wav", np.clip(3 * voice(6.0), -1, 1))
    command = ["--session", SPEECH, "--results", results, "--features", "clip_face", "wav2vec2"]
    command += ["--labels-roles", "expert", "--audio", f"expert={sound}"]
    run("alignment.qc", "session", *command, "--faces", "--out", folder / "quality.json")
    run("alignment.qc", "summary", "--inputs", folder / "quality.json", "--out", folder / "qc.tsv")
    return outputs(folder / "quality.json", folder / "qc.tsv")
