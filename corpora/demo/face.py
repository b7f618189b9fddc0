"""Drawn talking heads: large enough a likeness for face detectors, nobody's picture.

Coordinates of a head are in units of its width, origin between eyes and mouth, y downwards.
"""

from dataclasses import dataclass

import cv2
import numpy as np

WIDTH, HEIGHT = 640, 480  # of the picture, pixels
_SHIFT = 4  # fractional bits of cv2's sub-pixel coordinates
_LEFT, _RIGHT, _TOP, _BOTTOM = -0.72, 0.72, -1.0, 1.05  # extent of the head patch, head widths


@dataclass(frozen=True)
class Look:
    """What makes a person recognisable; colours are RGB 0..255, lengths in head widths."""

    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    lips: tuple[float, float, float]
    iris: tuple[float, float, float]
    clothes: tuple[float, float, float]
    wall: tuple[float, float, float]
    face_height: float
    eye_size: float
    brow_weight: float
    resting_brow: float
    resting_smile: float
    hair_drop: float
    texture_seed: int


@dataclass
class Pose:
    """State of a head in one frame: centre in pixels, roll in degrees, the rest 0..1."""

    x: float
    y: float
    roll: float
    mouth: float
    smile: float
    brow: float
    blink: float
    gaze: float


def random_look(rng: np.random.Generator) -> Look:
    """Draw a person."""
    skins = ((236, 190, 160), (222, 170, 136), (198, 144, 108), (244, 204, 180), (160, 112, 84))
    hairs = ((40, 28, 22), (84, 56, 34), (150, 112, 62), (24, 22, 26), (110, 60, 36))
    tone = rng.uniform(-8, 8, 3)
    skin = np.array(skins[rng.integers(len(skins))]) + tone
    hair = np.array(hairs[rng.integers(len(hairs))]) + rng.uniform(-8, 8)
    return Look(
        skin=tuple(skin),
        hair=tuple(hair),
        lips=tuple(skin * (0.80, 0.52, 0.54)),
        iris=tuple(rng.uniform((40, 40, 30), (90, 90, 120))),
        clothes=tuple(rng.uniform(40, 190, 3)),
        wall=tuple(rng.uniform(120, 205, 3)),
        face_height=rng.uniform(1.30, 1.42),
        eye_size=rng.uniform(0.93, 1.08),
        brow_weight=rng.uniform(0.85, 1.2),
        resting_brow=rng.uniform(-0.012, 0.012),
        resting_smile=rng.uniform(-0.15, 0.15),
        hair_drop=rng.uniform(0.0, 0.5),
        texture_seed=int(rng.integers(2**31)),
    )


def _colour(rgb) -> tuple[int, int, int]:
    return tuple(int(np.clip(c, 0, 255)) for c in rgb)


