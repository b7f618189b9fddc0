"""The demo corpus: its composition, layout, truth, and that real tools see its faces and cues."""

import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from corpora.demo.composition import (
    FAR,
    NEAR,
    find_session,
    session_files,
    sessions,
    sheet_rows,
    weights_files,
)
from corpora.demo.session import write_session
from corpora.demo.truth import CENTRE, SPREAD, labels, session_latents
from runtime import InputError

ROOT = Path(__file__).resolve().parent.parent


def command(*argv: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """The whole demo corpus, 2 s long."""
    root = tmp_path_factory.mktemp("corpus")
    for s in sessions():
        write_session(root, 1, s.dataset, s.session, seconds=2.0)
    return root


def ccc(a: np.ndarray, b: np.ndarray) -> float:
    covariance = np.mean((a - a.mean()) * (b - b.mean()))
    return 2 * covariance / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)


# ---- composition and layout ----


@pytest.mark.parametrize("scale, name", [("demo", "sessions.tsv"), ("evidence", "evidence.tsv")])
def test_shipped_sheet_is_what_the_command_prints(scale, name):
    printed = command("corpora.demo", "sheet", "--scale", scale)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout == (ROOT / "corpora" / "demo" / name).read_text(encoding="utf-8")


def test_composition():
    people = [(s, p) for s in sessions() for p in s.participants]
    assert len(people) >= 20
    assert {s.dataset for s in sessions()} == {"noxi", "noxi-add", "mpiigi"}
    assert sorted({len(s.participants) for s in sessions()}) == [2, 3, 4]
    assert [s.session for s in sessions() if s.rate_hz == 30] == ["020"]
    assert sum(p.empty_seat for s in sessions() for p in s.people) == 1
    assert {p.face_share for _, p in people} == {NEAR, FAR}
    spelt = {p.missing_token for _, p in people} - {None}
    assert spelt == {"", "nan", "-nan(ind)"}
    evidence = sessions("evidence")
    assert set(sessions()) < set(evidence) and len(evidence) == 22
    assert len({(s.dataset, s.session) for s in evidence}) == len(evidence)
    with pytest.raises(InputError, match="unknown scale"):
        sessions("huge")


def test_exactly_the_announced_files(corpus):
    announced = {
        path
        for s in sessions()
        for files in session_files(s.dataset, s.session).values()
        for path in files.values()
    }
    found = {str(p.relative_to(corpus)) for p in corpus.rglob("*") if p.is_file()}
    assert found == announced


def test_truth_of_test_sessions_lies_apart(corpus):
    outside = [p for p in corpus.rglob("*.csv") if "truth" not in p.relative_to(corpus).parts]
    assert not [p for p in outside if "oracle" in p.name]
    assert not [
        p for p in outside if "engagement" in p.name and "test" in str(p.relative_to(corpus))
    ]
    training = [r for r in sheet_rows("evidence") if r["split"] == "train"]
    assert training
    assert not [v for row in training for v in row.values() if v.startswith("truth")]


@pytest.mark.parametrize("kind, root", [("noxi", "noxi"), ("mpiigi", "mpii")])
def test_the_sheet_maker_for_real_data_agrees(corpus, kind, root):
    printed = command("corpora", "init", kind, str(corpus / root))
    assert printed.returncode == 0, printed.stderr
    header, *lines = printed.stdout.splitlines()
    made = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    expected = [dict(r) for r in sheet_rows() if r["video"].startswith(root + "/")]
    for row in expected:
        if row["split"] == "test":
            row["labels"] = ""  # nobody finds the truth in the official folders
        for column in ("video", "audio", "labels"):
            row[column] = row[column].removeprefix(root + "/")
    assert made == expected


def test_media_are_as_announced(corpus):
    import av

    for session, rate in (("020", 30), ("001", 25)):
        files = session_files("noxi", session)["expert"]
        with av.open(str(corpus / files["video"])) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height, stream.average_rate) == (640, 480, rate)
            times = [frame.time for frame in container.decode(stream)]
        np.testing.assert_allclose(times, np.arange(2 * rate) / rate, atol=1e-9)
        with wave.open(str(corpus / files["audio"])) as f:
            assert (f.getnchannels(), f.getframerate(), f.getnframes()) == (1, 16000, 32000)
        lines = (corpus / files["labels"]).read_text().splitlines()
        assert len(lines) == 50 and all(0 <= float(x) <= 1 for x in lines)


@pytest.mark.parametrize(
    "dataset, session, role, token",
    [
        ("noxi", "003", "expert", ""),
        ("noxi", "003", "novice", "nan"),
        ("mpiigi", "008", "subjectPos2", "-nan(ind)"),
    ],
)
def test_missing_values_keep_their_line(corpus, dataset, session, role, token):
    text = (corpus / session_files(dataset, session)[role]["labels"]).read_text()
    lines = text.split("\n")[:-1]
    assert len(lines) == 50 and 1 <= lines.count(token) <= 4
    assert all(0 <= float(x) <= 1 for x in lines if x != token)


