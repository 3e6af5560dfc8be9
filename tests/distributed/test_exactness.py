"""Across ranks: the loss and the parameter gradients are those of one process holding the whole batch.

Through an encoder and a projector with BatchNorm, in both forms of the loss, whole or in micro-batches,
under DistributedDataParallel and FSDP. The shards differ in content, in mean and in size. On equal shards
a loss with statistics per rank, or a gradient short by the world size under an optimiser that rescales,
looks right; the last tests hold the comparison to catching both.
"""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from bt_multimodal import LARS, BarlowTwins, BarlowTwinsLoss, LossTerms, Projector
from bt_multimodal.correlation import direct_terms
from bt_multimodal.distributed.batch_norm import synchronise_batch_norm
from bt_multimodal.distributed.collectives import sum_across_ranks
from bt_multimodal.loss_variants import AblatedLoss, CrossEntropyLoss
from bt_multimodal.optim import parameter_groups

N_IN, FEATURES, D = 7, 6, 10


class Encoder(nn.Module):
    """No bias before a BatchNorm: its gradient is 0, and relative errors of rounding are no errors."""

    features_dim = FEATURES

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, 4, 3, bias=False), nn.BatchNorm1d(4)
        self.linear = nn.Linear(4 * (N_IN - 2), FEATURES)

    def forward(self, view):
        return self.linear(self.norm(self.conv(view[:, None])).tanh().flatten(1)).tanh()


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
# The second of each has an empty batch or one of a single sample.
SIZES = {2: [[5, 9], [9, 1]], 3: [[5, 9, 4], [4, 0, 7]], 4: [[6, 4, 9, 5], [3, 1, 8, 0]]}
COUNTS = (1, 2, 4)


def shards(sizes):
    """Two views per rank; rank r's samples have a mean and a spread of their own."""
    g = torch.Generator().manual_seed(sum(sizes))
    result = []
    for rank, n in enumerate(sizes):
        mean = 1.5 * torch.randn(N_IN, generator=g, dtype=torch.float64)
        x = mean + (0.4 + 0.3 * rank) * torch.randn(n, N_IN, generator=g, dtype=torch.float64)
        result.append([x + 0.2 * torch.randn(n, N_IN, generator=g, dtype=torch.float64) for _ in range(2)])
    return result


def network(loss, accumulate=1):
    torch.manual_seed(0)
    projector = Projector([FEATURES, 8, D])
    return BarlowTwins(Encoder(), projector, copy.deepcopy(loss), accumulate=accumulate).double()


def measure(model, views):
    """Terms, parameter gradients from one backward pass, and the running statistics after it."""
    terms = model(*views)
    terms.total.backward()
    grads = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
    buffers = {name.removeprefix("module."): b for name, b in model.named_buffers()}
    return {"terms": [term.item() for term in terms], "grads": grads, "buffers": buffers}


def one_process(sizes, loss=None):
    views = [torch.cat(parts) for parts in zip(*shards(sizes), strict=True)]
    return measure(network(loss or BarlowTwinsLoss(form="direct")), views)


class InParts(nn.Module):
    """The oracle of micro-batches: each of them through the network, and one loss of all embeddings."""

    def __init__(self, twins):
        super().__init__()
        self.twins = twins

    def forward(self, *views):
        z = [torch.cat([self.twins.projector(self.twins.encoder(part)) for part in view]) for view in views]
        return self.twins.loss(*z)


def one_process_in_parts(sizes, count):
    """As `one_process`, micro-batch k being the k-th of every rank."""
    of_ranks = [[view.tensor_split(count) for view in views] for views in shards(sizes)]
    views = [[torch.cat([own[v][k] for own in of_ranks]) for k in range(count)] for v in range(2)]
    found = measure(InParts(network(BarlowTwinsLoss(form="direct"))), views)
    for part in ("grads", "buffers"):
        found[part] = {name.removeprefix("twins."): value for name, value in found[part].items()}
    return found


def assert_same(measured, expected):
    """The loss to 1e-12, every parameter's gradient to 1e-10 with cosine 1, the running statistics alike."""
    assert measured["terms"] == pytest.approx(expected["terms"], rel=1e-12), "the loss differs"
    assert measured["grads"].keys() == expected["grads"].keys()
    for name, grad in expected["grads"].items():
        found = measured["grads"][name]
        error = ((found - grad).norm() / grad.norm()).item()
        assert error < 1e-10, f"the gradient of {name} differs by {error:.2g}"
        assert torch.cosine_similarity(found.flatten(), grad.flatten(), dim=0) > 1 - 1e-12
    assert measured["buffers"].keys() == expected["buffers"].keys()
    for name, value in expected["buffers"].items():
        torch.testing.assert_close(measured["buffers"][name], value, rtol=1e-12, atol=0, msg=name)


