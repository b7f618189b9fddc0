"""What a job's numbers depend on, as one sorted, readable line.

    code=3f2a91c04be7 hop_s=0.04 mode=streaming

`code` hashes the syntax trees of the job's module and of the repository modules it imports, so
comments, docstrings and formatting are free. Presentation is free too, by one rule: what comes from
the package `runtime` (errors, logs, progress, devices, threads) or from `store.sidecar` (provenance
beside the results) cannot change a number. These modules are not followed, their imports and statements that only call them are dropped, ``progress(x, ...)``
counts as ``x``, and of ``raise InputError(...)`` only the raise counts. Functions named
``build_parser`` and ``main`` and the ``__main__`` guard are the command line: dropped as well.

Snakemake prints the line before and after as the reason of a rerun.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRESENTATION = ("runtime", "store.sidecar")
PACKAGES = {
    "alignment",
    "corpora",
    "evaluation",
    "extractors",
    "media",
    "model",
    "runtime",
    "formats",
    "inference",
    "training",
    "store",
    "workflow",
}
COMMAND_LINE = {"build_parser", "main"}


def is_presentation(module: str) -> bool:
    """Whether a module can change no number, by its name."""
    return any(module == p or module.startswith(p + ".") for p in PRESENTATION)


class _Essence(ast.NodeTransformer):
    """Reduce a module to what can change a number."""

    def __init__(self, presented: set[str]):
        self.presented = presented

    def _is_presented(self, node: ast.AST) -> bool:
        while isinstance(node, ast.Call | ast.Attribute):
            node = node.func if isinstance(node, ast.Call) else node.value
        return isinstance(node, ast.Name) and node.id in self.presented

    def visit_Import(self, node: ast.Import):
        node.names = [n for n in node.names if not is_presentation(n.name)]
        return node if node.names else None

    def visit_ImportFrom(self, node: ast.ImportFrom):
        return None if is_presentation(node.module or "") else node

    def visit_Expr(self, node: ast.Expr):
        if isinstance(node.value, ast.Constant) or self._is_presented(node.value):
            return None
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign):
        # `log = get_logger("faces")`: the name is presentation from here on.
        simple = len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        if simple and isinstance(node.value, ast.Call) and self._is_logger(node.value):
            return None
        return self.generic_visit(node)

    def _is_logger(self, call: ast.Call) -> bool:
        return isinstance(call.func, ast.Name) and call.func.id == "get_logger"

    def visit_Call(self, node: ast.Call):
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in self.presented:
            if node.func.id == "progress" and node.args:
                return node.args[0]
            node.args, node.keywords = [], []
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef):
        if node.name in COMMAND_LINE:
            return None
        self.generic_visit(node)
        if not node.body:
            node.body = [ast.Pass()]
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef):
        self.generic_visit(node)
        if not node.body:
            node.body = [ast.Pass()]
        return node

    def visit_If(self, node: ast.If):
        if (
            isinstance(node.test, ast.Compare)
            and ast.unparse(node.test) == "__name__ == '__main__'"
        ):
            return None
        self.generic_visit(node)
        if not node.body:
            node.body = [ast.Pass()]
        return node


def _presented_names(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and is_presentation(node.module or ""):
            names |= {n.asname or n.name for n in node.names}
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            call = node.value
            if isinstance(call.func, ast.Name) and call.func.id == "get_logger":
                names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    return names


def _reduced(source: str) -> ast.Module:
    tree = ast.parse(source)
    return _Essence(_presented_names(tree)).visit(tree)


def essence(source: str) -> str:
    """Canonical dump of what can change a number in a module's source."""
    return ast.dump(_reduced(source), include_attributes=False)


def _module_file(name: str, root: Path) -> Path | None:
    path = root.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imported_modules(source: str, module: str, root: Path) -> set[str]:
    """Repository modules that a module's essential code imports (lazy imports included)."""
    return _imports(_reduced(source), module, root)


def _imports(tree: ast.Module, module: str, root: Path) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {n.name for n in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(
                    f"{module}: relative imports are not followed; write the full name"
                )
            base = node.module or ""
            for n in node.names:
                full = f"{base}.{n.name}"
                found.add(full if _module_file(full, root) else base)
    return {
        m
        for m in found
        if m.split(".")[0] in PACKAGES and not is_presentation(m) and _module_file(m, root)
    }


@cache
def _read(source: str, name: str, root: Path) -> tuple[str, frozenset[str]]:
    tree = _reduced(source)
    return ast.dump(tree, include_attributes=False), frozenset(_imports(tree, name, root))


def _module(name: str, root: Path) -> tuple[str, frozenset[str]]:
    """Essence and imports of a repository module; many closures share it, it is parsed once."""
    path = _module_file(name, root)
    if path is None:
        raise FileNotFoundError(f"module {name} is not in {root}")
    return _read(path.read_text(encoding="utf-8"), name, root)


@cache
def closure(module: str, root: Path = ROOT) -> tuple[str, ...]:
    """The module and every repository module it reaches by imports, sorted; without presentation."""
    seen: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        _, imports = _module(name, root)
        seen.add(name)
        parents = (".".join(name.split(".")[:i]) for i in range(1, name.count(".") + 1))
        queue.extend(parent for parent in parents if _module_file(parent, root))
        queue.extend(imports - seen)
    return tuple(sorted(seen))


@cache
def code_hash(module: str, root: Path = ROOT) -> str:
    """12 hex digits over the essence of the module's closure."""
    digest = hashlib.sha256()
    for name in closure(module, root):
        essential, _ = _module(name, root)
        digest.update(f"{name}\n{essential}\n".encode())
    return digest.hexdigest()[:12]


def _flat(settings: dict, prefix: str = "") -> dict[str, str]:
    flat = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(_flat(value, name + "."))
        elif isinstance(value, list | tuple):
            flat[name] = "[" + ",".join(str(v) for v in value) + "]"
        else:
            flat[name] = str(value)
    return flat


def fingerprint(module: str, settings: dict, root: Path = ROOT) -> str:
    """One canonical line: code hash, then the settings sorted by name (nested keys joined by dots)."""
    flat = _flat(settings)
    return " ".join([f"code={code_hash(module, root)}", *(f"{k}={flat[k]}" for k in sorted(flat))])
