"""What README and docs name exists: files, links, modules, and the README stays short."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ROOMS = {path.name for path in ROOT.glob("[!.]*") if path.is_dir()} - {"results"}
PLACEHOLDER = re.compile(r"[<>{}*$]|\.\.\.|\b[A-Z]{2,}\b(?!\.md)|__pycache__")


def pages():
    return [pytest.param(page, id=page.name) for page in PAGES]


@pytest.mark.parametrize("page", pages())
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", pages())
def test_named_files_exist(page):
    for word in re.findall(r"`([^`\s]+)`", page.read_text()):
        path = word.partition("::")[0]
        if path.partition("/")[0] in ROOMS and "/" in path and not PLACEHOLDER.search(path):
            assert (ROOT / path).exists(), word


@pytest.mark.parametrize("page", pages())
def test_named_modules_exist(page):
    for module in re.findall(r"python -m ([\w.]+)", page.read_text()):
        if module.partition(".")[0] in ROOMS:
            assert importlib.util.find_spec(module.rstrip(".")), module
    for script in re.findall(r"python ([\w/]+\.py)", page.read_text()):
        assert (ROOT / script).is_file(), script


def test_readme_names_every_page_or_a_page_that_does():
    linked = {page.name for page in PAGES if f"docs/{page.name}" in PAGES[0].read_text()}
    for page in PAGES[1:]:
        if page.name in linked:
            linked |= set(re.findall(r"\((\w+\.md)\)", page.read_text()))
    assert linked >= {page.name for page in PAGES[1:]}


def test_readme_is_short():
    assert len(PAGES[0].read_text().splitlines()) <= 150
