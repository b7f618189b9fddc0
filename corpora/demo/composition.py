"""Who talks to whom in the demo corpus, and which files a session consists of.

The composition is data, known without generating anything, so that the sessions sheet and the
outputs of each generating job follow from it. Folder layouts are the official ones:

* NoXi and NoXi-Add: ``noxi/{train,val,test-base,test-additional}/<session>/<role>.video.mp4``,
  ``.audio.wav``, ``.engagement.annotation.csv`` (train, val), ``.age/.gender.annotation.csv`` and
  ``language.annotation.csv``;
* MPIIGI: ``mpii/MultiMediate25/<split>/originalAudioVideo-<split>/<session>/subjectPosN.{mp4,wav}``
  with labels in the parallel tree ``engagement-annotations-<split>/``; an empty seat has a picture
  of the empty chair, no audio and no label.

The truth of test sessions mirrors the same layout below ``truth/``, which no training rule reads;
the oracle of every participant lies there too.
"""

from dataclasses import dataclass

from corpora.sheet import COLUMNS
from runtime import InputError

SCALES = ("demo", "evidence")
SECONDS = 30.0
WEIGHTS_FILES = {
    "wav2vec2": ("config.json", "model.safetensors", "preprocessor_config.json"),
    "clip_face": ("open_clip_config.json", "open_clip_model.safetensors"),
}
DYAD = ("expert", "novice")
NEAR, FAR = 0.22, 0.12  # width of the drawn face as a share of the picture's width


@dataclass(frozen=True)
class Person:
    """One seat of a session. `gender` and `age` are empty where no file says them."""

    role: str
    face_share: float
    gender: str = ""
    age: str = ""
    missing_token: str | None = None  # how missing label values are spelt in this file
    empty_seat: bool = False


@dataclass(frozen=True)
class Session:
    """One recorded conversation; `rate_hz` is the video's frame rate."""

    dataset: str
    split: str
    session: str
    people: tuple[Person, ...]
    rate_hz: int = 25
    language: str = ""

    @property
    def participants(self) -> tuple[Person, ...]:
        """The seats somebody sits on."""
        return tuple(p for p in self.people if not p.empty_seat)


def _dyad(
    dataset: str,
    split: str,
    session: str,
    faces: tuple[float, float],
    *,
    rate_hz: int = 25,
    language: str = "",
    genders: tuple[str, str] = ("", ""),
    ages: tuple[str, str] = ("", ""),
    missing: tuple[str | None, str | None] = (None, None),
) -> Session:
    people = tuple(
        Person(role, faces[k], genders[k], ages[k], missing[k]) for k, role in enumerate(DYAD)
    )
    return Session(dataset, split, session, people, rate_hz, language)


_GROUPS = (
    Session(
        "mpiigi",
        "val",
        "008",
        (
            Person("subjectPos1", NEAR),
            Person("subjectPos2", FAR, missing_token="-nan(ind)"),
            Person("subjectPos3", NEAR),
            Person("subjectPos4", FAR),
        ),
    ),
    Session(
        "mpiigi",
        "test",
        "001",
        (
            Person("subjectPos1", FAR),
            Person("subjectPos2", NEAR),
            Person("subjectPos3", NEAR),
            Person("subjectPos4", NEAR, empty_seat=True),
        ),
    ),
)
_DEMO_DYADS = (
    _dyad(
        "noxi",
        "train",
        "001",
        (NEAR, NEAR),
        language="French",
        genders=("female", "male"),
        ages=("27", "41"),
    ),
    _dyad("noxi", "train", "003", (NEAR, FAR), language="French", missing=("", "nan")),
    _dyad("noxi", "train", "013", (FAR, NEAR), language="Français", genders=("male", "male")),
    _dyad("noxi", "train", "020", (FAR, NEAR), rate_hz=30),
    _dyad(
        "noxi",
        "val",
        "007",
        (NEAR, FAR),
        language="French",
        genders=("female", "female"),
        ages=("33", "24"),
    ),
    _dyad("noxi", "test", "002", (FAR, NEAR), language="French"),
    _dyad(
        "noxi-add",
        "test",
        "015",
        (NEAR, FAR),
        language="Arabic",
        genders=("male", "female"),
        ages=("30", "29"),
    ),
)
_MORE_DYADS = tuple(
    _dyad("noxi", "train", session, faces)
    for session, faces in (
        ("021", (NEAR, NEAR)),
        ("022", (NEAR, FAR)),
        ("023", (FAR, NEAR)),
        ("026", (NEAR, NEAR)),
        ("027", (FAR, FAR)),
        ("028", (NEAR, FAR)),
        ("029", (FAR, NEAR)),
        ("030", (NEAR, NEAR)),
    )
) + (
    _dyad("noxi", "val", "009", (FAR, NEAR)),
    _dyad("noxi", "test", "006", (NEAR, FAR)),
    _dyad("noxi", "test", "012", (NEAR, NEAR)),
    _dyad("noxi", "test", "018", (FAR, NEAR)),
    _dyad("noxi-add", "test", "016", (FAR, NEAR)),
)
_ORDER = {"noxi": 0, "noxi-add": 1, "mpiigi": 2}
_SPLIT_ORDER = {"train": 0, "val": 1, "test": 2}


