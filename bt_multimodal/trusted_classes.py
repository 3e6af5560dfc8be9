"""Building what an encoder file describes, without running anything that the file brings.

A file names classes and their arguments. A class is built if it is a network or an augmentation set that is
defined in a package of this project or of torch's, or in a package that the user allows. Nothing else is
imported.
"""

import enum
import importlib
import inspect
import json
import os
import typing
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bt_multimodal.augmentation_set import AugmentationSet

# Of torch, torchvision and timm the parts that define networks. Networks of transformers take a
# configuration object, which no file can hold, and some load other models: see encoders.text.pretrained.
_NETWORKS = ("encoders", "bt_multimodal", "torch.nn", "torchvision.models", "torchvision.ops", "timm.models",
             "timm.layers")  # fmt: skip
_VIEWS = ("encoders", "bt_multimodal")
# Networks whose construction compiles or runs code that they are given.
_RUN_CODE = (torch.jit.ScriptModule, torch.fx.GraphModule)
# Arguments of any class, or keys of a model's configuration, that load code or weights from elsewhere.
_LOADS = frozenset(
    {"trust_remote_code", "auto_map", "pretrained", "weights", "weights_backbone", "pretrained_backbone",
     "use_pretrained_backbone", "checkpoint", "checkpoint_path", "quantization_config", "code_revision",
     "use_kernels"}
)  # fmt: skip
_DEPTH = 20


