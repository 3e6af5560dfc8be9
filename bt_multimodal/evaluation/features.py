"""Feature tables: the outputs of a frozen encoder, which can be saved, loaded and memory-mapped.

Legend: ``N`` records, ``B`` records per batch, ``F`` features (the encoder's ``features_dim``).

Evaluation uses no random views: ``clean`` runs on each record, ``clean_batch`` on the device
(`bt_multimodal.views`), then the encoder in eval mode without gradients. Damaged records are skipped.
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
from bt_multimodal.data.progress import progressing
from bt_multimodal.modality import Modality
from bt_multimodal.twins import check_encoder, check_representation


class FeatureTable(NamedTuple):
    """``features [N, F]`` float32, ``labels [N]`` int64 (-1: no label) and class names."""

    features: Tensor
    labels: Tensor
    classes: list[str]

    def labelled(self) -> "FeatureTable":
        """The rows that have a label."""
        known = self.labels >= 0
        if known.all():
            return self
        return self._replace(features=self.features[known], labels=self.labels[known])


def _batches(
    augmentations: AugmentationSet, records: DecodedRecords, batch_size: int
) -> Iterator[tuple[Tensor, list[int]]]:
    """Batches ``[B, ...]`` of cleaned intact records, with their indices."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
    augmentations = completed(augmentations)
    for start in progressing(range(0, len(records), batch_size), "extracting features"):
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
                    f"clean() must always return the same shape: {last} is {list(batch[-1].shape)}, "
                    f"{first} is {list(batch[0].shape)}"
                )
        if batch:
            yield augmentations.collate(batch), indices


def _table(records: DecodedRecords, batches: Iterable[tuple[Tensor, list[int]]]) -> FeatureTable:
    features, indices = [], []
    for batch, batch_indices in batches:
        features.append(batch.float().cpu())
        indices += batch_indices
    if not features:
        raise ValueError("there are no records to extract features from")
    return FeatureTable(torch.cat(features), records.records.labels[indices], list(records.records.classes))


def check_device(device: torch.device | str) -> torch.device:
    """The device of a name such as ``"cuda:1"``.

    Raises:
        ValueError: this machine has no such device.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # AssertionError if PyTorch was built without support
        raise ValueError(f"there is no device {str(device)!r}: {str(error).splitlines()[0]}") from error


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Context with the module in eval mode and without gradients; restores the mode of each submodule."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    try:
        module.eval()
        # Not inference_mode: a probe could not compute gradients with its tensors.
        with torch.no_grad():
            yield
    finally:
        for submodule, training in modes:  # one by one: some may have been frozen in eval mode
            submodule.training = training


def extract_features(
    encoder: nn.Module,
    augmentations: AugmentationSet,
    records: DecodedRecords,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> FeatureTable:
    """Representations of all intact records, in order.

    Args:
        encoder: takes a view and returns ``[B, features_dim]``. Its device and the train or eval mode of
            each of its modules are restored afterwards, even after an error.
        augmentations: only ``clean`` and ``clean_batch`` are used.
        records: the records.
        batch_size: records per batch, ``B``.
        device: where to run; by default the encoder's device.

    Raises:
        ValueError: too many damaged records, no records, no such device, or an encoder that does not
            return ``[B, features_dim]``.
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
                ((encode(batch), indices) for batch, indices in _batches(augmentations, records, batch_size)),
            )
    finally:
        if device != home:
            encoder.to(home)


def raw_features(
    augmentations: AugmentationSet, records: DecodedRecords, summarise: Callable[[Any], Tensor]
) -> FeatureTable:
    """Features of the trivial baseline: ``summarise`` turns an encoder's input into ``[B, F]``.

    Raises:
        ValueError: too many damaged records, or no records.
    """
    batches = _batches(augmentations, records, 256)
    return _table(
        records, ((summarise(augmentations.clean_batch(batch)), indices) for batch, indices in batches)
    )


def raw_tables(
    modality: Modality, augmentations: AugmentationSet, parts: Sequence[DecodedRecords]
) -> dict[str, list[FeatureTable]]:
    """The trivial baseline's features of several sets of records, by its name; empty without a baseline."""
    if modality.raw is None or modality.raw_features is None:
        return {}
    return {modality.raw: [raw_features(augmentations, part, modality.raw_features) for part in parts]}


def save_features(path: str | PathLike[str], table: FeatureTable) -> None:
    """Save a table as a safetensors file, with the class names as JSON in its metadata.

    Raises:
        ValueError: features that are not ``[N, F]`` or labels that are not ``[N]``.
    """
    if table.features.ndim != 2 or table.labels.shape != table.features.shape[:1]:
        raise ValueError(
            f"a table needs features [N, F] and labels [N], not {list(table.features.shape)} "
            f"and {list(table.labels.shape)}"
        )
    tensors = {
        "features": table.features.detach().float().contiguous(),
        "labels": table.labels.to(torch.int64).contiguous(),
    }
    save_file(tensors, path, metadata={"classes": json.dumps(table.classes)})


def load_features(path: str | PathLike[str]) -> FeatureTable:
    """Load a table saved by `save_features`. Its tensors are memory-mapped: rows are read on access.

    Raises:
        ValueError: the file does not hold a feature table.
        OSError: the file does not exist.
    """
    try:
        with safe_open(path, framework="pt") as file:
            classes = json.loads((file.metadata() or {})["classes"])
            return FeatureTable(file.get_tensor("features"), file.get_tensor("labels"), classes)
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} holds no feature table: {error}") from error
