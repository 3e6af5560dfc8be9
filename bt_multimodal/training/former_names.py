"""Names that checkpoints of earlier versions have."""

from collections.abc import Mapping
from typing import Any

_FORMER = {"_views.": "_augmentations."}


def with_new_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict with today's names, from one of any version."""
    renamed: dict[str, Any] = {}
    for name, value in state.items():
        for former, new in _FORMER.items():
            if name.startswith(former):
                name = new + name.removeprefix(former)
        renamed[name] = value
    return renamed
