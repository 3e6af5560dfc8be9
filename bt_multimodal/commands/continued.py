"""A run that is continued keeps its settings: which ones may change, and which ones may not."""

import math
from collections.abc import Mapping
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from bt_multimodal.commands.config_text import config_text
from bt_multimodal.data.columns import shortened

# What changes no step of a run: how it is watched, saved, measured and spread over a machine.
_FREE = (
    "config", "run_dir", "resume", "rank_timeout", "checkpoint", "probe", "trust",
    "data.num_workers", "data.cache", "data.damaged_share", "data.damaged_least",
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.max_time",
    "trainer.benchmark", "trainer.deterministic", "trainer.detect_anomaly", "trainer.profiler",
    "trainer.barebones", "trainer.inference_mode", "trainer.log_every_n_steps",
    "trainer.num_sanity_val_steps", "trainer.check_val_every_n_epoch", "trainer.val_check_interval",
    "trainer.limit_val_batches", "trainer.limit_test_batches", "trainer.limit_predict_batches",
    "trainer.model_registry", "trainer.enable_autolog_hparams",
)  # fmt: skip
# A stream is shared by ranks and loader processes, so their number decides on its batches.
_FREE_BUT_OF_A_STREAM = ("data.num_workers", "trainer.devices", "trainer.num_nodes")
_LENGTH = ("trainer.max_epochs", "trainer.max_steps")
_SHOWN = 4  # settings that a message names


def kept_config(path: Path) -> dict[str, Any]:
    """The settings that a run was started with, from its ``config.yaml``.

    Raises:
        ValueError: the file is damaged, or another program's.
    """
    import yaml

    try:
        config = yaml.safe_load(config_text(path))
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the run cannot be continued: {reason}") from error
    if not isinstance(config, dict) or not {"seed", "trainer", "data"} <= config.keys():
        raise ValueError(f"{path} is not the config of a run; choose another --run_dir")
    return config


def check_settings(
    kept: Mapping[str, Any], new: Mapping[str, Any], defaults: Mapping[str, Any], extend: bool
) -> None:
    """Refuse to continue a run with settings that would change its course.

    Args:
        kept: what the run was started with.
        new: what it is to be continued with.
        defaults: of settings that did not exist when the run was started.
        extend: whether its length may change.

    Raises:
        ValueError: names the settings and both values.
    """
    old, now = _flat(kept), _flat(new)
    former = _flat(defaults) | _class_defaults(new) | old
    free = set(_FREE) - set(_FREE_BUT_OF_A_STREAM if now.get("data.stream") else ())
    changed: list[tuple[str, Any, Any]] = []
    for name in sorted(old.keys() | now.keys()):
        before, after = former.get(name), now.get(name)
        parts = name.split(".")
        if free & {".".join(parts[:i]) for i in range(1, len(parts) + 1)} or _same(name, before, after):
            continue
        if any(name.startswith(f"{group}.init_args.") for group, *_ in changed):  # of another class
            continue
        if after is None and name.startswith("views.init_args."):  # it was measured
            continue
        if extend and name in _LENGTH:
            if _endless(after) > _endless(before):
                continue
            raise ValueError(f"a run is extended, not shortened: {name} {after} (it has {before})")
        changed.append((name.removesuffix(".class_path"), before, after))
    if not changed:
        return
    text = ", ".join(
        f"{name} {shortened(str(new))} (it has {shortened(str(old))})" for name, old, new in changed[:_SHOWN]
    )
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    way = "leave them out to continue it, or choose another --run_dir for a new run"
    if {name for name, *_ in changed} <= set(_LENGTH):
        way = "--resume extend continues it with a schedule of that length"
    raise ValueError(f"these settings would change the course of the run: {text}{more}; {way}")


def measured(kept: Mapping[str, Any], views: Any) -> None:
    """Give the augmentation set what it measured on the data when the run was started."""
    before = kept.get("views")
    arguments = before.get("init_args") if isinstance(before, dict) else None
    if not isinstance(arguments, dict) or before.get("class_path") != views.class_path:  # type: ignore[union-attr]
        return
    for name, value in views.get("init_args", {}).items():
        if value is None and arguments.get(name) is not None:
            views.init_args[name] = arguments[name]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their whole names; lists and empty groups are values."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _class_defaults(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The defaults of the arguments of all classes in a config."""
    found: dict[str, Any] = {}
    path = config.get("class_path")
    if isinstance(path, str):
        module, _, name = path.rpartition(".")
        parameters = signature(getattr(import_module(module), name)).parameters.values()
        found = {f"{prefix}init_args.{p.name}": p.default for p in parameters if p.default is not p.empty}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _class_defaults(value, f"{prefix}{name}.")
    return found


def _same(name: str, before: Any, after: Any) -> bool:
    if name.endswith("class_path") and isinstance(before, str) and isinstance(after, str):
        # A class may be named by the module that defines it or by the package that shows it.
        return [*_ends(before)] == [*_ends(after)]
    if isinstance(before, tuple):
        before = list(before)
    return (
        bool(before == after)
        or (before in ({}, []) and after is None)
        or (after in ({}, []) and before is None)
    )


def _endless(length: Any) -> float:
    return math.inf if length in (None, -1) else length


def _ends(path: str) -> tuple[str, str]:
    return path.partition(".")[0], path.rpartition(".")[2]
