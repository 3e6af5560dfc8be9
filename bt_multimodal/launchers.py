"""What launchers of several ranks tell a process, before there is a process group."""

import os


def is_first_rank() -> bool:
    """Whether this process is rank 0, by what launchers tell it, or alone."""
    told = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in told if rank is not None), "0") == "0"
