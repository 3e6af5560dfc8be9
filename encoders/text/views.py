"""What a view of a text is."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bt_multimodal.augmentation_set import AugmentationSet
from encoders.text import ops
from encoders.text.tokens import Tokens, load_tokens, train_bpe

_SHUFFLE, _DELETE, _MASK, _SPAN = range(4)  # purposes of a text's noise


class TextViews(AugmentationSet):
    """Tokens with masks: ``{"input_ids", "attention_mask"}``, ``[B, L]``, padded to the longest of a view.

    In order: a span of the text, local shuffling, deletion, masking, span masking. Rates are one
    number for both views or one for each. `encoders.text.presets` has the published settings.

    Args:
        tokenizer: ``bpe``, learnt from the training texts; ``bytes``; or a pretrained model's, by hub
            name, folder or ``tokenizer.json``.
        vocabulary: of ``bpe``.
        length: tokens of a view at most, special ones included.
        crop: shares of a text's tokens between which that of a view's span is drawn; without it a view
            begins where the text does.
        apart: the two spans are of different sides of a cut through the text, where it has two tokens
            or more.
        shuffle: the distance in tokens within which places are exchanged, 0 for none.
        delete: share of the tokens deleted; of a text one is left.
        mask: share of the tokens masked, each for itself.
        mask_spans: share of the tokens masked in spans.
        span: tokens of such a span.
        dropout: the rate that the encoder drops out at for a view; without it the encoder's own.

    Raises:
        ValueError: a tokeniser that does not load, or rates out of range.
    """

    draws = 4
    shared = 1

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
            raise ValueError(f"crop is two shares, 0 < least <= most <= 1, not {list(crop)}")
        if shuffle < 0 or span < 1:
            raise ValueError(f"shuffle is 0 or more and span 1 or more, not {shuffle} and {span}")
        self.vocabulary, self.length, self.span = vocabulary, length, span
        self.crop, self.apart, self.shuffle = crop, apart, shuffle
        self._tokens: Tokens | None = None
        if tokenizer != "bpe":
            self._take(load_tokens(tokenizer))

    def learn(self, texts: Iterable[bytes]) -> None:
        """Train the tokeniser on undecoded texts, where it is to be learnt; damaged ones are left out.

        Raises:
            ValueError: there are no texts, or the vocabulary is too small.
        """
        if self._tokens is None:
            self._take(train_bpe((text.decode(errors="replace") for text in texts), self.vocabulary))

    @property
    def tokens(self) -> Tokens:
        """The tokeniser.

        Raises:
            ValueError: it has not been learnt yet.
        """
        if self._tokens is None:
            raise ValueError("the tokeniser has still to be learnt: call learn with the training texts")
        return self._tokens

    @property
    def portable(self) -> dict[str, Any]:
        """The arguments that make the same views where the tokeniser's file is not."""
        return {"tokenizer": self.tokens.to_json()}

    def get_extra_state(self) -> dict[str, Any]:
        return self.portable

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if state != self.portable:
            raise ValueError(
                "the run's tokeniser is another than this data's: the training texts have changed"
            )

    def decode(self, raw: bytes) -> Tensor:
        """UTF-8 to tokens without special ones, int32 ``[L]``."""
        return torch.tensor(self.tokens.encode(raw.decode()), dtype=torch.int32)

    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]:
        """``u [B, 4]`` to parameters: where to cut, the span's share and place, the noise's seed."""
        least, most = self.crop or (1.0, 1.0)
        cut = u[:, 0] if view == 0 else u[:, 0] - 1  # its sign says which side of it
        return {
            "cut": cut,
            "share": least + (most - least) * u[:, 1],
            "at": u[:, 2],
            "noise": (u[:, 3] * ops.NOISE).long(),
        }

    def on_record(self, decoded: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """The span of a view."""
        n, start = len(decoded), 0
        if self.apart and n > 1:
            cut = float(parameters["cut"])
            # In the middle half, and not before the first token or after the last.
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
        """``[B, L]`` int32, -1 after the last token of each; ``L`` is 1 or more."""
        padded = pad_sequence(list(samples), batch_first=True, padding_value=ops.PADDING)
        return padded if padded.shape[1] else padded.new_full((len(samples), 1), ops.PADDING)

    def on_batch(self, data: Tensor, parameters: dict[str, Tensor], view: int) -> dict[str, Tensor]:
        """The distorted view."""
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
        made = self._assembled(ids)
        if "dropout" in rates:
            made["dropout"] = torch.full((len(ids),), rates["dropout"])
        return made

    def clean(self, decoded: Tensor) -> Tensor:
        """The beginning of the text."""
        return decoded[: self._room]

    def clean_batch(self, data: Tensor) -> dict[str, Tensor]:
        """The undistorted view."""
        return self._assembled(data)

    def _take(self, tokens: Tokens) -> None:
        room = self.length - len(tokens.prefix) - len(tokens.suffix)
        if room < 1:
            raise ValueError(f"length {self.length} leaves no room for a token beside the special ones")
        if tokens.mask is None and any(max(self._rates[name]) for name in ("mask", "mask_spans")):
            raise ValueError("the tokeniser has no mask token, so mask and mask_spans must be 0")
        self._tokens, self._room = tokens, room

    def _assembled(self, ids: Tensor) -> dict[str, Tensor]:
        return ops.assemble(ids, self.tokens.prefix, self.tokens.suffix, self.tokens.pad)


def _pair(name: str, rate: float | tuple[float, float]) -> tuple[float, float]:
    first, second = (rate, rate) if isinstance(rate, int | float) else rate
    if not (0 <= first < 1 and 0 <= second < 1):
        raise ValueError(f"{name} is a share from 0 to below 1, or one for each view, not {rate}")
    return first, second
