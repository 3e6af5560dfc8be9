"""Encoding of sentences, with the interface of sentence-transformers and MTEB."""

import hashlib
from collections.abc import Iterable, Sequence
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

# Arguments of sentence-transformers that would change the result, and the values that do not.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "prompt": (None, ""),
    "prompt_name": (None,),
    "output_value": ("sentence_embedding",),
    "precision": (None, "float32"),
    "truncate_dim": (None,),
    "pool": (None,),
}


class SentenceEncoder:
    """Encodes texts by an encoder and its augmentation set.

    ``mteb.evaluate`` takes it. It replaces a ``SentenceTransformer`` where ``encode`` and the similarities
    are used.

    Args:
        encoder: maps views of ``augmentations`` to ``[B, features_dim]``.
        augmentations: an augmentation set for texts; its ``decode``, ``clean``, ``collate`` and
            ``clean_batch`` are used.
        device: where to run; by default the encoder's device.
        name: name in reports.

    Raises:
        ValueError: if the augmentations are not for texts, or there is no such device.
    """

    def __init__(
        self,
        encoder: nn.Module,
        augmentations: Any,
        device: str | torch.device | None = None,
        name: str = "encoder",
    ):
        if stacks(augmentations):
            raise ValueError(f"{type(augmentations).__name__} is not an augmentation set for texts")
        self.features_dim = check_encoder(encoder)
        self.encoder = encoder if device is None else encoder.to(check_device(device))
        self.augmentations, self.name = augmentations, name

    @classmethod
    def load(
        cls,
        name: str | Path,
        device: str | torch.device | None = None,
        pooling: str | None = None,
        trust: Sequence[str] | str = (),
    ) -> "SentenceEncoder":
        """Loads a run directory, an ``encoder.safetensors`` file, or a model of transformers.

        Args:
            name, pooling, trust: see `encoders.text.loading.load_text_encoder`.

        Raises:
            ValueError: if there is no such encoder, or it is not for texts.
        """
        encoder, augmentations = load_text_encoder(name, pooling=pooling, trust=trust)
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
        """Returns the embeddings of texts, in evaluation mode.

        Texts are batched by length, so there is little padding.

        Args:
            sentences: a text, texts, or one or more batches ``{"text": [...]}`` as in MTEB 2's data loader.
            normalize_embeddings: scale embeddings to norm 1.
            convert_to_tensor: return a tensor on the encoder's device. If this and ``convert_to_numpy`` are
                false, return a list of tensors.
            device: device that the encoder is moved to first.
            ignored: descriptions of the task by MTEB and sentence-transformers.

        Returns:
            float32 ``[features_dim]`` for one text, ``[N, features_dim]`` for ``N`` texts, in their order.

        Raises:
            ValueError: if something is not a text, the batch size is below 1, or an argument of
                sentence-transformers would change the result but is not supported here.
        """
        for key, value in ignored.items():
            if key in _WITHOUT_EFFECT and value not in _WITHOUT_EFFECT[key]:
                raise ValueError(f"encode has no {key} (it was {value!r})")
        if batch_size < 1:
            raise ValueError(f"a batch must have 1 or more texts, not {batch_size}")
        if device is not None:
            self.encoder.to(check_device(device))
        single = isinstance(sentences, str)
        decoded = [
            self.augmentations.clean(self.augmentations.decode(text))
            for text in texts_as_bytes([sentences] if isinstance(sentences, str | dict) else sentences)
        ]
        # The longest first: a batch that does not fit in memory fails at once.
        order = sorted(range(len(decoded)), key=lambda i: len(decoded[i]), reverse=True)
        embeddings = torch.empty(len(decoded), self.features_dim, device=_device(self.encoder))
        with evaluating(self.encoder):
            for start in tqdm(range(0, len(order), batch_size), "texts", disable=not show_progress_bar):
                rows = order[start : start + batch_size]
                view = self.augmentations.clean_batch(self.augmentations.collate([decoded[i] for i in rows]))
                on_device = {key: tensor.to(embeddings.device) for key, tensor in view.items()}
                embeddings[rows] = self.encoder(on_device).float()
        if normalize_embeddings:
            embeddings = functional.normalize(embeddings, dim=1)
        if convert_to_tensor:
            return embeddings[0] if single else embeddings
        if convert_to_numpy:
            return embeddings.cpu().numpy()[0] if single else embeddings.cpu().numpy()
        return embeddings[0] if single else list(embeddings)

    def similarity(self, first: Any, second: Any) -> Tensor:
        """Returns the cosines ``[N, M]`` of all pairs of ``[N, F]`` and ``[M, F]``."""
        return _unit(first) @ _unit(second).T

    def similarity_pairwise(self, first: Any, second: Any) -> Tensor:
        """Returns the cosines ``[N]`` of corresponding rows of two ``[N, F]``."""
        return (_unit(first) * _unit(second)).sum(1)

    @property
    def mteb_model_meta(self) -> Any:
        """Returns MTEB 2's key of results; its revision hashes the embeddings of a short and a long text."""
        from mteb.models import ModelMeta  # only MTEB itself reads this property

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
    """Yields every text of texts and of batches ``{"text": [...]}`` in UTF-8, as records hold it.

    Raises:
        ValueError: if something is not a text.
    """
    for item in sentences:
        for text in item["text"] if isinstance(item, dict) else [item]:
            if not isinstance(text, str):
                raise ValueError(f"a text must be a string, not a {type(text).__name__}: {text!r:.60}")
            yield text.encode(errors="replace")  # a lone surrogate has no encoding


def _device(encoder: nn.Module) -> torch.device:
    first = next(encoder.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _unit(embeddings: Any) -> Tensor:
    """Returns ``[F]`` or ``[N, F]``, of numpy or torch, as ``[N, F]`` with rows of norm 1."""
    rows = torch.as_tensor(embeddings).float()
    return functional.normalize(rows if rows.ndim > 1 else rows[None], dim=1)
