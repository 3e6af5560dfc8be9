"""A frozen encoder run over data once: a feature table, saved, loaded and memory-mapped.

Legend: ``N`` records, ``B`` of them a batch, ``F`` features (the encoder's ``features_dim``).

Evaluation takes no random view: ``clean`` record by record, ``clean_batch`` on the device
(`bt_multimodal.views`), then the encoder in eval mode without gradients. Damaged records are left out.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bt_multimodal.augmentation_set import AugmentationSet, completed, stacks
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.modality import Modality
from bt_multimodal.twins import check_encoder, check_representation


class FeatureTable(NamedTuple):
    """``features [N, F]`` float32, ``labels [N]`` int64 (-1: none), and the classes' names."""

    features: Tensor
    labels: Tensor
    classes: list[str]


def _batches(
    augmentations: AugmentationSet, records: DecodedRecords, batch_size: int
) -> Iterator[tuple[Tensor, list[int]]]:
    """Intact records cleaned and stacked, ``[B, ...]`` at a time, with their indices."""
    if batch_size < 1:
        raise ValueError(f"batch_size is 1 or more, not {batch_size}")
    augmentations = completed(augmentations)
    for start in range(0, len(records), batch_size):
        batch: list[Tensor] = []
        indices: list[int] = []
        for index in range(start, min(start + batch_size, len(records))):
            decoded = records.get(index)
            if decoded is None:
                continue
            batch.append(augmentations.clean(decoded))
            indices.append(index)
            if batch[-1].shape != batch[0].shape and stacks(augmentations):
                first, last = (records.records.name(i) for i in (indices[0], index))
                raise ValueError(
                    f"clean() must give one shape: {last} is {list(batch[-1].shape)}, "
                    f"{first} is {list(batch[0].shape)}"
                )
        if batch:
            yield augmentations.collate(batch), indices


def _table(records: DecodedRecords, rows: Iterable[tuple[Tensor, list[int]]]) -> FeatureTable:
    features, indices = [], []
    for batch, at in rows:
        features.append(batch.float().cpu())
        indices += at
    if not features:
        raise ValueError("there are no records to take features of")
    return FeatureTable(torch.cat(features), records.records.labels[indices], list(records.records.classes))


def check_device(device: torch.device | str) -> torch.device:
    """A device by name, such as ``"cuda:1"``.

    Raises:
        ValueError: there is none of that name here.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without it
        raise ValueError(f"there is no device {str(device)!r}: {str(error).splitlines()[0]}") from error


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; then each part is in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        # Not inference_mode: its tensors could not enter a probe's gradient later.
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:  # one by one: parts may have been frozen in eval mode
            part.training = training


def extract_features(
    encoder: nn.Module,
    augmentations: AugmentationSet,
    records: DecodedRecords,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> FeatureTable:
    """Representations of all intact records, in their order.

    Args:
        encoder: takes one view, gives ``[B, features_dim]``. Train or eval mode of each of its
            modules and its device are restored afterwards, also after an error.
        augmentations: only ``clean`` and ``clean_batch`` are used.
        device: where to run; ``None`` is where the encoder is.

    Raises:
        ValueError: too many damaged records; an encoder whose output is not
            ``[B, features_dim]``; no records; no such device.
    """
    check_encoder(encoder)
    home = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    device = home if device is None else check_device(device)

    def encode(batch: Tensor) -> Tensor:
        representation = encoder(augmentations.clean_batch(batch.to(device)))
        check_representation(encoder, representation)
        return representation

    try:
        if device != home:
            encoder.to(device)
        with evaluating(encoder):
            return _table(
                records,
                ((encode(batch), at) for batch, at in _batches(augmentations, records, batch_size)),
            )
    finally:
        if device != home:
            encoder.to(home)


def raw_features(
    augmentations: AugmentationSet, records: DecodedRecords, summarise: Callable[[Any], Tensor]
) -> FeatureTable:
    """The trivial baseline: what an encoder would be given, by ``summarise`` to ``[B, F]``.

    Raises:
        ValueError: too many damaged records, or no records.
    """
    batches = _batches(augmentations, records, 256)
    return _table(records, ((summarise(augmentations.clean_batch(batch)), at) for batch, at in batches))


def raw_tables(
    modality: Modality, augmentations: AugmentationSet, parts: Sequence[DecodedRecords]
) -> dict[str, list[FeatureTable]]:
    """The trivial baseline's features of several sets of records, by its name; empty where it has none."""
    if modality.raw is None or modality.raw_features is None:
        return {}
    return {modality.raw: [raw_features(augmentations, part, modality.raw_features) for part in parts]}


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
