"""The way of a record from its file to two views, stage by stage: what the benchmarks of views share."""

import statistics
import time
from collections.abc import Callable
from typing import Any

BATCH = 256


def timed(make: Callable[[], Any], device: str = "cpu") -> tuple[float, Any]:
    """Seconds that a call takes until the device has finished, and what it gives."""
    finish(device)
    began = time.perf_counter()
    made = make()
    finish(device)
    return time.perf_counter() - began, made


def finish(device: str) -> None:
    """Wait for what the device has still to do."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def stages(records: Any, views: Any, index: Any) -> dict[str, float]:
    """Seconds of each stage for the records at ``index``; of ``common`` 0 for views that have none."""
    import torch

    from bt_multimodal.views import Views, collate_views, draw_parameters, finish_views, record_parameters

    seconds: dict[str, float] = {}
    rows = index.tolist()
    seconds["read"], raw = timed(lambda: [records.raw(i) for i in rows])
    seconds["decode"], decoded = timed(lambda: [views.decode(r) for r in raw])
    seconds["draw"], parameters = timed(lambda: draw_parameters(views, 0, 0, index))

    def cut() -> Views:
        asked = record_parameters(views, parameters)
        made = [[views.on_record(one, p) for p in own] for one, own in zip(decoded, asked, strict=True)]
        return collate_views(views, parameters, made, torch.zeros(len(rows)))

    seconds["cut"], batch = timed(cut)
    seconds["common"] = timed(lambda: views.common(batch.first.data))[0] if hasattr(views, "common") else 0.0
    seconds["views"] = timed(lambda: finish_views(views, batch))[0] - seconds["common"]
    return seconds


def print_stages(records: Any, views: Any, order: Any, rounds: int, warm_up: int, **names: str) -> None:
    """Run all stages in turn over batch after batch, and print the medians.

    Args:
        order: ``[N]`` indices, taken again from the start where there are too few.
        warm_up: batches before the ``rounds`` that count.
        names: of the stages, where they have others.
    """
    import torch

    found = []
    for i in range(warm_up + rounds):
        index = order[torch.arange(i * BATCH, (i + 1) * BATCH) % len(order)]
        found.append(stages(records, views, index))
    medians = {name: statistics.median(one[name] for one in found[warm_up:]) for name in found[0]}
    print(f"{'stage':<10}{'ms a batch':>12}{'a second per core':>20}")
    for name, seconds in (*medians.items(), ("all", sum(medians.values()))):
        if seconds:
            print(f"{names.get(name, name):<10}{1000 * seconds:>12.1f}{BATCH / seconds:>20,.0f}")
