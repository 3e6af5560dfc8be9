"""Sweeps: which runs there are, that each is the base with one thing changed, and their table."""

from pathlib import Path

import pytest
import torch

from bt_multimodal.commands import sweep
from bt_multimodal.encoder_file import load_encoder
from bt_multimodal.evaluation.report import Comparison, load_comparison, save_comparison
from encoders.image.modality import IMAGES

BASE_PATH = Path("configs/image/digits.yaml")
SMALL = ["--trainer.max_epochs", "1", "--model.warmup_epochs", "0", "--model.encoder.widths", "[4,8]",
         "--model.projector", "[8]"]  # fmt: skip


def modality():
    return IMAGES


@pytest.fixture
def files(tmp_path):
    base, narrow, plain = (tmp_path / f"{name}.yaml" for name in ("base", "narrow", "plain"))
    base.write_text("seed: 0\n")
    narrow.write_text("model: {projector: [4]}\n")
    plain.write_text("model: {stop_gradient: true}\n")
    return base, [narrow, plain]


def test_published_figures(tmp_path):
    path = tmp_path / "published.csv"
    path.write_text("ablation,top_1,top_5\nbaseline,71.4,90.2\nnarrow,57.3,\n")
    assert sweep.read_published(path) == {"baseline": 71.4, "narrow": 57.3}
    for wrong in (
        "ablation,top_5\nnarrow,1\n",
        "ablation,top_1\nnarrow,only drawn\n",
        "ablation,top_1\nnarrow\n",
    ):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"published.csv needs the columns ablation and top_1, a number"):
            sweep.read_published(path)


def test_the_published_figures_that_are_shipped():
    published = sweep.read_published(Path("configs/image/ablations/published.csv"))
    assert published["baseline"] == 71.4
    files = {path.stem for path in Path("configs/image/ablations").glob("*.yaml")}
    assert {*published} - {"baseline"} <= files


def test_the_plan(files, tmp_path):
    base, ablations = files
    runs = sweep.plan(base, ablations, [3, 5], tmp_path / "out", ["--data.batch_size", "64"])
    assert [(run.name, run.seed) for run in runs] == [
        (name, seed) for name in ("baseline", "narrow", "plain") for seed in (3, 5)
    ]
    assert [(run.raw, run.untrained) for run in runs] == [(True, True), (False, True)] + [(False, False)] * 4
    argv = runs[3].argv
    # The ablation comes after the overrides, which therefore cannot undo it.
    assert argv.index("--data.batch_size") < argv.index(str(ablations[0]))
    assert argv[argv.index("--seed") + 1] == "5"
    assert argv[argv.index("--run_dir") + 1] == str(tmp_path / "out" / "narrow" / "seed5")
    assert str(ablations[0]) not in runs[0].argv


def test_wrong_plans(files, tmp_path):
    base, ablations = files
    with pytest.raises(ValueError, match=r"there is no config '.*missing\.yaml'"):
        sweep.plan(base, [tmp_path / "missing.yaml"], [0], tmp_path)
    with pytest.raises(ValueError, match=r"several ablations are called \['narrow'\]"):
        sweep.plan(base, [*ablations, ablations[0]], [0], tmp_path)


def test_the_table(files, tmp_path):
    base, ablations = files
    runs = sweep.plan(base, ablations, [0, 1], tmp_path)
    figures = {"baseline": (50.0, 54.0), "narrow": (40.0, 41.0)}  # plain has not ended
    for run in runs:
        if run.name in figures:
            rows = {"trained encoder": {"kNN": (figures[run.name][run.seed], None)}}
            if run.raw:
                rows["raw pixels"] = {"kNN": (30.0, None)}
            run.folder.mkdir(parents=True)
            save_comparison(run.folder, Comparison("10 images", rows))
    found = sweep.table(runs, ablations, {"baseline": 71.4, "narrow": 57.3}).rows
    assert found["raw pixels"] == {"kNN": (30.0, None)}
    assert found["baseline"] == {"kNN": (52.0, pytest.approx(8**0.5)), "paper": (71.4, None)}
    assert found["narrow"] == {"kNN": (40.5, pytest.approx(0.5**0.5)), "paper": (57.3, None)}
    assert "plain" not in found


@pytest.mark.slow
def test_one_run_and_what_it_leaves(tmp_path):
    ablation = tmp_path / "narrow.yaml"
    ablation.write_text("model: {encoder: {init_args: {widths: [4, 12]}}}\n")
    first, second = sweep.plan(BASE_PATH, [ablation], [0], tmp_path / "out", SMALL)
    threads = torch.get_num_threads()
    try:
        assert not first.ended
        assert sweep.perform(first, modality, threads) is None
        assert sweep.perform(second, modality, threads) is None
    finally:
        torch.set_num_threads(threads)
    assert first.ended
    assert [*load_comparison(first.folder).rows] == ["raw pixels", "untrained encoder", "trained encoder"]
    rows = load_comparison(second.folder).rows
    assert [*rows] == ["trained encoder"]
    assert [*rows["trained encoder"]] == ["kNN", "linear"]
    assert rows["trained encoder"]["linear"][0] > 30  # 10 is chance
    assert load_encoder(second.folder).encoder.features_dim == 12
    assert sweep.sweep([first, second], modality, 1) == {}  # both have ended: nothing is done


def test_a_run_that_fails_says_why(tmp_path):
    (run,) = sweep.plan(BASE_PATH, [], [0], tmp_path, [*SMALL, "--data.batch_size", "1"])
    reason = sweep.perform(run, modality, torch.get_num_threads())
    assert "batch_size 1 does not work" in reason
    assert not run.ended
