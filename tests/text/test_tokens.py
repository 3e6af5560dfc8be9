"""Tokenisers: what they give, what is kept of them."""

import hashlib
import os
import random
import subprocess
import sys
import time

import pytest

from encoders.text import tokens as module
from encoders.text.tokens import LONGEST_WORD, byte_tokens, load_tokens, text_of, train_bpe

TEXTS = [
    f"the {a} {b} sat on the {c} mat" for a in ("big", "small") for b in ("cat", "dog", "Älg") for c in "xyz"
]
LEARN = (
    "import hashlib; from tests.text.test_tokens import TEXTS; from encoders.text.tokens import train_bpe;"
    "print(hashlib.sha256(train_bpe(TEXTS * 50, 400).to_json().encode()).hexdigest())"
)


def test_bytes():
    tokens = byte_tokens()
    assert (tokens.size, tokens.prefix, tokens.suffix, tokens.pad, tokens.mask) == (261, [2], [3], 0, 4)
    text = "aé😀 [MASK]\n"
    ids = tokens.encode(text)
    assert len(ids) == len(text.encode())  # special tokens in a text are text
    assert min(ids) >= 5
    assert tokens.encode("") == []
    assert load_tokens(tokens.to_json()).encode(text) == ids
    assert len(set(tokens.encode(bytes(range(128)).decode()))) == 128


def test_a_learnt_vocabulary_has_the_frequent_words():
    tokens = train_bpe(TEXTS, 300)
    assert (tokens.prefix, tokens.suffix, tokens.pad, tokens.mask) == ([2], [3], 0, 4)
    assert tokens.size <= 300
    assert len(tokens.encode("the mat")) == 2
    assert tokens.encode("The Mat") == tokens.encode("the mat")
    assert len(tokens.encode("zzz 😀")) >= 3  # what was never seen is bytes, never unknown
    assert 1 not in tokens.encode("日本語 עברית")


def test_the_same_texts_give_the_same_tokeniser_in_any_process():
    own = hashlib.sha256(train_bpe(TEXTS * 50, 400).to_json().encode()).hexdigest()
    for threads in ("1", "4"):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        found = subprocess.run([sys.executable, "-c", LEARN], capture_output=True, text=True, env=environment)
        assert found.stdout.strip() == own, found.stderr


WORD = "".join(random.Random(0).choices("abcdefghijklmnop", k=160_000))
CHINESE = "的一是在不了有和人这、中大为上个国我以要他时来。" * 100  # no spaces, but words of a few characters


@pytest.mark.parametrize("text", [WORD, " " * 160_000, "1" * 160_000, "=" * 160_000, "a" * 160_000])
def test_a_text_without_a_space_costs_no_square_of_its_length(text):
    begun = time.process_time()
    tokens = train_bpe([text, *TEXTS], 8192)
    assert len(tokens.encode(text)) > 100
    assert time.process_time() - begun < 8  # 19 s as one word on the slowest machine that was measured


@pytest.mark.parametrize(
    "text",
    [
        "a" * LONGEST_WORD, f"x {'a' * (LONGEST_WORD - 1)} y", CHINESE, "word " * 1000, "", " \n", "\0\x01",
        "https://example.org/" * 100, "é" * 600, "tab\tseparated\t" * 200,
    ],
)  # fmt: skip
def test_usual_texts_train_as_they_are(text, monkeypatch):
    expected = train_bpe([text, *TEXTS], 400).to_json()
    monkeypatch.setattr(module, "_without_long_words", lambda text, _: [text])
    assert train_bpe([text, *TEXTS], 400).to_json() == expected


@pytest.mark.parametrize("n", [LONGEST_WORD + 1, 2 * LONGEST_WORD, 2 * LONGEST_WORD + 1, 5000])
def test_only_the_long_word_is_cut_and_nothing_is_lost(n):
    from tokenizers import pre_tokenizers

    splitter = pre_tokenizers.ByteLevel(add_prefix_space=True)
    text = f"the é cat{'z' * n} sat, 大小 {'9' * n}!"
    pieces = list(module._without_long_words(text, splitter))
    assert "".join(pieces) == text
    words = [word for piece in pieces for word, _ in splitter.pre_tokenize_str(piece)]
    assert max(map(len, words)) <= LONGEST_WORD + 1  # the space before it
    assert pieces[0].startswith("the é catz")


@pytest.mark.parametrize("chunk", [7, 20, 64])
def test_a_long_text_is_encoded_in_pieces(monkeypatch, chunk):
    for tokens in (train_bpe(TEXTS, 300), byte_tokens()):
        text = "the big cat sat on the small mat of Älg " * 20
        whole = tokens.encode(text)
        monkeypatch.setattr(module, "_CHUNK", chunk)
        assert "".join(module._chunks(text)) == text
        assert tokens.encode(text) == whole
        monkeypatch.undo()


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t", "\0", "a\0b", "\x07\x1b[31m", "\ufeffa", "\u202e", "😀", "a\r\nb"]
)
def test_any_character_is_text(text):
    assert text_of(text.encode()) == text
    assert len(byte_tokens().encode(text)) == len(text.encode())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xff\xfea\0", "byte 0xff in position 0"),
        ("Größe".encode("latin-1"), "byte 0xf6 in position 2"),
        ("é".encode()[:1], "utf-8"),
        (b"\xed\xa0\x80", "utf-8"),
        (b"\xc0\x80", "utf-8"),
    ],
)
def test_what_is_not_utf_8_is_damaged(raw, message):
    with pytest.raises(ValueError, match=message):
        text_of(raw)


def test_the_longest_text(monkeypatch):
    monkeypatch.setattr(module, "LONGEST_TEXT", 100)
    assert len(text_of("é".encode() * 100)) == 100
    with pytest.raises(ValueError, match="101 characters is over the limit of 100"):
        text_of(b"a" * 101)


@pytest.fixture
def wordpiece(tmp_path):
    """A BERT tokeniser as transformers keeps it."""
    from transformers import BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_folder_below_the_users_own(wordpiece, monkeypatch):
    monkeypatch.setenv("HOME", str(wordpiece.parent))
    for name in ("~/bert", "~/bert/tokenizer.json"):
        assert load_tokens(name).size == 9


def test_a_pretrained_model_s(wordpiece):
    for name in (str(wordpiece), str(wordpiece / "tokenizer.json")):
        tokens = load_tokens(name)
        assert (tokens.size, tokens.prefix, tokens.suffix, tokens.pad, tokens.mask) == (9, [2], [3], 0, 4)
        assert tokens.encode("The cats sat") == [5, 6, 8, 7]
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(wordpiece)("the cat")["input_ids"]
    assert tokens.prefix + tokens.encode("the cat") + tokens.suffix == ids


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: load_tokens("no/such-model"), "cannot load the tokeniser 'no/such-model'"),
        (lambda: load_tokens("{}"), "cannot load the tokeniser"),
        (lambda: train_bpe(TEXTS, 260), "261 or more entries, not 260"),
    ],
)
def test_wrong_inputs(make, words, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at import
    with pytest.raises(ValueError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
