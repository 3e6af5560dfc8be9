"""Encoders on disk: weights as safetensors, with how to build the encoder and its views."""

import json
import math
import warnings
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
from bt_multimodal.saved_state import from_json, saved_state
from bt_multimodal.trusted_classes import build, kept_spec

INITIAL = "initial.safetensors"  # beside a run's encoder, with the weights that it began with
_FORMAT = "bt_multimodal.encoder/1"
_SMALL = 2**24  # numbers of a tensor that are read although nothing of that shape awaits them
_LONGEST = 2**26  # bytes of a header: a tokeniser in the description has a few million


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


def export_encoder(
    path: str | Path, encoder: nn.Module, encoder_spec: dict[str, Any], views_spec: dict[str, Any]
) -> None:
    """Write an encoder alone: weights, class path and arguments, and its views.

    The file is written beside and renamed, so a reader never sees half of it. What a file cannot hold (such
    as a quantised tensor, or a function as an argument) is left out with a warning.

    Args:
        encoder: the trained encoder.
        encoder_spec, views_spec: what `build` takes.
    """
    path = Path(path)
    state = saved_state(encoder)
    metadata, left_out = {"format": _FORMAT}, dict(state.left_out)
    for key, spec in (("encoder", encoder_spec), ("views", views_spec)):
        kept, missing = kept_spec(spec)
        metadata[key] = json.dumps(kept)
        left_out |= {f"argument {name} of {spec['class_path']}": why for name, why in missing.items()}
    if state.values:
        metadata["state"] = json.dumps(state.values)
    if left_out:
        metadata["left_out"] = json.dumps(left_out)
        told = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        warnings.warn(f"{path} leaves out {told}", stacklevel=2)
    # save_file would make it readable by its owner only
    write_safely(path, lambda file: file.write(save(state.tensors, metadata)))


def load_encoder(path: str | Path, weights: bool = True, trust: Sequence[str] | str = ()) -> LoadedEncoder:
    """Read what `export_encoder` wrote; a run directory stands for its ``encoder.safetensors``.

    A file runs no code of its own: only networks and augmentation sets of this project, torch, torchvision
    and timm are built (`bt_multimodal.trusted_classes`), and of packages that ``trust`` names.

    Args:
        weights: whether to load the trained weights. Otherwise the encoder has its initial ones: those of
            the run, from the file `INITIAL` beside ``path`` if that is there and of the same encoder, or
            else fresh ones.
        trust: packages whose code the file may use, such as ``("my_lab",)``.

    Raises:
        ValueError: no such file, another format, a class that is not allowed, or weights that do not fit.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "encoder.safetensors"
    file = _read(path)
    try:
        encoder = build(file.encoder, trust)
        views = completed(build(file.views, trust, views=True))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if weights:
        _load_state(file, encoder)
    elif (initial := path.with_name(INITIAL)).is_file():
        beginning = _read(initial)
        if beginning.encoder == file.encoder:
            _load_state(beginning, encoder)
    return LoadedEncoder(encoder.eval(), views)


class _File(NamedTuple):
    """The descriptions in an encoder file; tensors are read where they fit."""

    path: Path
    encoder: Any
    views: Any
    state: dict[str, Any]
    left_out: dict[str, str]


def _read(path: Path) -> _File:
    if not path.is_file():
        what = "is no regular file" if path.exists() else "does not exist"
        raise ValueError(f"there is no encoder at {path}: it {what}")
    with path.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
    if _LONGEST < length <= path.stat().st_size:
        raise ValueError(f"{path} has a header of {length:,} bytes, more than the {_LONGEST:,} of an encoder")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a safetensors file: {' '.join(str(error).split())}") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path} holds no {_FORMAT} (its format: {metadata.get('format')!r:.100})")
    parts = {}
    for key, default in (("encoder", ""), ("views", ""), ("state", "{}"), ("left_out", "{}")):
        try:
            parts[key] = json.loads(metadata.get(key, default))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} has no readable description {key!r}: it is damaged") from error
        if not isinstance(parts[key], dict):
            raise ValueError(f"{path} has no readable description {key!r}: it is no JSON object")
    return _File(path, **parts)


def _load_state(file: _File, encoder: nn.Module) -> None:
    """Load the file's state into an encoder; only tensors of the right shape are read.

    Raises:
        ValueError: it does not fit.
    """
    own = encoder.state_dict()
    try:
        with safe_open(file.path, framework="pt") as tensors:
            names = set(tensors.keys())
            inner: set[str] = set()

            def held(name: str) -> Tensor:
                inner.add(name)
                return tensors.get_tensor(name)

            state = {name: from_json(value, held) for name, value in file.state.items()}
            for name in sorted(names - inner):
                shape = tensors.get_slice(name).get_shape()
                fits = isinstance(own.get(name), Tensor) and list(own[name].shape) == list(shape)
                fits = fits or math.prod(shape) < _SMALL  # a class may take other shapes than it begins with
                state[name] = tensors.get_tensor(name) if fits else torch.empty(shape, device="meta")
        missing = [name for name in file.left_out if name in own and name not in state]
        if missing:
            warnings.warn(f"{file.path} does not hold {', '.join(missing)}: kept as built", stacklevel=4)
        encoder.load_state_dict({**state, **{name: own[name] for name in missing}})
    except Exception as error:  # an encoder's own set_extra_state may raise any
        reason = " ".join(str(error).split())
        raise ValueError(
            f"the weights in {file.path} do not fit {type(encoder).__name__}: {reason}"
        ) from error