def sharded_step(views):
    """One step of LARS on parameters that FSDP shards over the ranks: terms and the new weights."""
    model = network(BarlowTwinsLoss())
    synchronise_batch_norm(model, "cpu")
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    for part in (model.encoder, model.projector, model):
        fully_shard(part, mesh=mesh)
    optimizer = LARS(parameter_groups(model, 0.1), lr=0.5, eta=0.1)
    terms = model(*views)
    terms.total.backward()
    optimizer.step()
    weights = {name: p.full_tensor().detach() for name, p in model.named_parameters()}
    return {"terms": [term.item() for term in terms], "weights": weights}


def pair(rows=3, width=4, dtype=torch.float32):
    return torch.ones(rows, width, dtype=dtype), torch.ones(rows, width, dtype=dtype)


LAST = "rank 1: "
# What every rank says where one or all have something wrong, and what each rank gives.
REFUSED = {
    "width": ("differ in width: [4, 5", lambda rank: pair(width=4 + rank)),
    "small": ("global batch of 1", lambda rank: pair(int(rank == 0))),
    "unlike shapes": (
        LAST + "needs two batches of embeddings [n, D] of the same shape, got [3, 4] and [2, 4]",
        lambda rank: (pair()[0], pair(3 - (rank == 1))[0]),
    ),
    "ndim": (LAST + "needs two batches", lambda rank: [z[None] if rank == 1 else z for z in pair()]),
    "no dim": (LAST + "needs two batches", lambda rank: [z.sum() if rank == 1 else z for z in pair()]),
    "integers": (
        LAST + "embeddings must be floating point, got torch.int32",
        lambda rank: pair(dtype=torch.int32 if rank == 1 else torch.float32),
    ),
    "dtype": (
        "differ in dtype: torch.float32 and torch.float32, torch.float64 and torch.float64",
        lambda rank: pair(dtype=torch.float64 if rank == 1 else torch.float32),
    ),
    "none": (LAST + "needs two batches of embeddings, tensors", lambda rank: (None, pair()[rank == 1])
             if rank == 1 else pair()),
    "gradient": (
        "differ in requires_grad: no and no, yes and no",
        lambda rank: (pair()[0].requires_grad_(rank == 1), pair()[1]),
    ),
    "no width": (LAST + "embeddings must have a width", lambda rank: pair(width=0 if rank == 1 else 4)),
}  # fmt: skip


def second_derivative(loss, views):
    """The gradient of the squared gradient, of this rank's rows."""
    z = [view.clone().requires_grad_() for view in views]
    grads = torch.autograd.grad(loss(*z).total, z, create_graph=True)
    world = dist.get_world_size() if dist.is_initialized() else 1
    # A rank's gradient is that of the sum of all ranks' losses, which are equal.
    return torch.autograd.grad(sum((grad / world).square().sum() for grad in grads), z)


def far_away(views):
    """Terms and gradients in float32 of columns with means of 1e4 deviations and of magnitude 1e25."""
    results = []
    for loss in (*RIGHT.values(), *VARIANTS.values()):
        for move in (lambda v: v + 1e4, lambda v: v * 1e25):
            z = [move(view).float().requires_grad_() for view in views]
            terms = loss(*z)
            terms.total.backward()
            results.append((terms.total.item(), [view.grad for view in z]))
    return results


