"""Miniature trees with the headers, names and defects of the challenge's downloads."""

from pathlib import Path

import numpy as np

from formats.ssi.stream import body_path, write_stream

RATE = 25.0
EGEMAPS, W2VBERT = "audio.egemapsv2", "audio.w2vbert2_embeddings"


def values(rows: int, dim: int, seed: int = 0, fill: float | None = None) -> np.ndarray:
    x = np.random.default_rng([seed, rows, dim]).normal(size=(rows, dim)).astype(np.float32)
    if fill is not None:
        x[:: max(1, rows // 10)] = fill
    return x


def openface(rows: int, seed: int = 0) -> np.ndarray:
    x = values(rows, 714, seed)
    x[:, 0], x[:, 1], x[:, 2] = np.arange(rows), 0, np.arange(rows) / RATE
    return x


def put(
    folder: Path, role: str, feature: str, x: np.ndarray, rate: float = RATE, rows=None
) -> Path:
    """One stream; `rows`: how many the header declares (default: those of the body)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{role}.{feature}.stream"
    write_stream(path, x, rate)
    if rows is not None:
        text = path.read_text()
        assert f'num="{len(x)}"' in text
        path.write_text(text.replace(f'num="{len(x)}"', f'num="{rows}"'))
    return path


def label(folder: Path, role: str, lines: int, name: str = "engagement") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{role}.{name}.annotation.csv").write_text("0.5\n" * lines)


def truncate(path: Path, share: float, dim: int) -> None:
    body = body_path(path)
    rows = int(len(body.read_bytes()) // (4 * dim) * share)
    body.write_bytes(body.read_bytes()[: rows * 4 * dim])
