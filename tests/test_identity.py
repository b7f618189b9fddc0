"""The identity of a feature: what differs, in which words, and the line of the config that cures it."""

import json
import re

import pytest
import yaml

from store.identity import cures, differences, identity_of, in_words, unsaid
from workflow.config import check_config, load_config, merge


def identity(
    extractor="extractors.wav2vec2", columns=("a", "b"), revision="1", version=0, **settings
):
    attributes = {"extractor": extractor, "model_id": "m", "model_revision": revision}
    attributes["dim_names"] = json.dumps(list(columns))
    if version:
        attributes["fingerprint"] = f"stage=extractors.x version={version} layer=0"
    return identity_of(attributes | {"settings": json.dumps(settings)}, len(columns))


def of_versions(**fingerprints):
    made = identity_of({"dim_names": "[]"} | fingerprints, 0)
    return {key: made.get(key) for key in ("version", "align_version")}


def of_stream(name):
    return identity("extractors.stream", name=name)


@pytest.mark.parametrize(
    ("feature", "there", "wanted", "words", "cure"),
    [
        ("wav2vec2", identity(layer=0), identity(layer=-1),
         "features.wav2vec2.layer is 0 instead of -1", "set `features: {wav2vec2: {layer: -1}}`"),
        ("egemaps", identity(mode="exact"), identity(mode="streaming"),
         "features.egemaps.mode is exact instead of streaming",
         "set `features: {egemaps: {mode: streaming}}`"),
        ("flow", identity(grid=3), identity(grid=4),
         "features.flow.grid is 3 instead of 4", "set `features: {flow: {grid: 4}}`"),
        ("flow", identity(faces={"margin": 2.0}), identity(faces={"margin": 1.6}),
         "faces.margin is 2.0 instead of 1.6", "set `faces: {margin: 1.6}`"),
        ("clip_face", identity(faces={"crop_size": 96}), identity(faces={"crop_size": 224}),
         "faces.crop_size is 96 instead of 224", "set `faces: {crop_size: 224}`"),
        ("clip_face", identity(precision="bf16"), identity(precision="fp32"),
         "features.clip_face.precision is bf16 instead of fp32",
         "set `features: {clip_face: {precision: fp32}}`"),
        ("flow", identity(align={"method": "hold"}), identity(align={"method": "linear"}),
         "features.flow.align.method is hold instead of linear",
         "set `features: {flow: {align: {method: linear}}}`"),
        ("sound", of_stream("egemaps"), of_stream("xlm"),
         "features.sound.name is egemaps instead of xlm", "set `features: {sound: {name: xlm}}`"),
        ("egemaps", identity("extractors.egemaps"), of_stream("audio.x"),
         "the extractor of egemaps is extractors.egemaps instead of extractors.stream",
         "set `features: {egemaps: {from: stream, name: audio.x}}`"),
        ("egemaps", of_stream("audio.x"), identity("extractors.egemaps"),
         "the extractor of egemaps is extractors.stream instead of extractors.egemaps",
         "leave `from` and `name` out of features.egemaps"),
        ("wav2vec2", identity(weights="sha256:b"), identity(weights="sha256:a"),
         "the weights of wav2vec2 is sha256:b instead of sha256:a",
         "name the weights m (sha256:a) in features.wav2vec2.weights"),
        ("egemaps", identity(revision="3"), identity(revision="2"),
         "the version of the model of egemaps is 3 instead of 2",
         "see to it that the version of the model of egemaps is 2"),
        ("flow", identity(version=2), identity(version=1),
         "the version of the extraction of flow is 2 instead of 1",
         "make flow with the release of the program that made the other"),
        ("flow", identity(faces={"version": 2}), identity(faces={"version": 1}),
         "the version of the face tracking of flow is 2 instead of 1",
         "make flow with the release of the program that made the other"),
        ("x", identity(columns=("a",)), identity(columns=("a", "b")), None,
         "see to it that the number of columns of x is 2"),
    ],
)  # fmt: skip
def test_what_differs_is_said_with_the_line_that_cures_it(feature, there, wanted, words, cure):
    found = differences(feature, there, wanted)
    assert cure in [d.cure for d in found]
    assert words is None or [d.words for d in found] == [words]
    assert differences(feature, wanted, wanted) == []
    # The line is one that the config accepts.
    for line in re.findall(r"`(\w+: .*)`", cure):
        change = yaml.safe_load(line)
        if feature == "sound":
            change["features"]["sound"] |= {"from": "stream"}
        check_config(merge(load_config(), change))


