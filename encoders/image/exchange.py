"""Conversion of image encoders from and to other formats: the reference code, torchvision, the hub."""

import json
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torchvision.models import get_model

from bt_multimodal.encoder_file import export_encoder, load_encoder
from encoders.image.encoders import TimmEncoder, TorchvisionEncoder
from encoders.image.ops import resized_side
from encoders.image.supervised_views import ClassificationViews
from encoders.image.views import IMAGENET_MEAN, IMAGENET_STD, ReferenceViews, SmallImageViews

FORMATS = ("encoder", "torchvision", "hub")


class Source(NamedTuple):
    """An encoder, its augmentations, and the table of its run (empty if there is none)."""

    encoder: TorchvisionEncoder | TimmEncoder
    augmentations: Any
    figures: str


def convert(source: str | Path, target: str | Path, form: str, trust: Sequence[str] = ()) -> None:
    """Writes the encoder of ``source`` to ``target`` in another format.

    Args:
        source: the reference code's ``checkpoint.pth`` or ``resnet50.pth``, a run directory, or an
            ``encoder.safetensors`` file.
        target: a file, ``.pth`` or ``.safetensors``; a folder for ``"hub"``.
        form: ``"encoder"``: the format of this project's tasks. ``"torchvision"``: a state dict with
            torchvision's names, which loads into its network with only the head missing. ``"hub"``: a
            folder in timm's format (config, weights, model card), which timm and the timm wrapper of
            transformers load.
        trust: packages whose code the source may use, if it is an encoder file.

    Raises:
        ValueError: if the source cannot be read, or the format cannot hold the encoder.
    """
    source, target = Path(source), Path(target)
    endings = {"encoder": (".safetensors",), "torchvision": (".pth", ".safetensors")}
    if form not in FORMATS:
        raise ValueError(f"there is no format {form!r}; there are {', '.join(FORMATS)}")
    if form in endings and target.suffix not in endings[form]:
        raise ValueError(f"{target} must end in {' or '.join(endings[form])}")
    loaded = _read(source, trust)
    if form == "hub":
        _write_hub(target, loaded)
        return
    if form == "encoder":
        spec = {"class_path": _path(type(loaded.encoder)), "init_args": {"name": loaded.encoder.name}}
        size = loaded.augmentations.size
        augmentations = {"class_path": _path(ReferenceViews), "init_args": {"size": size}}
        if source.suffix != ".pth":
            raise ValueError(f"{source} is in this format already")
        target.parent.mkdir(parents=True, exist_ok=True)
        export_encoder(target, loaded.encoder, spec, augmentations)
        return
    if not isinstance(loaded.encoder, TorchvisionEncoder):
        raise ValueError(f"{source} holds a network of timm, not of torchvision")
    plain = get_model(loaded.encoder.name, weights=None)
    state = _state(loaded.encoder, plain)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".pth":
        torch.save(state, target)
    else:
        target.write_bytes(save(state, {"format": "pt"}))


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _state(encoder: TorchvisionEncoder | TimmEncoder, plain: nn.Module) -> dict[str, Tensor]:
    """Returns the encoder's weights, after a check that ``plain`` can load them."""
    state = {name: tensor.contiguous() for name, tensor in encoder.module.state_dict().items()}
    expected = plain.state_dict()
    for name, tensor in state.items():
        if name not in expected or expected[name].shape != tensor.shape:
            raise ValueError(
                f"{name} {list(tensor.shape)} has no place in a plain {encoder.name}: a changed network, "
                "such as one with a small stem, cannot be written in another format"
            )
    return state


def _read(source: Path, trust: Sequence[str]) -> Source:
    if source.suffix == ".pth":
        reference = TorchvisionEncoder("resnet50")
        try:
            reference.module.load_state_dict(read_reference(source).encoder)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"the weights in {source} are not a ResNet-50's: {reason}") from error
        return Source(reference, ReferenceViews(), "")
    encoder, augmentations = load_encoder(source, trust=trust)
    if not isinstance(encoder, TorchvisionEncoder | TimmEncoder):
        kind = type(encoder).__name__
        raise ValueError(f"{source} holds a {kind}; only networks of torchvision and timm have other formats")
    table = source / "table.txt"
    return Source(encoder, augmentations, table.read_text(encoding="utf-8") if table.is_file() else "")


