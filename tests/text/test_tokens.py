"""Tokenisers: what they give, what is kept of them."""

import hashlib
import os
import subprocess
import sys

import pytest

from encoders.text.tokens import byte_tokens, load_tokens, train_bpe

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
