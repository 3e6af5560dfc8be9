"""Augmentation set for texts."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bt_multimodal.augmentation_set import AugmentationSet
from encoders.text import ops
from encoders.text.tokens import Tokens, load_tokens, text_of, train_bpe

_SHUFFLE, _DELETE, _MASK, _SPAN = range(4)  # purposes of a text's noise


class TextViews(AugmentationSet):
    """Augmented token ids with masks: ``{"input_ids", "attention_mask"}``, ``[B, L]``, padded to the longest.

    The augmentations are, in this order, cropping to a span of the text, local shuffling, deletion, masking
    and span masking. A rate is one number for both views or one per view. `encoders.text.presets` has
    published settings.

    Args:
        tokenizer: ``bpe``, which is trained on the training texts; ``bytes``; or a pretrained model's, by
            hub name, folder or ``tokenizer.json``.
        vocabulary: size of the vocabulary of ``bpe``.
        length: most tokens of a view, with special tokens.
        crop: range of a span's length as a fraction of the text's tokens. By default a view starts at the
            beginning of the text.
        apart: take the two spans from the two sides of a random cut, if the text has two or more tokens.
        shuffle: distance in tokens of local shuffling, 0 for none.
        delete: share of deleted tokens; at least one token of a text remains.
        mask: share of tokens that are masked independently.
        mask_spans: share of tokens that are masked in spans.
        span: number of tokens in a masked span.
        dropout: the encoder's dropout rate for a view; by default the encoder's own rate.

    Raises:
        ValueError: if the tokeniser does not load, or a rate is out of range.
    """

    draws = 4
    shared = 1
    loads_by_name: ClassVar = {"tokenizer": ("bpe", "bytes")}  # an encoder file has the tokeniser itself

    def __init__(
        self,
        tokenizer: str = "bpe",
        vocabulary: int = 8192,
        length: int = 128,
        crop: tuple[float, float] | None = None,
        apart: bool = False,
        shuffle: float = 0.0,
        delete: float | tuple[float, float] = 0.0,
        mask: float | tuple[float, float] = 0.0,
        mask_spans: float | tuple[float, float] = 0.0,
        span: int = 3,
        dropout: float | tuple[float, float] | None = None,
    ):
        super().__init__()
        rates = {"delete": delete, "mask": mask, "mask_spans": mask_spans, "dropout": dropout}
        self._rates = {name: _pair(name, rate) for name, rate in rates.items() if rate is not None}
        if crop is not None and not 0 < crop[0] <= crop[1] <= 1:
            raise ValueError(f"crop must be two shares, 0 < least <= most <= 1, not {list(crop)}")
        if shuffle < 0 or span < 1:
            raise ValueError(f"shuffle must be 0 or more and span 1 or more, not {shuffle} and {span}")
        self.vocabulary, self.length, self.span = vocabulary, length, span
        self.crop, self.apart, self.shuffle = crop, apart, shuffle
        self._tokens: Tokens | None = None
        if tokenizer != "bpe":
            self._set_tokens(load_tokens(tokenizer))

    def learn(self, texts: Iterable[bytes]) -> None:
        """Trains the tokeniser on undecoded texts, if it is ``bpe``; damaged ones are left out.

        Raises:
            ValueError: if the vocabulary is too small.
        """
        if self._tokens is None:
            self._set_tokens(train_bpe(_intact(texts), self.vocabulary))

    @property
    def tokens(self) -> Tokens:
        """The tokeniser.

        Raises:
            ValueError: if it is not trained yet.
        """
        if self._tokens is None:
            raise ValueError("the tokeniser is not trained yet: call learn with the training texts")
        return self._tokens

    @property
    def portable(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the set without the tokeniser's file."""
        return {"tokenizer": self.tokens.to_json()}

    def get_extra_state(self) -> dict[str, Any]:
        return self.portable

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if state != self.portable:
            raise ValueError("the run's tokeniser differs from this data's: the training texts have changed")

    def decode(self, raw: bytes) -> Tensor:
        """Returns the token ids of UTF-8 bytes without special tokens, int32 ``[L]``.

        An empty text has none, and is no damage; control characters are characters.

        Raises:
            ValueError: if the bytes are not UTF-8, or more than `encoders.text.tokens.LONGEST_TEXT`
                characters.
        """
        return torch.tensor(self.tokens.encode(text_of(raw)), dtype=torch.int32)

    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]:
        """Returns parameters from ``u [B, 4]``: the cut, the span's share and position, the noise's seed."""
        least, most = self.crop or (1.0, 1.0)
        cut = u[:, 0] if view == 0 else u[:, 0] - 1  # the sign is the side of the cut
        return {
            "cut": cut,
            "share": least + (most - least) * u[:, 1],
            "at": u[:, 2],
            "noise": (u[:, 3] * ops.NOISE).long(),
        }

    def on_record(self, decoded: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Returns the span of a view."""
        n, start = len(decoded), 0
        if self.apart and n > 1:
            cut = float(parameters["cut"])
            # In the middle half of the text, with at least one token on each side.
            middle = min(n - 1, max(1, round(n * (0.25 + 0.5 * (cut % 1)))))
            start, n = (0, middle) if cut >= 0 else (middle, n - middle)
        size = n
        if self.crop is not None:
            size = max(1, round(float(parameters["share"]) * n))
        size = min(size, self._room)
        if self.crop is not None or self.apart:
            start += int(float(parameters["at"]) * (n - size + 1))
        return decoded[start : start + size]

    def collate(self, samples: Sequence[Tensor]) -> Tensor:
        """Pads token ids to int32 ``[B, L]`` with -1; ``L`` is 1 or more."""
        padded = pad_sequence(list(samples), batch_first=True, padding_value=ops.PADDING)
        return padded if padded.shape[1] else padded.new_full((len(samples), 1), ops.PADDING)

    def on_batch(self, data: Tensor, parameters: dict[str, Tensor], view: int) -> dict[str, Tensor]:
        """Augments token ids to the view."""
        tokens, ids = self.tokens, data

        def u(purpose: int) -> Tensor:
            return ops.noise(parameters["noise"], purpose, ids.shape[1])

        rates = {name: pair[view] for name, pair in self._rates.items()}
        if self.shuffle:
            ids = ops.shuffle(ids, u(_SHUFFLE), self.shuffle)
        if rates["delete"]:
            ids = ops.delete(ids, u(_DELETE), rates["delete"])
        for name, purpose, span in (("mask", _MASK, 1), ("mask_spans", _SPAN, self.span)):
            if rates[name]:
                assert tokens.mask is not None
                ids = ops.mask(ids, u(purpose), rates[name], tokens.mask, span)
        output = self._assembled(ids)
        if "dropout" in rates:
            output["dropout"] = torch.full((len(ids),), rates["dropout"])
        return output

    def clean(self, decoded: Tensor) -> Tensor:
        """Returns the beginning of the text."""
        return decoded[: self._room]

    def clean_batch(self, data: Tensor) -> dict[str, Tensor]:
        """Returns the view without augmentation."""
        return self._assembled(data)

    def _set_tokens(self, tokens: Tokens) -> None:
        room = self.length - len(tokens.prefix) - len(tokens.suffix)
        if room < 1:
            raise ValueError(f"length {self.length} leaves no room for a token beside the special tokens")
        if tokens.mask is None and any(max(self._rates[name]) for name in ("mask", "mask_spans")):
            raise ValueError("the tokeniser has no mask token, so mask and mask_spans must be 0")
        self._tokens, self._room = tokens, room

    def _assembled(self, ids: Tensor) -> dict[str, Tensor]:
        return ops.assemble(ids, self.tokens.prefix, self.tokens.suffix, self.tokens.pad)


def _intact(contents: Iterable[bytes]) -> Iterator[str]:
    """Yields the texts that `TextViews.decode` does not refuse."""
    for raw in contents:
        with suppress(ValueError):  # decoding names and counts it
            yield text_of(raw)


def _pair(name: str, rate: float | tuple[float, float]) -> tuple[float, float]:
    first, second = (rate, rate) if isinstance(rate, int | float) else rate
    if not (0 <= first < 1 and 0 <= second < 1):
        raise ValueError(f"{name} must be a share from 0 to below 1, or one per view, not {rate}")
    return first, second
