"""MediaPipe 0.10.21's face networks, run on regions of our choosing.

Its detectors resize whatever they get to 128 or 192 pixels a side, so what decides whether a face
is found is its share of the picture: we cut the region first. The landmark network is run through
a small graph of our own instead of `FaceMesh`: one call, one region, no memory of earlier frames,
and the network's face presence score, which `FaceMesh` keeps to itself.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

N_LANDMARKS = 468
MESH_INPUT = 192  # pixels a side of the landmark network's input
SHORT_INPUT, FULL_INPUT = 128, 192
# Landmark indices (MediaPipe's canonical face model); left and right as seen in the picture.
LEFT_EYE, RIGHT_EYE = (33, 133), (362, 263)
MESH_MARGIN = 1.5  # side of the landmark network's region / extent of the landmarks

MESH_GRAPH = """
num_threads: 1
input_stream: "image"
output_stream: "points"
output_stream: "score"
node {
  calculator: "ImageToTensorCalculator" input_stream: "IMAGE:image" output_stream: "TENSORS:input"
  options { [mediapipe.ImageToTensorCalculatorOptions.ext] {
    output_tensor_width: 192 output_tensor_height: 192
    output_tensor_float_range { min: 0 max: 1 } } } }
node {
  calculator: "ConstantSidePacketCalculator" output_side_packet: "PACKET:path"
  options { [mediapipe.ConstantSidePacketCalculatorOptions.ext] { packet {
    string_value: "mediapipe/modules/face_landmark/face_landmark.tflite" } } } }
node {
  calculator: "ResourceProviderCalculator"
  input_side_packet: "RESOURCE_ID:path" output_side_packet: "RESOURCE:resource" }
node {
  calculator: "TfLiteModelCalculator"
  input_side_packet: "MODEL_RESOURCE:resource" output_side_packet: "MODEL:model" }
node {
  calculator: "InferenceCalculatorCpu"
  input_stream: "TENSORS:input" output_stream: "TENSORS:output" input_side_packet: "MODEL:model"
  options { [mediapipe.InferenceCalculatorOptions.ext] {
    delegate { xnnpack { num_threads: 1 } } } } }
node {
  calculator: "SplitTensorVectorCalculator"
  input_stream: "output" output_stream: "points_tensor" output_stream: "flag_tensor"
  options { [mediapipe.SplitVectorCalculatorOptions.ext] {
    ranges { begin: 0 end: 1 } ranges { begin: 1 end: 2 } } } }
node {
  calculator: "TensorsToFloatsCalculator"
  input_stream: "TENSORS:points_tensor" output_stream: "FLOATS:points" }
node {
  calculator: "TensorsToFloatsCalculator"
  input_stream: "TENSORS:flag_tensor" output_stream: "FLOAT:score"
  options { [mediapipe.TensorsToFloatsCalculatorOptions.ext] { activation: SIGMOID } } }
"""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the C++ start-up chatter of MediaPipe off the screen (it writes to descriptor 2)."""
    sys.stderr.flush()
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


@dataclass(frozen=True)
class Region:
    """A square of the picture: centre and side in pixels, angle in radians (clockwise)."""

    x: float
    y: float
    side: float
    angle: float = 0.0

    def matrix(self, out: int) -> np.ndarray:
        """Affine map (2, 3) from picture pixels to an `out` x `out` cut."""
        scale = out / self.side
        c, s = scale * np.cos(self.angle), scale * np.sin(self.angle)
        half = out / 2
        return np.array(
            [
                [c, s, half - c * self.x - s * self.y],
                [-s, c, half + s * self.x - c * self.y],
            ]
        )


