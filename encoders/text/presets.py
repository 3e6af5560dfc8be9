"""Published augmentations of text by name. Each function takes any argument of `TextViews`."""

from typing import Any

from encoders.text.views import TextViews


def simcse(tokenizer: str = "bpe", length: int = 32, **others: Any) -> TextViews:
    """The same text twice; only the encoder's dropout differs (Gao et al., 2021, section 3)."""
    return TextViews(tokenizer, length=length, **others)


def self_contrastive_decorrelation(
    tokenizer: str = "bpe",
    length: int = 32,
    dropout: tuple[float, float] = (0.05, 0.155),
    **others: Any,
) -> TextViews:
    """The same text at a low and at a high dropout rate (Klein and Nabi, 2022, arXiv 2203.07847)."""
    return TextViews(tokenizer, length=length, dropout=dropout, **others)


def tsdae(tokenizer: str = "bpe", length: int = 128, delete: float = 0.6, **others: Any) -> TextViews:
    """Deletion of 60 % of the tokens in both views: TSDAE's noise (Wang et al., 2021, section 3)."""
    return TextViews(tokenizer, length=length, delete=delete, **others)


def cropping(
    tokenizer: str = "bpe", length: int = 256, crop: tuple[float, float] = (0.05, 0.5), **others: Any
) -> TextViews:
    """Two spans of a document, each 5 to 50 % of it: Contriever's (Izacard et al., 2022, section 3.1)."""
    return TextViews(tokenizer, length=length, crop=crop, **others)
