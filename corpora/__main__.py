"""Sessions sheets on the command line.

python -m corpora init noxi ROOT > sessions.tsv        (also noxi-j, pinsoro)
python -m corpora init mpiigi ROOT --no-header >> sessions.tsv
python -m corpora init folder ROOT --dataset mine --split test > sessions.tsv
python -m corpora check sessions.tsv --media-root ROOT
python -m corpora doctor noxi ROOT
"""

import argparse
import sys
from collections import Counter

from corpora import challenge, folder
from corpora.doctor import examine, report
from corpora.duplicates import shared
from corpora.layout import log, summary
from corpora.sheet import SPLITS, read_sheet, write_sheet
from corpora.streams import CORPORA, find_people
from formats.stream_files import longest
from media.probe import stated_length
from runtime import get_logger
from runtime.job import run_job

doctor = get_logger("doctor")
check_log = get_logger("check")

KINDS = {
    "noxi": "NoXi and NoXi-Add: {train,val,test-base,test-additional}/<session>/",
    "noxi-j": "NoXi-J: {train,val,test}/<session>/",
    "mpiigi": "MPIIGroupInteraction: mpii/MultiMediate25/{val,test}/, or flat as in 2024",
    "pinsoro": "PInSoRo: {train,val,test}-{cc,cr}/<session>/",
    "folder": "own recordings: ROOT/<session>/<role>.{mp4,mkv,avi,mov}",
}
# Layouts without splits of their own; the others are downloads of the challenge.
OWN = {"folder": folder}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m corpora", description="Make and check sessions sheets."
    )
    parser.set_defaults(log=None)
    commands = parser.add_subparsers(dest="command", required=True)
    init = commands.add_parser("init", help="print the sheet of a folder of recordings")
    kinds = init.add_subparsers(dest="kind", required=True, metavar=f"{{{','.join(KINDS)}}}")
    for name, text in KINDS.items():
        kind = kinds.add_parser(name, help=text, description=f"Print the sessions sheet of {text}")
        kind.add_argument("root", metavar="ROOT", help="folder of the recordings")
        kind.add_argument(
            "--labels",
            metavar="ROOT2",
            help="a second tree of the same layout with label files that ROOT lacks",
        )
        kind.add_argument(
            "--relative-to",
            metavar="DIR",
            help="write paths relative to this folder, the later media_root (default: ROOT)",
        )
        default = "the folder's name" if name in OWN else name
        kind.add_argument("--dataset", help=f"name of the dataset (default: {default})")
        if name in OWN:
            kind.add_argument(
                "--split", choices=SPLITS, default="test", help="split of all sessions (test)"
            )
        kind.add_argument(
            "--no-header", action="store_true", help="no header line, to append to another sheet"
        )
    check = commands.add_parser("check", help="check a sheet and count what is in it")
    check.add_argument("sheet", metavar="SHEET", help="sessions sheet (TSV)")
    check.add_argument(
        "--media-root", metavar="DIR", help="folder its paths start from (default: the sheet's)"
    )
    examination = commands.add_parser(
        "doctor", help="find the known defects of the challenge's precomputed streams"
    )
    examination.add_argument("corpus", choices=CORPORA, help="layout of the tree")
    examination.add_argument("root", metavar="ROOT", help="folder of the download")
    return parser


def run(args: argparse.Namespace) -> None:
    """Carry out a parsed command line."""
    if args.command == "check":
        rows = read_sheet(args.sheet, args.media_root)
        print("\n".join(summary(rows)))
        people = [p for p in rows if not p.exclude]
        seconds = sum(stated_length(p.video) for p in people if p.video)
        print(f"{seconds / 3600:.2f} hours of video")
        if any(p.streams for p in people):
            seconds = sum(longest(p.streams) for p in people if p.streams)
            print(f"{seconds / 3600:.2f} hours of streams")
        for sentence in shared(rows):
            check_log.warning("%s %s", args.sheet, sentence)
        return
    if args.command == "doctor":
        people = find_people(args.root, args.corpus)
        findings = examine(people)
        sys.stdout.write(report(findings))
        counts = Counter(f.defect for f in findings).most_common()
        doctor.info(
            "%d participants, %d findings%s",
            len(people), len(findings), "".join(f"; {n} {defect}" for defect, n in counts),
        )  # fmt: skip
        return
    places = (args.root, args.relative_to, args.labels, args.dataset)
    if args.kind in OWN:
        rows = OWN[args.kind].find(*places, split=args.split)
    else:
        rows = challenge.find(*places, corpus=args.kind)
    for line in summary(rows):
        log.info("%s", line)
    sys.stdout.write(write_sheet(rows, header=not args.no_header))


def main(argv: list[str] | None = None) -> int:
    return run_job("corpora", build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
