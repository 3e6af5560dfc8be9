"""Time and peak memory of the loss: direct form, Gram form, automatic choice, and lightly's loss.

    python benchmarks/loss.py                                  # all sizes
    python benchmarks/loss.py --n 64 256 --d 2048 --forms direct gram --rounds 1
    python benchmarks/loss.py --device cuda --n 256 2048 4096

For two batches of N float32 embeddings of width D on the CPU or a GPU, the benchmark measures forward and
backward of the loss to the gradients of both batches. It compares the three forms of `BarlowTwinsLoss` and
`lightly.loss.BarlowTwinsLoss` of the installed package (the ``bench`` extra) with the same lambda.

* Each case runs in its own process. Every round runs each form once, in the given order. The time is the
median
  over all rounds of 5 runs after a warm-up, or more runs if they are short. A case gets about 20 s, so slow
  cases have fewer runs. If the warm-up alone takes longer, it is the result.
* Peak memory in GiB is the growth of the peak resident set over the resident set before the loss: gradients
  count, the embeddings do not. The peak is reset first if the kernel allows it; otherwise (noted) it is the
  process's maximum.
* On a GPU (``--device cuda``) all cases run in one process. Times end when the device has finished, peaks are
  those of PyTorch's allocator, and matrix products are in full float32.
* "cannot allocate" marks a case whose estimated memory (about four D x D matrices for the direct form and for
  lightly's) exceeds the available memory, or whose allocation failed; the estimate follows.

Ratios are of times and of peaks: above 1 the Gram form is faster or smaller. The last column is the automatic
choice over the better of both forms (1 is perfect).
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FORMS = ("direct", "gram", "auto", "lightly")
LAMBD, BUDGET = 0.0051, 20.0
GIB = 2**30


def proc_kib(path: str, key: str) -> int | None:
    """Returns the number in a line ``key:   123 kB`` of a file under /proc."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(key + ":")), None)


def bytes_needed(form: str, n: int, d: int) -> int:
    """Returns a rough estimate of the bytes of float32 tensors alive at the peak."""
    if form == "auto":
        from bt_multimodal.loss import gram_is_cheaper

        form = "gram" if gram_is_cheaper(n, d) else "direct"
    return 4 * (7 * n * d + 3 * n * n) if form == "gram" else 4 * (4 * d * d + 4 * n * d)


def total_of(form: str) -> Callable[[Any, Any], Any]:
    """Returns a function from two batches of embeddings to their loss."""
    if form == "lightly":
        from lightly.loss import BarlowTwinsLoss as Peer

        return Peer(lambda_param=LAMBD)
    from bt_multimodal.loss import BarlowTwinsLoss

    loss = BarlowTwinsLoss(lambd=LAMBD, form=form)  # type: ignore[arg-type]
    return lambda a, b: loss(a, b).total


