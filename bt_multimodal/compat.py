"""What this project uses of other libraries beyond their documented interfaces, each in one place.

`tests/test_compat.py` says of every name what the library has to do, so that an upgrade that changes it fails
there.
"""

import tarfile
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils import _pytree

# torch: nested containers of tensors.
tree_flatten, tree_unflatten, tree_map = _pytree.tree_flatten, _pytree.tree_unflatten, _pytree.tree_map

# torch: the class that all its BatchNorm layers have in common.
BatchNorm = nn.modules.batchnorm._BatchNorm


def process_group_store(group: Any) -> Any:
    """torch: the key-value store by which the ranks of a process group found each other."""
    return group.get_group_store()


def forget_members(archive: tarfile.TarFile) -> None:
    """tarfile: drop the list of the members read so far, which otherwise grows with the file."""
    archive.members = []  # type: ignore[attr-defined]


def parser_keys(parser: Any) -> list[str]:
    """jsonargparse: the names of all keys of a parser, with those of its groups and chosen classes."""
    return [action.dest for action in parser._actions if action.dest not in ("help", "config")]


def read_files_with(jsonargparse: Any, read: Callable[[str], str]) -> None:
    """jsonargparse: read config files with ``read(path)``, instead of whole and in the locale's encoding."""
    jsonargparse._paths.Path.read_text = lambda self: read(self.absolute)


def load_values_with(jsonargparse: Any, check: Callable[[str], str]) -> None:
    """jsonargparse: let ``check(text)`` see every text before YAML values are built of it."""
    loaders = jsonargparse._loaders_dumpers
    loaders.loaders["yaml"] = lambda text: loaders.yaml_load(check(text))


def has_scaler(trainer: Any) -> bool:
    """Lightning: whether the trainer's precision scales the loss (float16)."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def leave_signals(trainer: Any) -> None:
    """Lightning: keep a trainer from handling signals, which it does by talking to other ranks."""
    trainer._signal_connector.register_signal_handlers = lambda: None