class Head:
    """A person's head of a given width (pixels); `draw` puts it into a picture."""

    def __init__(self, look: Look, width_px: float):
        self.look = look
        self.w = width_px
        self.patch_w = int(np.ceil((_RIGHT - _LEFT) * width_px))
        self.patch_h = int(np.ceil((_BOTTOM - _TOP) * width_px))
        self.base, self.mask = self._base()

    def _points(self, points) -> np.ndarray:
        xy = (np.asarray(points, dtype=np.float64) - (_LEFT, _TOP)) * self.w
        return np.round(xy * (1 << _SHIFT)).astype(np.int32)

    def _ellipse(self, image, centre, axes, colour, angle=0.0, arc=(0, 360), thickness=-1):
        c = self._points([centre])[0]
        a = np.maximum(np.round(np.asarray(axes) * self.w * (1 << _SHIFT)), 1).astype(int)
        cv2.ellipse(
            image,
            (int(c[0]), int(c[1])),
            (int(a[0]), int(a[1])),
            angle,
            arc[0],
            arc[1],
            colour,
            thickness,
            cv2.LINE_AA,
            _SHIFT,
        )

    def _polygon(self, image, points, colour):
        cv2.fillPoly(image, [self._points(points)], colour, cv2.LINE_AA, _SHIFT)

    def _line(self, image, points, colour, weight):
        thickness = max(1, int(round(weight * self.w)))
        cv2.polylines(image, [self._points(points)], False, colour, thickness, cv2.LINE_AA, _SHIFT)

    def _base(self) -> tuple[np.ndarray, np.ndarray]:
        """The unmoving parts (h, w, 3) uint8 and the head's outline (h, w) float32 0..1."""
        look = self.look
        skin = np.array(look.skin)
        half = look.face_height / 2
        image = np.zeros((self.patch_h, self.patch_w, 3), np.uint8)
        mask = np.zeros((self.patch_h, self.patch_w), np.uint8)
        neck = [(-0.24, 0.3), (0.24, 0.3), (0.28, 1.0), (-0.28, 1.0)]
        hair_box = (0.0, -0.14), (0.56, 0.70)
        for target, paint in ((image, None), (mask, 255)):

            def c(rgb, paint=paint):
                return _colour(rgb) if paint is None else paint

            self._ellipse(target, *hair_box, c(look.hair), arc=(180, 360))
            drop = 0.1 + look.hair_drop
            for side in (-1, 1):
                strand = [(side * 0.42, -0.15), (side * 0.56, -0.15), (side * 0.54, drop)]
                self._polygon(target, [*strand, (side * 0.46, drop)], c(look.hair))
            self._polygon(target, neck, c(skin * 0.78))
            for side in (-1, 1):
                self._ellipse(target, (side * 0.50, 0.02), (0.07, 0.13), c(skin * 0.86))
            self._ellipse(target, (0.0, 0.0), (0.5, half), c(skin))
        # Hairline, then light from the front: edges of the face are darker than its middle.
        self._ellipse(image, (0.0, -half + 0.04), (0.47, 0.26), _colour(look.hair), arc=(180, 360))
        face = np.zeros_like(mask)
        self._ellipse(face, (0.0, 0.0), (0.5, half), 255)
        y, x = np.mgrid[0 : self.patch_h, 0 : self.patch_w] / self.w + np.array(
            [[[_TOP]], [[_LEFT]]]
        )
        depth = np.clip(1 - (x / 0.5) ** 2 - (y / half) ** 2, 0, 1)
        light = np.where(face > 0, 0.80 + 0.26 * np.sqrt(depth), 1.0)
        rng = np.random.default_rng(look.texture_seed)
        grain = cv2.GaussianBlur(rng.standard_normal(mask.shape), (0, 0), max(0.8, self.w / 70))
        light = light * (1 + 0.035 * grain / grain.std())
        image = np.clip(image * light[..., None], 0, 255)
        # Soft shade: eye sockets, sides of the nose, under the nose and the lower lip, cheeks.
        shade = np.zeros(mask.shape, np.float32)
        for centre, radii, strength in (
            ((-0.21, -0.13), (0.15, 0.09), 0.20),
            ((0.21, -0.13), (0.15, 0.09), 0.20),
            ((-0.075, 0.02), (0.03, 0.13), 0.16),
            ((0.075, 0.02), (0.03, 0.13), 0.16),
            ((0.0, 0.185), (0.10, 0.025), 0.30),
            ((0.0, 0.50), (0.10, 0.03), 0.16),
        ):
            r2 = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2
            shade += strength * np.exp(-r2)
        r2 = (x / 0.035) ** 2 + ((y - 0.02) / 0.13) ** 2
        shade -= 0.10 * np.exp(-r2)
        image = np.clip(image * (1 - shade[..., None]), 0, 255).astype(np.uint8)
        nostril = _colour(skin * 0.45)
        for side in (-1, 1):
            self._ellipse(image, (side * 0.045, 0.155), (0.022, 0.013), nostril)
            wing = [(side * 0.085, 0.09), (side * 0.098, 0.14), (side * 0.07, 0.165)]
            self._line(image, wing, _colour(skin * 0.66), 0.012)
        soft = cv2.GaussianBlur(mask, (3, 3), 0).astype(np.float32) / 255
        fade = np.clip((_BOTTOM - 0.08 - y) / 0.12, 0, 1)  # the neck ends inside the clothes
        return image, (soft * fade).astype(np.float32)

    def _features(self, pose: Pose) -> np.ndarray:
        """The patch with eyes, brows and mouth in the state of `pose`."""
        look = self.look
        image = self.base.copy()
        skin, dark = np.array(look.skin), _colour(np.array(look.hair) * 0.7)
        lid = _colour(skin * 0.80)
        size = look.eye_size
        opening = 0.058 * size * (1 - 0.92 * pose.blink)
        for side in (-1, 1):
            x, y = side * 0.21, -0.12
            self._ellipse(image, (x, y), (0.105 * size, 0.07 * size), lid)
            self._ellipse(image, (x, y), (0.10 * size, opening), (244, 242, 238))
            if pose.blink < 0.6:
                pupil = x + 0.035 * (pose.gaze - 0.5)
                reach = min(0.048 * size, opening)
                self._ellipse(image, (pupil, y), (0.048 * size, reach), _colour(look.iris))
                self._ellipse(image, (pupil, y), (0.022 * size, min(0.022, opening)), (12, 10, 10))
                self._ellipse(image, (pupil - 0.012, y - 0.014), (0.008, 0.008), (250, 250, 250))
            upper = [(x - 0.105, y + 0.01), (x - 0.05, y - opening), (x + 0.05, y - opening)]
            self._line(image, [*upper, (x + 0.105, y + 0.01)], dark, 0.018)
            b = -0.235 + look.resting_brow - 0.11 * pose.brow
            brow = [(0.085, 0.018), (0.16, -0.022), (0.25, -0.026), (0.335, 0.022)]
            line = [(side * bx, b + by) for bx, by in brow]
            self._line(image, line, dark, 0.040 * look.brow_weight)
        self._mouth(image, pose)
        return image

    def _mouth(self, image: np.ndarray, pose: Pose) -> None:
        smile = pose.smile + self.look.resting_smile
        half = 0.145 + 0.065 * smile
        lift = 0.075 * smile - 0.015
        gap = 0.20 * pose.mouth
        t = np.linspace(-1, 1, 13)
        corner = 0.36 - lift * t**2  # corners rise with the smile
        arch = 1 - t**2
        upper_out = corner - 0.038 * arch - 0.25 * gap * arch
        upper_in = corner - 0.006 * arch - 0.22 * gap * arch
        lower_in = corner + 0.006 * arch + 0.78 * gap * arch
        lower_out = corner + 0.052 * arch + 0.88 * gap * arch
        x = half * t
        lips = np.r_[np.c_[x, upper_out], np.c_[x, lower_out][::-1]]
        inside = np.r_[np.c_[0.86 * x, upper_in], np.c_[0.86 * x, lower_in][::-1]]
        self._polygon(image, lips, _colour(self.look.lips))
        self._polygon(image, inside, (52, 20, 22))
        if gap > 0.03:
            teeth = np.minimum(upper_in + 0.03 * arch, lower_in)
            rows = np.r_[np.c_[0.72 * x, upper_in], np.c_[0.72 * x, teeth][::-1]]
            self._polygon(image, rows, (232, 228, 220))

    def draw(self, picture: np.ndarray, pose: Pose) -> None:
        """Paint the head into `picture` (480, 640, 3) RGB uint8, sub-pixel exact, in place."""
        patch = self._features(pose)
        # Room around the patch for roll and sub-pixel motion.
        room = int(0.12 * self.w) + 2
        left = int(np.floor(pose.x + _LEFT * self.w)) - room
        top = int(np.floor(pose.y + _TOP * self.w)) - room
        width, height = self.patch_w + 2 * room, self.patch_h + 2 * room
        pivot = (-_LEFT * self.w, (-_TOP + 0.6) * self.w)  # heads roll about the neck
        matrix = cv2.getRotationMatrix2D(pivot, pose.roll, 1.0)
        matrix[:, 2] += (pose.x + _LEFT * self.w - left, pose.y + _TOP * self.w - top)
        size = (width, height)
        patch = cv2.warpAffine(patch, matrix, size, flags=cv2.INTER_LINEAR)
        alpha = cv2.warpAffine(self.mask, matrix, size, flags=cv2.INTER_LINEAR)
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + width, picture.shape[1]), min(top + height, picture.shape[0])
        cut = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
        weight = np.ascontiguousarray(alpha[cut])
        under = np.ascontiguousarray(picture[y0:y1, x0:x1])
        over = np.ascontiguousarray(patch[cut])
        picture[y0:y1, x0:x1] = cv2.blendLinear(over, under, weight, 1 - weight)


