"""A long stage says so, a short one does not, and the items are the same."""

import io
import sys
import time

import pytest

from bt_multimodal.data import progress
from bt_multimodal.data.progress import progressing, working


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(progress, "_said", set())


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize("items", [[], [1], [1, 2, 3]])
def test_a_short_stage_is_silent(stream, items, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(progressing(items, "decoding")) == items
    assert list(progressing(iter(items), "decoding")) == items
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize(("stream", "shown"), [(io.StringIO, "decoding ...\n"), (Terminal, "/3")])
def test_a_long_stage_speaks_once(stream, shown, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(progress, "_DELAY", 1e-9)
    slow = (time.sleep(0.15) or item for item in "abc")  # a bar is drawn ten times a second
    assert list(progressing(slow, "decoding", 3)) == [*"abc"]
    text = sys.stderr.getvalue() + sys.stdout.getvalue()
    assert shown in text
    assert "decoding" in text
    assert text.count("\n") <= 1


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK"])
def test_other_ranks_are_silent(name, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(progress, "_DELAY", 1e-9)
    monkeypatch.setenv(name, "1")
    assert list(progressing("abc", "decoding")) == [*"abc"]
    assert sys.stderr.getvalue() == ""


def test_a_line_without_a_terminal_comes_once(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(progress, "_DELAY", 1e-9)
    for what in ("decoding", "features", "features"):
        assert list(progressing("abc", what)) == [*"abc"]
    assert sys.stdout.getvalue() == "decoding ...\nfeatures ...\n"


@pytest.mark.parametrize(("delay", "shown"), [(10.0, ""), (0.01, "probing ...\n")])
def test_work_without_parts(delay, shown, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(progress, "_DELAY", delay)
    with working("probing"):
        time.sleep(0.3 if shown else 0)
    assert sys.stdout.getvalue() == shown
    assert sys.stderr.getvalue() == ""