def sessions(scale: str = "demo") -> tuple[Session, ...]:
    """All sessions of a scale, in the order of the sheet. InputError for an unknown scale."""
    if scale not in SCALES:
        raise InputError(f"unknown scale '{scale}'", f"use one of: {', '.join(SCALES)}")
    chosen = _DEMO_DYADS + _GROUPS + (_MORE_DYADS if scale == "evidence" else ())
    return tuple(
        sorted(chosen, key=lambda s: (_ORDER[s.dataset], _SPLIT_ORDER[s.split], s.session))
    )


def find_session(dataset: str, session: str) -> Session:
    """The session of either scale. InputError names the known ones."""
    for candidate in sessions("evidence"):
        if (candidate.dataset, candidate.session) == (dataset, session):
            return candidate
    known = ", ".join(f"{s.dataset}/{s.session}" for s in sessions("evidence"))
    raise InputError(f"the demo corpus has no session {dataset}/{session}", f"choose from: {known}")


def folder(session: Session) -> str:
    """Folder of the session's media, relative to the corpus root."""
    if session.dataset == "mpiigi":
        split = session.split
        return f"mpii/MultiMediate25/{split}/originalAudioVideo-{split}/{session.session}"
    return f"{_noxi_split(session)}/{session.session}"


def label_folder(session: Session) -> str:
    """Folder of the session's labels in the official layout (without ``truth/``)."""
    if session.dataset == "mpiigi":
        split = session.split
        return f"mpii/MultiMediate25/{split}/engagement-annotations-{split}/{session.session}"
    return folder(session)


def _noxi_split(session: Session) -> str:
    if session.dataset == "noxi-add":
        return "noxi/test-additional"
    return "noxi/test-base" if session.split == "test" else f"noxi/{session.split}"


def session_files(dataset: str, session: str) -> dict[str, dict[str, str]]:
    """Every file of a session, relative to the corpus root.

    Returns
    -------
    {role: {"video", "audio", "labels", "oracle", "oracle_own", ...}}; an empty seat has "video"
    only; "gender" and "age" appear where such files are written. The session's own files stand
    under the key "": {"language": ...}, absent when there are none.
    """
    found = find_session(dataset, session)
    media, labels = folder(found), label_folder(found)
    mpii = found.dataset == "mpiigi"
    truth = "truth/" if found.split == "test" else ""
    files: dict[str, dict[str, str]] = {}
    for person in found.people:
        role = person.role
        entry = {"video": f"{media}/{role}.mp4" if mpii else f"{media}/{role}.video.mp4"}
        if not person.empty_seat:
            entry["audio"] = f"{media}/{role}.wav" if mpii else f"{media}/{role}.audio.wav"
            entry["labels"] = f"{truth}{labels}/{role}.engagement.annotation.csv"
            entry["oracle"] = f"truth/{labels}/{role}.oracle.annotation.csv"
            entry["oracle_own"] = f"truth/{labels}/{role}.oracle_own.annotation.csv"
            if person.gender:
                entry["gender"] = f"{media}/{role}.gender.annotation.csv"
            if person.age:
                entry["age"] = f"{media}/{role}.age.annotation.csv"
        files[role] = entry
    if found.language:
        files[""] = {"language": f"{media}/language.annotation.csv"}
    return files


def weights_files(feature: str) -> tuple[str, ...]:
    """Names of the files in a small checkpoint's folder (`corpora.demo.weights`).

    InputError for a feature without weights.
    """
    if feature not in WEIGHTS_FILES:
        raise InputError(
            f"no small checkpoint for the feature '{feature}'",
            f"use one of: {', '.join(WEIGHTS_FILES)}",
        )
    return WEIGHTS_FILES[feature]


def sheet_rows(scale: str = "demo") -> list[dict[str, str]]:
    """Rows of the sessions sheet (keys: COLUMNS), one per participant, empty seats excluded.

    Test sessions name their labels in ``truth/``, so that scores exist; training reads train rows
    only.
    """
    rows = []
    for session in sessions(scale):
        files = session_files(session.dataset, session.session)
        for person in session.people:
            entry = files[person.role]
            row = dict.fromkeys(COLUMNS, "")
            row.update(
                dataset=session.dataset,
                split=session.split,
                session=session.session,
                role=person.role,
                video=entry["video"],
                audio=entry.get("audio", ""),
                labels=entry.get("labels", ""),
                language=session.language,
                gender=person.gender,
                age=person.age,
            )
            if person.empty_seat:
                row.update(exclude="yes", exclude_reason="no audio (empty seat?)")
            rows.append(row)
    return rows


def sheet_text(scale: str = "demo") -> str:
    """The sheet as tab-separated text with a header line."""
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(row[column] for column in COLUMNS) for row in sheet_rows(scale)]
    return "\n".join(lines) + "\n"