def _write_hub(folder: Path, source: Source) -> None:
    import timm  # an extra, and slow to import

    name = source.encoder.name
    if not timm.is_model(name):
        raise ValueError(f"timm has no {name!r}, so nothing would load the folder")
    plain: Any = timm.create_model(name, num_classes=0)
    state = _state(source.encoder, plain)
    timm_config = plain.pretrained_cfg
    config = {
        "architecture": name,
        "num_classes": 0,
        "num_features": source.encoder.features_dim,
        "pretrained_cfg": {
            **preprocessing(source.augmentations),
            "num_classes": 0,
            **{key: timm_config.get(key) for key in ("first_conv", "classifier", "pool_size")},
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(save(state, {"format": "pt"}))
    (folder / "README.md").write_text(_model_card(source), encoding="utf-8")


def preprocessing(augmentations: Any) -> dict[str, Any]:
    """Returns the keys of timm's configs that prepare a picture as ``clean`` and ``clean_batch`` of a set do.

    Raises:
        ValueError: if timm's configs cannot say what the set does.
    """
    kind = type(augmentations)
    known = (ReferenceViews, ClassificationViews, SmallImageViews)
    base: Any = next((own for own in known if isinstance(augmentations, own)), None)
    if base is None or any(
        getattr(kind, name) is not getattr(base, name) for name in ("decode", "clean", "clean_batch")
    ):
        raise ValueError(
            f"a hub folder cannot say how {kind.__name__} prepares a picture: timm only resizes and crops "
            "RGB; use encoder.safetensors itself"
        )
    size = augmentations.size
    small = base is SmallImageViews
    squash = small or getattr(augmentations, "squeeze", False)
    return {
        "input_size": [3, size, size],
        "interpolation": "bilinear" if base is ClassificationViews else "bicubic",
        "crop_mode": "squash" if squash else "center",
        "crop_pct": 1.0 if squash else _crop_pct(size, resized_side(size)),
        "mean": augmentations.mean if small else IMAGENET_MEAN,
        "std": augmentations.std if small else IMAGENET_STD,
    }


def _crop_pct(size: int, side: int) -> float:
    """Returns the share that makes timm, which truncates, resize the shorter side to ``side``."""
    shares = (224 / 256, size / side, size / (side + 0.5))
    return next(share for share in shares if math.floor(size / share) == side)


def _model_card(source: Source) -> str:
    encoder, form = source.encoder, preprocessing(source.augmentations)
    figures = "No figures came with these weights."
    if source.figures:
        figures = f"```\n{source.figures.strip()}\n```"
    size = form["input_size"][1]
    resizing = (
        f"resized to {size} x {size}"
        if form["crop_mode"] == "squash"
        else f"resized to a shorter side of {resized_side(size)}, of which the middle {size} x {size} are cut"
    )
    return f"""---
library_name: timm
tags: [image-feature-extraction, self-supervised, barlow-twins]
---
# {encoder.name}, trained with Barlow Twins

An image encoder without a head ({encoder.features_dim} features), trained without labels by Barlow Twins
(Zbontar et al., 2021, arXiv 2103.03230) with bt_multimodal.

```python
import timm

encoder = timm.create_model("local-dir:FOLDER", pretrained=True)  # or "hf-hub:OWNER/NAME"
```

Pictures of {size} pixels: {resizing} ({form["interpolation"]}), normalised by mean {form["mean"]} and
standard deviation {form["std"]}. `config.json` says so to timm and transformers.

## Figures

{figures}
"""


class ReferenceWeights(NamedTuple):
    """The reference code's encoder with torchvision's names, and its projector with `Projector`'s names."""

    encoder: dict[str, Tensor]
    projector: dict[str, Tensor] | None


def read_reference(path: str | Path) -> ReferenceWeights:
    """Reads the reference code's ``checkpoint.pth`` (encoder and projector) or ``resnet50.pth`` (encoder).

    See https://github.com/facebookresearch/barlowtwins. The BatchNorm of its embeddings is dropped, because
    here the loss standardises. Only tensors are read; no code in the pickle runs.

    Raises:
        ValueError: if the file does not exist, is not such a checkpoint, or holds more than tensors.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no checkpoint at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than tensors, or is damaged, and is not read") from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a checkpoint: {' '.join(str(error).split())}") from error
    state = checkpoint.get("model", checkpoint) if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path} does not hold a model of the reference code")
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if "conv1.weight" in state:
        return ReferenceWeights(state, None)
    encoder = _renamed(state, "backbone.", "")
    if not encoder:
        raise ValueError(f"{path} does not hold a model of the reference code: it has no backbone")
    return ReferenceWeights(encoder, _renamed(state, "projector.", "layers."))


def _renamed(state: dict[str, Tensor], prefix: str, new: str) -> dict[str, Tensor]:
    """Returns the tensors whose names start with ``prefix``, which ``new`` replaces."""
    return {
        new + name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)
    }
