"""Across ranks: the loss and the parameter gradients are those of one process holding the whole batch.

The shards differ in content, in mean and in size. On equal shards a loss with statistics per rank, or a
gradient short by the world size under an optimiser that rescales, looks right; the last tests hold the
comparison to catching both.
"""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bt_multimodal import BarlowTwins, BarlowTwinsLoss, LossTerms, Projector
from bt_multimodal.correlation import direct_terms, sum_across_ranks
from bt_multimodal.loss_variants import AblatedLoss, CrossEntropyLoss

N_IN, FEATURES, D = 7, 6, 10


class Encoder(nn.Module):
    features_dim = FEATURES

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(N_IN, FEATURES)

    def forward(self, view):
        return self.linear(view).tanh()


def standardise(z):
    return (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()


def terms_of(c):
    """Of a correlation matrix ``[D, D]``."""
    redundancy = c.square().sum() - c.diagonal().square().sum()
    invariance = (1 - c.diagonal()).square().sum()
    return LossTerms(invariance + 0.0051 * redundancy, invariance, redundancy)


class StatisticsPerRank(nn.Module):
    """Wrong: each rank standardises with its own mean and variance; the correlation is summed over ranks."""

    def forward(self, z_first, z_second):
        n = sum_across_ranks(torch.tensor(float(len(z_first)), dtype=z_first.dtype))
        c = sum_across_ranks(standardise(z_first).T @ standardise(z_second)) / n
        return terms_of(c)


class MeanOfLocalLosses(nn.Module):
    """Wrong: each rank's loss is that of its own batch."""

    def forward(self, z_first, z_second):
        return terms_of(standardise(z_first).T @ standardise(z_second) / len(z_first))


class ShortGradient(BarlowTwinsLoss):
    """Wrong: the right number, and 1 / world size of the gradient."""

    def forward(self, z_first, z_second):
        terms = super().forward(z_first, z_second)
        total = terms.total
        return terms._replace(total=total.detach() + (total - total.detach()) / dist.get_world_size())


RIGHT = {form: BarlowTwinsLoss(form=form) for form in ("gram", "direct", "auto")}  # type: ignore[arg-type]
VARIANTS = {
    "redundancy": AblatedLoss(invariance=0.0), "features": AblatedLoss(normalise="features"),
    "none": AblatedLoss(normalise="none"), "cross-entropy": CrossEntropyLoss(),
}  # fmt: skip
WRONG = {"per rank": StatisticsPerRank(), "local": MeanOfLocalLosses(), "short": ShortGradient()}
SIZES = {2: [[5, 9], [9, 1]], 3: [[5, 9, 3], [4, 0, 7]]}  # one row, and none, are batches too


def shards(sizes):
    """Two views per rank; rank r's samples have a mean and a spread of their own."""
    g = torch.Generator().manual_seed(sum(sizes))
    result = []
    for rank, n in enumerate(sizes):
        mean = 1.5 * torch.randn(N_IN, generator=g, dtype=torch.float64)
        x = mean + (0.4 + 0.3 * rank) * torch.randn(n, N_IN, generator=g, dtype=torch.float64)
        result.append([x + 0.2 * torch.randn(n, N_IN, generator=g, dtype=torch.float64) for _ in range(2)])
    return result


def network(loss):
    torch.manual_seed(0)
    return BarlowTwins(Encoder(), Projector([FEATURES, 8, D], batch_norm=False), copy.deepcopy(loss)).double()


def measure(model, views):
    """Terms and parameter gradients, from one backward pass."""
    terms = model(*views)
    terms.total.backward()
    grads = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
    return {"terms": [term.item() for term in terms], "grads": grads}


def one_process(sizes, loss=None):
    views = [torch.cat(parts) for parts in zip(*shards(sizes), strict=True)]
    return measure(network(loss or BarlowTwinsLoss(form="direct")), views)


def assert_same(measured, expected):
    """The comparison: the loss to 1e-12 and every parameter's gradient to 1e-10, both relative."""
    assert measured["terms"] == pytest.approx(expected["terms"], rel=1e-12), "the loss differs"
    assert measured["grads"].keys() == expected["grads"].keys()
    for name, grad in expected["grads"].items():
        error = ((measured["grads"][name] - grad).norm() / grad.norm()).item()
        assert error < 1e-10, f"the gradient of {name} differs by {error:.2g}"


def rank_main(rank, world, folder):
    """All cases of one world size, in one start of its ranks."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    results = {}
    for case, sizes in enumerate(SIZES[world]):
        for name, loss in {**RIGHT, **VARIANTS, **(WRONG if case == 0 else {})}.items():
            model = DistributedDataParallel(network(loss))
            results[name, case] = measure(model, shards(sizes)[rank])
    for name, width in (("width", 4 + rank), ("small", 4)):
        rows = 3 if name == "width" else int(rank == 0)  # a global batch of one
        try:
            BarlowTwinsLoss()(torch.ones(rows, width), torch.ones(rows, width))
        except ValueError as error:
            results[name] = str(error)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3], ids=["W2", "W3"])
def ranks(request, tmp_path_factory):
    """Every rank's results."""
    world, folder = request.param, tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(rank_main, (world, folder), nprocs=world)
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


@pytest.mark.parametrize("form", RIGHT)
@pytest.mark.parametrize("case", [0, 1])
def test_equals_one_process(ranks, form, case):
    expected = one_process(SIZES[len(ranks)][case])
    for result in ranks:
        assert_same(result[form, case], expected)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", [0, 1])
def test_variants_equal_one_process(ranks, variant, case):
    expected = one_process(SIZES[len(ranks)][case], VARIANTS[variant])
    for result in ranks:
        assert_same(result[variant, case], expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [("per rank", "the loss differs"), ("local", "the loss differs"), ("short", "the gradient of")],
)
def test_the_comparison_catches(ranks, name, message):
    expected = one_process(SIZES[len(ranks)][0])
    for result in ranks:
        with pytest.raises(AssertionError, match=message):
            assert_same(result[name, 0], expected)
        # Its gradient alone gives it away as well, whatever number it reports.
        with pytest.raises(AssertionError, match="the gradient of"):
            assert_same({**result[name, 0], "terms": expected["terms"]}, expected)


def test_equal_shards_would_not_catch_it():
    """Why the shards differ: on copies of one shard, statistics per rank are the global ones."""
    z = torch.randn(2, 6, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    twice = torch.cat([z, z], dim=1)
    local = [term.item() for term in MeanOfLocalLosses()(z[0], z[1])][1:]
    assert local == pytest.approx([t.item() for t in direct_terms(twice[0], twice[1], 12, 1e-5)], rel=1e-12)


def test_every_rank_refuses(ranks):
    for result in ranks:
        assert "differ in width" in result["width"]
        assert str([4 + rank for rank in range(len(ranks))]) in result["width"]
        assert "global batch of 1" in result["small"]
