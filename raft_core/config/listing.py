"""What there is to choose from, found by reading source files: nothing is imported, no weight is loaded.

A class is recognised by its shape, as everywhere in this toolkit: a selector has ``produces``, an objective ``consumes``, a
reward ``info``, a policy ``nll``. A new file in one of the packages is therefore listed, and usable by its short name in a
configuration, without being registered anywhere. Other packages may list theirs under the entry-point groups
``raft.rewards`` and ``raft.policies``.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from raft_core.bundled import PACKAGES, package_folder


@dataclass(frozen=True)
class Found:
    """A class as its source file describes it.

    Attributes:
        name: the short name.
        class_path: the full import path.
        doc: its docstring, or "".
        bases: names of its base classes.
        members: attributes and methods that its body defines, and what its constructor sets on ``self``.
        parameters: the methods' parameter names without ``self``.
        signature: constructor arguments with types and defaults, as written.
        selection: the selection type that it produces or consumes, by name; "" of what has none.
    """

    name: str
    class_path: str
    doc: str
    bases: tuple[str, ...]
    members: frozenset[str]
    parameters: dict[str, tuple[str, ...]]
    signature: tuple[str, ...]
    selection: str = ""

    @property
    def public(self) -> bool:
        hidden = self.name.startswith("_") or "Protocol" in self.bases
        return not hidden and ".testing." not in self.class_path

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring in one line."""
        return " ".join(self.doc.split("\n\n")[0].split()).replace("``", "")


def _called_with(method: str, *names: str) -> Callable[[Found], bool]:
    return lambda found: found.parameters.get(method) == names


# Kind → how its classes are recognised. The names are those of the protocols, in lower case.
KINDS: dict[str, Callable[[Found], bool]] = {
    "policy": lambda found: "nll" in found.members,
    "reward": lambda found: "info" in found.members,
    "source": lambda found: {"requests", "samples"} <= found.members,
    "environment": lambda found: {"reset", "step"} <= found.members,
    "selector": lambda found: "produces" in found.members,
    "objective": lambda found: "consumes" in found.members,
    "rule": _called_with("__call__", "history"),
    "tracker": _called_with("log", "history"),
}
ENTRY_POINTS = {"reward": "raft.rewards", "policy": "raft.policies"}


def classes(kind: str) -> list[Found]:
    """The classes of one kind, by name; those for tests and unfinished bases included (see ``Found.public``)."""
    everything = _everything()
    chosen = {found.class_path: found for found in everything if KINDS[kind](found)}
    while True:  # a subclass need not repeat what makes its base a reward
        names = {found.name for found in chosen.values()}
        more = [f for f in everything if f.class_path not in chosen and names.intersection(f.bases)]
        if not more:
            return sorted(chosen.values(), key=lambda found: found.name)
        chosen |= {found.class_path: found for found in more}


def short_names(kind: str) -> dict[str, list[str]]:
    """Short name → full import paths; more than one where two packages use the same name."""
    paths: dict[str, list[str]] = {}
    for found in classes(kind):
        if "Protocol" not in found.bases:
            paths.setdefault(found.name, []).append(found.class_path)
    for name, path in plugins(kind).items():
        paths.setdefault(name, []).append(path)
    return paths


def going_with(selection: str, kind: str) -> list[str]:
    """Public names of the selectors that produce a selection type, or of the objectives that consume it."""
    return sorted({found.name for found in classes(kind) if found.public and found.selection == selection})


def short_name(path: str) -> str:
    """The short name of a class by its import path, where that names it alone; any other text as it is."""
    for found in _everything() if path.split(".")[0] in PACKAGES else ():
        if found.class_path == path:
            kinds = [kind for kind in KINDS if short_names(kind).get(found.name) == [path]]
            return found.name if kinds else path
    return path


def with_short_names(plain: Any) -> Any:
    """Plain data with every class by its short name: what is stored does not know how the packages are laid out."""
    if isinstance(plain, Mapping):
        return {key: short_name(value) if key == "class_path" else with_short_names(value) for key, value in plain.items()}
    if isinstance(plain, (list, tuple)):
        return [with_short_names(item) for item in plain]
    return plain


def public_names(kind: str) -> list[str]:
    """Short names to propose to a person: without bases and what is for tests."""
    return sorted({found.name for found in classes(kind) if found.public} | set(plugins(kind)))


def plugins(kind: str) -> dict[str, str]:
    """Name → import path of what installed packages list under the entry-point group of this kind."""
    if kind not in ENTRY_POINTS:
        return {}
    points = importlib.metadata.entry_points(group=ENTRY_POINTS[kind])
    return {point.name: point.value.replace(":", ".") for point in points}


def describe(name: str) -> list[Found]:
    """Every class of any kind with this short name."""
    return [found for kind in KINDS for found in classes(kind) if found.name == name and "Protocol" not in found.bases]


def settings(class_path: str) -> list[tuple[str, str, str]]:
    """(name, default as written or "", meaning) of each constructor argument of a class in one of the packages."""
    from docstring_parser import parse

    found = next(each for each in _everything() if each.class_path == class_path)
    meanings = {p.arg_name: " ".join((p.description or "").split()) for p in parse(found.doc).params}
    lines = []
    for argument in found.signature:
        declared, _, default = argument.partition(" = ")
        name = declared.partition(":")[0].strip()
        lines.append((name, default, meanings.get(name, "").replace("``", "")))
    return lines


@cache
def _everything() -> tuple[Found, ...]:
    found: list[Found] = []
    for package in PACKAGES:
        root = package_folder(package)
        for path in sorted(root.rglob("*.py")) if root else []:
            module = ".".join((package, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")  # type: ignore[arg-type]
            found.extend(_read(path, module))
    return tuple(found)


def _read(path: Path, module: str) -> Iterator[Found]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, OSError):  # a file that is being edited; importing it will say more
        return
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
            yield Found(
                name=node.name,
                class_path=f"{module}.{node.name}",
                doc=ast.get_docstring(node) or "",
                bases=tuple(ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases),
                members=frozenset(_members(node)),
                parameters={name: tuple(a.arg for a in method.args.args[1:]) for name, method in methods.items()},
                signature=tuple(_signature(node, methods.get("__init__"))),
                selection=_selection(node),
            )


def _selection(node: ast.ClassDef) -> str:
    """What a class says that it produces or consumes."""
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id in ("produces", "consumes"):
            return ast.unparse(item.value).split(".")[-1] if item.value is not None else ""
    return ""


def _members(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            yield item.name
            if item.name == "__init__":
                targets = [n for n in ast.walk(item) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)]
                yield from (t.attr for t in targets if isinstance(t.value, ast.Name) and t.value.id == "self")
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            yield item.target.id
        elif isinstance(item, ast.Assign):
            yield from (target.id for target in item.targets if isinstance(target, ast.Name))


def _signature(node: ast.ClassDef, init: ast.FunctionDef | None) -> Iterator[str]:
    """``name: type = default`` of each constructor argument, of a dataclass's fields when there is no constructor."""
    if init is None:
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and not ast.unparse(item.annotation).startswith("ClassVar"):
                yield ast.unparse(item)
        return
    positional = init.args.args[1:]
    padding: list[ast.expr | None] = [None] * (len(positional) - len(init.args.defaults))
    pairs = [*zip(positional, [*padding, *init.args.defaults], strict=True)]
    pairs += [*zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)]
    for argument, default in pairs:
        yield ast.unparse(argument) + ("" if default is None else f" = {ast.unparse(default)}")
