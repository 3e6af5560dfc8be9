"""The baselines that count words."""

import numpy as np
import pytest
import torch

from bt_multimodal.evaluation.probes import knn
from encoders.text.tfidf import TfidfSvd, contents, tfidf_baselines

WORDS = {0: "stock market bank price trade", 1: "goal match team player coach"}


class Texts:
    def __init__(self, n, seed, damaged=()):
        random = np.random.default_rng(seed)
        self.labels = torch.tensor([i % 2 for i in range(n)])
        shared = ["the", "a", "of", "in", "on", "at", "to", "and"]
        self.texts = [
            " ".join([*random.choice(WORDS[i % 2].split(), 3), *random.choice(shared, 6)]) for i in range(n)
        ]
        self.damaged = damaged

    def __len__(self):
        return len(self.texts)

    def raw(self, i):
        if i in self.damaged:
            raise OSError("damaged")
        return self.texts[i].encode()


def test_an_average_of_the_words_vectors():
    texts = Texts(60, 0).texts
    model = TfidfSvd(texts, 5)
    counted = model.counted(texts).toarray()
    assert np.linalg.norm(counted, axis=1) == pytest.approx(np.ones(60))
    names = model._counts.get_feature_names_out()
    vectors = model.reduced(list(names)) / np.array([model.counted([name]).max() for name in names])[:, None]
    assert model.reduced(texts) == pytest.approx(counted @ vectors, abs=1e-9)


def test_what_is_not_known_is_zero():
    model = TfidfSvd(["a b c", "b c d", "c d e"], 100)  # more than there are
    assert model.reduced(["", "zzz"]).tolist() == [[0.0] * model.reduced(["a"]).shape[1]] * 2


@pytest.mark.parametrize("texts", [["", "?!", "🌊", "🎉🎉"], ["wave", "wave wave", "", "wave"]])
def test_texts_without_words_or_with_one(texts):
    model = TfidfSvd(texts, 8)
    there = np.array([["wave" in text] for text in texts], float)
    assert model.counted(texts).sum(1).reshape(-1, 1).tolist() == there.tolist()
    assert abs(model.reduced(texts)).sum(1, keepdims=True) == pytest.approx(there)


def test_rows_of_the_table():
    train, test = Texts(120, 1), Texts(40, 2)
    rows = tfidf_baselines(train, test, 8, per_class=(2,), draws=3, k=5)
    assert list(rows) == ["TF-IDF", "TF-IDF's SVD (8)"]
    for row in rows.values():
        assert list(row) == ["kNN", "linear", "linear, 2 a class"]
        assert row["linear"][0] == 100
        assert 50 < row["linear, 2 a class"][0] <= 100
        assert row["linear, 2 a class"][1] >= 0
    train.labels = 1 - train.labels
    wrong = tfidf_baselines(train, test, 8, per_class=(), draws=3, k=5)
    assert all(row["linear"][0] == 0 for row in wrong.values())


def test_neighbours_are_those_of_the_dense_rows():
    train, test = Texts(120, 3), Texts(40, 4)
    model = TfidfSvd(contents(train), 8)
    bank, queries = (torch.from_numpy(model.counted(contents(part)).toarray()) for part in (train, test))
    expected = (knn(bank, train.labels, queries, 7) == test.labels).double().mean().item()
    found = tfidf_baselines(train, test, 8, per_class=(), k=7, linear=False)["TF-IDF"]["kNN"][0]
    assert found == pytest.approx(100 * expected)


def test_unlabelled_texts_only_count_words_and_damaged_ones_are_empty():
    train = Texts(60, 5, damaged=(1,))
    train.labels[20:] = -1
    assert contents(train)[1] == ""
    rows = tfidf_baselines(train, Texts(40, 6), 8, per_class=(3,), draws=1, k=50)
    assert rows["TF-IDF"]["linear, 3 a class"][1] is None
    assert rows["TF-IDF"]["linear"][0] > 90
