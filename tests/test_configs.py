"""Every shipped config parses against the code, and its header says what it should."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bt_multimodal.commands import classify, pretrain, svm
from bt_multimodal.commands.keys import make_parser
from bt_multimodal.optim import schedule
from bt_multimodal.training.pretraining import Pretraining
from encoders.image.detection import command as detection

CONFIGS = sorted(path for path in Path("configs").rglob("*.yaml") if "ablations" not in str(path.parent))
ABLATIONS = sorted(Path("configs/image").glob("ablations*/*.yaml"))
TASKS = {
    "bt-multimodal image classify": classify.KEYS,
    "bt-multimodal image svm": svm.KEYS,
    "bt-multimodal image detect": detection.KEYS,
}


def parser_of(path):
    """The parser of the task in a config's command, and the arguments that it also requires."""
    header = path.read_text(encoding="utf-8")
    for task, keys in TASKS.items():
        if task in header:
            return make_parser(keys), ["--encoder", "runs/some"]
    return make_parser(pretrain.KEYS), []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_config_parses_and_has_a_header(path):
    parser, required = parser_of(path)
    config = parser.parse_args(["--config", str(path), *required])
    assert config.data.batch_size >= 2
    header = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    for word in ("command:", "hardware:", "time:", "expected:"):
        assert any(word in line for line in header), word


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_ablation_changes_what_it_names_and_nothing_else(path):
    base = "imagenet_resnet50_300ep" if path.parent.name == "ablations" else "ablations_miniature"
    parser, base = make_parser(pretrain.KEYS), f"configs/image/{base}.yaml"
    was = parser.parse_args(["--config", base])
    now = parser.parse_args(["--config", base, "--config", str(path)])
    changed = {key for key in {*was.keys(), *now.keys()} if was.get(key) != now.get(key)} - {"config"}
    kind = path.stem.partition("_")[0]
    allowed = {
        "loss": ("model.loss", "model.projector_batch_norm"),
        "lambd": ("model.loss.init_args.lambd", "model.projector"),
        "asymmetry": ("model.stop_gradient", "model.predictor"),
        "projector": ("model.projector",),
        "views": ("views.init_args",),
        "batch": ("data.batch_size",),
    }[kind]
    assert changed
    assert all(key.startswith(allowed) for key in changed), changed
    assert "# paper: " in path.read_text(encoding="utf-8")
    if kind == "batch" and now.data.batch_size != 2048:
        assert now.data.batch_size in now.model.lr_by_batch
    if kind == "projector" and "width" in path.stem:
        assert now.model.projector == [*was.model.projector[:-1], int(path.stem.split("_")[-1])]


def test_ablations_are_built():
    parser, base = make_parser(pretrain.KEYS), "configs/image/ablations_miniature.yaml"

    def built(name):
        config = parser.parse_args(["--config", base, "--config", f"configs/image/ablations/{name}.yaml"])
        parts = parser.instantiate(config)
        return Pretraining(parts.views, **parts.model.as_dict())

    both = built("asymmetry_both").twins
    assert both.stop_gradient
    widths = [layer.out_features for layer in both.predictor.modules() if isinstance(layer, nn.Linear)]
    assert widths == [512, 512]
    none = built("loss_no_batchnorm_no_normalisation").twins
    assert not any(isinstance(layer, nn.BatchNorm1d) for layer in none.projector.modules())
    # What the base says of the loss holds in its variants.
    assert (none.loss.normalise, none.loss.lambd, none.predictor) == ("none", 0.03, None)
    assert built("loss_cross_entropy").twins.loss.lambd == 1.0


def test_the_reference_recipe():
    config = make_parser(pretrain.KEYS).parse_args(["--config", "configs/image/imagenet_resnet50.yaml"])
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
    parser = make_parser(pretrain.KEYS)
    config = parser.parse_args(["--config", "configs/image/imagenet_resnet50.yaml"])
    with torch.device("meta"):  # 174 million weights that are not needed
        parts = parser.instantiate(config)
        model = Pretraining(parts.views, **parts.model.as_dict())
    optimizer = model.build_optimizer(config.data.batch_size)
    weights, others = optimizer.param_groups
    assert sum(p.numel() for p in weights["params"]) == 174_535_744 - 85_888
    assert sum(p.numel() for p in others["params"]) == 85_888
    assert all(p.ndim > 1 for p in weights["params"])
    assert (weights["adapt"], weights["weight_decay"], weights["momentum"]) == (True, 1e-6, 0.9)
    assert (others["adapt"], others["momentum"]) == (False, 0.9)
    steps = 1_281_167 // config.data.batch_size
    assert steps == 625
    total = config.trainer.max_epochs * steps
    scheduler = schedule(optimizer, config.data.batch_size, model.warmup_steps(steps, total), total)
    rows = {int(row[0]): row[1:] for row in reference("schedule")["1000ep_625steps_b2048"].tolist()}
    assert {0, 1, 100, 6249, 6250, 312_500, 624_999} <= {*rows}
    for step, expected in rows.items():
        found = [base * f(step) for base, f in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("batch", "rate"), [(128, 0.7), (256, 0.4), (512, 0.3), (1024, 0.25), (2048, 0.2), (4096, 0.2)]
)
def test_the_learning_rate_goes_with_the_batch(batch, rate):
    parser = make_parser(pretrain.KEYS)
    argv = ["--config", "configs/image/imagenet_resnet50_300ep.yaml", "--model.encoder.name", "resnet18",
            "--model.projector", "[8]", "--data.batch_size", str(batch)]  # fmt: skip
    config = parser.parse_args(argv)
    parts = parser.instantiate(config)
    model = Pretraining(parts.views, **parts.model.as_dict())
    scheduler = schedule(model.build_optimizer(batch), batch, model.warmup_steps(10, 3000), 3000)
    peak = [base * f(100) for base, f in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    assert peak == pytest.approx([rate * batch / 256, 0.0048 * batch / 256])
    with pytest.raises(ValueError, match="no learning rate for batch_size 300, only for 128, 256"):
        model.build_optimizer(300)
