"""Encoders on disk: weights as safetensors, with how to build the encoder and its views."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bt_multimodal.augmentation_set import AugmentationSet, completed
from bt_multimodal.compat import tree_map
from bt_multimodal.safe_files import write_safely

_FORMAT = "bt_multimodal.encoder/1"
INITIAL = "initial.safetensors"  # beside a run's encoder: the weights that its training started from


class LoadedEncoder(NamedTuple):
    """An encoder in evaluation mode, and the augmentation set that it was trained with."""

    encoder: nn.Module
    augmentations: AugmentationSet

    @torch.no_grad()
    def embed(self, contents: Sequence[Any], batch_size: int = 64) -> Tensor:
        """Representations ``[N, features_dim]`` of undecoded contents, such as the bytes of files.

        They are made of clean views: nothing is random.

        Args:
            contents: what the augmentation set decodes; of images and sounds the bytes of files, of texts
                their UTF-8.
            batch_size: samples that go through the encoder at once.

        Raises:
            ValueError: no contents, or one that cannot be decoded; the message has its position.
        """
        if not contents:
            raise ValueError("there are no contents to embed")
        device = next((p.device for p in self.encoder.parameters()), torch.device("cpu"))
        features = []
        for start in range(0, len(contents), batch_size):
            clean = []
            for i, content in enumerate(contents[start : start + batch_size], start):
                try:
                    clean.append(self.augmentations.clean(self.augmentations.decode(content)))
                except Exception as error:  # decoders raise errors of any type
                    reason = " ".join(f"{type(error).__name__}: {error}".split())
                    raise ValueError(f"content {i} (from 0) cannot be decoded: {reason}") from error
            batch = tree_map(lambda part: part.to(device), self.augmentations.collate(clean))
            features.append(self.encoder(self.augmentations.clean_batch(batch)).float())
        return torch.cat(features)


def build(spec: dict[str, Any]) -> Any:
    """The object that ``{"class_path": "package.Class", "init_args": {...}}`` describes.

    Raises:
        ValueError: a class that does not import or does not take the arguments.
    """
    module, _, name = spec["class_path"].rpartition(".")
    try:
        target = getattr(importlib.import_module(module), name)
        return target(**spec.get("init_args", {}))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        hint = ""
        if isinstance(error, ModuleNotFoundError) and module.startswith("encoders."):
            hint = f"; this brings what it needs: pip install 'bt_multimodal[{module.split('.')[1]}]'"
        raise ValueError(f"cannot build {spec['class_path']}: {error}{hint}") from error


def export_encoder(
    path: str | Path, encoder: nn.Module, encoder_spec: dict[str, Any], views_spec: dict[str, Any]
) -> None:
    """Write an encoder alone: weights, class path and arguments, and its views.

    The file is written beside and renamed, so a reader never sees half of it.

    Args:
        encoder: the trained encoder.
        encoder_spec, views_spec: what `build` takes.
    """
    path = Path(path)
    tensors = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in encoder.state_dict().items()
    }
    metadata = {
        "format": _FORMAT,
        "encoder": json.dumps(encoder_spec),
        "views": json.dumps(views_spec),
    }
    # save_file would make it readable by its owner only
    write_safely(path, lambda file: file.write(save(tensors, metadata)))


def load_encoder(path: str | Path, weights: bool = True) -> LoadedEncoder:
    """Read what `export_encoder` wrote; a run directory stands for its ``encoder.safetensors``.

    Class paths in the file are imported: load files you trust, as with any Python. With
    ``weights=False`` the encoder keeps its fresh weights: the untrained baseline.

    Raises:
        ValueError: no such file, another format, or weights that do not fit the class.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "encoder.safetensors"
    if not path.is_file():
        raise ValueError(f"there is no encoder at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path} holds no {_FORMAT} (its format: {metadata.get('format')!r})")
    encoder = build(json.loads(metadata["encoder"]))
    try:
        if weights:
            encoder.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the weights in {path} do not fit {type(encoder).__name__}: {reason}") from error
    return LoadedEncoder(encoder.eval(), completed(build(json.loads(metadata["views"]))))
