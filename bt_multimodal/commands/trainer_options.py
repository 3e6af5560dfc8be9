"""Options of a run and of Lightning's trainer that cannot work, in one line each before a run begins."""

import os
import re
from typing import Any

_TIME = re.compile(r"\d+:\d\d?:\d\d?:\d\d?")
_UNITS = ("weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds")


def check_options(config: Any) -> None:
    """Refuse options that would fail in the middle of a run, or do nothing in silence.

    Args:
        config: a command's, with the keys of `keys.TRAINING` as attributes.

    Raises:
        ValueError: names the key and what it takes.
    """
    seed, trainer = config.seed, config.trainer
    if (workers := config.get("data.num_workers") or 0) < 0:
        raise ValueError(f"data.num_workers is a number of processes, 0 or more, not {workers}")
    if config.rank_timeout <= 0:
        raise ValueError(f"rank_timeout is in seconds, above 0, not {config.rank_timeout}")
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed has 64 bits: -2^63 to 2^63 - 1, not {str(seed)[:30]}")
    _check_time(trainer.max_time)
    _check_precision(trainer.precision)
    _check_strategy(trainer.strategy)
    _check_devices(trainer.accelerator, trainer.devices)
    if trainer.barebones:
        raise ValueError(
            "trainer.barebones leaves out the checkpoints and measurements that a run consists of"
        )
    clip = trainer.gradient_clip_val
    if clip is not None and clip < 0:
        raise ValueError(f"trainer.gradient_clip_val is a norm, 0 or more, not {clip}")
    for name in ("check_val_every_n_epoch", "val_check_interval"):
        value = trainer[name]
        if isinstance(value, int | float) and value <= 0:
            raise ValueError(f"trainer.{name} must be above 0, not {value}")


def _check_time(value: Any) -> None:
    if isinstance(value, str) and not _TIME.fullmatch(value):
        raise ValueError(
            f"trainer.max_time takes DAYS:HOURS:MINUTES:SECONDS, such as 00:12:00:00, not {value!r}"
        )
    if isinstance(value, dict):
        wrong = [name for name in value if name not in _UNITS]
        wrong += [f"{name}: {part}" for name, part in value.items() if not isinstance(part, int)]
        if wrong or not value:
            raise ValueError(f"trainer.max_time takes whole numbers of {', '.join(_UNITS)}, not {wrong}")
    empty = isinstance(value, str) and not any(map(int, value.split(":")))
    if empty or (isinstance(value, dict) and not any(value.values())):
        raise ValueError("trainer.max_time 0 leaves no time for a step")


def _check_precision(value: Any) -> None:
    name = str(value)
    if name in ("16-true", "bf16-true", "64-true", "64") or name.startswith("transformer-engine"):
        way = "bf16-mixed or 16-mixed computes in half precision and keeps the weights in float32"
        if name.startswith("64"):
            way = "32-true is the default; the loss is exact in it"
        raise ValueError(f"trainer.precision {name} does not fit: views and weights are float32; {way}")


def _check_strategy(value: Any) -> None:
    from lightning.pytorch.strategies import StrategyRegistry

    name = str(value)
    if name.startswith(("fsdp", "deepspeed")):
        raise ValueError(
            f"trainer.strategy {name} shards the weights, but the probes and the "
            "exported encoder need them whole: use ddp, or FSDP in a loop of your own (docs/scaling.md)"
        )
    if name != "auto" and name not in StrategyRegistry.available_strategies():
        raise ValueError(
            f"there is no trainer.strategy {name[:60]!r}; take auto, ddp or ddp_find_unused_parameters_true"
        )
    if "spawn" in name:
        raise ValueError(f"trainer.strategy {name} needs a model that can be pickled; use ddp")


def _check_devices(accelerator: Any, devices: Any) -> None:
    import torch

    name = str(accelerator)
    if name in ("gpu", "cuda") and not torch.cuda.is_available():
        if not (name == "gpu" and torch.backends.mps.is_available()):
            raise ValueError(
                f"trainer.accelerator {name}: PyTorch {torch.__version__} finds no GPU on this machine; "
                "take --trainer.accelerator cpu, or an installation of PyTorch for your GPU"
            )
    elif name == "mps" and not torch.backends.mps.is_available():
        raise ValueError("trainer.accelerator mps: this machine has none; take --trainer.accelerator cpu")
    elif name == "tpu":
        raise ValueError("trainer.accelerator tpu is not supported; there are cpu, cuda and mps")
    if devices in (0, "0", "", [], "[]", None):
        raise ValueError(f"trainer.devices takes a number from 1, or auto, not {devices!r}")
    on_cpu = name == "cpu" or (name == "auto" and not torch.cuda.is_available())
    text = str(devices)
    if on_cpu and text != "auto" and not (text.isdecimal() and name != "mps"):
        if name == "auto" and torch.backends.mps.is_available():
            return
        raise ValueError(f"trainer.devices on CPUs takes a number of processes from 1, not {text}")
    cores = os.cpu_count() or 1
    if on_cpu and text.isdecimal() and int(text) > 16 * cores:
        raise ValueError(f"trainer.devices {text}: this machine has {cores} processor cores")
    if not on_cpu and torch.cuda.is_available():
        wanted = devices if isinstance(devices, int) else int(text) if text.isdecimal() else 0
        if wanted > torch.cuda.device_count():
            raise ValueError(f"trainer.devices {wanted}: this machine has {torch.cuda.device_count()} GPUs")
        if not re.fullmatch(r"auto|-1|\d+|[\d,\s\[\]]+", text):
            raise ValueError(
                f"trainer.devices takes a number of GPUs, a list of their numbers or auto, not {text}"
            )
