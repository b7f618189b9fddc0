"""Whose file is it? Files of a session are called `<role>.<what>`, and both may hold dots.

Everybody who splits such a name asks here. Where the sheet says who is in a session, its roles
decide; where the sheet is only being made, the files whose `<what>` is known name the roles.
"""

from collections.abc import Iterable


def role_of(name: str, roles: Iterable[str]) -> str | None:
    """The longest of the roles with which the file name begins, a dot after it; None without any."""
    return max((r for r in roles if name.startswith(f"{r}.")), key=len, default=None)


def roles_in(names: Iterable[str], endings: Iterable[str]) -> list[str]:
    """Roles of the files that end with one of the endings (`.video.mp4`, any case), in their order.

    Of several endings that fit, the longest counts.
    """
    endings = sorted((e.lower() for e in endings), key=len, reverse=True)
    found = []
    for name in names:
        ending = next((e for e in endings if name.lower().endswith(e)), None)
        if ending and len(name) > len(ending):
            found.append(name[: -len(ending)])
    return list(dict.fromkeys(found))
