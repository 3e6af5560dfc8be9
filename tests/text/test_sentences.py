"""Sentences to embeddings: in order, in the forms that sentence-transformers and MTEB ask for."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from encoders.text.sentences import SentenceEncoder

TEXTS = ["A cat sat on the mat.", "Yes", "", "Größe 大小", "word " * 30, "half a pair \ud800", "No", "A cat"]


class FakeViews:
    """Bytes as tokens, none added."""

    def decode(self, raw):
        return torch.tensor(list(raw), dtype=torch.int64)

    def clean(self, decoded):
        return decoded[:20]

    def collate(self, samples):
        return pad_sequence(samples, batch_first=True, padding_value=-1)

    def clean_batch(self, data):
        return {"input_ids": data.clamp(min=0), "attention_mask": (data >= 0).long()}


class FakeEncoder(nn.Module):
    """How many of each of four kinds of byte a text has."""

    features_dim = 4

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.dropout = nn.Dropout(0.9)
        self.shapes = []

    def forward(self, view):
        self.shapes.append(tuple(view["input_ids"].shape))
        kinds = nn.functional.one_hot(view["input_ids"] % 4, 4) * view["attention_mask"][..., None]
        return self.dropout(kinds.sum(1) * self.scale)


def counted(text):
    found = np.zeros(4, np.float32)
    for byte in text.encode(errors="replace")[:20]:
        found[byte % 4] += 1
    return found


@pytest.fixture
def fake():
    return SentenceEncoder(FakeEncoder(), FakeViews())


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_texts_in_their_order(fake, batch_size):
    found = fake.encode(TEXTS, batch_size=batch_size)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [counted(text) for text in TEXTS])


def test_batches_are_of_like_length(fake):
    fake.encode(TEXTS, batch_size=2)
    assert fake.encoder.shapes == [(2, 20), (2, 14), (2, 5), (2, 2)]


def test_a_single_text_is_one_row(fake):
    found = fake.encode(TEXTS[0])
    assert found.shape == (4,)
    np.testing.assert_array_equal(found, counted(TEXTS[0]))
    assert fake.encode(TEXTS[0], convert_to_tensor=True).shape == (4,)


def test_forms_of_the_result(fake):
    plain = fake.encode(TEXTS[:2])
    tensor = fake.encode(TEXTS[:2], convert_to_tensor=True)
    rows = fake.encode(TEXTS[:2], convert_to_numpy=False)
    assert (type(tensor), type(rows), len(rows)) == (torch.Tensor, list, 2)
    np.testing.assert_array_equal(plain, tensor.numpy())
    np.testing.assert_array_equal(plain, torch.stack(rows).numpy())
    unit = fake.encode(TEXTS[:2], normalize_embeddings=True)
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain, axis=1, keepdims=True), rtol=1e-6)
    assert fake.encode([]).shape == (0, 4)
    np.testing.assert_array_equal(fake.encode(np.array(["Yes", "No"])), fake.encode(("Yes", "No")))


def test_what_mteb_calls(fake):
    plain = fake.encode(TEXTS)
    old = fake.encode(
        TEXTS, task_name="STS12", prompt_type=None, precision="float32", show_progress_bar=False
    )
    loader = DataLoader([{"text": text, "id": i} for i, text in enumerate(TEXTS)], batch_size=3)
    new = fake.encode(
        loader, task_metadata=object(), hf_split="test", hf_subset="en", prompt_type="query", batch_size=4
    )
    np.testing.assert_array_equal(plain, old)
    np.testing.assert_array_equal(plain, new)
    np.testing.assert_array_equal(plain, fake.encode({"text": TEXTS, "id": [0] * len(TEXTS)}))


def test_the_encoder_is_left_as_it_was(fake):
    fake.encoder.train()
    fake.encoder.dropout.eval()
    found = fake.encode(TEXTS, convert_to_tensor=True)
    assert not found.requires_grad
    assert (fake.encoder.training, fake.encoder.dropout.training) == (True, False)
    fake.encoder.train()
    np.testing.assert_array_equal(fake.encode(TEXTS), found)
    assert fake.encoder.dropout.training


def test_similarities(fake):
    first, second = np.random.default_rng(0).normal(size=(2, 3, 4))
    expected = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in second] for a in first]
    np.testing.assert_allclose(fake.similarity(first, torch.tensor(second)), expected, atol=1e-6)
    np.testing.assert_allclose(fake.similarity_pairwise(first, second), np.diag(expected), atol=1e-6)
    np.testing.assert_allclose(fake.similarity(first[0], second[1]), [[expected[0][1]]], atol=1e-6)


def test_results_are_filed_by_the_embeddings(fake, monkeypatch):
    module = ModuleType("mteb.models")
    module.ModelMeta = SimpleNamespace(create_empty=lambda values: SimpleNamespace(**values))
    monkeypatch.setitem(sys.modules, "mteb", ModuleType("mteb"))
    monkeypatch.setitem(sys.modules, "mteb.models", module)
    meta = fake.mteb_model_meta
    assert meta.name == "bt_multimodal/encoder"
    assert fake.mteb_model_meta.revision == meta.revision
    with torch.no_grad():
        fake.encoder.scale.mul_(2)
    assert fake.mteb_model_meta.revision != meta.revision


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fake, at: fake.encode(["a", 3.0]), "a text must be a string, not a float: 3.0"),
        (lambda fake, at: fake.encode([["a", "b"]]), "a text must be a string, not a list"),
        (lambda fake, at: fake.encode("a", batch_size=0), "1 or more texts, not 0"),
        (lambda fake, at: fake.encode("a", device="nonsense"), "there is no device 'nonsense'"),
        (
            lambda fake, at: SentenceEncoder(fake.encoder, fake.augmentations, "cuda:99"),
            "no device 'cuda:99'",
        ),
        (lambda fake, at: fake.encode("a", prompt="query: "), r"no prompt \(it was 'query: '\)"),
        (lambda fake, at: fake.encode("a", precision="int8"), "no precision"),
        (lambda fake, at: fake.encode("a", output_value="token_embeddings"), "no output_value"),
        (lambda fake, at: SentenceEncoder.load(at / "nothing"), "does not exist"),
        (lambda fake, at: SentenceEncoder(nn.Identity(), FakeViews()), "an encoder needs features_dim"),
    ],
)
def test_wrong_inputs(fake, tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(fake, tmp_path)


def test_an_encoder_of_something_else(image_encoder):
    with pytest.raises(ValueError, match="ReferenceViews is not an augmentation set for texts"):
        SentenceEncoder.load(image_encoder)
