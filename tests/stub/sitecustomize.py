"""Makes `python -m STAGE ...` write its declared outputs at once: for tests of the job graph only.

Python imports this module at start-up when its folder is on PYTHONPATH. Jobs of the workflow are
recognised by their module; everything else runs as usual.
"""

import json
import os
import sys

PACKAGES = (
    "alignment",
    "corpora",
    "evaluation",
    "extractors",
    "inference",
    "media",
    "model",
    "training",
)
SIDE_OUTPUTS = {
    "extractors.faces": "--crops",
    "alignment.qc": "--plot",
    "training.train": "--history",
}

OUT_DIR = {
    "evaluation.tables": (
        "ccc.csv", "ccc.md", "ccc.tex", "ccc.json", "sessions.csv", "metrics.csv",
    ),
    "evaluation.efficiency": tuple(f"efficiency.{kind}" for kind in ("csv", "md", "tex", "png", "json")),
}  # fmt: skip


def pretend() -> None:
    argv = sys.orig_argv
    if "-m" not in argv:
        return
    at = argv.index("-m")
    module, words = argv[at + 1], argv[at + 2 :]
    if module.split(".")[0] not in PACKAGES or "-n" in words:
        return
    values = {}
    for i, word in enumerate(words):
        name, eq, value = word.partition("=")
        if name.startswith("--"):
            values[name] = value if eq else (words[i + 1] if i + 1 < len(words) else "")
    outputs = [values[name] for name in ("--out", SIDE_OUTPUTS.get(module)) if values.get(name)]
    if "--out-dir" in values:
        names = OUT_DIR[module]
        outputs += [os.path.join(values["--out-dir"], name) for name in names]
    outputs += [
        os.path.splitext(path)[0] + ".json"
        for path in outputs
        if path.endswith((".h5", ".safetensors"))
    ]
    if module == "evaluation.similarity":
        outputs += [os.path.splitext(values["--out"])[0] + end for end in (".csv", ".json")]
    for path in outputs:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        text = f"stub {module} {os.path.basename(path)}\n"
        if path.endswith(".json"):
            text = json.dumps({"fingerprint": values.get("--fingerprint"), "made": text})
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    sys.stdout.flush()
    os._exit(0)


if os.environ.get("STUB_JOBS") == "1":
    pretend()
