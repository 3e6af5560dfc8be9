"""What is imported is declared, by the extra that installs it; importing a package imports nothing heavy."""

import ast
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from bt_multimodal.commands.extras import EXTRAS

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
# Where the distribution is called otherwise than the module.
MODULES = {"scikit-learn": "sklearn", "pillow": "PIL", "pyyaml": "yaml", "huggingface-hub": "huggingface_hub"}
OURS = {"bt_multimodal", "encoders"}
# Which folders may import what an extra brings; deeper ones come first.
FOLDERS = {
    "bt_multimodal/data": ("train",),
    "bt_multimodal/evaluation": ("train",),
    "bt_multimodal/training": ("train",),
    "bt_multimodal/commands": ("train",),
    "bt_multimodal": (),
    "encoders/image": ("image", "timm"),
    "encoders/audio": ("audio",),
    "encoders/text": ("text",),
    "encoders": ("train",),
}
# Asked for only where another package calls us: MTEB's own call.
CALLERS = {"mteb"}


def names(requirements):
    """The modules that requirements install, those of the extras they name included."""
    modules: set[str] = set()
    for requirement in requirements:
        name = re.match(r"[\w-]+", requirement)[0]
        if name == "bt_multimodal":
            for extra in re.search(r"\[(.*?)\]", requirement)[1].split(","):
                modules |= names(PROJECT["optional-dependencies"][extra])
        else:
            modules.add(MODULES.get(name, name.replace("-", "_")))
    return modules


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_are_declared(folder):
    allowed = names(PROJECT["dependencies"]) | OURS | CALLERS | {*sys.stdlib_module_names}
    for extra in FOLDERS[folder]:
        allowed |= names(PROJECT["optional-dependencies"][extra])
    deeper = [other for other in FOLDERS if other.startswith(f"{folder}/")]
    files = [
        path for path in Path(folder).rglob("*.py") if not any(path.is_relative_to(other) for other in deeper)
    ]
    assert files
    for path in files:
        undeclared = {name.partition(".")[0] for name in imports(path)} - allowed
        assert not undeclared, f"{path} imports {undeclared}"


def test_what_the_core_declares_is_used():
    used = {
        name.partition(".")[0]
        for folder in FOLDERS
        for path in Path(folder).rglob("*.py")
        for name in imports(path)
    }
    for extra in ("train", "image", "audio", "text", "timm"):
        unused = names(PROJECT["optional-dependencies"][extra]) - used
        assert not unused, f"extra {extra} declares {unused}"
    assert names(PROJECT["dependencies"]) <= used


def test_a_missing_package_is_looked_up_among_the_declared():
    """The table behind the message "... is not installed; this brings it" and pyproject.toml agree."""
    declared = {
        extra: names(line for line in lines if "bt_multimodal" not in line) - names(PROJECT["dependencies"])
        for extra, lines in PROJECT["optional-dependencies"].items()
        if extra in EXTRAS
    }
    for extra, modules in declared.items():
        assert modules <= {*chain(*EXTRAS.values())}, extra
    for extra, modules in EXTRAS.items():
        assert {*modules} <= declared[extra], extra


def test_packages_import_nothing_heavy():
    packages = [
        ".".join(path.parent.parts)
        for folder in ("bt_multimodal", "encoders")
        for path in Path(folder).rglob("__init__.py")
    ]
    assert len(packages) >= 10
    code = (
        f"import sys\nfor name in {packages}: __import__(name)\n"
        "third = {name.partition('.')[0] for name in sys.modules} - {*sys.stdlib_module_names}\n"
        "heavy = third & {'torch', 'numpy', 'einops', 'safetensors', 'lightning', 'datasets'}\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_come_when_they_are_used():
    import bt_multimodal

    for name in bt_multimodal.__all__:
        assert getattr(bt_multimodal, name).__name__ == name
        assert name in dir(bt_multimodal)
    with pytest.raises(AttributeError, match="'bt_multimodal' has no attribute 'BarlowTwin'"):
        _ = bt_multimodal.BarlowTwin
