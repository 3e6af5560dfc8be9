"""Published ways to make two views of a text, by name; any argument of `TextViews` can be given beside."""

from typing import Any

from encoders.text.views import TextViews


def simcse(tokenizer: str = "bpe", length: int = 32, **others: Any) -> TextViews:
    """The same text twice, told apart by the encoder's own dropout alone (Gao et al., 2021, section 3)."""
    return TextViews(tokenizer, length=length, **others)


def self_contrastive_decorrelation(
    tokenizer: str = "bpe",
    length: int = 32,
    dropout: tuple[float, float] = (0.05, 0.155),
    **others: Any,
) -> TextViews:
    """The same text at a low and at a high rate of dropout (Klein and Nabi, 2022, arXiv 2203.07847)."""
    return TextViews(tokenizer, length=length, dropout=dropout, **others)


def tsdae(tokenizer: str = "bpe", length: int = 128, delete: float = 0.6, **others: Any) -> TextViews:
    """Both views without 60 % of the tokens: the noise of TSDAE (Wang et al., 2021, section 3)."""
    return TextViews(tokenizer, length=length, delete=delete, **others)


def cropping(
    tokenizer: str = "bpe", length: int = 256, crop: tuple[float, float] = (0.05, 0.5), **others: Any
) -> TextViews:
    """Two spans of a document, each 5 to 50 % of it (Contriever's, Izacard et al., 2022, section 3.1)."""
    return TextViews(tokenizer, length=length, crop=crop, **others)
