"""Feed every parser mutated files; each must end in InputError or a right result.

    python -m tests.fuzz --inputs 100000 --seed 0
    python -m tests.fuzz --seed 0 --replay 4711 --keep /tmp/input      # one input again

Input k depends on the seed and k alone. The work is done in child processes: one that crashes, hangs
or wants more memory than an input can need is a finding like an exception, and the next goes on.
"""

import argparse
import json
import logging
import mmap
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from runtime import InputError
from runtime.job import run_job
from tests.fuzz.more_parsers import parsers
from tests.fuzz.mutate import mutate_bytes, mutate_settings
from tests.fuzz.parsers import ROOT, Parser
from tests.fuzz.structured import mutate_text

HANG_S = 20.0
MEMORY_BYTES = 3 << 30  # beyond what the libraries take when loaded; the files have kilobytes
SHOWN = 20


class Inputs:
    """Input k: which parser, which files."""

    def __init__(self, found: list[Parser], seed: int):
        self.seed = seed
        self.turns = [p for p in found for _ in range(p.weight)]
        random.Random(0).shuffle(self.turns)

    def parser(self, k: int) -> Parser:
        return self.turns[k % len(self.turns)]

    def files(self, k: int) -> dict[str, bytes]:
        rng = random.Random(f"{self.seed}:{k}")
        parser = self.parser(k)
        files = dict(rng.choice(parser.seeds))
        names = [n for n in files if n not in parser.whole]
        name = rng.choice(names)
        if parser.settings and rng.random() < 0.7:
            changed = mutate_settings(rng, json.loads(files[name]))
            try:
                files[name] = json.dumps(changed).encode()
                return files
            except (TypeError, ValueError):
                pass  # keys that JSON cannot hold: bytes instead
        form = parser.form or (mutate_text if parser.text else None)
        if form and rng.random() < 0.5:
            try:
                files[name] = form(rng, files[name])
                return files
            except Exception:
                pass  # what cannot be written: bytes instead
        others = [s[n] for s in parser.seeds for n in s if n not in parser.whole]
        files[name] = mutate_bytes(rng, files[name], others, parser.text or parser.settings)
        return files


