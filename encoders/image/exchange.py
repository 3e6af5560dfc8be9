"""Image encoders to and from the formats of others: the reference code, torchvision, the hub."""

import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torchvision.models import get_model

from bt_multimodal.encoder_file import export_encoder, load_encoder
from encoders.image.encoders import TimmEncoder, TorchvisionEncoder
from encoders.image.views import IMAGENET_MEAN, IMAGENET_STD, ReferenceViews

FORMATS = ("encoder", "torchvision", "hub")


class Source(NamedTuple):
    """An encoder, its augmentations, and what its run said of it (empty if nothing)."""

    encoder: TorchvisionEncoder | TimmEncoder
    augmentations: Any
    figures: str


def convert(source: str | Path, target: str | Path, form: str) -> None:
    """Write the encoder of ``source`` to ``target`` in another format.

    Args:
        source: the reference code's ``checkpoint.pth`` or ``resnet50.pth``, a run directory, or an
            ``encoder.safetensors``.
        target: a file, ``.pth`` or ``.safetensors``; a folder for ``"hub"``.
        form: ``"encoder"``: what this project's tasks take. ``"torchvision"``: a state dict with
            torchvision's names, which loads into its network with only the head missing. ``"hub"``:
            a folder in timm's format (config, weights, model card), which timm and the timm wrapper
            of transformers load.

    Raises:
        ValueError: a source that cannot be read, or an encoder that the format cannot hold.
    """
    source, target = Path(source), Path(target)
    endings = {"encoder": (".safetensors",), "torchvision": (".pth", ".safetensors")}
    if form not in FORMATS:
        raise ValueError(f"there is no format {form!r}; there are {', '.join(FORMATS)}")
    if form in endings and target.suffix not in endings[form]:
        raise ValueError(f"{target} must end in {' or '.join(endings[form])}")
    read = _read(source)
    if form == "hub":
        _write_hub(target, read)
        return
    if form == "encoder":
        spec = {"class_path": _path(type(read.encoder)), "init_args": {"name": read.encoder.name}}
        augmentations = {"class_path": _path(ReferenceViews), "init_args": {"size": read.augmentations.size}}
        if source.suffix != ".pth":
            raise ValueError(f"{source} is in this format already")
        target.parent.mkdir(parents=True, exist_ok=True)
        export_encoder(target, read.encoder, spec, augmentations)
        return
    if not isinstance(read.encoder, TorchvisionEncoder):
        raise ValueError(f"{source} holds a network of timm, not of torchvision")
    plain = get_model(read.encoder.name, weights=None)
    state = _state(read.encoder, plain)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".pth":
        torch.save(state, target)
    else:
        target.write_bytes(save(state, {"format": "pt"}))


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _state(encoder: TorchvisionEncoder | TimmEncoder, plain: nn.Module) -> dict[str, Tensor]:
    """The encoder's weights, if ``plain`` can load them."""
    state = {name: tensor.contiguous() for name, tensor in encoder.module.state_dict().items()}
    there = plain.state_dict()
    for name, tensor in state.items():
        if name not in there or there[name].shape != tensor.shape:
            raise ValueError(
                f"{name} {list(tensor.shape)} has no place in a plain {encoder.name}: a changed network, "
                "such as one with a small stem, cannot be written in another format"
            )
    return state


def _read(source: Path) -> Source:
    if source.suffix == ".pth":
        reference = TorchvisionEncoder("resnet50")
        try:
            reference.module.load_state_dict(read_reference(source).encoder)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"the weights in {source} are not a ResNet-50's: {reason}") from error
        return Source(reference, ReferenceViews(), "")
    encoder, augmentations = load_encoder(source)
    if not isinstance(encoder, TorchvisionEncoder | TimmEncoder):
        kind = type(encoder).__name__
        raise ValueError(f"{source} holds a {kind}; only networks of torchvision and timm have other formats")
    table = source / "table.txt"
    return Source(encoder, augmentations, table.read_text() if table.is_file() else "")


def _write_hub(folder: Path, read: Source) -> None:
    import timm  # an extra, and slow to import

    name = read.encoder.name
    if not timm.is_model(name):
        raise ValueError(f"timm has no {name!r}, so nothing would load the folder")
    plain: Any = timm.create_model(name, num_classes=0)
    state = _state(read.encoder, plain)
    known, (size, mean, std) = plain.pretrained_cfg, _pictures(read.augmentations)
    config = {
        "architecture": name,
        "num_classes": 0,
        "num_features": read.encoder.features_dim,
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "mean": mean,
            "std": std,
            "num_classes": 0,
            **{key: known.get(key) for key in ("first_conv", "classifier", "pool_size")},
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "model.safetensors").write_bytes(save(state, {"format": "pt"}))
    (folder / "README.md").write_text(_card(read))


def _pictures(augmentations: Any) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Size, mean and standard deviation of the pictures that the encoder takes."""
    mean, std = getattr(augmentations, "mean", IMAGENET_MEAN), getattr(augmentations, "std", IMAGENET_STD)
    return getattr(augmentations, "size", 224), tuple(mean), tuple(std)


def _card(read: Source) -> str:
    size, mean, std = _pictures(read.augmentations)
    figures = f"```\n{read.figures.strip()}\n```" if read.figures else "No figures came with these weights."
    return f"""---
library_name: timm
tags: [image-feature-extraction, self-supervised, barlow-twins]
---
# {read.encoder.name}, trained with Barlow Twins

An image encoder without a head ({read.encoder.features_dim} features), trained without labels by Barlow Twins
(Zbontar et al., 2021, arXiv 2103.03230) with bt_multimodal.

```python
import timm

encoder = timm.create_model("local-dir:FOLDER", pretrained=True)  # or "hf-hub:OWNER/NAME"
```

Pictures of {size} pixels, normalised by mean {mean} and standard deviation {std}.

## Figures

{figures}
"""


class ReferenceWeights(NamedTuple):
    """Weights of the reference code by torchvision's names, and of its projector by `Projector`'s."""

    encoder: dict[str, Tensor]
    projector: dict[str, Tensor] | None


def read_reference(path: str | Path) -> ReferenceWeights:
    """Read the reference code's ``checkpoint.pth`` (encoder and projector) or ``resnet50.pth`` (encoder).

    https://github.com/facebookresearch/barlowtwins. Its BatchNorm of the embeddings is left out: here
    the loss standardises. Only tensors are read, no code in the pickle is run.

    Raises:
        ValueError: no such file, no such checkpoint, or a pickle that is more than tensors.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no checkpoint at {path}")
    try:
        read = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than tensors, or is damaged, and is not read") from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise ValueError(f"{path} is no checkpoint: {' '.join(str(error).split())}") from error
    state = read.get("model", read) if isinstance(read, dict) else read
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path} holds no model of the reference code")
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if "conv1.weight" in state:
        return ReferenceWeights(state, None)
    encoder = _part(state, "backbone.", "")
    if not encoder:
        raise ValueError(f"{path} holds no model of the reference code: it has no backbone")
    return ReferenceWeights(encoder, _part(state, "projector.", "layers."))


def _part(state: dict[str, Tensor], prefix: str, new: str) -> dict[str, Tensor]:
    return {
        new + name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)
    }
