"""Loaders whose processes outlive the signals that stop a run, so that the run can save and end."""

from typing import Any

from torch.utils.data import DataLoader

from bt_multimodal.stop_signals import blocked, leave_to_main


class Loader(DataLoader):
    """`torch.utils.data.DataLoader` whose processes leave signals to the main one (`stop_signals`)."""

    def __init__(self, dataset: Any, num_workers: int = 0, **options: Any):
        options["worker_init_fn"] = leave_to_main if num_workers else None
        super().__init__(dataset, num_workers=num_workers, **options)

    def __iter__(self) -> Any:
        with blocked():  # an epoch's first batch starts them
            return super().__iter__()