def write_files(place: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def try_one(parser: Parser, files: dict[str, bytes], place: Path) -> str:
    """ "right", "refused", or the traceback of an escape."""
    for old in place.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    write_files(place, files)
    try:
        parser.check(place)
        return "right"
    except InputError as e:
        return "refused" if str(e).strip() else "an InputError without words"
    except BaseException:
        return traceback.format_exc()


def work(
    inputs: Inputs, first: int, last: int, place: Path, shared: mmap.mmap, findings: Path
) -> None:
    """A child: inputs first..last; tells where it is, and counts, in the shared memory."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # C libraries talk
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    names = sorted({p.name for p in inputs.turns})
    for k in range(first, last):
        shared[0:8] = struct.pack("<q", k)
        parser = inputs.parser(k)
        result = try_one(parser, inputs.files(k), place)
        if result not in ("right", "refused"):
            with open(findings, "a", encoding="utf-8", errors="backslashreplace") as f:
                f.write(json.dumps({"input": k, "parser": parser.name, "trace": result}) + "\n")
        at = 8 + 24 * names.index(parser.name)
        column = {"right": 0, "refused": 8}.get(result, 16)
        count = struct.unpack_from("<q", shared, at + column)[0] + 1
        struct.pack_into("<q", shared, at + column, count)
    shared[0:8] = struct.pack("<q", last)
    os._exit(0)


def fuzz(
    n: int, seed: int, first: int = 0, show: bool = True, hang_s: float = HANG_S
) -> tuple[dict, list[dict]]:
    """Run inputs first..first + n; returns {parser: (right, refused, escaped)} and the escapes."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    house = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory))
    try:
        (house / "seeds").mkdir()
        found = parsers(house / "seeds")
        inputs = Inputs(found, seed)
        for parser in found:  # a valid file is accepted, or nothing below means anything
            for files in parser.seeds:
                place = Path(tempfile.mkdtemp(dir=house))
                result = try_one(parser, files, place)
                # the manifest of weights names a folder that is nowhere
                if result not in ("right", "refused") or (
                    result == "refused" and "weights.json" not in files
                ):
                    write_files(place, files)
                    parser.check(place)
        return _watch(inputs, first, first + n, house, show, hang_s)
    finally:
        shutil.rmtree(house, ignore_errors=True)


def _watch(inputs: Inputs, k: int, last: int, house: Path, show: bool, hang_s: float):
    from tqdm import tqdm

    names = sorted({p.name for p in inputs.turns})
    shared = mmap.mmap(-1, 8 + 24 * len(names))
    findings = house / "findings.jsonl"
    lost = []
    first, total, terminal = k, last - k, sys.stderr.isatty()
    bar = tqdm(total=total, desc="fuzz", unit="inputs", disable=not (show and terminal))
    while k < last:
        place = Path(tempfile.mkdtemp(dir=house))
        shared[0:8] = struct.pack("<q", k)
        pid = os.fork()
        if pid == 0:
            try:
                work(inputs, k, last, place, shared, findings)
            finally:
                os._exit(9)
        at, since, status = k, time.monotonic(), None
        while status is None:
            done, code = os.waitpid(pid, os.WNOHANG)
            now = struct.unpack("<q", shared[0:8])[0]
            if now != at:
                bar.update(now - at)
                if (
                    show
                    and not terminal
                    and (now - first) * 10 // total > (at - first) * 10 // total
                ):
                    print(f"{now - first} of {total} inputs", file=sys.stderr, flush=True)
                at, since = now, time.monotonic()
            if done:
                status = code
            elif time.monotonic() - since > hang_s:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                status = -1
            else:
                time.sleep(0.02)
        if status == 0:
            break
        why = f"hangs for {hang_s:g} s" if status == -1 else f"the process died, status {status}"
        lost.append({"input": at, "parser": inputs.parser(at).name, "trace": why})
        bar.update(1)
        k = at + 1
    bar.close()
    counts = {n: list(struct.unpack_from("<3q", shared, 8 + 24 * i)) for i, n in enumerate(names)}
    for one in lost:
        counts[one["parser"]][2] += 1
    escapes = (
        [json.loads(line) for line in findings.read_text().splitlines()]
        if findings.exists()
        else []
    )
    return counts, sorted(escapes + lost, key=lambda e: e["input"])


def kind_of(escape: dict) -> str:
    """Parser, place in this repository and type of an escape: alike ones are shown once."""
    lines = escape["trace"].strip().splitlines()
    places = [line for line in lines if f'"{ROOT}/' in line and "/.venv/" not in line]
    place = places[-1].split(str(ROOT))[1].replace('", line ', ":").split(",")[0] if places else ""
    return f"{escape['parser']}: {place} {lines[-1].split(':')[0][:60]}"


def replay(seed: int, k: int, keep: Path | None) -> None:
    """One input again, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "seeds").mkdir()
        inputs = Inputs(parsers(Path(folder) / "seeds"), seed)
        files = inputs.files(k)
        print(f"input {k} of seed {seed}: {inputs.parser(k).name}, {', '.join(files)}")
        if keep is not None:
            write_files(keep, files)
        place = Path(folder) / "place"
        place.mkdir()
        print(try_one(inputs.parser(k), files, place))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="how many (default 100,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument(
        "--replay", type=int, metavar="K", help="try input K alone and show what comes"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="with --replay: write its files here"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    def run(args: argparse.Namespace) -> None:
        if args.replay is not None:
            replay(args.seed, args.replay, args.keep)
            return
        start = time.monotonic()
        counts, escapes = fuzz(args.inputs, args.seed, args.first)
        print(f"{'parser':<20}{'inputs':>9}{'right':>9}{'refused':>9}{'escaped':>9}")
        rows = [(name, sum(c), *c) for name, c in counts.items()]
        rows.append(("all", *(sum(column) for column in zip(*(r[1:] for r in rows), strict=True))))
        for name, *numbers in rows:
            print(f"{name:<20}" + "".join(f"{n:>9}" for n in numbers))
        print(f"seed {args.seed}, {time.monotonic() - start:.0f} s")
        kinds: dict[str, list[dict]] = {}
        for e in escapes:
            kinds.setdefault(kind_of(e), []).append(e)
        for kind, alike in sorted(kinds.items(), key=lambda k: -len(k[1])):
            print(f"{len(alike):>6}  {kind}")
        for e, *_ in list(kinds.values())[:SHOWN]:
            print(
                f"--- {e['parser']}: python -m tests.fuzz --seed {args.seed} --replay {e['input']}"
            )
            print("\n".join(e["trace"].strip().splitlines()[-6:]))
        if escapes:
            raise InputError(
                f"{len(escapes)} of {args.inputs} inputs escaped, the first is {escapes[0]['input']}",
                f"see it: python -m tests.fuzz --seed {args.seed} --replay {escapes[0]['input']}",
            )

    return run_job("tests.fuzz", build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
