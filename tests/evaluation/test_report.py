"""The final table: what stands in it, and its mean and spread over runs."""

import pytest
import torch

from bt_multimodal.evaluation.features import FeatureTable
from bt_multimodal.evaluation.report import Comparison, compare, load_comparison, over_runs, save_comparison
from tasks import seeds


def test_a_comparison_reads_as_a_table():
    x = torch.eye(4).repeat(5, 1)
    table = FeatureTable(x, torch.arange(20) % 4, list("abcd"))
    noise = table._replace(features=torch.randn(20, 4, generator=torch.Generator().manual_seed(0)))
    comparison = compare(
        {"noise": (noise, noise), "one hot": (table, table)}, "letters", True, per_class=(2,)
    )
    lines = str(comparison).splitlines()
    assert lines[0] == "20 test letters (20 % held out), 20 for the probes"
    assert lines[1].split("  ")[0] == "accuracy in %"
    assert lines[-1].split() == ["one", "hot", "100.0", "100.0", "100.0", "±", "0.0"]


def test_what_was_not_measured_is_left_open(tmp_path):
    rows = {"a": {"AP50": (1.0, 0.5)}, "b": {"AP": (4.0, None), "AP50": (2.0, None), "paper": (3.0, None)}}
    lines = str(Comparison("title", rows, "AP in %")).splitlines()
    assert lines[1].split() == ["AP", "in", "%", "AP", "AP50", "paper"]  # as the fullest row has them
    assert lines[3].split() == ["a", "1.0", "±", "0.5"]
    assert lines[4].split() == ["b", "4.0", "2.0", "3.0"]
    save_comparison(tmp_path, Comparison("title", rows, "AP in %"))
    assert load_comparison(tmp_path).measure == "AP in %"


def made(tmp_path, name, value, title="9 test clips"):
    (tmp_path / name).mkdir()
    rows = {
        "raw": {"kNN": (30.0, None)},
        "trained": {"kNN": (value, None), "linear, 10 a class": (value + 1, 9.0)},
    }
    save_comparison(tmp_path / name, Comparison(title, rows))
    return tmp_path / name


def test_mean_and_spread_over_runs(tmp_path, capsys):
    runs = [made(tmp_path, str(i), value) for i, value in enumerate((60.0, 62.0, 67.0))]
    found = over_runs(runs)
    assert found.rows["raw"]["kNN"] == (30.0, 0.0)
    mean, spread = found.rows["trained"]["kNN"]
    assert mean == 63.0
    assert spread == pytest.approx(13**0.5)
    assert found.rows["trained"]["linear, 10 a class"][0] == 64.0
    assert seeds.main([str(run) for run in runs]) == 0
    printed = capsys.readouterr().out
    assert "9 test clips; mean ± standard deviation of 3 runs" in printed
    assert "63.0 ± 3.6" in printed


def test_runs_that_cannot_be_taken_together(tmp_path, capsys):
    run = made(tmp_path, "a", 60.0)
    for others, message in (
        ([], "2 runs or more, got 1"),
        ([tmp_path], "no table.json"),
        ([made(tmp_path, "b", 60.0, "8 test clips")], "measured something other"),
    ):
        assert seeds.main([str(run), *map(str, others)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
