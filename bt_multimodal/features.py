"""A frozen encoder run over data once: a feature table, saved, loaded and memory-mapped.

Legend: ``N`` records, ``B`` of them a batch, ``F`` features (the encoder's ``features_dim``).

Evaluation takes no random view: ``decode`` and ``clean`` record by record, ``clean_batch`` on the
device (`bt_multimodal.views`), then the encoder in eval mode without gradients.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bt_multimodal.twins import check_encoder, check_representation
from bt_multimodal.views import AugmentationSet


class FeatureTable(NamedTuple):
    """``features [N, F]`` float32, ``labels [N]`` int64 (-1: none), and the classes' names."""

    features: Tensor
    labels: Tensor
    classes: list[str]


class Records(Protocol):
    """What extraction needs of a data set: raw records, their names for messages, and labels."""

    @property
    def labels(self) -> Any: ...
    @property
    def classes(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def raw(self, index: int) -> Any: ...
    def name(self, index: int) -> str: ...


def _batches(augmentations: AugmentationSet, records: Records, batch_size: int) -> Iterator[Tensor]:
    """Records decoded, cleaned and stacked, ``[B, ...]`` at a time."""
    if batch_size < 1:
        raise ValueError(f"batch_size is 1 or more, not {batch_size}")
    for start in range(0, len(records), batch_size):
        batch: list[Tensor] = []
        for index in range(start, min(start + batch_size, len(records))):
            try:
                batch.append(augmentations.clean(augmentations.decode(records.raw(index))))
            except Exception as error:  # a decoder's own errors are of any type
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise ValueError(f"record {records.name(index)} is damaged: {reason}") from error
            if batch[-1].shape != batch[0].shape:
                raise ValueError(
                    f"clean() must give one shape: {records.name(index)} is {list(batch[-1].shape)}, "
                    f"{records.name(start)} is {list(batch[0].shape)}"
                )
        yield torch.stack(batch)


def _encode(
    encoder: nn.Module,
    augmentations: AugmentationSet,
    batches: Iterable[Tensor],
    device: torch.device | str | None,
) -> Tensor:
    """``[N, F]`` float32 on the CPU from batches of cleaned records; the encoder is left as found."""
    check_encoder(encoder)
    home = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    device = home if device is None else torch.device(device)
    modes = [(module, module.training) for module in encoder.modules()]
    features: list[Tensor] = []
    try:
        encoder.eval()
        if device != home:
            encoder.to(device)
        # Not inference_mode: its tensors could not enter a probe's gradient later.
        with torch.no_grad():
            for batch in batches:
                representation = encoder(augmentations.clean_batch(batch.to(device)))
                check_representation(encoder, representation)
                features.append(representation.float().cpu())
    finally:
        for module, training in modes:  # one by one: parts may have been frozen in eval mode
            module.training = training
        if device != home:
            encoder.to(home)
    if not features:
        raise ValueError("there are no records to take features of")
    return torch.cat(features)


def _labels(records: Records) -> Tensor:
    return torch.as_tensor(records.labels).to(torch.int64).cpu()


def extract_features(
    encoder: nn.Module,
    augmentations: AugmentationSet,
    records: Records,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> FeatureTable:
    """Representations of all records, in their order.

    Args:
        encoder: takes one view, gives ``[B, features_dim]``. Train or eval mode of each of its
            modules and its device are restored afterwards, also after an error.
        augmentations: only ``decode``, ``clean`` and ``clean_batch`` are used.
        device: where to run; ``None`` is where the encoder is.

    Raises:
        ValueError: a damaged record, by its name; an encoder whose output is not
            ``[B, features_dim]``; no records.
    """
    features = _encode(encoder, augmentations, _batches(augmentations, records, batch_size), device)
    return FeatureTable(features, _labels(records), list(records.classes))


def extract_from_decoded(
    encoder: nn.Module,
    augmentations: AugmentationSet,
    decoded: Sequence[Tensor] | Tensor,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> Tensor:
    """``[N, F]`` as `extract_features`, from records that are decoded already, such as ``[N, ...]``."""
    if batch_size < 1:
        raise ValueError(f"batch_size is 1 or more, not {batch_size}")
    batches = (
        torch.stack([augmentations.clean(record) for record in decoded[start : start + batch_size]])
        for start in range(0, len(decoded), batch_size)
    )
    return _encode(encoder, augmentations, batches, device)


def raw_features(augmentations: AugmentationSet, records: Records) -> FeatureTable:
    """The trivial baseline ("raw pixels"): what an encoder would be given, flattened.

    Raises:
        ValueError: a view that is no single tensor, a damaged record, or no records.
    """
    rows = []
    for batch in _batches(augmentations, records, 256):
        view = augmentations.clean_batch(batch)
        if not isinstance(view, Tensor):
            raise ValueError(f"raw features need a view that is one tensor, not a {type(view).__name__}")
        rows.append(view.detach().flatten(1).float().cpu())
    if not rows:
        raise ValueError("there are no records to take features of")
    return FeatureTable(torch.cat(rows), _labels(records), list(records.classes))


def save_features(path: str | PathLike[str], table: FeatureTable) -> None:
    """Write a table as one safetensors file; the classes' names are in its metadata, as JSON."""
    if table.features.ndim != 2 or table.labels.shape != table.features.shape[:1]:
        raise ValueError(
            f"a table is features [N, F] and labels [N], not {list(table.features.shape)} "
            f"and {list(table.labels.shape)}"
        )
    tensors = {
        "features": table.features.detach().float().contiguous(),
        "labels": table.labels.to(torch.int64).contiguous(),
    }
    save_file(tensors, path, metadata={"classes": json.dumps(table.classes)})


def load_features(path: str | PathLike[str]) -> FeatureTable:
    """Read a table of `save_features`. The tensors are memory-mapped: rows are read when touched.

    Raises:
        ValueError: a file that holds no table. OSError: a file that is not there.
    """
    try:
        with safe_open(path, framework="pt") as file:
            classes = json.loads((file.metadata() or {})["classes"])
            return FeatureTable(file.get_tensor("features"), file.get_tensor("labels"), classes)
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} holds no feature table: {error}") from error
