"""The house keeps its own rules: envs in step, rules complete, command lines answer --help."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RULES = sorted((ROOT / "workflow/rules").glob("*.smk"))


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")


def constraints() -> dict[str, str]:
    pins = {}
    for line in (ROOT / "envs/constraints.txt").read_text().splitlines():
        if "==" in line and not line.startswith("#"):
            name, version = line.strip().split("==")
            pins[name_of(name)] = version
    return pins


def environment(path: Path) -> dict[str, str]:
    packages = {}
    for entry in yaml.safe_load(path.read_text())["dependencies"]:
        if isinstance(entry, dict):
            for line in entry["pip"]:
                name, version = line.split("==")
                packages[name_of(name)] = version
    return packages


def test_conda_environments_are_in_step_with_pyproject():
    pins = constraints()
    needed = {name_of(r) for r in PYPROJECT["project"]["dependencies"]}
    found = {}
    for path in (ROOT / "envs").glob("*.yaml"):
        packages = environment(path)
        for name, version in packages.items():
            assert pins[name] == version, (
                f"{path.name}: {name}=={version}, constraints.txt has {pins[name]}"
            )
            assert name in needed, f"{path.name}: {name} is not in pyproject.toml"
        found |= packages
    runs_the_workflow = {n for n in needed if n.startswith("snakemake")}
    assert needed - set(found) == runs_the_workflow
    for requirement in PYPROJECT["project"]["dependencies"]:
        assert name_of(requirement) in pins, f"{requirement} has no pin in envs/constraints.txt"


def blocks() -> list[tuple[str, str]]:
    found = []
    for path in RULES:
        for block in re.split(r"(?m)^\s*(?=(?:use )?rule\b)", path.read_text(encoding="utf-8"))[1:]:
            target = not re.search(r"(?m)^\s+(shell|output):", block)  # only collects inputs
            if block.startswith(("rule", "use rule")) and not target:
                found.append((path.name, block))
    return found


def section(block: str, name: str) -> str:
    """A rule's section as it is written; "" where the rule has none."""
    found = re.search(rf"(?ms)^(\s+){name}:(.*?)(?=^\1\w+:|\Z)", block)
    return found[2] if found else ""


def effective(block: str, name: str) -> str:
    """A rule's section, its parent's where it inherits it."""
    own = section(block, name)
    inherited = re.match(r"use rule (\w+) as", block)
    if own or not inherited:
        return own
    parent = rf"rule {inherited[1]}:"
    return effective(next(other for _, other in blocks() if other.startswith(parent)), name)


@pytest.mark.parametrize(("file", "block"), blocks(), ids=lambda v: v.split("\n")[0][:40])
def test_every_rule_is_complete(file, block):
    for name in ("output", "log", "message"):  # a rule's own, not its parent's
        assert section(block, name), f"{file}: {name} is missing"
    assert effective(block, "conda"), f"{file}: conda is missing"
    shell, params = effective(block, "shell"), effective(block, "params")
    assert "python -m " in shell, f"{file}: only shell calls of modules"
    assert "--log {log:q}" in shell
    # The fingerprint reaches the command, and it is that of the module that runs.
    assert "--fingerprint {params.fingerprint:q}" in shell, (
        f"{file}: the command has no fingerprint"
    )
    assert "fingerprint=" in params, f"{file}: no fingerprint"
    for stage in re.findall(r'study\.fingerprint\(\s*"([\w.]+)"', params):
        module = re.search(r"python -m ([\w.]+)(?: (\w+))?", shell)
        assert stage in (module[1], f"{module[1]}.{module[2]}"), f"{file}: {stage} is not what runs"


def jobs() -> list[str]:
    text = "".join(path.read_text() for path in RULES)
    return sorted(set(re.findall(r"python -m ([\w.]+)", text)))


@pytest.mark.parametrize("module", jobs())
def test_every_job_answers_help(module):
    assert importlib.util.find_spec(module), module
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def tracked_text() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    kinds = {".py", ".smk", ".md", ".yaml", ".toml", ".tsv", ".rst", ".cff", ".txt", ""}
    return [ROOT / n for n in names if Path(n).suffix in kinds and (ROOT / n).is_file()]


def test_no_absolute_paths_and_no_leftovers():
    home = str(Path.home())
    for path in tracked_text():
        text = path.read_text(encoding="utf-8", errors="replace")
        if home != "/":
            assert home + "/" not in text, path
        assert str(ROOT) + "/" not in text, path
        if path.suffix == ".py" and path.name not in ("test_repository.py", "test_untrusted.py"):
            assert not re.search(r"\b(TODO|FIXME|XXX)\b", text), path
            assert not re.search(r"\bpickle\.load|torch\.load\(", text), path


def test_packages_are_the_known_ones():
    """The order of imports is kept over all packages of this repository."""
    found = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests"}
    assert found | {"benchmarks"} == set(PYPROJECT["tool"]["importlinter"]["root_packages"])


def test_snakemake_lint_and_format():
    for command in (["snakefmt", "--check", "Snakefile", *map(str, RULES)],):
        done = subprocess.run(
            [str(Path(sys.executable).parent / command[0]), *command[1:]],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_map_of_the_workflow_names_every_module():
    """workflow/__init__.py says who calls what."""
    import workflow

    modules = {path.stem for path in (ROOT / "workflow").glob("*.py")} - {"__init__"}
    assert {name for name in modules if not re.search(rf"\b{name}\b", workflow.__doc__)} == set()
    for rules in RULES:
        for module in re.findall(r"(?m)^ *from workflow\.(\w+) import", rules.read_text()):
            entry = re.search(rf"(?m)^    {module} .*", workflow.__doc__)[0]
            above = workflow.__doc__[: workflow.__doc__.index(entry)]
            heading = re.findall(r"(?m)^\S.*", above)[-1]
            assert rules.name in heading + entry, (rules.name, module)
