"""Modules of the working folder are found, and take no library's place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bt_multimodal.commands.import_order import working_folder_last
from bt_multimodal.commands.sources import _file_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("safetensors", "einops", "my_own_lab"):
        (tmp_path / f"{name}.py").write_text("here = True\n")
    return tmp_path


@pytest.mark.parametrize("first", ["", None, "twice"])
def test_the_working_folder_goes_behind(folder, first, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    entries = {"": [""], None: [], "twice": [str(folder), ""]}[first]
    rest = [entry for entry in sys.path if os.path.abspath(entry) != str(folder)]
    sys.path[:] = entries + rest
    working_folder_last()
    working_folder_last()
    assert [entry for entry in sys.path if os.path.abspath(entry or os.curdir) == str(folder)] == [
        str(folder)
    ]
    assert sys.path[-1] == str(folder)
    assert _file_of("my_own_lab") == folder / "my_own_lab.py"
    assert _file_of("einops").parent.name == "einops"
    assert _file_of("safetensors.torch").parent.name == "safetensors"
    assert _file_of("no_such_module_anywhere") is None


def test_what_pythonpath_names_stays_in_front(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(folder))
    sys.path.insert(0, str(folder))
    working_folder_last()
    assert sys.path[0] == str(folder)


def test_a_script_beside_a_module_of_a_librarys_name(folder):
    """Python itself puts a script's folder in front."""
    script = folder / "script.py"
    script.write_text(
        "from bt_multimodal.commands.import_order import working_folder_last\n"
        "working_folder_last()\nimport einops, my_own_lab\n"
        "print(hasattr(einops, 'here'), my_own_lab.here)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, cwd=folder
    )
    assert done.stdout.split() == ["False", "True"], done.stderr
