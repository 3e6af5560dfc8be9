"""Sentences to embeddings, with the interface of sentence-transformers and MTEB, and folders for both."""

import hashlib
import inspect
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from bt_multimodal.checkpoint import export_encoder, load_encoder
from bt_multimodal.features import check_device, evaluating
from bt_multimodal.twins import check_encoder
from encoders.text.loading import load_text_encoder
from encoders.text.pretrained import PretrainedText
from encoders.text.views import TextViews

# Arguments of sentence-transformers that would change the result, and what they may be.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "prompt": (None, ""),
    "prompt_name": (None,),
    "output_value": ("sentence_embedding",),
    "precision": (None, "float32"),
    "truncate_dim": (None,),
    "pool": (None,),
}


class SentenceEncoder:
    """An encoder and its views, from texts to embeddings.

    It is what ``mteb.evaluate`` takes, and stands in for a ``SentenceTransformer`` where its ``encode``
    and similarities are used.

    Args:
        encoder: takes views of ``views``, gives ``[B, features_dim]``.
        views: ``decode``, ``clean``, ``collate`` and ``clean_batch`` of an augmentation set
            (`bt_multimodal.views`) for texts.
        device: where it runs; without it where the encoder is.
        name: for reports.

    Raises:
        ValueError: views that are not of texts, or no such device.
    """

    def __init__(
        self, encoder: nn.Module, views: Any, device: str | torch.device | None = None, name: str = "encoder"
    ):
        if not hasattr(views, "collate"):
            raise ValueError(f"{type(views).__name__} are no views of texts")
        self.features_dim = check_encoder(encoder)
        self.encoder = encoder if device is None else encoder.to(check_device(device))
        self.views, self.name = views, name

    @classmethod
    def load(
        cls, name: str | Path, device: str | torch.device | None = None, pooling: str | None = None
    ) -> "SentenceEncoder":
        """From a run directory, an ``encoder.safetensors``, or a model of transformers.

        Args:
            name, pooling: as in `encoders.text.loading.load_text_encoder`.

        Raises:
            ValueError: there is none of that name, or it is no encoder of texts.
        """
        encoder, views = load_text_encoder(name, pooling=pooling)
        path = Path(name).resolve()
        return cls(encoder, views, device, (path.parent if path.is_file() else path).name)

    def encode(
        self,
        sentences: Any,
        batch_size: int = 32,
        *,
        normalize_embeddings: bool = False,
        convert_to_tensor: bool = False,
        convert_to_numpy: bool = True,
        show_progress_bar: bool | None = None,
        device: str | torch.device | None = None,
        **ignored: Any,
    ) -> Any:
        """Embeddings of texts, in evaluation mode.

        Batches are of texts of like length, so hardly any padding is computed.

        Args:
            sentences: a text, texts, or one or more batches ``{"text": [...]}`` as MTEB 2's data loader
                gives them.
            normalize_embeddings: to length 1.
            convert_to_tensor: a tensor on the encoder's device; else, without ``convert_to_numpy``, a
                list of them.
            device: where the encoder is moved to first.
            ignored: what MTEB and sentence-transformers tell of the task.

        Returns:
            ``[features_dim]`` of a text, ``[N, features_dim]`` of ``N`` in their order; float32.

        Raises:
            ValueError: what is no text, a batch size below 1, or an argument of sentence-transformers
                that changes its result and has no counterpart here.
        """
        for key, value in ignored.items():
            if key in _WITHOUT_EFFECT and value not in _WITHOUT_EFFECT[key]:
                raise ValueError(f"encode has no {key} (it was {value!r})")
        if batch_size < 1:
            raise ValueError(f"a batch has 1 or more texts, not {batch_size}")
        if device is not None:
            self.encoder.to(check_device(device))
        single = isinstance(sentences, str)
        decoded = [
            self.views.clean(self.views.decode(text))
            for text in _contents([sentences] if isinstance(sentences, str | dict) else sentences)
        ]
        # the longest first: what does not fit memory fails at once
        order = sorted(range(len(decoded)), key=lambda i: len(decoded[i]), reverse=True)
        found = torch.empty(len(decoded), self.features_dim, device=_device(self.encoder))
        with evaluating(self.encoder):
            for start in tqdm(range(0, len(order), batch_size), "texts", disable=not show_progress_bar):
                rows = order[start : start + batch_size]
                view = self.views.clean_batch(self.views.collate([decoded[i] for i in rows]))
                on_device = {key: tensor.to(found.device) for key, tensor in view.items()}
                found[rows] = self.encoder(on_device).float()
        if normalize_embeddings:
            found = functional.normalize(found, dim=1)
        if convert_to_tensor:
            return found[0] if single else found
        if convert_to_numpy:
            return found.cpu().numpy()[0] if single else found.cpu().numpy()
        return found[0] if single else list(found)

    def similarity(self, first: Any, second: Any) -> Tensor:
        """Cosines of all pairs, ``[N, F]`` and ``[M, F]`` to ``[N, M]``."""
        return _unit(first) @ _unit(second).T

    def similarity_pairwise(self, first: Any, second: Any) -> Tensor:
        """Cosines of each with its partner, ``[N, F]`` twice to ``[N]``."""
        return (_unit(first) * _unit(second)).sum(1)

    @property
    def mteb_model_meta(self) -> Any:
        """What MTEB 2 files results by; the revision is of the embeddings of a short and a long text."""
        from mteb.models import ModelMeta  # only there when MTEB asks

        texts = self.encode(["What is this?", "word " * 1000])
        return ModelMeta.create_empty(
            {
                "name": f"bt_multimodal/{self.name}",
                "revision": hashlib.sha256(np.round(texts, 3).tobytes()).hexdigest()[:16],
                "embed_dim": self.features_dim,
                "n_parameters": sum(p.numel() for p in self.encoder.parameters()),
            }
        )


