"""An embedded data set of English: the docstrings of installed Python packages."""

import ast
import hashlib
import inspect
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

# All of them are installed with this project.
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
_PER_PACKAGE = 400
_WORDS = 12  # least words of a docstring
# Prose ends at a section in numpydoc's or Google's style, an example, a directive or a list of fields.
_END = re.compile(r"^\s*(>>>|\.\. |:\w+|[A-Z][\w ]+:\s*$|\w[\w ]*\n\s*-{3,})", re.MULTILINE)


def docstrings() -> dict[str, list[str]]:
    """Returns the prose of 400 docstrings of each of nine packages; the label is the package.

    Each docstring has 12 words or more and appears once. Files are read, not imported. The selection depends
    on the packages' versions alone.
    """
    columns: dict[str, list[str]] = {"text": [], "label": []}
    seen: set[str] = set()
    for package in _PACKAGES:
        count = 0
        for text in _prose(package):
            if text in seen:
                continue
            seen.add(text)
            columns["text"].append(text)
            columns["label"].append(package)
            count += 1
            if count == _PER_PACKAGE:
                break
    return columns


def _prose(package: str) -> Iterator[str]:
    spec = find_spec(package)
    roots = [] if spec is None else list(spec.submodule_search_locations or [])
    for root in map(Path, roots):
        files = [path for path in root.rglob("*.py") if "tests" not in path.parts]
        # An order that mixes the whole package and is the same at every call.
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
