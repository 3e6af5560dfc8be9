"""A module's state as tensors that safetensors holds and as JSON, and back."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_DTYPES = frozenset(
    dtype
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
                 "bool", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2")
    if (dtype := getattr(torch, name, None)) is not None
)  # fmt: skip


class _NotKeptError(Exception):
    """Why a value cannot be kept."""


class SavedState(NamedTuple):
    """A state dict in parts.

    Attributes:
        tensors: the plain tensors by their name, and those inside other values by a name of their own.
        values: every other value, as JSON.
        left_out: what could not be kept, and why, by name.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any]
    left_out: dict[str, str]


def saved_state(module: nn.Module) -> SavedState:
    """What can be kept of a module's state; it never raises, since what is kept is a run's result."""
    saved = SavedState({}, {}, {})
    try:
        state = dict(module.state_dict())
    except Exception as error:  # a hook of the user's own
        state = dict([*module.named_parameters(), *module.named_buffers()])
        saved.left_out["state_dict()"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]

    def keep(tensor: Tensor) -> str:
        name = f"{at}#{len(saved.tensors)}"
        while name in state:
            name += "#"
        saved.tensors[name] = tensor
        return name

    for at, value in state.items():
        try:
            if isinstance(value, Tensor) and (plain := _plain(value)) is not None:
                saved.tensors[at] = plain
            else:
                before = set(saved.tensors)
                try:
                    saved.values[at] = to_json(value, keep)
                except _NotKeptError:
                    for name in set(saved.tensors) - before:
                        del saved.tensors[name]
                    raise
        except Exception as error:  # tensors of kinds that are yet to come
            saved.left_out[at] = " ".join(str(error).split())[:200] or type(error).__name__
    return saved


def _plain(tensor: Tensor) -> Tensor | None:
    """The tensor in memory, if it is a dense one of a dtype that safetensors has."""
    if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer):
        raise _NotKeptError("it has no shape yet")
    if tensor.is_meta:
        raise _NotKeptError("it is on the device meta, without values")
    if hasattr(tensor, "full_tensor"):  # sharded
        tensor = tensor.full_tensor()
    if tensor.is_quantized or tensor.layout != torch.strided or tensor.dtype not in _DTYPES:
        return None
    return tensor.detach().resolve_neg().cpu().contiguous().clone()


def to_json(value: Any, keep: Callable[[Tensor], str] | None = None, depth: int = 0) -> Any:
    """A value as JSON; what JSON lacks is an object with one key that begins with a colon.

    Args:
        keep: stores a tensor and returns its name; without it, tensors are not taken.

    Raises:
        _NotKeptError: a value of a kind that cannot be kept.
    """
    if depth > 50:
        raise _NotKeptError("it is nested more than 50 deep, or holds itself")
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {":float": repr(value)}

    def inner(item: Any) -> Any:
        return to_json(item, keep, depth + 1)

    if isinstance(value, torch.Size):
        return {":size": list(value)}
    if isinstance(value, tuple) and type(value) is tuple:
        return {":tuple": [inner(item) for item in value]}
    if type(value) is list:
        return [inner(item) for item in value]
    if type(value) in (set, frozenset):
        return {f":{type(value).__name__}": [inner(item) for item in value]}
    if isinstance(value, dict):
        if all(type(key) is str and not key.startswith(":") for key in value):
            return {key: inner(item) for key, item in value.items()}
        return {":dict": [[inner(key), inner(item)] for key, item in value.items()]}
    if isinstance(value, complex):
        return {":complex": [inner(value.real), inner(value.imag)]}
    if isinstance(value, bytes | bytearray):
        return {":bytes": bytes(value).hex()}
    if isinstance(value, torch.dtype | torch.device):
        return {f":{type(value).__name__}": str(value).removeprefix("torch.")}
    if keep is not None and isinstance(value, Tensor):
        return _tensor_to_json(value, keep, inner)
    if type(value).__module__ == "numpy":
        import numpy as np

        if isinstance(value, np.generic):
            return inner(value.item())
        if keep is not None and isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            return {":numpy": inner(torch.from_numpy(value.copy()))}
    raise _NotKeptError(f"a {type(value).__name__} cannot be kept in this file")


def _tensor_to_json(tensor: Tensor, keep: Callable[[Tensor], str], inner: Callable[[Any], Any]) -> Any:
    if (plain := _plain(tensor)) is not None:
        return {":tensor": keep(plain)}
    if tensor.is_quantized:
        raise _NotKeptError("a quantised tensor cannot be kept in this file")
    if tensor.layout != torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        if layout not in ("sparse_coo", "sparse_csr", "sparse_csc"):
            raise _NotKeptError(f"a tensor of layout {layout} cannot be kept in this file")
        parts = tensor.detach().to_sparse_coo().coalesce()
        indices, values = inner(parts.indices()), inner(parts.values())
        return {":sparse": [layout, list(parts.shape), indices, values]}
    if tensor.is_complex():
        return {":complex_tensor": inner(torch.view_as_real(tensor.detach().resolve_conj()))}
    raise _NotKeptError(f"a tensor of dtype {tensor.dtype} cannot be kept in this file")


def from_json(value: Any, tensor: Callable[[str], Tensor]) -> Any:
    """The counterpart of `to_json`.

    Args:
        tensor: the kept tensor of a name.

    Raises:
        ValueError: an object that `to_json` does not write.
    """

    def inner(item: Any) -> Any:
        return from_json(item, tensor)

    if isinstance(value, list):
        return [inner(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if not (len(value) == 1 and tag.startswith(":")):
        return {key: inner(item) for key, item in value.items()}
    held = value[tag]
    try:
        return _UNTAGGED[tag](held, inner, tensor)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise ValueError(f"its state holds {tag!r} in a form that this version does not know") from error


def _sparse(held: Any, inner: Callable[[Any], Any], _: Any) -> Tensor:
    layout, shape, indices, values = held
    made = torch.sparse_coo_tensor(inner(indices), inner(values), shape, check_invariants=True).coalesce()
    return made if layout == "sparse_coo" else made.to_sparse(layout=getattr(torch, layout))


def _dtype(name: Any) -> torch.dtype:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(name)
    return dtype


_UNTAGGED: dict[str, Callable[[Any, Callable[[Any], Any], Callable[[str], Tensor]], Any]] = {
    ":float": lambda held, inner, tensor: float(held),
    ":size": lambda held, inner, tensor: torch.Size(held),
    ":tuple": lambda held, inner, tensor: tuple(inner(item) for item in held),
    ":set": lambda held, inner, tensor: {inner(item) for item in held},
    ":frozenset": lambda held, inner, tensor: frozenset(inner(item) for item in held),
    ":dict": lambda held, inner, tensor: {inner(key): inner(item) for key, item in held},
    ":complex": lambda held, inner, tensor: complex(*(inner(item) for item in held)),
    ":bytes": lambda held, inner, tensor: bytes.fromhex(held),
    ":dtype": lambda held, inner, tensor: _dtype(held),
    ":device": lambda held, inner, tensor: torch.device(held),
    ":tensor": lambda held, inner, tensor: tensor(held),
    ":numpy": lambda held, inner, tensor: inner(held).numpy(),
    ":sparse": _sparse,
    ":complex_tensor": lambda held, inner, tensor: torch.view_as_complex(inner(held).contiguous()),
}
