"""English that is on every machine: the documentation strings of installed Python packages."""

import ast
import hashlib
import inspect
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

# All of them come with this project's own requirements.
_PACKAGES = (
    "matplotlib",
    "networkx",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "sympy",
    "torch",
    "transformers",
)
_EACH = 400
_WORDS = 12
# Where prose ends: a section of numpydoc or of Google's style, an example, a directive, a list of fields.
_END = re.compile(r"^\s*(>>>|\.\. |:\w+|[A-Z][\w ]+:\s*$|\w[\w ]*\n\s*-{3,})", re.MULTILINE)


def docstrings() -> dict[str, list[str]]:
    """The prose of 400 documentation strings each of nine packages; the label is the package.

    Each is of 12 words or more and there once. Files are read, nothing is imported. Which strings they
    are depends on the packages' versions alone.
    """
    columns: dict[str, list[str]] = {"text": [], "label": []}
    seen: set[str] = set()
    for package in _PACKAGES:
        found = 0
        for text in _prose(package):
            if text in seen:
                continue
            seen.add(text)
            columns["text"].append(text)
            columns["label"].append(package)
            found += 1
            if found == _EACH:
                break
    return columns


def _prose(package: str) -> Iterator[str]:
    spec = find_spec(package)
    roots = [] if spec is None else list(spec.submodule_search_locations or [])
    for root in map(Path, roots):
        files = [path for path in root.rglob("*.py") if "tests" not in path.parts]
        # From everywhere in the package, and the same at every call.
        files.sort(key=lambda path: hashlib.sha1(str(path.relative_to(root)).encode()).digest())
        for path in files:
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, ValueError, OSError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    text = " ".join(_END.split(inspect.cleandoc(ast.get_docstring(node) or ""))[0].split())
                    if len(text.split()) >= _WORDS:
                        yield text
