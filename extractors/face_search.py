"""Who is the person of this recording? Looked up in a few pictures before tracking begins.

The most persistent face over pictures spread over the whole file wins; among faces that are
there about equally often, the largest. What is kept of the person: size, appearance, and where
they were seen when. Small faces are found by looking at overlapping square tiles.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from extractors.face_models import Detection, Face, FaceModels, Region, cut, iou

# A detector wants its face between these shares of the region's side (full range).
TILE_SHARES = (1.0, 0.5, 0.28)  # tile side / longer picture side: faces down to 2.5 % of it
FINE_SHARES = (0.14,)  # for a second look, when the first found nobody
PATCH = 16  # appearance: pixels a side
PATCH_MARGIN = 1.6  # side of the appearance patch / size of the face (hair belongs to it)
GALLERY = 32
# Two sightings may be the same face: centres closer than this many face sizes, sizes within ratio.
LINK_DISTANCE, LINK_RATIO = 1.5, 1.6
EQUALLY_OFTEN = 0.75
MESH_SCORE = 0.5


def appearance(rgb: np.ndarray, face: Face) -> np.ndarray:
    """Brightness of the levelled, blurred face patch, zero mean and unit length (256,)."""
    region = face.region()
    x, y = face.centre
    patch = cut(
        rgb,
        Region(float(x), float(y), face.size * PATCH_MARGIN, region.angle),
        3 * PATCH,
        cv2.BORDER_REPLICATE,
    )
    grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grey = cv2.resize(
        cv2.GaussianBlur(grey, (0, 0), 1.0), (PATCH, PATCH), interpolation=cv2.INTER_AREA
    )
    flat = (grey - grey.mean()).ravel()
    return flat / max(1e-6, float(np.linalg.norm(flat)))


@dataclass
class Person:
    """size in pixels, gallery of appearances, sightings (time_s, x, y) of the face's centre."""

    size: float
    gallery: list[np.ndarray]
    sightings: list[tuple[float, float, float]]
    own: list[np.ndarray] = field(default_factory=list)  # learnt while tracking, a ring

    def similarity(self, look: np.ndarray) -> float:
        """Correlation (-1..1) with the most similar known appearance."""
        return float(np.max(np.stack(self.gallery + self.own) @ look))

    def learn(self, look: np.ndarray) -> None:
        """Remember a new appearance of a face that is surely theirs."""
        if self.similarity(look) < 0.97:
            self.own.append(look)
            del self.own[:-GALLERY]

    def expected(self, time_s: float) -> np.ndarray:
        """Where they were seen nearest in time (x, y)."""
        return np.array(min(self.sightings, key=lambda s: abs(s[0] - time_s))[1:])


def tiles(width: int, height: int, side: float) -> list[Region]:
    """Square regions of `side` pixels that cover the picture, overlapping by a third."""
    if side >= max(width, height):
        return [Region(width / 2, height / 2, max(width, height))]

    def centres(length: int) -> np.ndarray:
        if length <= side:
            return np.array([length / 2])
        n = int(np.ceil((length - side) / (side * 2 / 3))) + 1
        return np.linspace(side / 2, length - side / 2, n)

    return [Region(float(x), float(y), side) for y in centres(height) for x in centres(width)]


def strongest(detections: list[Detection]) -> list[Detection]:
    """Drop detections that overlap a better one."""
    kept: list[Detection] = []
    for d in sorted(detections, key=lambda d: -d.score):
        if all(iou(d.box, k.box) < 0.3 for k in kept):
            kept.append(d)
    return kept


def find_faces(models: FaceModels, rgb: np.ndarray, shares: tuple[float, ...]) -> list[Face]:
    """All faces of a picture (H, W, 3), looked for in tiles of the given shares of its side."""
    height, width = rgb.shape[:2]
    found = []
    for share in shares:
        for tile in tiles(width, height, share * max(width, height)):
            found += models.detect(rgb, tile, full_range=True)
    faces: list[Face] = []
    for d in strongest(found):
        face = models.landmarks_of(rgb, d)
        if face.score >= MESH_SCORE and all(iou(face.box, f.box) < 0.3 for f in faces):
            faces.append(face)
    return faces


@dataclass
class _Cluster:
    times: list[float]
    faces: list[Face]
    looks: list[np.ndarray]


def choose_person(
    models: FaceModels, pictures: list[tuple[float, np.ndarray]], shares: tuple[float, ...]
) -> Person | None:
    """The person of the recording from pictures (time_s, rgb); None when no face is seen.

    shares : tile sides to search, as shares of the longer side of the picture.
    """
    clusters: list[_Cluster] = []
    for time_s, rgb in pictures:
        free = list(clusters)
        for face in find_faces(models, rgb, shares):
            look = appearance(rgb, face)
            near = [c for c in free if _linked(c, face, look)]
            if near:
                best = max(near, key=lambda c: max(float(k @ look) for k in c.looks))
                free.remove(best)
            else:
                best = _Cluster([], [], [])
                clusters.append(best)
            best.times.append(time_s)
            best.faces.append(face)
            best.looks.append(look)
    if not clusters:
        return None
    most = max(len(c.faces) for c in clusters)
    often = [c for c in clusters if len(c.faces) >= EQUALLY_OFTEN * most]
    chosen = max(often, key=lambda c: float(np.median([f.size for f in c.faces])))
    return Person(
        size=float(np.median([f.size for f in chosen.faces])),
        gallery=chosen.looks,
        sightings=[
            (t, float(f.centre[0]), float(f.centre[1]))
            for t, f in zip(chosen.times, chosen.faces, strict=True)
        ],
    )


def _linked(cluster: _Cluster, face: Face, look: np.ndarray) -> bool:
    """Same place, size and look as the last sighting; a changed place asks for a closer look."""
    last = cluster.faces[-1]
    ratio = face.size / last.size
    if not 1 / LINK_RATIO < ratio < LINK_RATIO:
        return False
    distance = float(np.linalg.norm(face.centre - last.centre)) / last.size
    alike = max(float(k @ look) for k in cluster.looks)
    return alike > (0.5 if distance < LINK_DISTANCE else 0.9)
