"""Fixtures that the tests of tasks share."""

import importlib
import sys

import pytest


@pytest.fixture
def my_lab(tmp_path, monkeypatch, request):
    """A user's own module beside the run: the text ``MY_LAB`` of the test's file."""
    (tmp_path / "my_lab.py").write_text(request.module.MY_LAB)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("my_lab")
    sys.modules.pop("my_lab", None)
