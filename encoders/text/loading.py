"""Loading of text encoders: a run, an exported file, or a model of transformers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bt_multimodal.data.sources.hub import check_hub_name
from bt_multimodal.encoder_file import LoadedEncoder, load_encoder
from encoders.text.pooling import POOLINGS
from encoders.text.pretrained import PretrainedText
from encoders.text.views import TextViews

_LENGTH = 512  # longest text in tokens if the model does not say
# Modules of sentence-transformers that evaluation can skip: cosines ignore norms, and nothing is trained.
_SKIPPED = ("Normalize", "Dropout")


def load_text_encoder(
    name: str | Path, weights: bool = True, pooling: str | None = None, trust: Sequence[str] | str = ()
) -> LoadedEncoder:
    """Loads a text encoder and its augmentations.

    Args:
        name: a path for `bt_multimodal.encoder_file.load_encoder`; or a folder or hub name of a model of
            transformers or sentence-transformers. Settings of the latter give the pooling (mean, cls) and the
            longest text; the defaults are the mean and 512 tokens. A ``Normalize`` module is skipped.
        weights: load the weights; otherwise the encoder has the same class and its initial or random ones.
        pooling: pooling of a model of transformers, instead of its folder's (`encoders.text.pooling`).
        trust: packages whose code an exported file may use.

    Raises:
        ValueError: if there is no such model, it does not load, or it is more than a transformer and a
            pooling.
    """
    path = Path(name).expanduser()
    if not path.exists():
        check_hub_name(str(name))
    elif _is_export(path):
        if pooling is not None:
            raise ValueError(f"{path} was trained with its own pooling: omit pooling")
        return load_encoder(path, weights, trust)
    modules = _modules(name)
    folder = str(path / modules.transformer) if path.exists() else str(name)
    encoder = PretrainedText(folder, pooling or _pooling(name, modules.pooling))
    if not weights:
        encoder = PretrainedText(encoder.portable["name"], encoder.pooling)
    settings = _json(name, modules.transformer, "sentence_bert_config.json") or {}
    tokeniser = _json(name, modules.transformer, "tokenizer_config.json") or {}
    # From sentence-transformers 6 on the tokeniser stores it; 10^30 there means no limit.
    limits = [settings.get("max_seq_length"), tokeniser.get("model_max_length"), _LENGTH]
    length = next(int(n) for n in limits if n and n < 10**9)
    views = TextViews(folder, length=min(length, encoder.length or length))
    if settings.get("do_lower_case") and views.tokens.encode("A") != views.tokens.encode("a"):
        raise ValueError(f"{str(name)!r} expects lower-case texts, but its tokeniser does not convert them")
    return LoadedEncoder(encoder.eval(), views)


class _Modules(NamedTuple):
    """The folders of the modules of a sentence-transformers model."""

    transformer: str = ""
    pooling: str = "1_Pooling"


def _is_export(path: Path) -> bool:
    of_transformers = any((path / file).is_file() for file in ("config.json", "modules.json"))
    # The folder of a `SentenceModule` has files of both kinds.
    return not of_transformers or (path / "encoder.safetensors").is_file()


def _modules(name: str | Path) -> _Modules:
    modules = _json(name, "", "modules.json")
    if modules is None:
        return _Modules()
    folders = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules}
    if not {"Transformer"} <= {*folders} <= {"Transformer", "Pooling", *_SKIPPED}:
        raise ValueError(
            f"{str(name)!r} is not a transformer and its pooling alone: it has {', '.join(folders)}"
        )
    if folders["Transformer"] and not Path(name).expanduser().exists():
        raise ValueError(f"the transformer of {str(name)!r} is in a subfolder: download the model first")
    return _Modules(folders["Transformer"], folders.get("Pooling", "1_Pooling"))


def _pooling(name: str | Path, folder: str) -> str:
    settings = _json(name, folder, "config.json")
    if settings is None:
        return "mean"
    prefix = "pooling_mode"
    modes = settings.get(prefix) or [
        key.removeprefix(f"{prefix}_").removesuffix("_tokens").removesuffix("_token")
        for key, value in settings.items() if key.startswith(prefix) and value is True
    ]  # fmt: skip
    modes = [modes] if isinstance(modes, str) else modes
    if modes not in (["mean"], ["cls"]):
        raise ValueError(
            f"{str(name)!r} is pooled by {' and '.join(modes) or 'nothing'}, which is not supported; "
            f"set pooling to one of {', '.join(POOLINGS)}"
        )
    return modes[0]


def _json(name: str | Path, folder: str, file: str) -> Any:
    """Returns the content of a JSON file in a local folder or on the hub, or ``None`` if it is missing."""
    root = Path(name).expanduser()
    if root.exists():
        path = root / folder / file
        if not path.is_file():
            return None
    else:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            path = Path(hf_hub_download(str(name), f"{folder}/{file}".removeprefix("/")))
        except EntryNotFoundError:
            return None
        except (OSError, ValueError) as error:  # no such model, no network
            raise ValueError(
                f"{str(name)!r} does not exist here, nor can the hub serve it: {error}"
            ) from error
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
