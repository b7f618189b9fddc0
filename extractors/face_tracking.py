"""Follow one person's face through a recording.

Each frame, the landmark network looks where the face was in the frame before. Every few frames,
and at once when anything is odd (a jump, a new size, a weak score), a detector must see a face of
the same place and size there, and a doubtful face must look like the person. When the face is
lost, a detector searches around the last place and then, tile by tile, everywhere; what it finds
must have the person's size and look. A gap is better than a false track.
"""

import numpy as np

from extractors.face_models import Detection, Face, FaceModels, Region, iou
from extractors.face_search import Person, appearance, tiles

CHECK_S = 0.16  # a detector confirms the track this often
TRUST_S = 0.6  # a track that no detector confirms ends after this long
STEP_RATIO = 1.3  # size between consecutive frames
STEP_DISTANCE = 0.45  # movement between consecutive frames, in face sizes
PERSON_RATIO = 1.7  # size against the person's own, while followed
ODD_RATIO, ODD_DISTANCE, ODD_SCORE = 1.25, 0.2, 0.9  # beyond these a track is checked at once
SIZE_MEMORY_S = 4.0  # the person's size follows slow changes (walking to the camera)
SIMILAR, STRANGE = 0.8, 0.6  # correlation: surely them (when found anew); surely not
# Found again: size against the person's, and distance from where they were lost in face sizes. Both
# loosen with the time away: at once, after LONG_S.
AGAIN_RATIO, AGAIN_RATIO_LATE = 1.25, 1.5
AGAIN_DISTANCE, AGAIN_SPEED = 1.0, 2.0  # sizes, sizes per second
LONG_S = 4.0  # away this long, they may be anywhere
SEARCH_SHARE = 0.2  # face size / tile side when searching
TILES_PER_FRAME = 2
SEEN_IOU, SEEN_RATIO = 0.3, 1.45  # detector against landmarks


class FaceTracker:
    """Feed frames in order with `step`; state does not grow.

    person : from extractors.face_search.choose_person. It is changed (learns looks and size).
    """

    def __init__(self, models: FaceModels, person: Person):
        self.models = models
        self.person = person
        self.face: Face | None = None  # in the frame before
        self.last_place: np.ndarray | None = None
        self.time_s = self.seen_s = self.confirmed_s = self.checked_s = self.calm_s = -np.inf
        self._tiles: list[Region] = []
        self._next_tile = 0

    def step(self, rgb: np.ndarray, time_s: float) -> Face | None:
        """The person's face in this frame (H, W, 3), or None."""
        dt = min(max(time_s - self.time_s, 1e-3), 1.0)
        self.time_s = time_s
        face = self._follow(rgb, time_s, dt) if self.face is not None else None
        if face is None:
            face = self._search(rgb, time_s)
        self.face = face
        if face is not None:
            self.seen_s = time_s
            self.last_place = face.centre
            gain = min(1.0, dt / SIZE_MEMORY_S)
            self.person.size *= (face.size / self.person.size) ** gain
        return face

    def _follow(self, rgb: np.ndarray, time_s: float, dt: float) -> Face | None:
        before = self.face
        face = self.models.landmarks(rgb, before.region())
        if face.score < 0.5:
            return None
        # Tolerances are for 25 frames a second; a longer step may change more.
        steps = max(1.0, dt * 25)
        change = abs(np.log(face.size / before.size))
        moved = float(np.linalg.norm(face.centre - before.centre)) / before.size
        against = abs(np.log(face.size / self.person.size))
        if (
            change > steps * np.log(STEP_RATIO)
            or moved > steps * STEP_DISTANCE
            or against > np.log(PERSON_RATIO)
        ):
            return None
        odd = (
            face.score < ODD_SCORE
            or moved > steps * ODD_DISTANCE
            or change > steps * np.log(1.12)
            or against > np.log(ODD_RATIO)
        )
        if odd:
            self.calm_s = time_s
        if odd or time_s - self.checked_s >= CHECK_S:
            self.checked_s = time_s
            verdict = self._check(rgb, face, odd)
            if verdict is False:
                return None
            if verdict:
                self.confirmed_s = time_s
                if time_s - self.calm_s > 1.0:
                    self.person.learn(appearance(rgb, face))
            elif time_s - self.confirmed_s > TRUST_S:
                return None
        return face

    def _check(self, rgb: np.ndarray, face: Face, odd: bool) -> bool | None:
        """True: a detector sees this face; False: it is another one; None: cannot tell."""
        x, y = face.centre
        region = Region(float(x), float(y), face.size * 3)
        seen = self._agreeing(self.models.detect(rgb, region, full_range=False), face)
        if seen is None:
            seen = self._agreeing(self.models.detect(rgb, region, full_range=True), face)
        if seen is False:
            return False
        alike = self.person.similarity(appearance(rgb, face))
        if odd and alike < STRANGE:
            return False
        return True if seen and alike >= STRANGE else None

    def _agreeing(self, detections: list[Detection], face: Face) -> bool | None:
        over = [d for d in detections if iou(d.box, face.box) > 0.1]
        if not over:
            return None
        best = max(over, key=lambda d: iou(d.box, face.box))
        ratio = best.size / face.size
        if iou(best.box, face.box) >= SEEN_IOU and 1 / SEEN_RATIO < ratio < SEEN_RATIO:
            return True
        return False if best.size / self.person.size > PERSON_RATIO else None

    def _search(self, rgb: np.ndarray, time_s: float) -> Face | None:
        height, width = rgb.shape[:2]
        size = self.person.size
        away_s = time_s - self.seen_s
        known = self.last_place is not None and away_s < LONG_S
        place = self.last_place if known else self.person.expected(time_s)
        regions = [Region(float(place[0]), float(place[1]), size * (4 if away_s < 1.0 else 6))]
        if away_s > 0.4:
            if not self._tiles:
                self._tiles = tiles(width, height, size / SEARCH_SHARE)
            for _ in range(min(TILES_PER_FRAME, len(self._tiles))):
                regions.append(self._tiles[self._next_tile % len(self._tiles)])
                self._next_tile += 1
        else:
            self._tiles = []
        for region in regions:
            for d in self.models.detect(rgb, region, full_range=True):
                if abs(np.log(d.size / size)) > np.log(PERSON_RATIO):
                    continue
                face = self.models.landmarks_of(rgb, d)
                if self._is_person(rgb, face, away_s, place if known else None):
                    self.confirmed_s = self.checked_s = self.calm_s = time_s
                    return face
        return None

    def _is_person(
        self, rgb: np.ndarray, face: Face, away_s: float, place: np.ndarray | None
    ) -> bool:
        """Found anew: is it them? `place`: where they were lost, None when they may be anywhere."""
        late = min(1.0, away_s / LONG_S)
        ratio = AGAIN_RATIO + late * (AGAIN_RATIO_LATE - AGAIN_RATIO)
        if face.score < 0.5 or abs(np.log(face.size / self.person.size)) > np.log(ratio):
            return False
        if place is not None:
            distance = float(np.linalg.norm(face.centre - place)) / self.person.size
            if distance > AGAIN_DISTANCE + AGAIN_SPEED * away_s:
                return False
        return self.person.similarity(appearance(rgb, face)) >= SIMILAR