def cut(rgb: np.ndarray, region: Region, out: int, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """Resample a region of a picture (H, W, 3) to (out, out, 3); averaged when it shrinks."""
    # cv2 counts pixel centres as integers, our coordinates put them at .5
    matrix = region.matrix(out)
    shrink = region.side / out
    if shrink >= 2:
        # warpAffine samples four pixels and would alias: average first.
        reach = region.side * (0.5 if region.angle == 0 else 0.7072) + 1
        x0, y0 = max(0, int(region.x - reach)), max(0, int(region.y - reach))
        part = rgb[y0 : int(region.y + reach) + 1, x0 : int(region.x + reach) + 1]
        if part.size == 0:
            return np.zeros((out, out, 3), np.uint8)
        factor = int(shrink)
        size = max(1, part.shape[1] // factor), max(1, part.shape[0] // factor)
        fx, fy = part.shape[1] / size[0], part.shape[0] / size[1]
        rgb = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.array([[fx, 0, x0], [0, fy, y0], [0, 0, 1]])
    matrix = matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    return cv2.warpAffine(rgb, matrix, (out, out), flags=cv2.INTER_LINEAR, borderMode=border)


@dataclass
class Face:
    """A face with landmarks: points (468, 2) float32 in picture pixels, presence score 0..1."""

    points: np.ndarray
    score: float

    @cached_property
    def box(self) -> np.ndarray:
        """Extent of the landmarks: x, y, w, h in picture pixels (float32)."""
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        return np.concatenate([low, high - low]).astype(np.float32)

    @property
    def centre(self) -> np.ndarray:
        return self.box[:2] + self.box[2:] / 2

    @property
    def size(self) -> float:
        """Longer side of the box: changes less than the width when the head turns."""
        return float(max(self.box[2:]))

    def region(self) -> Region:
        """Where the landmark network should look in the next frame (eyes level)."""
        eyes = [self.points[list(pair)].mean(axis=0) for pair in (LEFT_EYE, RIGHT_EYE)]
        dx, dy = eyes[1] - eyes[0]
        angle = float(np.arctan2(dy, dx))
        c, s = np.cos(angle), np.sin(angle)
        turned = self.points @ np.array([[c, -s], [s, c]], np.float32)
        low, high = turned.min(axis=0), turned.max(axis=0)
        x, y = np.array([[c, -s], [s, c]]) @ ((low + high) / 2)
        return Region(float(x), float(y), float(max(high - low)) * MESH_MARGIN, angle)


@dataclass
class Detection:
    """A detector's square box (x, y, w, h, picture pixels), score, and the line of the eyes."""

    box: np.ndarray
    score: float
    angle: float

    @property
    def centre(self) -> np.ndarray:
        return self.box[:2] + self.box[2:] / 2

    @property
    def size(self) -> float:
        return float(max(self.box[2:]))

    def region(self) -> Region:
        x, y = self.centre
        return Region(float(x), float(y), self.size * MESH_MARGIN, self.angle)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes x, y, w, h."""
    low = np.maximum(a[:2], b[:2])
    high = np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    common = float(np.prod(np.clip(high - low, 0, None)))
    return common / max(1e-9, float(a[2] * a[3] + b[2] * b[3]) - common)


class FaceModels:
    """The three networks, one thread each; not safe to share between threads.

    min_confidence : detections below are not reported (0..1).
    """

    def __init__(self, min_confidence: float = 0.5):
        self.min_confidence = min_confidence
        with _quiet():
            from google.protobuf import text_format
            from mediapipe.framework import calculator_pb2
            from mediapipe.python.solution_base import SolutionBase
            from mediapipe.python.solutions.face_detection import FaceDetection

            config = text_format.Parse(MESH_GRAPH, calculator_pb2.CalculatorGraphConfig())
            self._mesh = SolutionBase(graph_config=config)
            self._short = FaceDetection(min_confidence, model_selection=0)
            self._full = FaceDetection(min_confidence, model_selection=1)
            blank = np.zeros((MESH_INPUT, MESH_INPUT, 3), np.uint8)
            for network in (self._mesh, self._short, self._full):
                network.process(blank)

    def close(self) -> None:
        for network in (self._mesh, self._short, self._full):
            network.close()

    def __enter__(self) -> "FaceModels":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def landmarks(self, rgb: np.ndarray, region: Region) -> Face:
        """Landmarks and presence score of the face that fills `region` of `rgb` (H, W, 3)."""
        picture = cut(rgb, region, MESH_INPUT)
        result = self._mesh.process(picture)
        flat = np.asarray(result.points, np.float32).reshape(N_LANDMARKS, 3)[:, :2]
        matrix = region.matrix(MESH_INPUT)
        back = np.linalg.inv(matrix[:, :2])
        points = (flat - matrix[:, 2]) @ back.T
        return Face(points.astype(np.float32), float(result.score))

    def landmarks_of(self, rgb: np.ndarray, detection: Detection) -> Face:
        """Landmarks from a detection: the second look is centred by the first."""
        first = self.landmarks(rgb, detection.region())
        if first.score < 0.1:
            return first
        return self.landmarks(rgb, first.region())

    def detect(self, rgb: np.ndarray, region: Region, full_range: bool) -> list[Detection]:
        """Faces in a square region of `rgb` (H, W, 3); best first.

        The full-range network wants a face of 7 to 50 % of the region's side, the quicker
        short-range one 12 to 70 %.
        """
        size = FULL_INPUT if full_range else SHORT_INPUT
        network = self._full if full_range else self._short
        found = network.process(cut(rgb, region, size)).detections or []
        x0, y0 = region.x - region.side / 2, region.y - region.side / 2
        faces = []
        for d in found:
            b = d.location_data.relative_bounding_box
            box = np.array([b.xmin, b.ymin, b.width, b.height]) * region.side
            box[:2] += (x0, y0)
            right, left = d.location_data.relative_keypoints[:2]
            angle = float(np.arctan2(left.y - right.y, left.x - right.x))
            faces.append(Detection(box, float(d.score[0]), angle))
        return sorted(faces, key=lambda f: -f.score)
