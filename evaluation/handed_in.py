"""The files of a submission, a folder or a zip: read by name, and what lies there instead of a name."""

import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from evaluation.layouts import Layout
from runtime import InputError
from store.plain import read_plain

# What zipfile and its decompressors raise on a damaged, encrypted or exotic archive.
ZIP_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError,
    NotImplementedError, ValueError, OverflowError, MemoryError, struct.error,
)  # fmt: skip
MOST_BYTES = 1 << 26  # a day of predictions has 20 MB; members are read this far, never unpacked
# What Windows and macOS add to a folder or archive by themselves.
LITTER = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")


class Submission:
    """Files of a submission, a folder or a zip: (folder, session, role) -> lines.

    names : every file in it, with / between folders; asked : those that `lines` was asked for.
    """

    def __init__(self, path: str | Path, layout: Layout):
        self.path, self.layout = Path(path), layout
        self.asked: set[str] = set()
        self._zip = None
        if self.path.is_file():
            try:
                self._zip = zipfile.ZipFile(self.path)
                self.names = [i.filename for i in self._zip.infolist() if not i.is_dir()]
            except (*ZIP_DAMAGE, UnicodeDecodeError) as e:
                raise InputError(f"{path} is no zip file", "make it again") from e
        elif self.path.is_dir():
            found = (p for p in sorted(self.path.rglob("*")) if p.is_file())
            self.names = [p.relative_to(self.path).as_posix() for p in found]
        else:
            raise InputError(f"{path} does not exist", "give the zip or its folder")

    def lines(self, folder: str, session: str, role: str) -> list[str]:
        """Lines of one participant's file; InputError when it is not there, saying what is."""
        name = self.layout.member(folder, session, role)
        self.asked.add(name)
        try:
            if self._zip is not None:
                with self._zip.open(name) as member:
                    raw = member.read(MOST_BYTES + 1)
            else:
                if not (self.path / name).resolve().is_relative_to(self.path.resolve()):
                    raise InputError(
                        f"{self.path}: {name} is a link that leaves the folder",
                        "put the file there",
                    )
                raw = read_plain(self.path / name, MOST_BYTES)
            text = raw.decode("ascii").replace("\r\n", "\n").replace("\r", "\n")
        except (KeyError, FileNotFoundError) as e:
            raise self._absent(name) from e
        except UnicodeDecodeError as e:
            raise InputError(f"{self.path}: {name} is no plain text", "make it again") from e
        except ZIP_DAMAGE as e:
            raise InputError(
                f"{self.path}: {name} cannot be read ({' '.join(str(e).split())[:100]})",
                "make it again",
            ) from e
        if len(raw) > MOST_BYTES:
            raise InputError(f"{self.path}: {name} has over {MOST_BYTES} bytes", "make it again")
        return text.splitlines()

    def _absent(self, name: str) -> InputError:
        same = sorted(n for n in self.names if essence(n) == essence(name))
        if not same:
            return InputError(
                f"{self.path} lacks {name}, and holds nothing of a similar name",
                "predict this participant, and make it again",
            )
        why = difference(same[0], name)
        return InputError(
            f"{self.path} lacks {name}; it holds {same[0]!r} instead: {why}",
            f"the names of {self.layout.year} are FOLDER/SESSION/ROLE.{self.layout.suffix} from the top of"
            " the zip on; make it again with `snakemake submission`",
        )

    def of_nobody(self, folders: Iterable[str]) -> list[str]:
        """Files that nobody was asked for: below these folders, or below none of the year."""
        other = tuple(f"{f}/" for f in self.layout.folders if f not in set(folders))
        return [
            name
            for name in self.names
            if name not in self.asked
            and not name.startswith((*other, LITTER[0]))
            and name.rpartition("/")[2] not in LITTER[1:]
        ]


def essence(name: str) -> tuple[str, str, str]:
    """(folder, session, role) of a file, as far as they can be told however its name is written."""
    parts = re.split(r"[/\\]", name.lower())[-3:]
    folder, session, file = ["", "", *parts][-3:]
    role = re.sub(r"(\.engagement)?\.(prediction|annotation)\.csv$", "", file)
    return folder, session.lstrip("0"), role


def difference(found: str, wanted: str) -> str:
    """In words, what is wrong with a name that means the same file."""
    if "\\" in found:
        return "it has backslashes between the folders, which no zip may have"
    parts, right = found.split("/"), wanted.split("/")
    if len(parts) > len(right):
        return f"it lies in the folder {'/'.join(parts[: -len(right)])}/"
    for what, a, b in zip(("folder", "session", "file"), parts, right, strict=True):
        if a != b and a.lower() == b.lower():
            return f"its {what} is spelled {a}, not {b}"
        if a != b and what == "session":
            return f"its session is called {a}, not {b}"
        if a != b:
            return f"its file ends differently from .{b.partition('.')[2]}"
    return "it has another name"
