"""Sets of sessions: the splits of the sheet, and those that the config selects under `sets`.

    sets:
      noxi/french: {of: noxi/train, language: French}
      noxi/paris: {of: [noxi/train, noxi/val], sessions: ["001..025"]}
      mpiigi/most: {of: mpiigi/val, except: ["008"]}

A set lies in one dataset, and its name starts with it: scores and table columns are dataset/set.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from corpora import groups
from corpora.duplicates import Source, sources
from corpora.sheet import SPLITS, Participant
from model.configs.base import did_you_mean
from runtime import InputError

Key = tuple[str, str]  # dataset, session
RANGE = re.compile(r"(\d+)\.\.(\d+)", re.ASCII)


def as_list(value) -> list:
    """A value of the config that may be one or a list."""
    return list(value) if isinstance(value, list | tuple) else [value]


def person_key(identity: str) -> str:
    """What two spellings of one person's name have in common."""
    return " ".join(identity.split()).casefold()


class Sets:
    """Sessions of every set; `declared` is the config's section `sets`.

    Excluded participants count for what a name means, and are in no set: see `everybody`.
    Raises InputError for a name that is neither a split nor declared, for sessions and languages
    that its sets do not have, and for numbers that YAML may have misread.
    """

    def __init__(self, rows: Sequence[Participant], declared: dict):
        self._people: dict[Key, list[Participant]] = {}
        for p in rows:
            self._people.setdefault((p.dataset, p.session), []).append(p)
        self.splits: dict[str, list[Key]] = {}
        self._included: set[Key] = set()
        for key, people in self._people.items():
            self.splits.setdefault(f"{key[0]}/{people[0].split}", []).append(key)
            if not all(p.exclude for p in people):
                self._included.add(key)
        self._declared = {name: s for name, s in declared.items() if s is not None}
        self._found: dict[str, list[Key]] = {}
        self._files: dict[Key, list[Source]] = {}

    def __iter__(self):
        """Splits of the sheet, then the declared sets."""
        return iter([s for s in self.splits if self.keys(s)] + list(self._declared))

    def __contains__(self, name: str) -> bool:
        """Whether anybody is in the set; InputError for an unknown name."""
        return bool(self.keys(name))

    def keys(self, name: str) -> list[Key]:
        """Sessions of a set with somebody who is not excluded, in the order of the sheet."""
        return [k for k in self.everybody(name) if k in self._included]

    def union(self, names: Iterable[str]) -> list[Key]:
        """Sessions of several sets, each once, in the order of the sheet."""
        found = {k for name in names for k in self.keys(name)}
        return [k for k in self._people if k in found]

    def everybody(self, name: str) -> list[Key]:
        """Sessions of a set, fully excluded ones as well."""
        if name not in self._found:
            self._found[name] = self._resolve(name, ())
        return self._found[name]

    def add(self, name: str, keys: Sequence[Key]) -> str:
        """Give sessions of one dataset a name; returns it. InputError where the config has it."""
        if name in self._declared:
            raise InputError(
                f"config: sets.{name} has the name of a part that `folds` makes", "rename the set"
            )
        self._found[name] = list(keys)
        return name

    def split(self, key: Key) -> str:
        """train, val or test, as the sheet says of a session."""
        return self._people[key][0].split

    def is_split(self, name: str) -> bool:
        return name.rpartition("/")[2] in SPLITS and name not in self._declared

    def language(self, key: Key, place: str) -> str:
        """The language of a session; InputError where the sheet has none, or several."""
        found = {p.language for p in self._people[key] if p.language}
        if len(found) != 1:
            has = f"several languages ({', '.join(sorted(found))})" if found else "no language"
            raise InputError(
                f"config: {place} asks for languages, but session {'/'.join(key)} has {has} in the sheet",
                "fill in the column `language` of its participants",
            )
        return found.pop()

    def identities(self, keys: Iterable[Key]) -> dict[str, tuple[str, Key]]:
        """People of these sessions, where the sheet says who they are: (name, a session of theirs).

        By their name without regard to case and spaces: "P7" and "p7" are one person. Whoever is
        excluded is neither trained on nor evaluated.
        """
        return {
            person_key(p.identity): (p.identity, k) for k, p in self._present(keys) if p.identity
        }

    def files(self, keys: Iterable[Key]) -> list[Source]:
        """Recordings, streams and labels of these sessions."""
        for k in (keys := list(keys)):
            if k not in self._files:
                self._files[k] = [s for _, p in self._present([k]) for s in sources(p)]
        return [s for k in keys for s in self._files[k]]

    def together(self, keys: Sequence[Key]) -> list[list[Key]]:
        """Sessions that share people, directly or through others, in the order of `keys`."""
        groups: list[list[Key]] = []
        people: list[set[str]] = []
        for key in keys:
            own = set(self.identities([key]))
            joined = [i for i, known in enumerate(people) if known & own]
            first = joined[0] if joined else len(groups)
            if not joined:
                groups.append([])
                people.append(set())
            groups[first].append(key)
            people[first] |= own
            for i in reversed(joined[1:]):
                groups[first] += groups.pop(i)
                people[first] |= people.pop(i)
        return groups

    def _present(self, keys: Iterable[Key]) -> Iterator[tuple[Key, Participant]]:
        return ((k, p) for k in keys for p in self._people[k] if not p.exclude)

    def _resolve(self, name: str, before: tuple[str, ...]) -> list[Key]:
        if name in self._found:
            return self._found[name]
        if name not in self._declared:
            if name.count("/") == 1 and name.rpartition("/")[2] in SPLITS:
                return self.splits.get(name, [])
            known = tuple(dict.fromkeys([*self.splits, *self._declared]))
            raise InputError(
                f"config: {name} is no set", did_you_mean(name, known) + "; more under `sets`"
            )
        place = f"sets.{name}"
        if name.rpartition("/")[2] in SPLITS:
            raise InputError(
                f"config: {place} has the name of a split",
                "choose another word than train, val and test after the /",
            )
        if name in before:
            raise InputError(
                f"config: {place}.of leads back to itself", "let it name splits of the sheet"
            )
        selection = self._declared[name]
        of = as_list(selection["of"])
        found = {k for s in of for k in self._resolve(s, (*before, name))}
        keys = [k for k in self._people if k in found]
        dataset = name.partition("/")[0]
        for key in keys:
            if key[0] != dataset:
                raise InputError(
                    f"config: {place} has sessions of {key[0]}",
                    f"a set lies in one dataset: declare one for {key[0]}, and name both in the run",
                )
        if not keys:  # none of its splits is in the sheet: like a split that is not there
            return []
        if "sessions" in selection:
            chosen = self.match(f"{place}.sessions", selection["sessions"], keys)
            keys = [k for k in keys if k in chosen]
        if "language" in selection:
            keys = self._of_language(f"{place}.language", as_list(selection["language"]), keys)
        if "except" in selection:
            left_out = self.match(f"{place}.except", selection["except"], keys)
            keys = [k for k in keys if k not in left_out]
        if not keys:
            raise InputError(f"config: {place} selects no session", "loosen its conditions")
        return keys

    def _of_language(self, place: str, wanted: list[str], keys: list[Key]) -> list[Key]:
        spoken = {k: self.language(k, place) for k in keys}
        known = {language.casefold() for language in spoken.values()}
        wanted = [groups.language(language) for language in wanted]
        for language in wanted:
            if language.casefold() not in known:
                names = tuple(dict.fromkeys(spoken.values()))
                raise InputError(
                    f"config: {place}: no session speaks {language}", did_you_mean(language, names)
                )
        chosen = {language.casefold() for language in wanted}
        return [k for k in keys if spoken[k].casefold() in chosen]

    def match(self, place: str, wanted, keys: Sequence[Key]) -> set[Key]:
        """The sessions among `keys` that a list names.

        An entry is a session, dataset/session where several datasets are meant, or "001..025":
        all that are there with a number from 1 to 25.
        """
        several = len({dataset for dataset, _ in keys}) > 1
        found: set[Key] = set()
        for entry in as_list(wanted):
            text = self._text(place, entry, keys)
            dataset, slash, session = text.rpartition("/")
            if several and not slash:
                raise InputError(
                    f"config: {place}: {text} may be of several datasets",
                    f"write the dataset as well: {keys[0][0]}/{text}",
                )
            here = [k for k in keys if not slash or k[0] == dataset]
            hits = {k for k in here if k[1] == session}
            span = RANGE.fullmatch(session)
            if not hits and span:
                low, high = int(span[1]), int(span[2])
                hits = {k for k in here if k[1].isdigit() and low <= int(k[1]) <= high}
            if not hits:
                names = tuple("/".join(k) if several or slash else k[1] for k in keys)
                same = [k[1] for k in here if session.isdigit() and k[1].isdigit()]
                same = [name for name in same if int(name) == int(session)]
                if same:
                    raise InputError(
                        f"config: {place}: there is no session {text}", f"did you mean '{same[0]}'?"
                    )
                raise InputError(
                    f"config: {place}: there is no session {text}", did_you_mean(text, names)
                )
            found |= hits
        return found

    @staticmethod
    def _text(place: str, entry: str | int, keys: Sequence[Key]) -> str:
        """A session's name as text. YAML reads 010 as the number 8, and 08 as text."""
        if isinstance(entry, str):
            return entry
        plain, octal = str(entry), f"{entry:o}"
        numbers = {s: int(s) for _, s in keys if s.isdigit()}
        likely = [s for s, n in numbers.items() if str(n) in (plain, octal)]
        if likely == [plain]:
            return plain
        hint = " or ".join(f'"{s}"' for s in likely) or f'"{plain}"'
        raise InputError(
            f"config: {place}: {entry} is a number to YAML, which reads 010 as 8",
            f"write the session's name in quotes: {hint}",
        )
