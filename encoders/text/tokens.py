"""Tokenisers, all of them as `tokenizers` has them: a pretrained model's, a trained one, bytes."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# What the usual vocabularies call them.
_PAD = ("[PAD]", "<pad>", "<|pad|>", "<|padding|>")
_MASK = ("[MASK]", "<mask>", "<|mask|>")
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class Tokens:
    """A tokeniser and what an encoder and its views have to know of it.

    Args:
        tokenizer: of the `tokenizers` library.

    Attributes:
        size: of the vocabulary.
        prefix, suffix: the special tokens before and after a text.
        pad, mask: their ids; ``mask`` is ``None`` where there is none.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.size = int(tokenizer.get_vocab_size())
        plain, whole = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
        before = next(
            (i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), len(whole)
        )  # fmt: skip
        self.prefix, self.suffix = whole[:before], whole[before + len(plain) :]
        self.pad = self._first(_PAD) or 0
        self.mask = self._first(_MASK)

    def _first(self, names: Iterable[str]) -> int | None:
        found = (self._tokenizer.token_to_id(name) for name in names)
        return next((number for number in found if number is not None), None)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without special ones."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def to_json(self) -> str:
        """All of it as `tokenizers` writes it, what ``load_tokens`` takes."""
        return self._tokenizer.to_str()


def load_tokens(name: str) -> Tokens:
    """A tokeniser by name.

    Args:
        name: ``bytes``; a hub name, a folder of a model's or a ``tokenizer.json``; or what such a file
            holds.

    Raises:
        ValueError: there is none of that name.
    """
    from tokenizers import Tokenizer

    if name == "bytes":
        return byte_tokens()
    name = os.path.expanduser(name)
    try:
        if name.lstrip().startswith("{"):
            return Tokens(Tokenizer.from_str(name))
        if Path(name).is_file():
            return Tokens(Tokenizer.from_file(name))
        from transformers import AutoTokenizer  # slow to import

        fast = AutoTokenizer.from_pretrained(name)
        if not hasattr(fast, "backend_tokenizer"):
            raise ValueError(f"{type(fast).__name__} has no fast form")
        return Tokens(Tokenizer.from_str(fast.backend_tokenizer.to_str()))
    except Exception as error:  # `tokenizers` raises plain ones
        shown = name if len(name) < 200 else f"{name[:200]} ..."
        raise ValueError(f"cannot load the tokeniser {shown!r}: {' '.join(str(error).split())}") from error


def byte_tokens() -> Tokens:
    """UTF-8 bytes as tokens: 256 and 5 special ones, nothing to learn."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = [*_SPECIAL, *_alphabet()]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return Tokens(_with_ends(tokenizer))


def train_bpe(texts: Iterable[str], vocabulary: int) -> Tokens:
    """Byte-pair encoding (Sennrich et al., 2016) of bytes, in lower case, learnt from texts.

    The same texts in the same order give the same tokeniser.

    Args:
        vocabulary: its size, special tokens (5) and bytes (256) included.

    Raises:
        ValueError: a vocabulary smaller than those.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    if vocabulary < len(_SPECIAL) + 256:
        raise ValueError(f"a vocabulary has {len(_SPECIAL) + 256} entries or more, not {vocabulary}")
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=_SPECIAL, initial_alphabet=_alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Made anew from its text, so that a trained and a loaded one are the same to the last bit.
    return load_tokens(_with_ends(tokenizer).to_str())


def _alphabet() -> list[str]:
    """The characters that stand for the 256 bytes."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _with_ends(tokenizer: Any) -> Any:
    """With [CLS] before and [SEP] after a text, and bytes for characters when decoded."""
    from tokenizers import decoders, processors

    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, special)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