def embeddings(n: int, d: int, device: str = "cpu") -> tuple[Any, Any]:
    """Returns two correlated batches that require gradients."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    a = torch.randn(n, d, generator=generator, device=device)
    b = torch.randn(n, d, generator=generator, device=device).add_(a)
    return a.requires_grad_(), b.requires_grad_()


def measure_on_gpu(form: str, n: int, d: int, budget: float) -> dict[str, Any]:
    """Measures one case on the current GPU."""
    import torch

    if form == "lightly" and importlib.util.find_spec("lightly") is None:
        return {"failed": "not installed"}
    value, times = total_of(form), []
    try:
        a, b = embeddings(n, d, "cuda")
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        while len(times) < 53 and (len(times) < 4 or time.perf_counter() - began < budget):
            start = time.perf_counter()
            total = value(a, b)
            torch.autograd.grad(total, (a, b))
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated() - before
        return {"times": times[3:], "peak": peak / GIB, "total": total.item()}
    except torch.OutOfMemoryError:
        return {"lacks_memory": True}


def measure(form: str, n: int, d: int, budget: float) -> dict[str, Any]:
    """Measures one case on the CPU, in this process."""
    import torch

    value = total_of(form)

    def run(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
        start = time.perf_counter()
        total = value(a, b)
        torch.autograd.grad(total, (a, b))
        return time.perf_counter() - start, total.item()

    run(*embeddings(8, 16))  # loads libraries that torch loads late, so that they do not count as memory
    a, b = embeddings(n, d)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        was_reset = True
    except OSError:
        was_reset = False
    before = proc_kib("/proc/self/status", "VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        warm_up, total = run(a, b)
        # Short runs are noisy: as many as fit into two seconds, up to 50.
        most = min(max(5, int(2 / warm_up)), 50)
        runs = max(1, min(most, int(budget / warm_up) - 1))
        times = [warm_up] if warm_up > budget else [run(a, b)[0] for _ in range(runs)]
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "alloc" in str(error):
            return {"lacks_memory": True}
        raise
    peak = proc_kib("/proc/self/status", "VmHWM") if was_reset else None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if peak is None else peak
    return {"times": times, "peak": max(0, peak - before) / 2**20, "total": total, "reset": was_reset}


def run_case(form: str, n: int, d: int, budget: float) -> dict[str, Any]:
    """Measures one case in its own process."""
    if form == "lightly" and importlib.util.find_spec("lightly") is None:
        return {"failed": "not installed"}
    available = proc_kib("/proc/meminfo", "MemAvailable")
    if available is not None and bytes_needed(form, n, d) > available * 1024:
        return {"lacks_memory": True}
    command = [sys.executable, __file__, "--case", form, str(n), str(d), str(budget)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    if done.returncode == -9:  # killed by the kernel for lack of memory
        return {"lacks_memory": True}
    if done.returncode != 0:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def cell(form: str, n: int, d: int, results: list[dict[str, Any]]) -> tuple[str, float | None, float | None]:
    """Returns a form's table cell, its time in ms and its peak in GiB."""
    for result in results:
        if "failed" in result:
            return result["failed"].replace("|", "/"), None, None
        if "lacks_memory" in result:
            return f"cannot allocate ({bytes_needed(form, n, d) / GIB:.3g} GiB)", None, None
    milliseconds = 1000 * statistics.median(t for result in results for t in result["times"])
    peak = max(result["peak"] for result in results)
    return f"{milliseconds:,.{0 if milliseconds >= 10 else 1}f} ms, {peak:.3f} GiB", milliseconds, peak


def ratio(numerator: float | None, denominator: float | None) -> str:
    return f"{numerator / denominator:.2f}" if numerator is not None and denominator else "-"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, nargs="+", default=[64, 256, 1024, 2048])
    parser.add_argument("--d", type=int, nargs="+", default=[2048, 8192, 16384, 131072])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        form, n, d, budget = arguments.case
        print(json.dumps(measure(form, int(n), int(d), float(budget))))
        return
    if arguments.rounds < 1:
        parser.error(f"--rounds must be 1 or more, not {arguments.rounds}")
    sys.path.insert(0, str(ROOT))

    rows, notes = [], []
    for n in arguments.n:
        for d in arguments.d:
            results: dict[str, list[dict[str, Any]]] = {form: [] for form in arguments.forms}
            for _ in range(arguments.rounds):
                for form in arguments.forms:
                    if arguments.device == "cpu":
                        results[form].append(run_case(form, n, d, BUDGET / arguments.rounds))
                    else:
                        results[form].append(measure_on_gpu(form, n, d, 2 / arguments.rounds))
            cells = {form: cell(form, n, d, results[form]) for form in arguments.forms}
            print(f"N {n}, D {d}:", *(f"{form} {cells[form][0]};" for form in cells), file=sys.stderr)
            totals = [r["total"] for form in results for r in results[form] if "total" in r]
            if totals and max(totals) - min(totals) > 1e-3 * max(totals):
                notes.append(f"N {n}, D {d}: the forms' losses differ, {min(totals)} to {max(totals)}.")
            if any(r.get("reset") is False for form in results for r in results[form]):
                notes.append(f"N {n}, D {d}: peaks are the processes' maxima, the mark could not be reset.")
            not_run = ("", None, None)
            direct, gram, auto, peer = (cells.get(form, not_run) for form in FORMS)
            better = min((t for t in (direct[1], gram[1]) if t is not None), default=None)
            both = direct is not not_run and gram is not not_run
            rows.append(
                [
                    str(n),
                    str(d),
                    *(cells[form][0] for form in arguments.forms),
                    ratio(direct[1], gram[1]),
                    ratio(direct[2], gram[2]),
                    ratio(peer[1], gram[1]),
                    ratio(auto[1], better) if both else "-",
                ]
            )
    import torch

    device = f"{torch.get_num_threads()} threads"
    if arguments.device == "cuda":
        device = torch.cuda.get_device_name()
    print(f"Forward and backward, float32, torch {torch.__version__}, {device}.\n")
    ratios = ["direct/gram time", "direct/gram peak", "lightly/gram time", "auto/better time"]
    header = ["N", "D", *arguments.forms, *ratios]
    for row in (header, ["---:"] * len(header), *rows):
        print("| " + " | ".join(row) + " |")
    if notes:
        print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
