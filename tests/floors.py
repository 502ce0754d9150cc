"""The house's rule, checked from the syntax tree: what a file may import is decided by where it stands.

A folder imports from lower floors only, never from a sibling folder on its own floor. Files inside layers/, positions/
and optimizers/ do not import each other; their registry, `__init__.py`, may import them, and they it. The front door
(`onelayer/__init__.py`, `__main__.py`) may import anything and is imported by nobody.
"""

import ast
from collections.abc import Iterator

FLOORS = {
    "arrays": 1, "errors": 1, "fused": 1, "threads": 1,
    "layers": 2, "positions": 2, "optimizers": 2, "tasks": 2,
    "sublayers": 3,
    "models": 4, "kernels": 4,
    "training": 5, "microscope": 5, "decoding": 5,
    "grokking": 6, "studies": 6, "lab": 6, "bench": 6, "words": 6, "interchange": 6,
    "report": 7,
    "cli": 8,
    "": 9,
}  # fmt: skip
APART = {"layers", "positions", "optimizers"}


def violations(module: str, source: str, modules: set[str], package: bool = False) -> list[str]:
    """What is wrong with the imports of `source`, the file of `module`: a sentence each.

    modules: every module of the package by name.     package: the file is a folder's `__init__.py`.
    """
    own = room(module)
    if own not in FLOORS:
        return [f"{module}: the folder {own!r} stands on no floor; give it one in tests/floors.py and DESIGN's table"]
    found = dict.fromkeys(imports(module, source, modules, package))
    return [f"{module} imports {target}: {fault}" for target in found if (fault := _fault(module, target, modules))]


def _fault(module: str, target: str, modules: set[str]) -> str:
    own, theirs = room(module), room(target)
    if own == theirs:
        registry = any(name.startswith((f"{module}.", f"{target}.")) for name in modules)
        return f"files of {own}/ do not import each other" if own in APART and not registry else ""
    if theirs not in FLOORS:
        return f"{theirs!r} stands on no floor"
    if FLOORS[theirs] == FLOORS[own]:
        return f"both stand on floor {FLOORS[own]}"
    return f"floor {FLOORS[own]} reaches up to floor {FLOORS[theirs]}" if FLOORS[theirs] > FLOORS[own] else ""


def room(module: str) -> str:
    """onelayer.layers.linear -> layers; onelayer and onelayer.__main__ -> "", the front door."""
    name = [*module.split("."), ""][1]
    return "" if name == "__main__" else name


def imports(module: str, source: str, modules: set[str], package: bool = False) -> Iterator[str]:
    """Absolute names of the package's modules that the source imports, wherever in the file, also by import_module."""
    home = module.split(".") if package else module.split(".")[:-1]

    def absolute(name: str, level: int) -> str:
        base = home[: len(home) - level + 1] if level else []
        return ".".join([*base, *([name] if name else [])])

    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node.module or "", node.level)
            names = [inner if (inner := f"{base}.{alias.name}") in modules else base for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            match node.args[0]:
                case ast.Constant(value=str(name)):
                    dots = len(name) - len(name.lstrip("."))
                    names = [absolute(name.lstrip("."), dots)]
        yield from (name for name in names if name == "onelayer" or name.startswith("onelayer."))
