"""Headers are XML from elsewhere: parsed without entities, DTDs or external references."""

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from formats.numbers import decimal, whole
from runtime import InputError
from store.plain import check_plain

# Real headers have a few hundred bytes; a DISCRETE scheme with many items some kilobytes.
MAX_HEADER_BYTES = 1 << 20


def read_xml(path: str | Path, root: str) -> Element:
    """Root element of an SSI header; InputError when it is missing, too large, unsafe or no XML."""
    path = Path(path)
    try:
        check_plain(path, 1 << 62)
        if path.stat().st_size > MAX_HEADER_BYTES:
            raise InputError(
                f"{path} has {path.stat().st_size} bytes, too many for an SSI header",
                "give the header file, not the body (the name without ~)",
            )
        element = fromstring(path.read_bytes(), forbid_dtd=True)
    except FileNotFoundError as e:
        raise InputError(f"{path} does not exist", "check the name; the body ends in ~") from e
    except OSError as e:
        raise InputError(f"{path} cannot be read ({e.strerror})", "check its rights") from e
    except DefusedXmlException as e:
        raise InputError(
            f"{path} declares XML entities or a DTD, which no SSI header does",
            "do not trust this file; get it from its source again",
        ) from e
    except (ParseError, ValueError, LookupError) as e:
        raise InputError(f"{path} is no XML ({e})", "get the file again") from e
    if element.tag != root:
        raise InputError(
            f"{path} is an SSI {element.tag[:40]!r}, not a {root}", f"give a .{root} file"
        )
    return element


def required(path: str | Path, element: Element, key: str) -> str:
    """Attribute of an element, or InputError naming both."""
    value = element.get(key)
    if value is None:
        raise InputError(f"{path}: <{element.tag}> has no {key}=", "get the header again")
    return value


def number(path: str | Path, element: Element, key: str, kind: type = float, least: float = 0):
    """Finite number of an attribute, at least `least`; kind: float or int."""
    text = required(path, element, key)
    try:
        value = whole(text) if kind is int else decimal(text)
        if not least <= value < float("inf"):
            raise ValueError
    except ValueError as e:
        raise InputError(
            f"{path}: <{element.tag}> has {key}={text[:40]!r}, which is no number",
            f"{key} is a {'whole ' if kind is int else ''}number from {least:g} on"
            + (", with a decimal point" if "," in text else ""),
        ) from e
    return value


def child(path: str | Path, element: Element, name: str) -> Element:
    """The first child of this name, or InputError."""
    found = element.find(name)
    if found is None:
        raise InputError(f"{path} has no <{name}>", "get the header again")
    return found


def check_bytes_of_text(path: str | Path, start: bytes) -> None:
    """InputError where an ASCII body begins as UTF-16 or UTF-32 does; start: its first bytes."""
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start[:64]:
        raise InputError(
            f"{path} is UTF-16 text (or no text at all), not ASCII", "save it as ASCII or UTF-8"
        )
