"""Every shipped config parses against the code, and its header says what it should."""

from pathlib import Path

import pytest
import torch

from bt_multimodal import classify
from bt_multimodal.cli import _parser
from bt_multimodal.optim import parameter_groups, schedule
from bt_multimodal.pretraining import Pretraining

CONFIGS = sorted(Path("configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_config_parses_and_has_a_header(path):
    classifier = "tasks/image_classify.py" in path.read_text()
    required = ["--encoder", "runs/some"] if classifier else []
    parser = classify._parser() if classifier else _parser()
    config = parser.parse_args(["--config", str(path), *required])
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


def test_the_reference_recipe_as_it_is_built(reference):
    parser = _parser()
    config = parser.parse_args(["--config", "configs/image/imagenet_resnet50.yaml"])
    with torch.device("meta"):  # 174 million weights that are not needed
        parts = parser.instantiate(config)
        model = Pretraining(views=parts.views, **parts.model.as_dict())
    optimizer = model._optimizer(parameter_groups(model.twins, model._bias_lr_ratio))
    weights, others = optimizer.param_groups
    assert sum(p.numel() for p in weights["params"]) == 174_535_744 - 85_888
    assert sum(p.numel() for p in others["params"]) == 85_888
    assert all(p.ndim > 1 for p in weights["params"])
    assert (weights["adapt"], weights["weight_decay"], weights["momentum"]) == (True, 1e-6, 0.9)
    assert (others["adapt"], others["momentum"]) == (False, 0.9)
    steps = 1_281_167 // config.data.batch_size
    assert steps == 625
    scheduler = schedule(
        optimizer, config.data.batch_size, *model.schedule_steps(steps, config.trainer.max_epochs)
    )
    rows = {int(row[0]): row[1:] for row in reference("schedule")["1000ep_625steps_b2048"].tolist()}
    assert {0, 1, 100, 6249, 6250, 312_500, 624_999} <= {*rows}
    for step, expected in rows.items():
        found = [base * f(step) for base, f in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
        assert found == pytest.approx(expected, rel=1e-12)
