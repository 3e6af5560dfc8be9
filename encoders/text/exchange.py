"""Conversion of text encoders to sentence-transformers."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from safetensors import safe_open
from torch import Tensor, nn

from bt_multimodal.encoder_file import export_encoder, load_encoder
from bt_multimodal.twins import check_encoder
from encoders.text.pretrained import PretrainedText
from encoders.text.sentences import texts_as_bytes
from encoders.text.views import TextViews


class SentenceModule(nn.Module):
    """An encoder of this project with its augmentations, as the only module of a ``SentenceTransformer``.

    Args:
        path: a path for `bt_multimodal.encoder_file.load_encoder`.
        trust: packages whose code the file may use.
    """

    save_in_root = True
    loads_by_name: ClassVar = {"path": ()}

    def __init__(self, path: str | Path, trust: Sequence[str] = ()):
        super().__init__()
        loaded = load_encoder(path, trust=trust)
        self.encoder, self.augmentations = loaded.encoder, cast(Any, loaded.augmentations)
        self.max_seq_length = getattr(self.augmentations, "length", None)
        self.encoder_spec, self.augmentations_spec = _specs(path)

    @classmethod
    def load(cls, path: str) -> "SentenceModule":
        """Loads a folder that `save` wrote; sentence-transformers asks for trust_remote_code before."""
        return cls(path, [str(spec["class_path"]).partition(".")[0] for spec in _specs(path)])

    def save(self, path: str) -> None:
        """Writes ``encoder.safetensors`` to a folder."""
        export_encoder(
            Path(path) / "encoder.safetensors", self.encoder, self.encoder_spec, self.augmentations_spec
        )

    def preprocess(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Returns the encoder's view of texts."""
        decoded = [
            self.augmentations.clean(self.augmentations.decode(text)) for text in texts_as_bytes(texts)
        ]
        return self.augmentations.clean_batch(self.augmentations.collate(decoded))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the view with ``sentence_embedding [B, features_dim]`` added."""
        view = {key: features[key] for key in ("input_ids", "attention_mask")}
        return features | {"sentence_embedding": self.encoder(view)}

    def get_embedding_dimension(self) -> int:
        return check_encoder(self.encoder)


def _specs(path: str | Path) -> list[dict[str, Any]]:
    file = Path(path) / "encoder.safetensors" if Path(path).is_dir() else Path(path)
    with safe_open(file, framework="pt") as tensors:
        metadata = tensors.metadata()
    return [json.loads(metadata[key]) for key in ("encoder", "views")]


def save_sentence_transformer(
    encoder: nn.Module,
    augmentations: Any,
    folder: str | Path,
    exported: str | Path | None = None,
    trust: Sequence[str] = (),
) -> None:
    """Writes a folder that ``SentenceTransformer(folder)`` loads, with the same embeddings.

    A `PretrainedText` becomes the usual modules, which do not need this package. Another encoder becomes a
    `SentenceModule` and its exported file; that folder loads with ``trust_remote_code=True`` where this
    package is importable.

    Args:
        augmentations: `TextViews`.
        folder: the folder to write.
        exported: the path that ``load_encoder`` loaded encoder and augmentations from; not needed for a
            `PretrainedText`.
        trust: packages whose code that file may use.

    Raises:
        ValueError: if the augmentations are not for texts, sentence-transformers has no module for the
            pooling, or ``exported`` is missing.
    """
    folder = Path(folder)
    if not isinstance(augmentations, TextViews):
        raise ValueError(f"{type(augmentations).__name__} is not an augmentation set for texts")
    if isinstance(encoder, PretrainedText):
        if encoder.pooling == "first_last":
            raise ValueError("sentence-transformers has no pooling of the first and the last layer")
        folder.mkdir(parents=True, exist_ok=True)
        _write_transformer(folder, encoder, augmentations)
        _write_pooling(folder / "1_Pooling", encoder)
        modules = [("", "sentence_transformers.models.Transformer")]
        modules += [("1_Pooling", "sentence_transformers.models.Pooling")]
    elif exported is None:
        raise ValueError(f"a {type(encoder).__name__} needs the file that it was exported to: set exported")
    else:
        module = SentenceModule(exported, trust)
        module.encoder = encoder
        folder.mkdir(parents=True, exist_ok=True)
        module.save(str(folder))
        modules = [("", f"{SentenceModule.__module__}.{SentenceModule.__qualname__}")]
    _write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": kind}
            for i, (path, kind) in enumerate(modules)
        ],
    )  # fmt: skip
    settings = {"model_type": "SentenceTransformer", "prompts": {}, "similarity_fn_name": "cosine"}
    _write_json(folder / "config_sentence_transformers.json", settings)


def _write_transformer(folder: Path, encoder: PretrainedText, augmentations: TextViews) -> None:
    from tokenizers import Tokenizer

    encoder.model.save_pretrained(folder)
    tokens = augmentations.tokens
    (folder / "tokenizer.json").write_text(tokens.to_json(), encoding="utf-8")
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": Tokenizer.from_str(tokens.to_json()).id_to_token(tokens.pad),
        "model_max_length": augmentations.length,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    _write_json(folder / "tokenizer_config.json", settings)
    settings = {"max_seq_length": augmentations.length, "do_lower_case": False}
    if "add_pooling_layer" in inspect.signature(type(encoder.model).__init__).parameters:
        settings["model_args"] = {"add_pooling_layer": False}
    _write_json(folder / "sentence_bert_config.json", settings)


def _write_pooling(folder: Path, encoder: PretrainedText) -> None:
    folder.mkdir(exist_ok=True)
    # Every version of sentence-transformers reads these names.
    settings = {
        "word_embedding_dimension": encoder.features_dim,
        "pooling_mode_cls_token": encoder.pooling == "cls",
        "pooling_mode_mean_tokens": encoder.pooling == "mean",
    }
    _write_json(folder / "config.json", settings)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