def rank_main(rank, world, folder):
    """All cases of one world size, in one start of its ranks."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    results = {}
    for case, sizes in enumerate(SIZES[world]):
        views = shards(sizes)[rank]
        for name, loss in {**RIGHT, **VARIANTS, **(WRONG if case == 0 else {})}.items():
            model = DistributedDataParallel(synchronise_batch_norm(network(loss), "cpu"))
            results[name, case] = measure(model, views)
    views = shards(SIZES[world][0])[rank]
    results["batch norm"] = measure(
        DistributedDataParallel(network(BarlowTwinsLoss()), broadcast_buffers=False), views
    )
    for count in COUNTS:
        model = synchronise_batch_norm(network(BarlowTwinsLoss(), accumulate=count), "cpu")
        results["accumulate", count] = measure(DistributedDataParallel(model), views)
    for dtype in (torch.bfloat16, torch.float16):
        z = [view.to(dtype).requires_grad_() for view in views]
        terms = BarlowTwinsLoss(form="gram")(*z)
        terms.total.backward()
        results[dtype] = {"terms": [term.item() for term in terms], "grads": [view.grad for view in z]}
    results["fsdp"] = sharded_step(views)
    for name, given in REFUSED.items():
        for kind, loss in {"loss": BarlowTwinsLoss(), "variant": AblatedLoss()}.items():
            try:
                loss(*given[1](rank))
            except ValueError as error:
                results[name, kind] = str(error)
    for name, loss in {"direct": RIGHT["direct"], **VARIANTS}.items():
        results["second", name] = second_derivative(loss, views)
    results["far"] = far_away(views)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3, 4], ids=["W2", "W3", "W4"])
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


@pytest.mark.parametrize("count", COUNTS)
def test_micro_batches_across_ranks(ranks, count):
    expected = one_process_in_parts(SIZES[len(ranks)][0], count)
    for result in ranks:
        assert_same(result["accumulate", count], expected)


@pytest.mark.parametrize("count", COUNTS)
def test_micro_batches_alone(count):
    views = [torch.cat(parts) for parts in zip(*shards([5, 9]), strict=True)]
    expected = measure(InParts(network(BarlowTwinsLoss())), [view.tensor_split(count) for view in views])
    for part in ("grads", "buffers"):
        expected[part] = {name.removeprefix("twins."): value for name, value in expected[part].items()}
    assert_same(measure(network(BarlowTwinsLoss(), accumulate=count), views), expected)


def test_sharded_parameters(ranks):
    views = [torch.cat(parts) for parts in zip(*shards(SIZES[len(ranks)][0]), strict=True)]
    model = network(BarlowTwinsLoss())
    terms = model(*views)
    terms.total.backward()
    LARS(parameter_groups(model, 0.1), lr=0.5, eta=0.1).step()
    for result in ranks:
        assert result["fsdp"]["terms"] == pytest.approx([term.item() for term in terms], rel=1e-12)
        for name, value in model.named_parameters():
            torch.testing.assert_close(
                result["fsdp"]["weights"][name], value.detach(), rtol=1e-10, atol=1e-14
            )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_embeddings_of_less_precision_lose_nothing_on_the_way(ranks, dtype):
    sizes = SIZES[len(ranks)][0]
    z = [torch.cat(p).to(dtype).requires_grad_() for p in zip(*shards(sizes), strict=True)]
    terms = BarlowTwinsLoss(form="gram")(*z)
    terms.total.backward()
    for rank, result in enumerate(ranks):
        assert result[dtype]["terms"] == pytest.approx([term.item() for term in terms], rel=1e-5)
        own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        for found, whole in zip(result[dtype]["grads"], z, strict=True):
            torch.testing.assert_close(found / len(ranks), whole.grad[own], rtol=2e-2, atol=1e-5)


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


def test_the_comparison_catches_batch_norm_per_rank(ranks):
    expected = one_process(SIZES[len(ranks)][0])
    for result in ranks:
        with pytest.raises(AssertionError, match="the loss differs"):
            assert_same(result["batch norm"], expected)
        with pytest.raises(AssertionError, match="the gradient of"):
            assert_same({**result["batch norm"], "terms": expected["terms"]}, expected)


def test_equal_shards_would_not_catch_it():
    """Why the shards differ: on copies of one shard, statistics per rank are the global ones."""
    z = torch.randn(2, 6, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    twice = torch.cat([z, z], dim=1)
    local = [term.item() for term in MeanOfLocalLosses()(z[0], z[1])][1:]
    assert local == pytest.approx([t.item() for t in direct_terms(twice[0], twice[1], 12, 1e-5)], rel=1e-12)


@pytest.mark.parametrize("kind", ["loss", "variant"])
@pytest.mark.parametrize("name", REFUSED)
def test_every_rank_refuses(ranks, name, kind):
    """In the same line, whichever rank is at fault."""
    said = {result[name, kind] for result in ranks}
    assert len(said) == 1
    assert REFUSED[name][0] in said.pop()


@pytest.mark.parametrize("name", ["direct", *VARIANTS])
def test_second_derivatives_across_ranks(ranks, name):
    sizes = SIZES[len(ranks)][0]
    views = [torch.cat(parts) for parts in zip(*shards(sizes), strict=True)]
    expected = second_derivative({**RIGHT, **VARIANTS}[name], views)
    for rank, result in enumerate(ranks):
        own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        for found, whole in zip(result["second", name], expected, strict=True):
            torch.testing.assert_close(found, whole[own], rtol=1e-9, atol=1e-12)


def test_far_means_and_magnitudes_across_ranks(ranks):
    sizes = SIZES[len(ranks)][0]
    expected = far_away([torch.cat(parts) for parts in zip(*shards(sizes), strict=True)])
    for rank, result in enumerate(ranks):
        own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        for (total, grads), (whole, whole_grads) in zip(result["far"], expected, strict=True):
            if not torch.tensor(whole).isfinite():  # covariances of 1e50
                continue
            assert total == pytest.approx(whole, rel=1e-4)
            for found, grad in zip(grads, whole_grads, strict=True):
                scale = grad.abs().max().item()
                torch.testing.assert_close(
                    found / len(ranks) / scale, grad[own] / scale, rtol=1e-3, atol=1e-4
                )