def background(look: Look, x: float, y: float, width_px: float, seated: bool = True) -> np.ndarray:
    """Room behind the person, with the body below the head: (480, 640, 3) RGB uint8."""
    rng = np.random.default_rng(look.texture_seed + 1)
    wall = np.array(look.wall)
    rows = np.linspace(1.06, 0.82, HEIGHT)[:, None, None]
    image = np.clip(wall * rows * np.ones((HEIGHT, WIDTH, 1)), 0, 255)
    grain = cv2.GaussianBlur(rng.standard_normal((HEIGHT, WIDTH)), (0, 0), 2.0)
    image = np.clip(image + 3.0 * (grain / grain.std())[..., None], 0, 255).astype(np.uint8)
    for _ in range(3):  # furniture: frames on the wall and a shelf
        a = rng.integers((0, 0), (WIDTH - 80, HEIGHT - 120))
        b = a + rng.integers((40, 40), (150, 110))
        shade = _colour(wall * rng.uniform(0.55, 0.85))
        cv2.rectangle(image, tuple(map(int, a)), tuple(map(int, b)), shade, -1)
    chair = _colour(np.array(look.clothes) * 0.4)
    half = int(0.75 * width_px)
    top = int(y + (0.55 if seated else 0.2) * width_px)
    cv2.rectangle(image, (int(x) - half, top), (int(x) + half, HEIGHT), chair, -1)
    if seated:
        body = (int(x), int(y + 2.05 * width_px))
        axes = (int(1.05 * width_px), int(1.2 * width_px))
        cloth = _colour(look.clothes)
        cv2.ellipse(image, body, axes, 0, 180, 360, cloth, -1, cv2.LINE_AA)
        left, right = body[0] - axes[0], body[0] + axes[0]
        cv2.rectangle(image, (left, body[1]), (right, HEIGHT), cloth, -1)
    return cv2.GaussianBlur(image, (0, 0), 0.8)
