"""Sentences to embeddings, with the interface of sentence-transformers and MTEB."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from bt_multimodal.augmentation_set import stacks
from bt_multimodal.evaluation.features import check_device, evaluating
from bt_multimodal.twins import check_encoder
from encoders.text.loading import load_text_encoder

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
    """An encoder and its augmentations, from texts to embeddings.

    It is what ``mteb.evaluate`` takes, and stands in for a ``SentenceTransformer`` where its ``encode``
    and similarities are used.

    Args:
        encoder: takes views of ``augmentations``, gives ``[B, features_dim]``.
        augmentations: ``decode``, ``clean``, ``collate`` and ``clean_batch`` of an augmentation set
            (`bt_multimodal.augmentations`) for texts.
        device: where it runs; without it where the encoder is.
        name: for reports.

    Raises:
        ValueError: views that are not of texts, or no such device.
    """

    def __init__(
        self,
        encoder: nn.Module,
        augmentations: Any,
        device: str | torch.device | None = None,
        name: str = "encoder",
    ):
        if stacks(augmentations):
            raise ValueError(f"{type(augmentations).__name__} are no views of texts")
        self.features_dim = check_encoder(encoder)
        self.encoder = encoder if device is None else encoder.to(check_device(device))
        self.augmentations, self.name = augmentations, name

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
        encoder, augmentations = load_text_encoder(name, pooling=pooling)
        path = Path(name).resolve()
        return cls(encoder, augmentations, device, (path.parent if path.is_file() else path).name)

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
            self.augmentations.clean(self.augmentations.decode(text))
            for text in texts_as_bytes([sentences] if isinstance(sentences, str | dict) else sentences)
        ]
        # the longest first: what does not fit memory fails at once
        order = sorted(range(len(decoded)), key=lambda i: len(decoded[i]), reverse=True)
        found = torch.empty(len(decoded), self.features_dim, device=_device(self.encoder))
        with evaluating(self.encoder):
            for start in tqdm(range(0, len(order), batch_size), "texts", disable=not show_progress_bar):
                rows = order[start : start + batch_size]
                view = self.augmentations.clean_batch(self.augmentations.collate([decoded[i] for i in rows]))
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


def texts_as_bytes(sentences: Iterable[Any]) -> Iterable[bytes]:
    """Every text of texts and of batches ``{"text": [...]}``, as records hold it.

    Raises:
        ValueError: what is no text.
    """
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