class SentenceModule(nn.Module):
    """An encoder of ours and its views as the one module of a ``SentenceTransformer``.

    Args:
        path: what `bt_multimodal.checkpoint.load_encoder` takes.
    """

    save_in_root = True

    def __init__(self, path: str | Path):
        super().__init__()
        loaded = load_encoder(path)
        self.encoder, self.views = loaded.encoder, cast(Any, loaded.views)
        self.max_seq_length = getattr(self.views, "length", None)
        file = Path(path) / "encoder.safetensors" if Path(path).is_dir() else Path(path)
        with safe_open(file, framework="pt") as opened:
            described = opened.metadata()
        self.encoder_spec, self.views_spec = (json.loads(described[key]) for key in ("encoder", "views"))

    @classmethod
    def load(cls, path: str) -> "SentenceModule":
        """From a folder that `save` wrote."""
        return cls(path)

    def save(self, path: str) -> None:
        """Write ``encoder.safetensors`` to a folder."""
        export_encoder(Path(path) / "encoder.safetensors", self.encoder, self.encoder_spec, self.views_spec)

    def preprocess(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts to the encoder's view."""
        decoded = [self.views.clean(self.views.decode(text)) for text in _contents(texts)]
        return self.views.clean_batch(self.views.collate(decoded))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The view to itself and ``sentence_embedding [B, features_dim]``."""
        view = {key: features[key] for key in ("input_ids", "attention_mask")}
        return features | {"sentence_embedding": self.encoder(view)}

    def get_embedding_dimension(self) -> int:
        return check_encoder(self.encoder)


def save_sentence_transformer(
    encoder: nn.Module, views: Any, folder: str | Path, exported: str | Path | None = None
) -> None:
    """Write a folder that ``SentenceTransformer(folder)`` loads, with the same embeddings.

    A `PretrainedText` becomes the usual modules, which need nothing of ours. Another encoder becomes
    the file that it was exported to and a `SentenceModule`: such a folder loads with
    ``trust_remote_code=True`` where this checkout is importable.

    Args:
        views: `TextViews`.
        exported: what ``load_encoder`` read both from; only another encoder than `PretrainedText`
            needs it.

    Raises:
        ValueError: views that are not of texts, pooling that sentence-transformers has no module for, or
            an encoder without its file.
    """
    folder = Path(folder)
    if not isinstance(views, TextViews):
        raise ValueError(f"{type(views).__name__} are no views of texts")
    if isinstance(encoder, PretrainedText):
        if encoder.pooling == "first_last":
            raise ValueError("sentence-transformers has no pooling of the first and the last layer")
        folder.mkdir(parents=True, exist_ok=True)
        _write_transformer(folder, encoder, views)
        _write_pooling(folder / "1_Pooling", encoder)
        modules = [("", "sentence_transformers.models.Transformer")]
        modules += [("1_Pooling", "sentence_transformers.models.Pooling")]
    elif exported is None:
        raise ValueError(f"a {type(encoder).__name__} is written from the file that it was exported to")
    else:
        module = SentenceModule(exported)
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


def _write_transformer(folder: Path, encoder: PretrainedText, views: TextViews) -> None:
    from tokenizers import Tokenizer

    encoder.model.save_pretrained(folder)
    tokens = views.tokens
    (folder / "tokenizer.json").write_text(tokens.to_json())
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": Tokenizer.from_str(tokens.to_json()).id_to_token(tokens.pad),
        "model_max_length": views.length,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    _write_json(folder / "tokenizer_config.json", settings)
    settings = {"max_seq_length": views.length, "do_lower_case": False}
    if "add_pooling_layer" in inspect.signature(type(encoder.model).__init__).parameters:
        settings["model_args"] = {"add_pooling_layer": False}
    _write_json(folder / "sentence_bert_config.json", settings)


def _write_pooling(folder: Path, encoder: PretrainedText) -> None:
    folder.mkdir(exist_ok=True)
    # the names that every version reads
    settings = {
        "word_embedding_dimension": encoder.features_dim,
        "pooling_mode_cls_token": encoder.pooling == "cls",
        "pooling_mode_mean_tokens": encoder.pooling == "mean",
    }
    _write_json(folder / "config.json", settings)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _contents(sentences: Iterable[Any]) -> Iterable[bytes]:
    """Every text of texts and of batches ``{"text": [...]}``, as records hold it."""
    for one in sentences:
        for text in one["text"] if isinstance(one, dict) else [one]:
            if not isinstance(text, str):
                raise ValueError(f"a text is a string, not a {type(text).__name__}: {text!r:.60}")
            yield text.encode(errors="replace")  # half a surrogate pair has no bytes


def _device(encoder: nn.Module) -> torch.device:
    first = next(encoder.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _unit(embeddings: Any) -> Tensor:
    """``[F]`` or ``[N, F]``, of numpy or torch, to ``[N, F]`` of length 1."""
    rows = torch.as_tensor(embeddings).float()
    return functional.normalize(rows if rows.ndim > 1 else rows[None], dim=1)
