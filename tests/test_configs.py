"""Every shipped config parses against the code, and its header says what it should."""

from pathlib import Path

import pytest
import torch

from bt_multimodal import classify
from bt_multimodal.cli import _parser
from bt_multimodal.optim import schedule
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
    optimizer = model.build_optimizer(config.data.batch_size)
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


@pytest.mark.parametrize(
    ("batch", "rate"), [(128, 0.7), (256, 0.4), (512, 0.3), (1024, 0.25), (2048, 0.2), (4096, 0.2)]
)
def test_the_learning_rate_goes_with_the_batch(batch, rate):
    parser = _parser()
    argv = ["--config", "configs/image/imagenet_resnet50_300ep.yaml", "--model.encoder.name", "resnet18",
            "--model.projector", "[8]", "--data.batch_size", str(batch)]  # fmt: skip
    config = parser.parse_args(argv)
    parts = parser.instantiate(config)
    model = Pretraining(views=parts.views, **parts.model.as_dict())
    scheduler = schedule(model.build_optimizer(batch), batch, *model.schedule_steps(10, 300))
    peak = [base * f(100) for base, f in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    assert peak == pytest.approx([rate * batch / 256, 0.0048 * batch / 256])
    with pytest.raises(ValueError, match="no learning rate for batch_size 300, only for 128, 256"):
        model.build_optimizer(300)
