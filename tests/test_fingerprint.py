"""The fingerprint: cosmetic edits are free, semantic edits are not, presentation lies outside."""

import ast
from pathlib import Path

import pytest

from workflow.fingerprint import PACKAGES, ROOT, closure, code_hash, essence, fingerprint

SOURCE = '''
"""Docstring."""
import numpy as np
from runtime import InputError, get_logger, progress

log = get_logger("x")

def f(a, b=2):
    """What it does."""
    log.info("starting %d", a)
    for i in progress(range(a), "working", total=a):
        b += i * 3
    if b < 0:
        raise InputError("bad", "cure")
    return np.sqrt(b)

def build_parser():
    return 1

def main(argv=None):
    return f(2)

if __name__ == "__main__":
    main()
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""What it does."""', '"""Other words."""'),
        ("    b += i * 3", "    # why\n        b += (i * 3)"),
        ('log.info("starting %d", a)', 'log.info("now starting %d", a)'),
        ('log.info("starting %d", a)', 'log.debug("x"); log.info("y")'),
        ('"working", total=a', '"busy"'),
        ('InputError("bad", "cure")', 'InputError("worse", "better cure")'),
        ("return f(2)", "return f(3)"),
        ("return 1", "return 7"),
        ('get_logger("x")', 'get_logger("y")'),
    ],
)
def test_presentation_is_free(old, new):
    assert old in SOURCE
    assert essence(SOURCE) == essence(SOURCE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("i * 3", "i * 4"),
        ("b=2", "b=3"),
        ("range(a)", "range(a + 1)"),
        ("if b < 0", "if b < 1"),
        ("np.sqrt(b)", "np.abs(b)"),
    ],
)
def test_numbers_are_not_free(old, new):
    assert old in SOURCE
    assert essence(SOURCE) != essence(SOURCE.replace(old, new))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_closure_follows_repository_imports_but_not_runtime(tmp_path):
    root = write(
        tmp_path,
        {
            "extractors/__init__.py": "",
            "extractors/a.py": "import numpy\nfrom runtime import progress\nfrom media.b import g\n",
            "media/__init__.py": "",
            "media/b.py": "def g():\n    from store import c\n    return c.x\n",
            "store/__init__.py": "",
            "store/c.py": "x = 1\n",
            "runtime/__init__.py": "def progress(x): return x\n",
        },
    )
    assert closure("extractors.a", root) == (
        "extractors",
        "extractors.a",
        "media",
        "media.b",
        "store",
        "store.c",
    )
    before = code_hash("extractors.a", root)
    (root / "runtime/__init__.py").write_text("def progress(x): print(x); return x\n")
    code_hash.cache_clear()
    assert code_hash("extractors.a", root) == before
    (root / "store/c.py").write_text("x = 2\n")
    code_hash.cache_clear()
    assert code_hash("extractors.a", root) != before


def test_provenance_lies_outside(tmp_path):
    root = write(
        tmp_path,
        {
            "extractors/__init__.py": "",
            "extractors/a.py": "from store.sidecar import write_sidecar\nx = 1\nwrite_sidecar('a', x=x)\n",
            "store/__init__.py": "",
            "store/sidecar.py": "def write_sidecar(*a, **k): pass\n",
        },
    )
    assert closure("extractors.a", root) == ("extractors", "extractors.a")
    before = code_hash("extractors.a", root)
    write(
        root,
        {"extractors/a.py": "from store.sidecar import write_sidecar\nx = 1\nwrite_sidecar('b')\n"},
    )
    code_hash.cache_clear()
    assert code_hash("extractors.a", root) == before


def test_settings_are_sorted_and_readable():
    one = fingerprint("store.features", {"b": 1, "a": {"z": [1, 2], "y": None}})
    two = fingerprint("store.features", {"a": {"y": None, "z": [1, 2]}, "b": 1})
    assert one == two
    assert one.split(" ", 1)[1] == "a.y=None a.z=[1,2] b=1"


def python_files() -> list[Path]:
    return [p for package in sorted(PACKAGES) for p in sorted((ROOT / package).rglob("*.py"))]


def test_runtime_imports_nothing_of_ours():
    """Presentation may be imported by all, and imports nobody: no number can hide in it."""
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [n.name for n in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in PACKAGES - {"runtime"}, (
                    f"{path.name} imports {name}"
                )


def test_every_module_can_be_fingerprinted():
    """No relative imports, no import of a module that is not there."""
    for path in python_files():
        relative = path.relative_to(ROOT).with_suffix("")
        parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
        if parts[0] != "runtime":
            assert code_hash(".".join(parts))
