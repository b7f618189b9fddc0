"""How command lines name a session.

dataset/session:role1,role2          dataset/session:role1,role2@split
"""

import re
from dataclasses import dataclass

from runtime import InputError

# Names become folders: a letter or digit first, no separator, nothing that leaves its folder. Three
# of them make the name of a log, which has at most 255 bytes.
NAME = re.compile(r"\w[\w.-]{0,79}")


@dataclass(frozen=True)
class SessionSpec:
    """One session of a command line. `roles` are sorted (seats in order), `split` may be empty."""

    dataset: str
    session: str
    roles: tuple[str, ...]
    split: str = ""

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.session}"

    @property
    def key(self) -> tuple[str, str]:
        return self.dataset, self.session

    def text(self) -> str:
        return f"{self.name}:{','.join(self.roles)}" + (f"@{self.split}" if self.split else "")


def parse_spec(text: str, with_split: bool = False) -> SessionSpec:
    """Read a session spec; InputError tells the form. `with_split` demands the split."""
    name, colon, rest = text.partition(":")
    dataset, slash, session = name.partition("/")
    roles_text, at, split = rest.partition("@")
    roles = tuple(roles_text.split(","))
    sound = colon and slash and dataset and session and all(roles) and bool(at) == bool(split)
    if with_split and not split:
        sound = False
    names = (dataset, session, *roles, *([split] if split else []))
    if not sound or not all(map(NAME.fullmatch, names)) or len(set(roles)) != len(roles):
        example = "noxi/001:expert,novice@test" if with_split else "noxi/001:expert,novice"
        raise InputError(
            f"session {text!r} is not readable",
            f"write dataset/session:role1,role2{'@split' if with_split else ''}, each role once, for example {example}",
        )
    return SessionSpec(dataset, session, tuple(sorted(roles)), split)


def parse_specs(texts: list[str]) -> list[SessionSpec]:
    """Read session specs, refuse duplicates, and sort them: the order given changes no number."""
    specs = sorted((parse_spec(text) for text in texts), key=SessionSpec.text)
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"session {name} is given twice", "name each session once")
    return specs
