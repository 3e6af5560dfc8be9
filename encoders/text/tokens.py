"""Tokenisers of the tokenizers library: a pretrained model's, one trained on texts, or bytes."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# Names in common vocabularies.
_PAD = ("[PAD]", "<pad>", "<|pad|>", "<|padding|>")
_MASK = ("[MASK]", "<mask>", "<|mask|>")
# Characters. A longer text is refused: the longest books have as many. A longer word, such as base64 or a
# genome, is cut where a vocabulary is trained, which takes the square of a word's length.
LONGEST_TEXT, LONGEST_WORD = 2**23, 1000
_CHUNK = 2**18  # characters that are encoded at once: the library holds some 200 bytes a token
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class Tokens:
    """A tokeniser without truncation and padding, and its special tokens.

    Args:
        tokenizer: a ``Tokenizer`` of the tokenizers library.

    Attributes:
        size: size of the vocabulary.
        prefix, suffix: ids of the special tokens before and after a text.
        pad, mask: ids of the padding and the mask token; ``mask`` is ``None`` if there is none.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.size = int(tokenizer.get_vocab_size())
        plain, special = (tokenizer.encode("a", add_special_tokens=add).ids for add in (False, True))
        start = next(
            (i for i in range(len(special)) if special[i : i + len(plain)] == plain), len(special)
        )  # fmt: skip
        self.prefix, self.suffix = special[:start], special[start + len(plain) :]
        self.pad = self._first(_PAD) or 0
        self.mask = self._first(_MASK)

    def _first(self, names: Iterable[str]) -> int | None:
        ids = (self._tokenizer.token_to_id(name) for name in names)
        return next((id_ for id_ in ids if id_ is not None), None)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text's tokens, without special tokens."""
        ids: list[int] = []
        for chunk in _chunks(text):
            ids += self._tokenizer.encode(chunk, add_special_tokens=False).ids
        return ids

    def to_json(self) -> str:
        """Returns the tokeniser in the tokenizers library's JSON format, which `load_tokens` takes."""
        return self._tokenizer.to_str()


def text_of(raw: bytes) -> str:
    """Returns the text of a record, which may be empty and have any characters.

    Raises:
        UnicodeDecodeError: if the bytes are not UTF-8.
        ValueError: if the text has over `LONGEST_TEXT` characters.
    """
    text = bytes(raw).decode()
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a text of {len(text):,} characters is over the limit of {LONGEST_TEXT:,}: cut it")
    return text


def _chunks(text: str) -> Iterator[str]:
    """Yields a text in pieces of at most `_CHUNK` characters, cut before a space where there is one."""
    start = 0
    while len(text) - start > _CHUNK:
        end = text.rfind(" ", start + 1, start + _CHUNK)
        end = start + _CHUNK if end < 0 else end
        yield text[start:end]
        start = end
    yield text[start:]


def _without_long_words(text: str, splitter: Any) -> Iterator[str]:
    """Yields a text as it is, or cut within the words of over `LONGEST_WORD` characters.

    Args:
        splitter: a pre-tokeniser of the tokenizers library, which finds the words.
    """
    usual = len(text) <= LONGEST_WORD or (
        max(map(len, text.split()), default=0) <= LONGEST_WORD
        and not re.search(rf"\s{{{LONGEST_WORD + 1}}}", text)
    )
    if usual:
        yield text
        return
    for chunk in _chunks(text):
        begin = 0
        for _, (start, end) in splitter.pre_tokenize_str(chunk):
            for cut in range(start + LONGEST_WORD, end, LONGEST_WORD):
                yield chunk[begin:cut]
                begin = cut
        yield chunk[begin:]


def load_tokens(name: str) -> Tokens:
    """Loads a tokeniser by name.

    Args:
        name: ``bytes``; a hub name, a model's folder or a ``tokenizer.json`` file; or the content of such a
            file.

    Raises:
        ValueError: if there is no such tokeniser.
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

        tokenizer = AutoTokenizer.from_pretrained(name)
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise ValueError(f"{type(tokenizer).__name__} has no fast form")
        return Tokens(Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()))
    except Exception as error:  # the tokenizers library raises plain exceptions
        shown = name if len(name) < 200 else f"{name[:200]} ..."
        raise ValueError(f"cannot load the tokeniser {shown!r}: {' '.join(str(error).split())}") from error


def byte_tokens() -> Tokens:
    """Returns a tokeniser of UTF-8 bytes: 256 tokens and 5 special ones, without training."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = [*_SPECIAL, *_alphabet()]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return Tokens(_with_ends(tokenizer))


def train_bpe(texts: Iterable[str], vocabulary: int) -> Tokens:
    """Trains byte-level byte-pair encoding (Sennrich et al., 2016) on lower-cased texts.

    The same texts in the same order yield the same tokeniser.

    Args:
        vocabulary: size of the vocabulary, with the 5 special tokens and the 256 bytes.

    Raises:
        ValueError: if the vocabulary is smaller than those.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    if vocabulary < len(_SPECIAL) + 256:
        raise ValueError(f"a vocabulary must have {len(_SPECIAL) + 256} or more entries, not {vocabulary}")
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=_SPECIAL, initial_alphabet=_alphabet(), show_progress=False
    )
    splitter = tokenizer.pre_tokenizer
    pieces = (piece for text in texts for piece in _without_long_words(text, splitter))
    tokenizer.train_from_iterator(pieces, trainer)
    # Loaded from its JSON, so that a trained and a loaded tokeniser are exactly equal.
    return load_tokens(_with_ends(tokenizer).to_str())


def _alphabet() -> list[str]:
    """Returns the characters that represent the 256 bytes."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _with_ends(tokenizer: Any) -> Any:
    """Adds [CLS] before and [SEP] after a text, and decoding of bytes."""
    from tokenizers import decoders, processors

    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, special)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
