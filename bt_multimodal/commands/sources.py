"""What a class says of itself, read from its source file: nothing is imported, so it takes milliseconds."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bt_multimodal.commands.import_order import working_folder_last


class Argument(NamedTuple):
    """An argument of a class: its default and type as written (empty if none), and its docstring's text."""

    name: str
    default: str
    kind: str
    text: str

    @property
    def sentence(self) -> str:
        """The first sentence of the text."""
        return re.split(r"(?<=[.;:])\s+(?=[A-Z`(])|\n\n", self.text, maxsplit=1)[0].rstrip(".;:")


class Described(NamedTuple):
    """A class or function: its path, the first paragraph of its docstring, and its arguments."""

    class_path: str
    summary: str
    arguments: list[Argument]

    @property
    def sentence(self) -> str:
        """The first sentence of the summary."""
        return re.split(r"(?<=[^l]\.)\s|(?<=[^a]l\.)\s", self.summary, maxsplit=1)[0].rstrip(".")


def describe(class_path: str) -> Described | None:
    """The class or function at a dotted path; ``None`` if its source cannot be found."""
    module, _, name = class_path.rpartition(".")
    path = _file_of(module)
    if path is None:
        return None
    node = next((node for node in _tree(path).body if getattr(node, "name", None) == name), None)
    return _described(class_path, node) if isinstance(node, ast.ClassDef | ast.FunctionDef) else None


def augmentation_sets(package: str) -> list[Described]:
    """The augmentation sets of a package, and the functions that return one."""
    found, names = [], set()
    for module, node in _definitions(package):
        bases = {ast.unparse(base) for base in getattr(node, "bases", ())}
        if isinstance(node, ast.ClassDef) and "AugmentationSet" in bases:
            names.add(node.name)
            found.append(_described(f"{module}.{node.name}", node))
    for module, node in _definitions(package):
        if isinstance(node, ast.FunctionDef) and node.returns and ast.unparse(node.returns) in names:
            found.append(_described(f"{module}.{node.name}", node))
    return [item for item in found if not item.class_path.rpartition(".")[2].startswith("_")]


def encoders(package: str) -> list[Described]:
    """The encoders of a package: its ``nn.Module`` classes that set ``features_dim``."""
    return [
        _described(f"{module}.{node.name}", node)
        for module, node in _definitions(package)
        if isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
        and "nn.Module" in {ast.unparse(base) for base in node.bases}
        and "features_dim" in {target for part in ast.walk(node) for target in _targets(part)}
    ]


def _targets(node: ast.AST) -> Iterator[str]:
    """What an assignment to ``self`` or in a class body assigns."""
    for target in ast.walk(node) if isinstance(node, ast.Assign | ast.AnnAssign) else ():
        if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store):
            yield target.attr
        elif isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
            yield target.id


def _definitions(package: str) -> Iterator[tuple[str, ast.stmt]]:
    """The definitions at the top level of a package's own files, with their modules."""
    folder = _file_of(package)
    for path in sorted(folder.parent.glob("*.py")) if folder else ():
        for node in _tree(path).body:
            yield f"{package}.{path.stem}", node


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _file_of(module: str) -> Path | None:
    """The source file of a module, the one that an import finds; nothing but its outermost package's place
    is looked up, so that none is imported."""
    outermost, *inner = module.split(".")
    working_folder_last()
    try:
        spec = importlib.util.find_spec(outermost)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None
    if not spec.submodule_search_locations:
        alone = not inner and spec.origin is not None and spec.origin.endswith(".py")
        return Path(str(spec.origin)) if alone else None
    for root in map(Path, spec.submodule_search_locations):
        path = root.joinpath(*inner)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def _described(class_path: str, node: ast.stmt) -> Described:
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    doc = ast.get_docstring(node) or ""
    texts = _argument_texts(doc)
    function: ast.FunctionDef | None = node if isinstance(node, ast.FunctionDef) else None
    if isinstance(node, ast.ClassDef):
        function = next(
            (part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"),
            None,
        )
        if function is not None:
            texts = {**_argument_texts(ast.get_docstring(function) or ""), **texts}
    arguments = _of_function(function, texts) if function else _of_dataclass(node, texts)
    summary = " ".join(doc.split("\n\n")[0].split())
    return Described(class_path, summary, arguments)


def _of_function(function: ast.FunctionDef, texts: dict[str, str]) -> list[Argument]:
    given = function.args
    pairs = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(pairs) - len(given.defaults)) + list(given.defaults)
    both = [*zip(pairs, defaults, strict=True), *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return [
        Argument(
            argument.arg,
            ast.unparse(default) if default is not None else "",
            ast.unparse(argument.annotation) if argument.annotation else "",
            texts.get(argument.arg, ""),
        )
        for argument, default in both
        if argument.arg != "self"
    ]


def _of_dataclass(node: ast.stmt, texts: dict[str, str]) -> list[Argument]:
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    return [
        Argument(
            part.target.id,
            _default(part.value),
            ast.unparse(part.annotation),
            texts.get(part.target.id, ""),
        )
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    ]


def _default(value: ast.expr | None) -> str:
    """As written; of ``field(default_factory=lambda: X)`` it is ``X``."""
    if isinstance(value, ast.Call):
        factory = next((word.value for word in value.keywords if word.arg == "default_factory"), None)
        return ast.unparse(factory.body) if isinstance(factory, ast.Lambda) else ""
    return "" if value is None else ast.unparse(value)


def _argument_texts(doc: str) -> dict[str, str]:
    """The texts below ``Args:`` of a docstring, by name; ``a, b: text`` is that of both."""
    texts: dict[str, str] = {}
    _, _, below = doc.partition("Args:\n")
    names: list[str] = []
    indent = 0
    for line in below.splitlines():
        if line and not line[0].isspace():
            break
        found = re.match(r"( +)([\w*]+(?:, [\w*]+)*):\s+(.*)|( +)([\w*]+(?:, [\w*]+)*):$", line)
        depth = len(line) - len(line.lstrip())
        if found and (not names or depth <= indent):
            names, indent = (found[2] or found[5]).split(", "), depth
            for name in names:
                texts[name] = found[3] or ""
        elif line.strip():
            for name in names:
                texts[name] = f"{texts[name]} {line.strip()}".strip()
    return {name: text.replace("``", "") for name, text in texts.items()}
