"""An encoder of texts by what a user calls it: a run, an export, or a model of transformers."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from bt_multimodal.data.hub import check_hub_name
from bt_multimodal.encoder_file import LoadedEncoder, load_encoder
from encoders.text.pooling import POOLINGS
from encoders.text.pretrained import PretrainedText
from encoders.text.views import TextViews

_LENGTH = 512  # tokens of the longest text where nothing says
# Modules of sentence-transformers that can be left out: cosines do not see lengths, and there is no training.
_HARMLESS = ("Normalize", "Dropout")


def load_text_encoder(name: str | Path, weights: bool = True, pooling: str | None = None) -> LoadedEncoder:
    """An encoder of texts and its views.

    Args:
        name: what `bt_multimodal.encoder_file.load_encoder` takes; or a folder or the hub name of a model
            of transformers or sentence-transformers. Of the latter's settings the pooling (mean, cls)
            and the longest text are taken, else the mean and 512 tokens; a ``Normalize`` is left out.
        weights: without them the same class with fresh ones.
        pooling: of a model of transformers, above the folder's own (`encoders.text.pooling`).

    Raises:
        ValueError: there is none of that name, it does not load, or it is more than a model and a pooling.
    """
    path = Path(name).expanduser()
    if not path.exists():
        check_hub_name(str(name))
    elif _is_export(path):
        if pooling is not None:
            raise ValueError(f"{path} was trained with a pooling of its own: leave pooling out")
        return load_encoder(path, weights)
    modules = _modules(name)
    folder = str(path / modules.transformer) if path.exists() else str(name)
    encoder = PretrainedText(folder, pooling or _pooling(name, modules.pooling))
    if not weights:
        encoder = PretrainedText(encoder.portable["name"], encoder.pooling)
    settings = _json(name, modules.transformer, "sentence_bert_config.json") or {}
    tokeniser = _json(name, modules.transformer, "tokenizer_config.json") or {}
    # From sentence-transformers 6 on the tokeniser has it; where that has no limit it is 10^30.
    longest = [settings.get("max_seq_length"), tokeniser.get("model_max_length"), _LENGTH]
    length = next(int(n) for n in longest if n and n < 10**9)
    views = TextViews(folder, length=min(length, encoder.length or length))
    if settings.get("do_lower_case") and views.tokens.encode("A") != views.tokens.encode("a"):
        raise ValueError(f"{str(name)!r} wants texts in lower case, which its tokeniser does not make them")
    return LoadedEncoder(encoder.eval(), views)


class _Modules(NamedTuple):
    """Folders of a model of sentence-transformers."""

    transformer: str = ""
    pooling: str = "1_Pooling"


def _is_export(path: Path) -> bool:
    described = any((path / file).is_file() for file in ("config.json", "modules.json"))
    # a `SentenceModule` has both
    return not described or (path / "encoder.safetensors").is_file()


def _modules(name: str | Path) -> _Modules:
    modules = _json(name, "", "modules.json")
    if modules is None:
        return _Modules()
    at = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules}
    if not {"Transformer"} <= {*at} <= {"Transformer", "Pooling", *_HARMLESS}:
        raise ValueError(f"{str(name)!r} is not a transformer and its pooling alone: it is {', '.join(at)}")
    if at["Transformer"] and not Path(name).expanduser().exists():
        raise ValueError(f"the transformer of {str(name)!r} is in a folder of its own: download it first")
    return _Modules(at["Transformer"], at.get("Pooling", "1_Pooling"))


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
            f"{str(name)!r} is pooled by {' and '.join(modes) or 'nothing'}, which is not there; "
            f"pooling takes {', '.join(POOLINGS)}"
        )
    return modes[0]


def _json(name: str | Path, folder: str, file: str) -> Any:
    """What a file of a local folder or of the hub holds; ``None`` where it is not there."""
    root = Path(name).expanduser()
    if root.exists():
        at = root / folder / file
        if not at.is_file():
            return None
    else:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            at = Path(hf_hub_download(str(name), f"{folder}/{file}".removeprefix("/")))
        except EntryNotFoundError:
            return None
        except (OSError, ValueError) as error:  # no such model, no network
            raise ValueError(
                f"{str(name)!r} does not exist here, nor can the hub serve it: {error}"
            ) from error
    try:
        return json.loads(at.read_text())
    except ValueError as error:
        raise ValueError(f"{at} is no JSON: {error}") from error