def test_what_an_identity_holds():
    attributes = {"extractor": "extractors.flow", "model_id": "dis", "model_revision": "4"}
    attributes |= {"dim_names": '["a","b"]', "settings": '{"grid": 4}', "fingerprint": ""}
    assert identity_of(attributes, 2) == {
        "extractor": "extractors.flow",
        "model_id": "dis",
        "model_revision": "4",
        "dims": 2,
        "columns": "3554d2b8a1e3",  # of printf '["a", "b"]' | sha256sum
        "settings": {"grid": 4},
    }
    assert identity_of({"dim_names": "[]"}, 0)["model_id"] == ""


def test_one_cause_is_said_once():
    """Another extractor has other settings, and other settings may give other columns."""
    odd = differences("f", identity("extractors.flow", grid=3), identity(grid=4))
    assert [d.name for d in odd] == ["extractor"]
    odd = differences("f", identity(columns=("a",), grid=3), identity(grid=4))
    assert [d.name for d in odd] == ["grid"]
    both = {"faces": {"margin": 1.6, "crop_size": 96}, "align": {"method": "hold"}}
    wanted = {"faces": {"margin": 1.5, "crop_size": 224}, "align": {"method": "linear"}}
    odd = differences("flow", identity(**both), identity(**wanted))
    assert in_words(odd) == (
        "features.flow.align.method is hold instead of linear; faces.crop_size is 96 instead of 224;"
        " faces.margin is 1.6 instead of 1.5"
    )
    assert cures([*odd, odd[0]]) == (
        "set `features: {flow: {align: {method: linear}}}`, set `faces: {crop_size: 224}`,"
        " set `faces: {margin: 1.5}`"
    )


def test_a_stream_is_its_name():
    """Whoever wrote the file may have described it otherwise; without a name, that is compared."""
    one, two = of_stream("xlm"), of_stream("xlm")
    two["model_id"] = "the stream xlm"
    assert differences("sound", one, two) == []
    del one["model_id"], one["model_revision"], two["model_revision"]
    assert differences("sound", one, two) == [] == unsaid(one, two)
    one, two = identity(name="x"), identity(name="x")  # no stream: a name says nothing of the model
    two["model_id"] = "another"
    assert [d.name for d in differences("f", one, two)] == ["model_id"]


def test_equal_weights_are_equal_whatever_their_folder_is_called():
    one, two = identity(weights="sha256:a", revision="x"), identity(weights="sha256:a")
    two["model_id"] = "another folder"
    assert differences("clip_face", one, two) == [] == unsaid(one, two)
    del two["settings"]  # of an earlier version: the revision is all there is
    assert [d.name for d in differences("clip_face", one, two)] == ["model_id", "model_revision"]


def test_what_only_one_side_says_is_no_difference():
    old, new = identity(layer=-1), identity(layer=-1, precision="fp32")
    assert differences("f", old, new) == [] and unsaid(old, new) == ["precision"]


def test_versions_are_those_of_extraction_and_alignment():
    """A feature file has its own fingerprint, an aligned file that of the alignment too."""
    one, two = "stage=extractors.flow version=3 grid=4", "stage=alignment.align version=12"
    assert of_versions(fingerprint=one) == {"version": 3, "align_version": None}
    both = of_versions(feature_fingerprint=one, fingerprint=two)
    assert both == {"version": 3, "align_version": 12}
    old = "code=3f2a91c04be7 conversion=4"  # of an earlier version
    assert of_versions(feature_fingerprint=old, fingerprint="") == dict.fromkeys(both)


def test_identities_need_sound_attributes():
    with pytest.raises(TypeError):
        identity_of({"dim_names": "[]", "settings": "3"}, 0)
    assert identity_of({"dim_names": "[]"}, 0).get("settings") is None