def test_equal_seed_gives_equal_bytes_and_another_seed_others(corpus, tmp_path):
    written = write_session(tmp_path, 1, "noxi", "003", seconds=2.0)
    for path in written:
        assert path.read_bytes() == (corpus / path.relative_to(tmp_path)).read_bytes(), path
    before = {path: path.read_bytes() for path in written}
    write_session(tmp_path, 2, "noxi", "003", seconds=2.0)
    changed = [path for path in written if path.read_bytes() != before[path]]
    assert {p.suffix for p in changed} == {".mp4", ".wav", ".csv"}


def test_bad_input_is_told_in_two_lines(tmp_path):
    done = command(
        "corpora.demo", "session", "--dataset", "noxi", "--session", "999", "--out", str(tmp_path)
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) <= 3 and "noxi/999" in done.stderr
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="too short"):
        write_session(tmp_path, 1, "noxi", "001", seconds=1.0)
    with pytest.raises(InputError, match="no small checkpoint"):
        weights_files("flow")


# ---- truth ----


@pytest.mark.parametrize("dataset, session", [("noxi", "001"), ("mpiigi", "008")])
def test_hidden_part_is_unknowable_without_partners(dataset, session):
    found = find_session(dataset, session)
    latents = session_latents(5, found, 30.0)
    assert len(latents) == len(found.participants)
    roles = list(latents)
    for role, mine in latents.items():
        for shown in (mine.own, mine.reaction, *mine.own_shown.values()):
            assert abs(np.corrcoef(mine.hidden, shown)[0, 1]) < 0.25
        for shown in mine.reaction_shown.values():
            assert np.corrcoef(mine.reaction, shown)[0, 1] > 0.85
            assert abs(np.corrcoef(mine.hidden, shown)[0, 1]) < 0.25
        if len(roles) == 2:
            other = latents[roles[1 - roles.index(role)]]
            np.testing.assert_allclose(mine.reaction, other.hidden, atol=1e-12)


def test_group_reaction_is_the_unit_variance_mean_of_the_others():
    from scipy.stats import norm

    latents = session_latents(5, find_session("mpiigi", "008"), 30.0)
    for role, mine in latents.items():
        others = [norm.ppf(x.hidden) for r, x in latents.items() if r != role]
        np.testing.assert_allclose(norm.ppf(mine.reaction), sum(others) / np.sqrt(3), atol=1e-9)


def test_label_is_sixty_percent_own_and_forty_percent_hidden():
    own, hidden, label, oracle, oracle_own = [], [], [], [], []
    for s in sessions("evidence"):
        latents = session_latents(1, s, 30.0)
        for p in s.participants:
            made = labels(1, s, p.role, latents[p.role], 30.0)
            own.append(latents[p.role].own[:3000:4])
            hidden.append(latents[p.role].hidden[:3000:4])
            label.append(made["labels"])
            oracle.append(made["oracle"])
            oracle_own.append(made["oracle_own"])
    own, hidden, label, oracle, oracle_own = map(
        np.concatenate, (own, hidden, label, oracle, oracle_own)
    )
    design = np.c_[np.ones_like(own), own, hidden]
    (_, a, b), *_ = np.linalg.lstsq(design, label, rcond=None)
    assert a == pytest.approx(SPREAD * np.sqrt(12 * 0.6), rel=0.03)
    assert b == pytest.approx(SPREAD * np.sqrt(12 * 0.4), rel=0.03)
    assert label.mean() == pytest.approx(CENTRE, abs=0.02)
    assert 0.95 < ccc(oracle, label) < 0.995
    # Closed form for one who knows the own part only: 2 * 0.6 / (1 + 0.6), less label noise.
    assert ccc(oracle_own, label) == pytest.approx(0.75, abs=0.05)


# ---- what real tools see ----


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """15 s of a dyad with a near and a far face: (root, files, latents)."""
    root = tmp_path_factory.mktemp("clip")
    write_session(root, 1, "noxi", "003", seconds=15.0)
    return root, session_files("noxi", "003"), session_latents(1, find_session("noxi", "003"), 15.0)


def smooth(x: np.ndarray, n: int) -> np.ndarray:
    return np.convolve(x, np.ones(n) / n, mode="same")


