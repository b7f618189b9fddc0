"""Profiles name options and rules that exist, and ask for enough; what a cluster then does with
them is tested on a real one by `make test-slurm`."""

import os
import re
from pathlib import Path

import pytest
import yaml
from snakemake.cli import get_argument_parser

from extractors.declared import EXTRACTORS
from runtime.lease import SCHEDULERS
from workflow.environment import caches_of_this_node

ROOT = Path(__file__).resolve().parent.parent
PROFILES = sorted(path.parent.name for path in (ROOT / "profiles").glob("*/config.yaml"))
CLUSTERS = ("slurm", "cluster-generic")
SITE = re.compile(r"(?s)# ---- of your site.*?\n# -{90,}\n")


def text(profile: str) -> str:
    return (ROOT / "profiles" / profile / "config.yaml").read_text(encoding="utf-8")


def read(profile: str) -> dict:
    return yaml.safe_load(text(profile))


def rules() -> dict[str, str]:
    """Name -> source of every rule with a fixed name; the extractors' rules have one between them."""
    found = {}
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        source = path.read_text(encoding="utf-8")
        parts = re.split(r"(?m)^ *(?:rule|use rule \w+ as) (\w+)(?: with)?:\n", source)
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            # `snakemake predict` on a folder has a rule of a name that another call gives otherwise.
            found[name] = found.get(name, "") + body
    extractors = (ROOT / "workflow" / "rules" / "extractors.smk").read_text(encoding="utf-8")
    common = extractors.partition("for extractor in EXTRACTORS.values():")[2]
    return found | dict.fromkeys(EXTRACTORS, common)


def test_no_profile_is_forgotten():
    folders = {path.name for path in (ROOT / "profiles").iterdir()}
    assert folders == set(PROFILES) == {"default", *CLUSTERS}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_key_is_an_option_of_snakemake(profile):
    known = {word for action in get_argument_parser()._actions for word in action.option_strings}
    assert "--latency-wait" in known and "--slurm-requeue" in known
    assert [key for key in read(profile) if f"--{key}" not in known] == []


@pytest.mark.parametrize("profile", PROFILES)
def test_no_variable_is_put_into_a_command(profile):
    """Snakemake replaces $NAME by its value, which the job's shell would then read as a command."""
    values = [str(value) for value in read(profile).values()]
    assert [value for value in values if re.search(r"\$\{?\w", value)] == []


@pytest.mark.parametrize("profile", CLUSTERS)
def test_every_rule_it_names_exists(profile):
    config = read(profile)
    assert len(rules()) > 15
    for key in ("set-threads", "set-resources", "preemptible-rules"):
        assert set(config[key]) <= set(rules()), key


@pytest.mark.parametrize("profile", CLUSTERS)
def test_memory_and_time_grow_with_the_attempt_and_cover_the_rules(profile):
    config = read(profile)
    asked = config["set-resources"]
    for name, resources in {**asked, "default": config["default-resources"]}.items():
        for key in {"mem_mb", "runtime"} & set(resources):
            values = [eval(resources[key], {"attempt": attempt}) for attempt in (1, 2, 3)]
            assert values == [values[0], 2 * values[0], 3 * values[0]], (name, key)
    for name, source in rules().items():
        needed = re.search(r"mem_mb=(\d+)", source)
        if needed:
            given = asked.get(name, config["default-resources"])
            assert eval(given["mem_mb"], {"attempt": 1}) >= int(needed[1]), name
    assert {"mem_mb", "runtime"} <= set(config["default-resources"])


@pytest.mark.parametrize("profile", CLUSTERS)
def test_no_rule_asks_for_more_cores_than_a_node_has(profile):
    given = read(profile)["set-threads"]
    for name, source in rules().items():
        own = re.search(r"(?m)^ +threads: (\d+)", source)
        assert given.get(name, int(own[1]) if own else 1) <= 8, name


def test_slurm_asks_for_a_gpu_where_a_rule_can_use_one():
    with_gpu = {name for name, source in rules().items() if "gpu=GPU," in source}
    with_gpu |= {name for name, declared in EXTRACTORS.items() if declared.gpu}
    asked = {name for name, r in read("slurm")["set-resources"].items() if r.get("gpu") == 1}
    assert asked == with_gpu != set()
    # Elsewhere the form differs from site to site, so there the site's block says how.
    assert all("gpu" not in r for r in read("cluster-generic")["set-resources"].values())


def test_both_clusters_ask_for_the_same():
    slurm, generic = (read(profile) for profile in CLUSTERS)
    for resources in slurm["set-resources"].values():
        resources.pop("gpu", None)
    slurm["set-resources"] = {n: r for n, r in slurm["set-resources"].items() if r}
    same = ("set-threads", "set-resources", "preemptible-rules", "preemptible-retries")
    for key in (*same, "latency-wait", "precommand", "keep-going", "rerun-incomplete"):
        assert slurm[key] == generic[key], key


def test_only_what_chance_can_mend_is_retried():
    retried = set(read("slurm")["preemptible-rules"])
    limited = {n for n, r in read("slurm")["set-resources"].items() if "runtime" in r}
    assert retried == limited | set(
        EXTRACTORS
    )  # long or large: can be preempted, run out of memory or time
    sources = rules()
    own = {name for name, source in sources.items() if re.search(r"(?m)^ +retries:", source)}
    assert own == {"weights"} and "localrule: True" in sources["weights"]  # downloads


def test_what_jobs_compile_lies_in_the_working_folder_by_node(tmp_path, monkeypatch):
    names = ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR", "MPLCONFIGDIR")
    for name in (*SCHEDULERS, *names):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platform.node", lambda: "node7")
    caches_of_this_node()
    assert not any(name in os.environ for name in names), "a workstation keeps its own"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("MPLCONFIGDIR", "/elsewhere")
    caches_of_this_node()
    folder = tmp_path / ".snakemake" / "nodes" / "node7"
    assert [os.environ.pop(name) for name in names] == [
        *(str(folder / name) for name in ("numba", "triton")), "/elsewhere",
    ]  # fmt: skip


@pytest.mark.parametrize("profile", CLUSTERS)
def test_what_differs_between_sites_stands_in_one_block(profile):
    whole = text(profile)
    (block,) = SITE.findall(whole)
    rest = whole.replace(block, "")
    for word in ("partition", "account", "qos", "sbatch", "qsub", "gres"):
        assert not re.search(rf"\b(slurm_)?{word}\b", rest), word
    assert "default-resources" in block and "gres" in text("slurm")
