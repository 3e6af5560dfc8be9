"""What frozen features are worth to a small network: the recipe of HEAR.

Legend: ``N`` labelled samples, ``Q`` queries, ``F`` features.
"""

from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from bt_multimodal.data.records import stratified_split

HIDDEN_LAYERS = (1, 2)
LEARNING_RATES = (3.2e-3, 1e-3, 3.2e-4, 1e-4)
_HIDDEN, _DROPOUT, _BATCH = 1024, 0.1, 1024
_EPOCHS, _LOOK, _PATIENCE = 500, 3, 20  # epochs at most, between looks, and looks without progress


def mlp_probe(
    features: Tensor,
    labels: Tensor,
    queries: Tensor,
    seed: int = 0,
    validation: float = 0.1,
    layers: Sequence[int] = HIDDEN_LAYERS,
    rates: Sequence[float] = LEARNING_RATES,
) -> Tensor:
    """Predictions of the best of several MLPs on features as they are.

    One or two hidden layers of 1,024 (BatchNorm, dropout 0.1, ReLU), Adam, batches of 1,024; every
    combination of depth and learning rate is trained until its accuracy on a validation split has
    not grown for 20 looks, one every 3 epochs (500 at most), and the best network of them all is
    taken. Turian et al., "HEAR: Holistic Evaluation of Audio Representations", 2022, section 4 and
    the grid of ``heareval``, which tries 8 of its 16 points at random: here are the 8 with uniform
    Xavier weights.

    Args:
        features, labels: ``[N, F]`` and ``[N]``, integers from 0.
        queries: ``[Q, F]``; they have no part in any choice.
        seed: of the split, the weights and the order.
        validation: share of the labelled samples to choose by.
        layers, rates: the grid.

    Returns:
        Predicted labels ``[Q]`` int64.

    Raises:
        ValueError: fewer than 2 classes, or too few samples to split.
    """
    present, targets = labels.unique(return_inverse=True)
    if len(present) < 2:
        raise ValueError(f"an MLP probe needs 2 classes or more, got {len(present)}")
    fit, held = stratified_split(targets.cpu(), validation, seed)
    if len(fit) < 2 or not len(held):
        raise ValueError(f"{len(labels)} samples are too few to keep a share of {validation} for validation")
    x, y = features[fit].float(), targets[fit]
    held_x, held_y = features[held].float(), targets[held]
    best, predictions = -1.0, torch.empty(0)
    for depth, rate in product(layers, rates):
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # of dropout
            network = _network(x.shape[1], len(present), depth, generator).to(x.device)
            score, found = _train(network, rate, (x, y), (held_x, held_y), queries.float(), generator)
        if score > best:
            best, predictions = score, found
    return present[predictions]


def _network(n_in: int, n_out: int, depth: int, generator: torch.Generator) -> nn.Sequential:
    def linear(n: int, m: int, gain: float) -> nn.Linear:
        layer = nn.Linear(n, m)
        nn.init.xavier_uniform_(layer.weight, gain, generator)
        return layer

    modules: list[nn.Module] = []
    gain = 1.0  # what the encoder ends with is not known
    for n in (n_in, *[_HIDDEN] * (depth - 1)):
        modules += [linear(n, _HIDDEN, gain), nn.BatchNorm1d(_HIDDEN), nn.Dropout(_DROPOUT), nn.ReLU()]
        gain = nn.init.calculate_gain("relu")
    return nn.Sequential(*modules, linear(_HIDDEN, n_out, gain))


def _train(
    network: nn.Sequential,
    rate: float,
    train: tuple[Tensor, Tensor],
    held: tuple[Tensor, Tensor],
    queries: Tensor,
    generator: torch.Generator,
) -> tuple[float, Tensor]:
    """Best validation accuracy (0 to 1) and the predictions for the queries at that moment."""
    x, y = train
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    best, found, waited = -1.0, torch.empty(0), 0
    for epoch in range(1, _EPOCHS + 1):
        network.train()
        for batch in torch.randperm(len(x), generator=generator).split(_BATCH):
            if len(batch) == 1:  # BatchNorm cannot take one
                continue
            optimizer.zero_grad()
            F.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
        if epoch % _LOOK:
            continue
        network.eval()
        with torch.no_grad():
            score = (network(held[0]).argmax(1) == held[1]).double().mean().item()
            if score > best:
                best, waited, found = score, 0, network(queries).argmax(1)
            else:
                waited += 1
                if waited >= _PATIENCE:
                    break
    return best, found
