"""Spearman's correlation of cosines with scores: against scipy, over concatenated sets, of odd embeddings."""

import numpy as np
import pytest
import torch
from scipy import sparse, stats

from bt_multimodal.data.columns import DataError
from encoders.text.evaluation.pairs import Pairs
from encoders.text.evaluation.senteval_folder import similarity_sets
from encoders.text.evaluation.sts import cosines, sentences, similarity_table


def random_set(name, count, seed):
    random = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(12)]  # few, so that sentences come several times
    first, second = (list(random.choice(words, count)) for _ in range(2))
    return Pairs(name, first, second, torch.tensor(random.integers(0, 6, count) / 2.0))


def embeddings(texts):
    """Fixed vectors of words, not of length 1."""
    table = np.random.default_rng(7).standard_normal((12, 5)).astype(np.float32)
    return np.stack([table[int(text[1:])] * (1 + int(text[1:])) for text in texts])


def expected(pairs, statistic=stats.spearmanr):
    u, v = embeddings(pairs.first).astype(float), embeddings(pairs.second).astype(float)
    similarity = (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
    # pairs of a word with itself: 1, but for the rounding, which differs from pair to pair
    return 100 * statistic(similarity.round(12), pairs.scores.numpy()).statistic


def test_the_table_is_scipys():
    pairs = random_set("one", 60, 0)
    asked = []

    def encode(texts):
        asked.append(texts)
        return embeddings(texts)

    table = similarity_table([pairs], {"encoder": encode}, "nothing")
    row = table.rows["encoder"]
    assert row["one"] == (pytest.approx(expected(pairs), abs=1e-9), None)
    assert row["Pearson"] == (pytest.approx(expected(pairs, stats.pearsonr), abs=1e-4), None)
    assert table.measure == "Spearman x 100"
    assert "one 60" in table.title
    assert "learnt from nothing" in table.title
    assert len(asked) == 1
    assert len(asked[0]) == len(set(asked[0]))  # each sentence once


def test_several_sets_are_a_column_each_and_their_average():
    sets = [random_set(name, 40 + i, i) for i, name in enumerate("abc")]
    row = similarity_table(sets, {"encoder": embeddings}, "nothing").rows["encoder"]
    assert list(row) == ["a", "b", "c", "average"]
    values = [expected(pairs) for pairs in sets]
    assert [row[name][0] for name in "abc"] == pytest.approx(values, abs=1e-9)
    assert row["average"][0] == pytest.approx(sum(values) / 3, abs=1e-9)


def test_a_year_is_one_correlation_of_all_its_pairs(tmp_path):
    """The setting "all", not the average of the files' correlations."""
    folder = tmp_path / "STS" / "STS13-en-test"
    folder.mkdir(parents=True)
    parts = [random_set(name, 20, i) for i, name in enumerate(("FNWN", "headlines", "OnWN"))]
    for i, part in enumerate(parts):
        lines = [f"{a}\t{b}\n" for a, b in zip(part.first, part.second, strict=True)]
        (folder / f"STS.input.{part.name}.txt").write_text("".join(lines))
        scores = part.scores + 2 * i  # each file on a scale of its own
        (folder / f"STS.gs.{part.name}.txt").write_text("".join(f"{score}\n" for score in scores.tolist()))
    (year,), _ = similarity_sets(str(tmp_path))
    by_hand = Pairs(
        "by hand",
        [text for part in parts for text in part.first],
        [text for part in parts for text in part.second],
        torch.cat([part.scores + 2 * i for i, part in enumerate(parts)]),
    )
    got = similarity_table([year], {"encoder": embeddings}, "").rows["encoder"]["STS13"][0]
    assert got == pytest.approx(expected(by_hand), abs=1e-9)
    apart = np.mean([expected(part) for part in parts])
    assert abs(got - apart) > 1


def test_cosines_of_arrays_and_sparse_matrices():
    u = np.array([[3, 4], [1, 0], [0, 0], [0, 0], [1e-20, 0], [2, 2]], np.float32)
    v = np.array([[4, 3], [-2, 0], [1, 1], [0, 0], [5, 0], [7, 7]], np.float32)
    by_hand = [0.96, -1, 0, 0, 1, 1]
    assert cosines(u, v).tolist() == pytest.approx(by_hand)
    assert cosines(sparse.csr_matrix(u), sparse.csr_matrix(v)).tolist() == pytest.approx(by_hand)
    assert cosines(u, v).dtype == cosines(sparse.csr_matrix(u), sparse.csr_matrix(v)).dtype == torch.float64


def test_sentences_are_there_once_in_order():
    sets = [Pairs("a", ["x", "y"], ["y", "z"], torch.ones(2)), Pairs("b", ["w"], ["x"], torch.ones(1))]
    assert sentences(sets) == ["x", "y", "z", "w"]


def test_representations_that_are_all_the_same_have_no_correlation():
    pairs = random_set("one", 30, 0)
    constant = similarity_table([pairs], {"encoder": lambda texts: np.ones((len(texts), 3))}, "")
    assert constant.rows["encoder"] == {"one": (0.0, None), "Pearson": (0.0, None)}
    zero = similarity_table([pairs], {"encoder": lambda texts: np.zeros((len(texts), 3))}, "")
    assert zero.rows["encoder"]["one"] == (0.0, None)


def test_wrong_inputs():
    pairs = random_set("one", 30, 0)
    with pytest.raises(DataError, match="two sets are called 'one'"):
        similarity_table([pairs, pairs], {"encoder": embeddings}, "")
    with pytest.raises(ValueError, match="needs finite numbers, got NaN"):
        similarity_table([pairs], {"encoder": lambda texts: np.full((len(texts), 3), np.nan)}, "")
