"""Bytes sent between ranks in a step of the loss, compared with reducing the matrix C.

    python benchmarks/communication.py                             # N 2048, D 8192, 2 and 4 ranks
    python benchmarks/communication.py --n 256 --d 1024 --ranks 2

For a global batch of N samples with two embeddings of width D each, the benchmark measures forward and
backward of `BarlowTwinsLoss` in both forms and of the published method, which normalises batches on each rank
and sums the D x D matrix over ranks in the forward pass, outside of the gradient.

* Each rank is a process in its own network namespace (`benchmarks/namespaces.py`: Linux, root) and uses gloo.
  Bytes are counted at the interfaces of all ranks together, with the headers of every packet. The figure is
  the mean of 3 steps after a warm-up, minus the traffic of an idle second before them.
* "arithmetic" is the payload alone: (W-1) N D numbers per view to gather the embeddings, 2 (W-1) D^2 for a
ring
  that reduces C.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
STEPS, PORT = 3, 29500
MB = 1e6


class Method(NamedTuple):
    """A loss, the dtype of its embeddings, and the bytes it sends per rank beyond the first."""

    form: str
    dtype: str
    payload: Callable[[int, int], int]  # bytes for N, D


METHODS = (
    Method("published", "float32", lambda n, d: 2 * d * d * 4),
    Method("direct", "float32", lambda n, d: 2 * d * d * 4),
    Method("gram", "float32", lambda n, d: 2 * n * d * 4),
    Method("gram", "bfloat16", lambda n, d: 2 * n * d * 2),
)


def loss_of(form: str, n: int) -> Callable[[Any, Any], Any]:
    """Returns the loss of two local batches of embeddings ``[B, D]``; ``n`` is the global batch size."""
    import torch
    import torch.distributed as dist

    from bt_multimodal import BarlowTwinsLoss

    if form != "published":
        loss = BarlowTwinsLoss(form=form)  # type: ignore[arg-type]
        return lambda a, b: loss(a, b).total

    def published(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = (torch.nn.functional.batch_norm(z, None, None, training=True) for z in (a, b))
        c = a.T @ b / n
        with torch.no_grad():
            dist.all_reduce(c)
        diagonal = c.diagonal()
        off_diagonal = c.square().sum() - diagonal.square().sum()
        return (1 - diagonal).square().sum() + 0.0051 * off_diagonal

    return published


def run_rank(rank: int, world: int, n: int, d: int, address: str) -> None:
    """Runs one rank: each method's steps after a line on stdin, with a line on stdout after each."""
    import torch
    import torch.distributed as dist

    def signal() -> None:
        print(flush=True)
        sys.stdin.readline()

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://{address}:{PORT}", rank=rank, world_size=world)
    generator = torch.Generator().manual_seed(rank)
    local = n // world + (rank < n % world)
    embeddings = [torch.randn(local, d, generator=generator) for _ in range(2)]
    for method in METHODS:
        dtype = getattr(torch, method.dtype)
        a, b = (z.to(dtype).requires_grad_() for z in embeddings)
        loss = loss_of(method.form, n)
        for step in range(1 + STEPS):
            loss(a, b).backward()
            if step == 0:
                signal()
        signal()
    dist.destroy_process_group()


def measure(world: int, n: int, d: int) -> list[float]:
    """Returns the bytes per step of each of the `METHODS`, over all ranks.

    Raises:
        RuntimeError: if namespaces cannot be created here, or a rank failed.
    """
    from benchmarks.namespaces import INTERFACE, hosts

    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "GLOO_SOCKET_IFNAME": INTERFACE,
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # torch warns that it cannot resolve the addresses' names
    }
    with hosts(world) as machines:
        arguments = [str(world), str(n), str(d), machines[0].address]
        ranks = [
            machine.run(
                [sys.executable, __file__, "--as-rank", str(rank), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for rank, machine in enumerate(machines)
        ]

        def wait() -> None:
            for rank, process in enumerate(ranks):
                if not _pipe(process.stdout).readline():
                    raise RuntimeError(f"rank {rank} of {world} failed")

        def go() -> None:
            for process in ranks:
                _pipe(process.stdin).write("\n")
                _pipe(process.stdin).flush()

        def sent() -> int:
            return sum(machine.sent_bytes() for machine in machines)

        try:
            return [_per_step(wait, go, sent) for _ in METHODS]
        finally:
            for process in ranks:
                with process:  # closes its pipes
                    process.kill()


def _per_step(wait: Callable[[], None], go: Callable[[], None], sent: Callable[[], int]) -> float:
    """Returns the bytes per step, from the end of the first step to that of the last."""
    wait()
    time.sleep(0.2)  # for the last acknowledgements
    first = sent()
    time.sleep(1)
    before, start = sent(), time.perf_counter()
    go()
    wait()
    idle = (before - first) * (time.perf_counter() - start)
    result = (sent() - before - idle) / STEPS
    go()
    return result


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=2048, help="global batch")
    parser.add_argument("--d", type=int, default=8192)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--as-rank", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_rank:
        rank, world, n, d, address = arguments.as_rank
        run_rank(int(rank), int(world), int(n), int(d), address)
        return
    if min(arguments.ranks) < 2 or arguments.n < 2 * max(arguments.ranks):
        parser.error("needs 2 ranks or more, and 2 samples or more on each")
    sys.path.insert(0, str(ROOT))

    from benchmarks.namespaces import why_not

    if reason := why_not():
        parser.exit(1, f"{reason}\n")
    n, d = arguments.n, arguments.d
    rows = []
    for world in arguments.ranks:
        measured = measure(world, n, d)
        for method, sent in zip(METHODS, measured, strict=True):
            payload = (world - 1) * method.payload(n, d)
            rows.append(
                [
                    str(world),
                    method.form,
                    method.dtype,
                    f"{sent / MB:,.1f} MB",
                    f"{payload / MB:,.1f} MB",
                    f"{sent / payload:.3f}",
                    f"{100 * sent / measured[0]:.1f} %",
                ]
            )
            print(*rows[-1], sep=", ", file=sys.stderr)
    print(f"Bytes sent per step, forward and backward, global batch N {n}, D {d}, gloo.\n")
    header = ["ranks", "form", "embeddings", "measured", "arithmetic", "measured/arithmetic", "of reducing C"]
    for row in (header, ["---:", "---", "---", *["---:"] * 4], *rows):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
