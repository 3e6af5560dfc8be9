"""Probing frozen features with a small network: the recipe of HEAR.

Legend: ``N`` labelled samples, ``Q`` queries, ``F`` features.
"""

from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from bt_multimodal.data.splitting import stratified_split

HIDDEN_LAYERS = (1, 2)
LEARNING_RATES = (3.2e-3, 1e-3, 3.2e-4, 1e-4)
_HIDDEN, _DROPOUT, _BATCH = 1024, 0.1, 1024
_EPOCHS, _EVERY, _PATIENCE = 500, 3, 20  # most epochs, epochs between validations, validations without gain


def mlp_probe(
    features: Tensor,
    labels: Tensor,
    queries: Tensor,
    seed: int = 0,
    validation: float = 0.1,
    layers: Sequence[int] = HIDDEN_LAYERS,
    rates: Sequence[float] = LEARNING_RATES,
) -> Tensor:
    """Predictions of the best of several MLPs on features, which are not standardised.

    The networks have one or two hidden layers of 1,024 (BatchNorm, dropout 0.1, ReLU) and are trained by
    Adam on batches of 1,024. Each combination of depth and learning rate is trained for up to 500 epochs;
    it stops when the accuracy on a validation split, measured every 3 epochs, has not improved 20 times
    in a row. The network with the best validation accuracy is used.

    Turian et al., "HEAR: Holistic Evaluation of Audio Representations", 2022, section 4. The grid is
    that of ``heareval``, which tries 8 of its 16 points at random; these are the 8 with uniform Xavier
    weights.

    Args:
        features, labels: ``[N, F]`` and ``[N]``, integers from 0.
        queries: ``[Q, F]``, not used for any choice.
        seed: of the split, the weights and the order of the samples.
        validation: share of the labelled samples in the validation split, from 0 to 1.
        layers, rates: the grid of numbers of hidden layers and learning rates.

    Returns:
        Predicted labels ``[Q]`` int64.

    Raises:
        ValueError: fewer than 2 classes, or too few samples to split.
    """
    present, targets = labels.unique(return_inverse=True)
    if len(present) < 2:
        raise ValueError(f"an MLP probe needs 2 classes or more, got {len(present)}")
    fit, held_out = stratified_split(targets.cpu(), validation, seed)
    if len(fit) < 2 or not len(held_out):
        raise ValueError(
            f"{len(labels)} samples are too few to hold out a share of {validation} for validation"
        )
    x, y = features[fit].float(), targets[fit]
    validation_set = features[held_out].float(), targets[held_out]
    best, predictions = -1.0, torch.empty(0)
    for depth, rate in product(layers, rates):
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # for dropout
            network = _network(x.shape[1], len(present), depth, generator).to(x.device)
            score, predicted = _train(network, rate, (x, y), validation_set, queries.float(), generator)
        if score > best:
            best, predictions = score, predicted
    return present[predictions]


def _network(n_in: int, n_out: int, depth: int, generator: torch.Generator) -> nn.Sequential:
    def linear(n: int, m: int, gain: float) -> nn.Linear:
        layer = nn.Linear(n, m)
        nn.init.xavier_uniform_(layer.weight, gain, generator)
        return layer

    modules: list[nn.Module] = []
    gain = 1.0  # the encoder's last activation is unknown
    for n in (n_in, *[_HIDDEN] * (depth - 1)):
        modules += [linear(n, _HIDDEN, gain), nn.BatchNorm1d(_HIDDEN), nn.Dropout(_DROPOUT), nn.ReLU()]
        gain = nn.init.calculate_gain("relu")
    return nn.Sequential(*modules, linear(_HIDDEN, n_out, gain))


def _train(
    network: nn.Sequential,
    rate: float,
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    queries: Tensor,
    generator: torch.Generator,
) -> tuple[float, Tensor]:
    """The best validation accuracy (0 to 1), and the predictions for the queries at that epoch."""
    x, y = train
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    best, predictions, waited = -1.0, torch.empty(0), 0
    for epoch in range(1, _EPOCHS + 1):
        network.train()
        for batch in torch.randperm(len(x), generator=generator).split(_BATCH):
            if len(batch) == 1:  # BatchNorm needs more than one sample
                continue
            optimizer.zero_grad()
            F.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
        if epoch % _EVERY:
            continue
        network.eval()
        with torch.no_grad():
            score = (network(validation[0]).argmax(1) == validation[1]).double().mean().item()
            if score > best:
                best, waited, predictions = score, 0, network(queries).argmax(1)
            else:
                waited += 1
                if waited >= _PATIENCE:
                    break
    return best, predictions