def _within(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _packages(trust: Sequence[str] | str) -> tuple[str, ...]:
    packages = (trust,) if isinstance(trust, str) else tuple(trust)
    for package in packages:
        if not isinstance(package, str) or not all(part.isidentifier() for part in package.split(".")):
            raise ValueError(f"trust takes names of packages, such as 'my_lab', not {package!r}")
    return packages


def build(spec: Any, trust: Sequence[str] | str = (), views: bool = False) -> Any:
    """The object that ``{"class_path": "package.Class", "init_args": {...}}`` describes.

    Arguments may be such descriptions of networks themselves.

    Args:
        trust: packages that may be imported beside this project's, such as ``("my_lab",)``. A package named
            there may also load further models that the arguments name.
        views: build an augmentation set; otherwise a network.

    Raises:
        ValueError: a description or class that is not allowed, does not import or does not take the
            arguments.
    """
    return _build(spec, _packages(trust), views, 0)


def _build(spec: Any, trust: tuple[str, ...], views: bool, depth: int) -> Any:
    if not (isinstance(spec, dict) and isinstance(spec.get("class_path"), str)):
        raise ValueError(
            f"a description needs a class_path, such as 'my_lab.MyEncoder'; it is {_short(spec)}"
        )
    path, arguments = spec["class_path"], spec.get("init_args") or {}
    if not (isinstance(arguments, dict) and all(isinstance(key, str) for key in arguments)):
        raise ValueError(f"the arguments of {_short(path)} are not names and values: {_short(arguments)}")
    target = _checked_target(path, trust, views)
    if not _within(path, trust):
        _check_arguments(path, target, arguments)
    values = {name: _value(value, trust, depth) for name, value in arguments.items()}
    try:
        return target(**values)
    except Exception as error:  # a constructor raises errors of any type
        reason = " ".join(f"{error}".split()) or type(error).__name__
        if not isinstance(error, TypeError | ValueError | ImportError):
            reason = f"{type(error).__name__}: {reason}"
        raise ValueError(f"cannot build {path}: {reason}") from error


def _value(value: Any, trust: tuple[str, ...], depth: int) -> Any:
    if depth > _DEPTH:
        raise ValueError(f"the arguments are nested more than {_DEPTH} deep")
    if isinstance(value, dict):
        if "class_path" in value and value.keys() <= {"class_path", "init_args"}:
            return _build(value, trust, False, depth + 1)
        if (value.keys() & {"named"}) and value.keys() <= {"named", "member"}:
            return _named(value, trust)
        return {key: _value(item, trust, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(item, trust, depth + 1) for item in value]
    return value


def _argument(value: Any) -> Any:
    """An argument of a class in a form that a file holds and `build` takes.

    Raises:
        ValueError: an argument of a kind that no file holds.
    """
    if isinstance(value, enum.Enum):
        return {"named": f"{type(value).__module__}.{type(value).__qualname__}", "member": value.name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.dtype):
        return {"named": str(value)}
    if isinstance(value, os.PathLike | torch.device):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_argument(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _argument(item) for key, item in value.items()}
    if isinstance(value, type) and issubclass(value, nn.Module):
        return {"named": f"{value.__module__}.{value.__qualname__}"}
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return _argument(value.tolist())
    raise ValueError(f"a {type(value).__name__} cannot be kept in this file")


def kept_spec(spec: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A class path and its arguments as JSON holds them, and which arguments it cannot hold and why."""
    kept, left_out = {}, {}
    for name, value in (spec.get("init_args") or {}).items():
        try:
            kept[name] = _argument(value)
            json.dumps(kept[name])
        except (ValueError, TypeError, RecursionError) as error:
            left_out[name] = " ".join(str(error).split())
            kept.pop(name, None)
    return ({**spec, "init_args": kept} if "init_args" in spec else dict(spec)), left_out


def _named(value: dict[str, Any], trust: tuple[str, ...]) -> Any:
    """What a file names without building it: a dtype, a class of networks, or a member of an enumeration."""
    path, member = value["named"], value.get("member")
    if not isinstance(path, str) or not isinstance(member, str | None):
        raise ValueError(f"{_short(value)} names nothing")
    module, _, name = path.rpartition(".")
    if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
        return dtype
    if member is None:
        return _checked_target(path, trust, False)
    kind = _imported(path, (*_NETWORKS, *trust), trust)
    if not (isinstance(kind, type) and issubclass(kind, enum.Enum) and member in kind.__members__):
        raise ValueError(f"{path} is no enumeration with a member {_short(member)}")
    return kind.__members__[member]


def _checked_target(path: str, trust: tuple[str, ...], views: bool) -> Any:
    """The class or function of a path; the path is judged before anything is imported."""
    allowed = (*(_VIEWS if views else _NETWORKS), *trust)
    target = _imported(path, allowed, trust)
    module = path.rpartition(".")[0]
    kind = _built_kind(target)
    whose = getattr(target, "__module__", None)
    base: type = AugmentationSet if views else nn.Module
    right = kind is not None and (issubclass(kind, base) or (views and _within(module, trust)))
    if not right or not isinstance(whose, str) or not _within(whose, allowed):
        what = "an augmentation set" if views else "a network (a class of nn.Module)"
        raise ValueError(f"{path} is not {what} that is defined there, so it is not built")
    if kind is not None and issubclass(kind, _RUN_CODE):
        raise ValueError(f"{path} runs code that it is given, so it is not built from a file")
    if inspect.isfunction(target) and not views and not _within(module, trust):
        raise ValueError(f"{path} is a function, and of networks only classes are built from a file")
    return target


def _imported(path: str, allowed: tuple[str, ...], trust: tuple[str, ...]) -> Any:
    module, _, name = path.rpartition(".")
    root = path.partition(".")[0]
    if not (module and all(part.isidentifier() for part in path.split("."))) or name.startswith("__"):
        raise ValueError(f"{_short(path)} is not the path of a class")
    if not _within(module, allowed):
        ours = allowed[: len(allowed) - len(trust)]
        raise ValueError(
            f"the file names {_short(path)}, which may be any code; only classes of {', '.join(ours)} are "
            f"built; if you trust that package, allow it: trust=({root!r},), or --trust {root} in a command"
        )
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # a module that is imported may raise any
        hint = ""
        if isinstance(error, ModuleNotFoundError) and module.startswith("encoders."):
            hint = f"; this brings what it needs: pip install 'bt_multimodal[{module.split('.')[1]}]'"
        raise ValueError(f"cannot build {path}: {' '.join(str(error).split())}{hint}") from error


def _built_kind(target: Any) -> type | None:
    """The class itself, or the one that a function is annotated to return."""
    if isinstance(target, type):
        return target
    if not inspect.isfunction(target):
        return None
    try:
        kind = typing.get_type_hints(target).get("return")
    except Exception:  # an annotation that does not evaluate
        return None
    return kind if isinstance(kind, type) else None


def _check_arguments(path: str, target: Any, arguments: dict[str, Any]) -> None:
    """No argument may load code, weights or a model by name."""
    allow = f"; if you trust it, allow that: trust=({path.split('.')[0]!r},), or --trust {path.split('.')[0]}"
    for name, words in getattr(_built_kind(target), "loads_by_name", {}).items():
        value = arguments.get(name, words[0] if words else {})
        if isinstance(value, str) and value not in words and not value.lstrip().startswith("{"):
            raise ValueError(f"{path} would load {_short(value)} from a disk or the hub ({name}){allow}")
    if (found := _loading_key(arguments, 0)) is not None:
        raise ValueError(f"the arguments of {path} have {found}, which loads from elsewhere{allow}")


def _loading_key(value: Any, depth: int) -> str | None:
    """A key that makes a class or a model's configuration load something, also in JSON text."""
    if depth > _DEPTH:
        raise ValueError(f"the arguments are nested more than {_DEPTH} deep")
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, dict):
        for key, item in value.items():
            kernels = "attn_implementation" in key and "/" in str(item)  # code from the hub
            # A vocabulary has any words as keys, with numbers.
            if kernels or (key in _LOADS and item and (item is True or isinstance(item, str | dict))):
                return f"{key}={_short(item)}"
        return next((found for item in value.values() if (found := _loading_key(item, depth + 1))), None)
    if isinstance(value, list):
        return next((found for item in value if (found := _loading_key(item, depth + 1))), None)
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 100 else f"{text[:97]}..."
