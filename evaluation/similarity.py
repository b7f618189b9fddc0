"""Audio-visual similarity: how alike the groups of a model are, frame against frame.

python -m evaluation.similarity --checkpoint model.safetensors --sessions noxi/005:expert,novice@test \\
    --results results --out similarity.png

For every pair of groups, the cosine between the embeddings that the model brings together (before
any alignment by transport), for each frame of a window of one group and each of the other, averaged
over all windows of all participants in which both frames have a value. A bright diagonal says that
a frame's groups know each other; a bright square says that all frames look the same.

Output: the picture, and beside it NAME.csv with the numbers, one row per frame of the first group:
    group_a, group_b, frame_a, then the similarity to frame 0, 1, ... of group_b (empty: no window)
"""

import argparse
import csv
import sys
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.batch import Batch
from runtime import InputError, get_logger, progress
from runtime.device import describe_device, limit_threads, pick_device
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.atomic import atomic_path
from store.session_spec import SessionSpec, parse_specs
from store.sidecar import write_sidecar
from training.identities import check_trained
from training.model_file import Trained, load_model
from training.windows import Windows

log = get_logger("similarity")

BATCH = 64  # target windows at a time
PANEL_IN, DPI = 4.2, 110


@dataclass(frozen=True)
class Similarity:
    """Mean cosine of two groups. mean (L, L), NaN where no window counts; windows: how many do."""

    group_a: str
    group_b: str
    mean: np.ndarray
    windows: int

    @property
    def same_frame(self) -> float:
        """Mean over equal frames."""
        return _mean(np.diagonal(self.mean))

    @property
    def other_frames(self) -> float:
        """Mean over different frames."""
        return _mean(self.mean[~np.eye(len(self.mean), dtype=bool)])


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def directions(trained: Trained, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Embeddings of the targets' groups at length 1, and where they count.

    group -> (B, L, d), zero where the group has no value; group -> (B, L) bool.
    """
    model = trained.model
    if model.prompts is not None:
        batch = model.prompts(batch)
    unit, counts = {}, {}
    embeddings = model.embeddings(batch)  # group -> (B, L, d)
    for group, members in trained.settings.model.groups.items():
        present = torch.stack([batch.valid[m] for m in members]).any(0) & batch.recorded  # (R, L)
        counts[group] = present[batch.target][:, batch.prompts :]  # (B, L)
        x = F.normalize(embeddings[group][:, batch.prompts :].double(), dim=-1, eps=1e-6)
        unit[group] = torch.where(counts[group].unsqueeze(-1), x, 0.0)  # (B, L, d)
    return unit, counts


@torch.no_grad()
def similarity(
    checkpoint: Path, specs: list[SessionSpec], results: Path
) -> tuple[str, list[Similarity]]:
    """Name of the run, and the mean cosine of every pair of groups over all windows of the sessions.

    Raises InputError for a model that does not embed its groups in one space.
    """
    trained = load_model(checkpoint)
    settings = trained.settings
    if not settings.model.compares_groups:
        raise InputError(
            f"{checkpoint}: {settings.name} with these settings has no embeddings of groups to compare",
            "choose a run with two groups or more of a model that brings them together, for example "
            "da_mamba with alignment and modality_fusion, or align_mamba",
        )
    check_trained(results, specs, trained.features, str(checkpoint))
    domains = trained.metadata.get("domains", ())
    windows = Windows(results, specs, settings, False, domains=domains)
    device = pick_device()
    trained.model.to(device)
    pairs = list(combinations(settings.model.groups, 2))
    L = windows.window
    sums = {p: torch.zeros(L, L, dtype=torch.float64, device=device) for p in pairs}
    counts = {p: torch.zeros_like(sums[p]) for p in pairs}
    seen = dict.fromkeys(pairs, 0)
    for session in progress(range(len(specs)), "similarity", unit="sessions"):
        for _, batch in windows.in_order(session, BATCH):
            unit, present = directions(trained, batch.to(device))
            for a, b in pairs:
                sums[a, b] += torch.einsum("bie,bje->ij", unit[a], unit[b])  # (L, L)
                here = present[a].double(), present[b].double()  # (B, L) each
                counts[a, b] += here[0].T @ here[1]  # (L, L)
                seen[a, b] += int((present[a].any(1) & present[b].any(1)).sum())
    found = [Similarity(*p, (sums[p] / counts[p]).cpu().numpy(), seen[p]) for p in pairs]
    return f"{trained.metadata['run']}, seed {trained.metadata['seed']}", found


def write_numbers(found: list[Similarity], out: Path) -> None:
    """The table of the module's description."""
    with atomic_path(out) as temporary, open(temporary, "w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(["group_a", "group_b", "frame_a", *range(len(found[0].mean))])
        for s in found:
            for i, row in enumerate(s.mean):
                cells = ["" if np.isnan(v) else f"{v:.6f}" for v in row]
                writer.writerow([s.group_a, s.group_b, i, *cells])


def draw(found: list[Similarity], title: str, out: Path) -> None:
    """One panel per pair of groups; the same colours everywhere, white at zero."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PANEL_IN * len(found) + 0.8, PANEL_IN + 0.3), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    finite = [np.abs(s.mean[np.isfinite(s.mean)]) for s in found]
    limit = max([0.05, *(float(v.max()) for v in finite if len(v))])
    for panel, s in zip(panels, found, strict=True):
        picture = panel.imshow(
            s.mean, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
        )
        panel.set_xlabel(f"frame of {s.group_b}", fontsize=8)
        panel.set_ylabel(f"frame of {s.group_a}", fontsize=8)
        panel.set_title(
            f"same frame {s.same_frame:.3f}, others {s.other_frames:.3f}, {s.windows} windows",
            fontsize=8,
        )
        panel.tick_params(labelsize=7)
    figure.colorbar(picture, ax=panels, label="mean cosine", shrink=0.8)
    figure.suptitle(title, fontsize=9)
    with atomic_path(out, suffix=".png") as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation.similarity", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="model file of python -m training.train")
    add("--sessions", nargs="+", required=True, metavar="SPEC", help="dataset/session:role1,role2")
    add("--results", type=Path, default=Path("results"), help="results folder")
    add("--out", type=Path, required=True, help="picture to write (.png); the numbers go to .csv")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        limit_threads(args.threads)
        start = time.monotonic()
        specs = parse_specs(args.sessions)
        name, found = similarity(args.checkpoint, specs, args.results)
        write_numbers(found, args.out.with_suffix(".csv"))
        draw(found, f"{name}: similarity of groups", args.out)
        for s in found:
            log.info(
                "%s, %s: same frame %.3f, other frames %.3f",
                s.group_a,
                s.group_b,
                s.same_frame,
                s.other_frames,
            )
        counts = {
            f"{s.group_a}, {s.group_b}": {
                "windows": s.windows,
                "same_frame": round(s.same_frame, 6),
                "other_frames": round(s.other_frames, 6),
            }
            for s in found
        }
        write_sidecar(
            args.out,
            inputs={"checkpoint": args.checkpoint},
            settings={"sessions": [spec.text() for spec in specs]},
            fingerprint=args.fingerprint,
            packages=["h5py", "matplotlib", "numpy", "safetensors", "torch"],
            command=command_line(
                "evaluation.similarity", argv if argv is not None else sys.argv[1:]
            ),
            counts=counts,
            seconds=time.monotonic() - start,
            device=describe_device(),
        )

    return run_job("evaluation.similarity", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
