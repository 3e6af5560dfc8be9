"""BatchNorm with statistics over all ranks, on CPUs and GPUs, for layers of every library."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bt_multimodal.compat import BatchNorm
from bt_multimodal.distributed.collectives import sum_across_ranks, world_size

_PER_RANK = "; --trainer.sync_batchnorm false takes its statistics per rank"


def _over_all_ranks(layer: BatchNorm, input: Tensor) -> Tensor:
    """Normalise ``[n, C, ...]`` over the samples and positions of all ranks; the shape stays.

    In a single process or in evaluation mode this is an ordinary BatchNorm. Local batches may differ in size.

    Raises:
        ValueError: only one value per channel on all ranks together.
    """
    if not layer.training or world_size() == 1:
        return BatchNorm.forward(layer, input)
    if input.device.type != "cpu":
        return nn.SyncBatchNorm.forward(layer, input)  # type: ignore[arg-type]  # reads attributes that layer has
    layer._check_input_dim(input)
    x = input.to(torch.promote_types(input.dtype, torch.float32))
    dims = [0, *range(2, x.ndim)]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    count = sum_across_ranks(x.new_tensor(x.numel() // x.shape[1]))
    if count < 2:
        raise ValueError(
            f"BatchNorm needs more than one value per channel, got {list(input.shape)} on all ranks"
        )
    mean = sum_across_ranks(x.sum(dims)) / count
    centred = x - mean.view(shape)
    variance = sum_across_ranks(centred.square().sum(dims)) / count
    _track(layer, mean, variance * count / (count - 1))
    x = centred * (variance + layer.eps).rsqrt().view(shape)
    if layer.weight is not None:
        x = x * layer.weight.view(shape)
    if layer.bias is not None:
        x = x + layer.bias.view(shape)
    return x.to(input.dtype)


@torch.no_grad()
def _track(layer: BatchNorm, mean: Tensor, unbiased: Tensor) -> None:
    if not layer.track_running_stats or layer.running_mean is None or layer.running_var is None:
        return
    share = layer.momentum or 0.0
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked += 1
        if layer.momentum is None:
            share = 1 / float(layer.num_batches_tracked)
    layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), share)
    layer.running_var.lerp_(unbiased.to(layer.running_var.dtype), share)


def _over_all_ranks_then_act(layer: Any, input: Tensor) -> Tensor:
    """timm's ``BatchNormAct2d`` and ``SyncBatchNormAct``: BatchNorm, then dropout and activation."""
    x = _over_all_ranks(layer, input)
    for name in ("drop", "act"):
        after = getattr(layer, name, None)
        x = x if after is None else after(x)
    return x


def _known_forward(kind: Any) -> Callable[..., Tensor] | None:
    """What computes ``kind``'s forward pass over all ranks, if it is known what that pass does."""
    forward = kind.forward
    if forward in (BatchNorm.forward, nn.SyncBatchNorm.forward):
        return _over_all_ranks
    # By name: this package works without timm, and so does not import it.
    of_timm = str(getattr(forward, "__module__", "")).startswith("timm.")
    if of_timm and forward.__qualname__ in ("BatchNormAct2d.forward", "SyncBatchNormAct.forward"):
        return _over_all_ranks_then_act
    return None


@cache
def _synchronised(kind: Any) -> Any:
    """The subclass of a BatchNorm layer's class that takes its statistics over all ranks."""
    # On CPUs a layer may not remain an nn.SyncBatchNorm: DistributedDataParallel refuses those.
    on_cpu = issubclass(kind, nn.SyncBatchNorm)
    members = {
        "__doc__": f"`{kind.__name__}` with statistics over all ranks.",
        "__reduce__": lambda self: (
            _restored,
            (kind,),
            self.__dict__,
        ),  # pickle cannot find the class by name
        "forward": _known_forward(kind),
        "synchronised_class": kind,
        # What nn.SyncBatchNorm.forward reads.
        "process_group": None,
        "_check_input_dim": (nn.SyncBatchNorm if on_cpu else kind)._check_input_dim,
        "_check_non_zero_input_channels": nn.SyncBatchNorm._check_non_zero_input_channels,
    }
    name = f"Synchronised{kind.__name__.removeprefix('Sync')}"
    return type(name, (BatchNorm if on_cpu else kind,), members)


def _restored(kind: Any) -> Any:
    made = _synchronised(kind)
    return made.__new__(made)


def _refusal(name: str, layer: nn.Module, device_type: str) -> str | None:
    """Why the statistics of a layer cannot be taken over all ranks, if they cannot."""
    kind = type(layer)
    what = f"{kind.__module__}.{kind.__name__} at {name!r}" if name else f"{kind.__module__}.{kind.__name__}"
    if isinstance(layer, torch.jit.ScriptModule):
        if "BatchNorm" in str(getattr(layer, "original_name", "")):
            return (
                f"cannot synchronise {what}: TorchScript has compiled it; give the network itself{_PER_RANK}"
            )
        return None
    if not isinstance(layer, BatchNorm):
        # Such as timm's EvoNorm2dB0 and InplaceAbn. Instance norm uses each sample alone.
        buffers = {key for key, _ in layer.named_buffers(recurse=False)}
        frozen = "Frozen" in kind.__name__ or isinstance(layer, nn.modules.instancenorm._InstanceNorm)
        if frozen or not buffers & {"running_mean", "running_var"}:
            return None
        return (
            f"cannot synchronise {what}: it keeps running statistics but is no BatchNorm of torch; "
            f"replace it by nn.BatchNorm2d or the like{_PER_RANK}"
        )
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin):
        return f"cannot synchronise {what}: its width is not known yet; give it in the class without Lazy"
    if hasattr(kind, "synchronised_class") or (isinstance(layer, nn.SyncBatchNorm) and device_type != "cpu"):
        return None
    if getattr(layer, "process_group", None) not in (
        None,
        dist.group.WORLD if dist.is_initialized() else None,
    ):
        return f"cannot synchronise {what}: on CPUs its process_group may only be that of all ranks"
    if "forward" in layer.__dict__ or _known_forward(kind) is None:
        return (
            f"cannot synchronise {what}: it overrides BatchNorm's forward, so what it computes is not known; "
            f"let it inherit forward and put the rest into a layer behind it{_PER_RANK}"
        )
    return None


def synchronise_batch_norm(module: nn.Module, device_type: str) -> nn.Module:
    """Make every BatchNorm in ``module`` take its statistics over all ranks.

    The layers stay the same objects: weights, running statistics, parameter names, hooks and what a layer
    does beyond BatchNorm (the activation of timm's ``BatchNormAct2d``) remain. Layers in evaluation mode
    and frozen ones use their running statistics, as always. All layers are checked before one is changed.

    Args:
        device_type: where the module will run, ``"cpu"`` or ``"cuda"``.

    Returns:
        ``module``.

    Raises:
        ValueError: a layer of which it is not known how it uses the statistics of the batch; names class
            and place.
    """
    layers = list(module.named_modules())
    for name, layer in layers:
        if (refusal := _refusal(name, layer, device_type)) is not None:
            raise ValueError(refusal)
    for _, layer in layers:
        if not isinstance(layer, BatchNorm) or hasattr(type(layer), "synchronised_class"):
            continue
        if isinstance(layer, torch.jit.ScriptModule):
            continue
        if not isinstance(layer, nn.SyncBatchNorm) or device_type == "cpu":
            kind: Any = type(layer)
            layer.__class__ = _synchronised(kind)  # has the same attributes, so nothing is copied
    return module