@pytest.mark.parametrize("role", ["expert", "novice"])
def test_mediapipe_sees_the_face_and_its_cues(clip, role):
    import av
    import cv2
    import mediapipe as mp

    root, files, latents = clip
    detector = mp.solutions.face_detection.FaceDetection(
        model_selection=1, min_detection_confidence=0.5
    )
    mesh = mp.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1)
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    times, rows, frames, region, before, motion = [], [], 0, None, None, []
    with av.open(str(root / files[role]["video"])) as container:
        for k, frame in enumerate(container.decode(video=0)):
            picture = frame.to_ndarray(format="rgb24")
            if region is not None:  # vertical motion of the upper face, every frame
                now = cv2.resize(cv2.cvtColor(picture[region], cv2.COLOR_RGB2GRAY), (112, 112))
                if before is not None:
                    v = flow.calc(before, now, None)[..., 1]
                    motion.append((frame.time, np.abs(v[20:60, 30:82]).mean()))
                before = now
            if k % 3:
                continue
            frames += 1
            found = detector.process(picture).detections
            if not found:
                continue
            assert len(found) == 1
            box = found[0].location_data.relative_bounding_box
            half = 0.8 * box.width * 640
            x = int((box.xmin + box.width / 2) * 640 - half)
            y = int((box.ymin + box.height / 2) * 480 - half)
            size = int(2 * half)
            if region is None:
                region = np.s_[max(y, 0) : y + size, max(x, 0) : x + size]
            crop = cv2.resize(picture[max(y, 0) : y + size, max(x, 0) : x + size], (224, 224))
            face = mesh.process(crop).multi_face_landmarks
            if not face:
                continue
            at = np.array([(p.x, p.y) for p in face[0].landmark])
            eyes = np.linalg.norm(at[33] - at[263])
            mouth = np.linalg.norm(at[61] - at[291]) / eyes
            times.append(frame.time)
            rows.append(mouth)
    detector.close()
    mesh.close()
    assert len(rows) >= 0.95 * frames
    mine = latents[role]
    # Width of the smiling mouth follows the own latent, depth of the nods the reaction.
    own = np.interp(times, mine.time, mine.own)
    assert np.corrcoef(smooth(np.array(rows), 5), own)[0, 1] > 0.7
    times, nods = np.array(motion).T
    reaction = np.interp(times, mine.time, mine.reaction)
    assert np.corrcoef(smooth(nods, 25), reaction)[0, 1] > 0.7


@pytest.mark.parametrize("role", ["expert", "novice"])
def test_opensmile_hears_the_cues(clip, role):
    import opensmile

    root, files, latents = clip
    smile = opensmile.Smile(
        opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.LowLevelDescriptors
    )
    lld = smile.process_file(str(root / files[role]["audio"]))
    times = np.arange(len(lld)) / 100
    mine = latents[role]
    own = np.interp(times, mine.time, mine.own)
    reaction = np.interp(times, mine.time, mine.reaction)
    loudness = lld["Loudness_sma3"].to_numpy()
    speech = loudness > 0.3 * np.quantile(loudness, 0.5)
    assert speech.mean() > 0.5
    spoken = np.maximum(smooth(speech.astype(float), 51), 1e-9)

    def over_syllables(x: np.ndarray) -> np.ndarray:
        return (smooth(x * speech, 51) / spoken)[speech]

    pitch = lld["F0semitoneFrom27.5Hz_sma3nz"].to_numpy()
    tilt = lld["alphaRatio_sma3"].to_numpy()
    assert np.corrcoef(over_syllables(pitch), own[speech])[0, 1] > 0.8
    assert np.corrcoef(over_syllables(loudness), own[speech])[0, 1] > 0.5
    assert np.corrcoef(over_syllables(tilt), reaction[speech])[0, 1] > 0.6


# ---- small checkpoints ----


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    from corpora.demo.weights import write_weights

    root = tmp_path_factory.mktemp("weights")
    for feature in ("wav2vec2", "clip_face"):
        files = write_weights(feature, root / feature)
        assert [f.name for f in files] == list(weights_files(feature))
        again = write_weights(feature, root / "again" / feature)
        other = write_weights(feature, root / "other" / feature, seed=1)
        for a, b, c in zip(files, again, other, strict=True):
            assert a.read_bytes() == b.read_bytes()
            assert (a.read_bytes() == c.read_bytes()) == (a.suffix == ".json")
    return root


def test_wav2vec2_checkpoint_hears(checkpoints, clip):
    import torch
    from transformers import AutoFeatureExtractor, AutoModel

    root, files, _ = clip
    with wave.open(str(root / files["expert"]["audio"])) as f:
        samples = np.frombuffer(f.readframes(80000), "<i2").astype(np.float32) / 32768
    folder = checkpoints / "wav2vec2"
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    assert extractor.do_normalize
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        out = model(extractor(samples, sampling_rate=16000, return_tensors="pt").input_values)
    values = out.last_hidden_state[0].numpy()
    assert values.shape == ((80000 - 400) // 320 + 1, 64)
    assert np.median(values.std(axis=0)) > 0.1


def test_clip_checkpoint_sees(checkpoints, clip):
    import av
    import open_clip
    import torch

    root, files, _ = clip
    folder = checkpoints / "clip_face"
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pictures = []
    for role in ("expert", "novice"):
        with av.open(str(root / files[role]["video"])) as container:
            frames = [f.to_image() for k, f in enumerate(container.decode(video=0)) if k % 75 == 0]
        pictures += [preprocess(f.crop((200, 60, 440, 300))) for f in frames]
    with torch.no_grad():
        values = model.eval().encode_image(torch.stack(pictures)).numpy()
    assert values.shape == (10, 64)
    between = np.linalg.norm(values[:5].mean(0) - values[5:].mean(0))
    within = np.linalg.norm(values[:5] - values[:5].mean(0), axis=1).mean()
    assert between > within > 0.05
