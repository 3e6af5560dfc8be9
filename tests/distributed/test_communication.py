"""What a step of the loss hands to the collectives, in bytes, and the share of reducing the matrix C.

What of it goes over a wire, with headers, acknowledgements and what is sent again, is the kernel's affair:
`benchmarks/communication.py` measures that.
"""

import pytest
import torch
import torch.distributed as dist

from benchmarks.communication import loss_of, measure
from benchmarks.namespaces import why_not

WORLD, D = 2, 40
LOCAL = {"equal": (12, 12), "unequal": (12, 7)}  # samples on each rank
SIZE = {torch.float32: 4, torch.bfloat16: 2}  # bytes of a number
CHECK = 46 * 8  # shape, dtype, what requires a gradient, and room for an error message, as int64
COLLECTIVES = {  # by name, the argument that a rank gives of its own
    "all_reduce": 0, "all_gather": 1, "all_gather_into_tensor": 1, "reduce": 0, "broadcast": 0,
    "gather": 0, "scatter": 0, "reduce_scatter": 1, "reduce_scatter_tensor": 1, "all_to_all": 1,
    "all_to_all_single": 1,
}  # fmt: skip


def counting(patch):
    """The bytes that this rank hands to each collective from now on."""
    found = {}
    for name, at in COLLECTIVES.items():
        original = getattr(dist, name)

        def counted(*args, original=original, name=name, at=at, **options):
            given = args[at] if isinstance(args[at], list) else [args[at]]
            found[name] = found.get(name, 0) + sum(x.numel() * x.element_size() for x in given)
            return original(*args, **options)

        patch.setattr(dist, name, counted)
    return found


def rank_main(rank, folder):
    """One step of each method, forward and backward, with equal and unequal local batches."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    results = {}
    for sizes, n in LOCAL.items():
        for form in ("gram", "direct", "published"):
            for dtype in SIZE if form != "published" else (torch.float32,):
                z = [torch.randn(n[rank], D).to(dtype).requires_grad_() for _ in range(2)]
                loss = loss_of(form, sum(n))
                with pytest.MonkeyPatch.context() as patch:
                    found = counting(patch)
                    loss(*z).backward()
                results[sizes, form, dtype] = found
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def handed_over(tmp_path_factory):
    """Every rank's bytes by collective, of each (sizes, form, dtype)."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(rank_main, (folder,), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("dtype", SIZE, ids=str)
@pytest.mark.parametrize("sizes", LOCAL)
def test_the_gram_form_gathers_the_embeddings(handed_over, sizes, dtype):
    most = max(LOCAL[sizes])  # a shorter batch is padded to this
    for found in handed_over:
        assert found[sizes, "gram", dtype] == {
            "all_gather": CHECK,
            "all_gather_into_tensor": 2 * most * D * SIZE[dtype],  # both views, in their own dtype
            "all_reduce": (D + 1) * 4 + 2 * D * 4,  # the diagonal of C and a number; then both gradients
        }


@pytest.mark.parametrize("dtype", SIZE, ids=str)
@pytest.mark.parametrize("sizes", LOCAL)
def test_the_direct_form_reduces_c_once(handed_over, sizes, dtype):
    for found in handed_over:
        assert found[sizes, "direct", dtype] == {
            "all_gather": CHECK,
            # C forward alone; mean and variance of both views, forward and backward.
            "all_reduce": D * D * 4 + 2 * 2 * 2 * D * 4,
        }


def test_the_published_method_reduces_c(handed_over):
    """What the two forms are compared with."""
    for found in handed_over:
        assert found["equal", "published", torch.float32] == {"all_reduce": D * D * 4}


@pytest.mark.slow
def test_a_rank_that_fails_is_told(capfd):
    if reason := why_not():
        pytest.skip(reason)
    with pytest.raises(RuntimeError, match="rank 0 of 2 failed"):
        measure(2, 256, -1)
    assert "negative dimension" in capfd.readouterr().err, "what the rank itself said"
