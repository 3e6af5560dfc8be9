"""What earlier versions left on disk opens and continues: configs, checkpoints, exported encoders."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bt_multimodal import load_encoder
from encoders.audio import commands as audio
from encoders.image import commands as image
from encoders.text import commands as text

FORMER = Path(__file__).parents[1] / "reference" / "former_runs"
COMMANDS = {"image": image.pretrain, "audio": audio.pretrain, "text": text.pretrain}


def copied(modality, tmp_path, monkeypatch):
    """A former run as it lay there before its last checkpoint, in the working folder."""
    former = FORMER / modality
    run = tmp_path / modality
    (run / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "metrics.csv", "checkpoints/step=000000004.ckpt"):
        shutil.copy(former / name, run / name)
    shutil.copy(FORMER / "texts.txt", tmp_path)
    monkeypatch.chdir(tmp_path)  # the configs name the run's folder and the texts from there
    return run, former


def test_a_run_on_part_of_its_unlabelled_texts_is_refused(tmp_path, monkeypatch, capsys):
    run, _ = copied("text", tmp_path, monkeypatch)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert text.pretrain(["--config", str(run / "config.yaml")]) == 2
    assert "on 80 % of these unlabelled records" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*.[cm]*") if path.is_file()} == {
        path: content for path, content in before.items() if path.suffix in (".csv", ".ckpt")
    }


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_a_run_is_continued(modality, tmp_path, monkeypatch):
    run, former = copied(modality, tmp_path, monkeypatch)
    assert COMMANDS[modality](["--config", str(run / "config.yaml")]) == 0
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        f"step={step:09d}.ckpt" for step in (4, 8, 10)
    ]

    def rows(folder):
        with (folder / "metrics.csv").open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    # Step 4 is within the first epoch: its mean needs the sums that the checkpoint kept.
    for now, then in zip(rows(run), rows(former), strict=True):
        assert (now["epoch"], now["step"]) == (then["epoch"], then["step"])
        if then["loss"]:
            assert float(now["loss"]) == pytest.approx(float(then["loss"]), rel=0.01)
    now, then = (load_file(folder / "encoder.safetensors") for folder in (run, former))
    assert now.keys() == then.keys()
    # Rounding may turn the direction of a weight's step where its gradient is hardly more than rounding; a
    # step of Adam moves a weight by its learning rate at most, here by 0.01 * 16 / 256 or less.
    rate = max(float(row["lr"]) for row in rows(former) if row["lr"])
    for name, weights in now.items():
        if weights.is_floating_point() and "running" not in name:
            torch.testing.assert_close(weights, then[name], rtol=0, atol=2 * 6 * rate)


@pytest.mark.parametrize("modality", COMMANDS)
def test_an_exported_encoder_opens(modality):
    encoder, augmentations = loaded = load_encoder(FORMER / modality)
    assert not encoder.training
    contents = {
        "image": lambda: [torch.arange(64).view(8, 8).mul(3).to(torch.uint8).numpy()] * 2,
        "text": lambda: [b"stone river light", b"winter paper"],
    }
    if modality in contents:
        features = loaded.embed(contents[modality]())
        assert features.shape == (2, encoder.features_dim)
    else:
        features = encoder(augmentations.clean_batch(torch.zeros(2, augmentations.samples)))
    assert features.isfinite().all()
    assert features.abs().max() > 0
