"""What an installed wheel can do without the checkout; run by `make wheel-check`.

``whole``: the exported encoders of tests/reference open, and the command finds the shipped configs.
``core``: with ``encoders`` out of reach a custom encoder trains, and nothing heavy is imported.
"""

import sys
from pathlib import Path

import torch
from torch import nn

# An editable install puts the checkout on the path; what is tested is the wheel.
checkout = Path(__file__).resolve().parents[1]
sys.path = [p for p in sys.path if Path(p or ".").resolve() != checkout]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]

import bt_multimodal  # noqa: E402
from bt_multimodal import LARS, BarlowTwins, BarlowTwinsLoss, Projector, load_encoder  # noqa: E402
from bt_multimodal.optim import parameter_groups  # noqa: E402

assert checkout / "bt_multimodal" not in Path(bt_multimodal.__file__).parents, bt_multimodal.__file__


def reachable(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


class Sums(nn.Module):
    """An encoder of a domain that nobody foresaw: sets of numbers."""

    features_dim = 16

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(1, 16)

    def forward(self, view: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.inner(view["values"].unsqueeze(-1)).relu().mean(1)


def core() -> str:
    for name in ("encoders", "tasks"):
        assert not reachable(name), f"{name} is in reach of the wheel"
    torch.manual_seed(0)
    twins = BarlowTwins(Sums(), Projector([16, 64, 64]), BarlowTwinsLoss())
    optimizer = LARS(parameter_groups(twins), lr=20.0)
    losses = []
    for _ in range(40):
        values = torch.randn(256, 1) + torch.rand(256, 1) * torch.randn(256, 12)
        order = torch.randperm(12)
        terms = twins({"values": values[:, order[:8]]}, {"values": values[:, order[4:]]})
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        losses.append(terms.total.item())
    # Over seeds the last losses were 0.63 to 0.75 of the first; without a step they stay.
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5]), losses
    heavy = {"torchvision", "torchaudio", "transformers", "lightning", "datasets"} & set(sys.modules)
    assert not heavy, heavy
    return f"the wheel's core alone trains a custom encoder: loss {losses[0]:.1f} -> {losses[-1]:.1f}"


def whole() -> str:
    from bt_multimodal.commands.config_files import shipped_configs

    assert not reachable("tasks"), "tasks are in reach of the wheel"
    widths = {}
    for modality in ("image", "audio", "text"):
        loaded = load_encoder(checkout / "tests" / "reference" / "former_runs" / modality)
        widths[modality] = loaded.encoder.features_dim
    configs = shipped_configs()
    assert "image/digits" in configs
    assert Path(bt_multimodal.__file__).parent in configs["image/digits"].parents
    return f"the wheel opens exported encoders ({widths}) and has {len(configs)} configs"


print({"core": core, "whole": whole}[sys.argv[1]]())
