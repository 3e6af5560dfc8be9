"""Every shipped config parses against the code, and its header says what it should."""

from pathlib import Path

import pytest

from bt_multimodal.cli import _parser

CONFIGS = sorted(Path("configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_config_parses_and_has_a_header(path):
    config = _parser().parse_args(["--config", str(path)])
    assert config.data.batch_size >= 2
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("command:", "hardware:", "time:", "expected:"):
        assert any(word in line for line in header), word


def test_the_reference_recipe():
    config = _parser().parse_args(["--config", "configs/image/imagenet_resnet50.yaml"])
    loss, optimizer = config.model.loss.init_args, config.model.optimizer.init_args
    assert (loss.lambd, loss.scale) == (0.0051, 1 / 16)
    assert (optimizer.lr, optimizer.weight_decay, optimizer.momentum, optimizer.eta) == (
        0.2,
        1e-6,
        0.9,
        0.001,
    )
    assert optimizer.lr * config.model.bias_lr_ratio == pytest.approx(0.0048)
    assert (config.data.batch_size, config.trainer.max_epochs, config.model.warmup_epochs) == (2048, 1000, 10)
