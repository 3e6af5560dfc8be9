"""The sweep's command line: what it prints, keeps and returns (its runs: tests/commands/test_sweep.py)."""

import pytest

from bt_multimodal.commands import sweep
from bt_multimodal.evaluation.figures import Figure
from bt_multimodal.evaluation.report import Comparison, load_comparison, save_comparison
from tasks import image_ablations

BASE = "configs/image/ablations_miniature.yaml"
WITHOUT = "configs/image/ablations/loss_invariance_only.yaml"


def test_a_bare_command_explains_itself(capsys):
    assert image_ablations.main([]) == 0
    assert "--ablations" in capsys.readouterr().out


def test_the_table_is_printed_and_kept(tmp_path, monkeypatch, capsys):
    asked = []

    def performed(runs, modality, processes):
        asked.append(([(run.name, run.seed) for run in runs], processes, runs[0].argv))
        for run in runs[:-1]:
            run.folder.mkdir(parents=True)
            cells = {"linear": Figure(50.0 - 10 * (run.name != "baseline") + run.seed)}
            save_comparison(run.folder, Comparison("9 test images", {"trained encoder": cells}))
        return {runs[-1].folder: "the loss is nan"}

    monkeypatch.setattr(sweep, "sweep", performed)
    argv = ["--base", BASE, "--ablations", WITHOUT, "--seeds", "1", "2", "--out", str(tmp_path)]
    argv += ["--published", "configs/image/ablations/published.csv"]
    assert image_ablations.main([*argv, "--processes", "2", "--", "--trainer.max_epochs", "3"]) == 1
    names = ("baseline", "loss_invariance_only")
    runs, processes, first = asked[0]
    assert (runs, processes) == ([(name, seed) for name in names for seed in (1, 2)], 2)
    assert first[first.index("--trainer.max_epochs") + 1] == "3"
    printed = capsys.readouterr()
    assert "51.5 ± 0.7   71.4" in printed.out
    assert printed.err == f"error: {tmp_path}/loss_invariance_only/seed2: the loss is nan\n"
    kept = load_comparison(tmp_path).rows
    assert kept["loss_invariance_only"] == {"linear": Figure(41.0), "paper": Figure(57.3)}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--base", "none.yaml"], "there is no config 'none.yaml'"),
        (["--base", BASE, "--ablations", "none.yaml"], "there is no config 'none.yaml'"),
    ],
)
def test_wrong_inputs(tmp_path, capsys, argv, message):
    assert image_ablations.main([*argv, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
