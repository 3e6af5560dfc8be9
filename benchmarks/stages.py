"""Timing of the stages from a record to two views, shared by the benchmarks of views."""

import statistics
import time
from collections.abc import Callable
from typing import Any

BATCH = 256


def timed(function: Callable[[], Any], device: str = "cpu") -> tuple[float, Any]:
    """Returns the seconds that a call takes until the device has finished, and its result."""
    finish(device)
    began = time.perf_counter()
    result = function()
    finish(device)
    return time.perf_counter() - began, result


def finish(device: str) -> None:
    """Waits until the device has finished."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def stages(records: Any, views: Any, index: Any) -> dict[str, float]:
    """Returns the seconds of each stage for the records at ``index``; ``common`` is 0 if there is none."""
    import torch

    from bt_multimodal.views import Views, collate_views, draw_parameters, finish_views, record_parameters

    seconds: dict[str, float] = {}
    rows = index.tolist()
    seconds["read"], raw = timed(lambda: [records.raw(i) for i in rows])
    seconds["decode"], decoded = timed(lambda: [views.decode(r) for r in raw])
    seconds["draw"], parameters = timed(lambda: draw_parameters(views, 0, 0, index))

    def cut() -> Views:
        by_record = record_parameters(views, parameters, len(rows))
        samples = [
            [views.on_record(record, p) for p in of_views]
            for record, of_views in zip(decoded, by_record, strict=True)
        ]
        return collate_views(views, parameters, samples, torch.zeros(len(rows)))

    seconds["cut"], batch = timed(cut)
    seconds["common"] = timed(lambda: views.common(batch.first.data))[0] if views.common else 0.0
    seconds["views"] = timed(lambda: finish_views(views, batch))[0] - seconds["common"]
    return seconds


def print_stages(records: Any, views: Any, order: Any, rounds: int, warm_up: int, **names: str) -> None:
    """Runs all stages on batch after batch and prints the medians.

    Args:
        order: indices ``[N]``, repeated if there are too few.
        warm_up: number of batches before the ``rounds`` that count.
        names: other names for stages.
    """
    import torch

    seconds_by_round = []
    for i in range(warm_up + rounds):
        index = order[torch.arange(i * BATCH, (i + 1) * BATCH) % len(order)]
        seconds_by_round.append(stages(records, views, index))
    counted = seconds_by_round[warm_up:]
    medians = {name: statistics.median(seconds[name] for seconds in counted) for name in counted[0]}
    print(f"{'stage':<10}{'ms a batch':>12}{'a second per core':>20}")
    for name, seconds in (*medians.items(), ("all", sum(medians.values()))):
        if seconds:
            print(f"{names.get(name, name):<10}{1000 * seconds:>12.1f}{BATCH / seconds:>20,.0f}")
