"""Probes against scikit-learn, against plain loops, and on the embedded digits."""

import math

import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from bt_multimodal.evaluation import probes
from bt_multimodal.evaluation.features import FeatureTable


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The problems are small: more threads only wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits() -> tuple[FeatureTable, FeatureTable]:
    """1,437 to learn from and 360 held out, stratified; raw pixels."""
    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    x_train, x_test, y_train, y_test = (torch.from_numpy(part) for part in parts)
    names = [str(i) for i in range(10)]
    return (
        FeatureTable(x_train.float(), y_train.long(), names),
        FeatureTable(x_test.float(), y_test.long(), names),
    )


@pytest.mark.parametrize(("classes", "c"), [(10, 1.0), (3, 0.01), (2, 1.0), (2, 0.05)])
def test_linear_is_scikit_learns(digits, classes, c):
    train, test = digits
    x, y = (part[train.labels < classes][:400] for part in (train.features, train.labels))
    scaler = StandardScaler().fit(x.double().numpy())
    ours = probes._standardise(x, probes.feature_statistics(x), torch.float64)
    torch.testing.assert_close(ours, torch.from_numpy(scaler.transform(x.double().numpy())))

    oracle = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(ours.numpy(), y.numpy())
    weight, bias = probes.fit_linear(ours, y, classes, c)
    if classes == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    torch.testing.assert_close(weight, torch.from_numpy(oracle.coef_), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(bias, torch.from_numpy(oracle.intercept_), atol=1e-3, rtol=1e-3)

    # Where two classes' scores are as near as the weights are, either may win.
    scores = torch.from_numpy(oracle.decision_function(scaler.transform(test.features.double().numpy())))
    first, second = scores.topk(2, dim=1).values.T if classes > 2 else (scores.abs(), -scores.abs())
    clear = first - second > 0.05
    assert clear.double().mean() > 0.9
    expected = scores.argmax(1) if classes > 2 else (scores > 0).long()
    assert torch.equal(probes.linear_probe(x, y, test.features, c)[clear], expected[clear])


def test_linear_in_float32_agrees_with_float64(digits, monkeypatch):
    train, test = digits
    double = probes.linear_probe(train.features, train.labels, test.features)
    statistics = probes.feature_statistics(train.features)
    x, queries = (probes._standardise(part.features, statistics, torch.float64) for part in (train, test))
    weight, bias = probes.fit_linear(x, train.labels, 10)
    first, second = (queries @ weight.T + bias).topk(2, dim=1).values.T
    clear = first - second > 0.05  # a solution to float32's tolerance is that near
    assert clear.double().mean() > 0.9
    monkeypatch.setattr(probes, "_FLOAT32_FROM", 100)
    single = probes.linear_probe(train.features, train.labels, test.features)
    assert torch.equal(double[clear], single[clear])


def test_linear_gives_back_the_labels_that_there_are_and_works_without_gradients():
    x = torch.tensor([[-1.0, 5.0], [-2.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
    with torch.no_grad():
        got = probes.linear_probe(x, torch.tensor([7, 7, 3, 3]), torch.tensor([[-3.0, 9.0], [3.0, -1e9]]))
    assert got.tolist() == [7, 3]  # the constant dimension counts for nothing, whatever a query has there


def test_unconverged_is_said(monkeypatch):
    monkeypatch.setattr(probes, "_MAX_ITERATIONS", 1)
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(0)).double()
    with pytest.warns(RuntimeWarning, match="not converged"):
        probes.fit_linear(x, (x[:, 0] > 0).long(), 2, c=100.0)


def test_knn_is_the_plain_loop(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(60, 8, generator=generator), torch.randn(33, 8, generator=generator)
    labels = torch.randint(0, 4, (60,), generator=generator)
    expected = []
    for query in queries:
        similarity = [float(torch.cosine_similarity(query, row, dim=0)) for row in bank]
        nearest = sorted(range(60), key=lambda i: -similarity[i])[:7]
        votes = [0.0] * 4
        for i in nearest:
            votes[int(labels[i])] += math.exp(similarity[i] / 0.1)
        expected.append(votes.index(max(votes)))
    assert probes.knn(bank, labels, queries, k=7).tolist() == expected
    assert probes.knn(bank * 3, labels, queries * 0.1, k=7, classes=9).tolist() == expected
    # At a vanishing temperature the nearest one decides, and nothing overflows.
    first = probes.knn(bank, labels, queries, k=1)
    assert torch.equal(probes.knn(bank, labels, queries, k=7, temperature=1e-4), first)


def test_knn_in_chunks_is_knn_at_once():
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(5000, 2, generator=generator), torch.randn(4000, 2, generator=generator)
    labels = (bank[:, 0] > 0).long()  # 5000 entries: 3355 queries a chunk
    got = probes.knn(bank, labels, queries, k=3)
    # Off the border of the two classes rounding decides nothing, whichever neighbours it takes.
    cosine = torch.nn.functional.normalize(queries, dim=1)[:, 0]
    clear = cosine.abs() > 0.05
    assert clear.double().mean() > 0.9
    assert torch.equal(got[clear], (cosine > 0).long()[clear])
    part = probes.knn(bank, labels, queries[3300:3400], k=3)
    assert torch.equal(got[3300:3400][clear[3300:3400]], part[clear[3300:3400]])


def test_few_labels():
    labels = torch.tensor([2, 0, -1, 1] * 50)
    ten = probes.few_labels(labels, 10, draw=0, seed=3)
    assert labels[ten].tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert len(set(ten.tolist())) == 30
    assert torch.equal(ten, probes.few_labels(labels, 10, draw=0, seed=3))
    assert set(ten.tolist()) < set(probes.few_labels(labels, 20, draw=0, seed=3).tolist())
    for draw, seed in ((1, 3), (0, 4)):
        assert set(ten.tolist()) != set(probes.few_labels(labels, 10, draw, seed).tolist())


def test_effective_rank():
    generator = torch.Generator().manual_seed(0)
    orthogonal = torch.linalg.qr(torch.randn(64, 9, generator=generator).double())[0]
    centred = torch.linalg.qr(orthogonal - orthogonal.mean(0))[0]
    assert probes.effective_rank(centred[:, :5] + 3) == pytest.approx(5)
    # Singular values 3 and 1: the entropy by hand.
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert probes.effective_rank(centred[:, :2] * torch.tensor([3.0, 1.0])) == pytest.approx(expected)
    assert probes.effective_rank(torch.outer(torch.arange(6.0), torch.ones(4))) == pytest.approx(1)
    assert probes.effective_rank(torch.full((6, 4), 0.1)) == 0


def test_dead_dimensions():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    x[:, 1], x[:, 3] = 7.1, x[:, 3] * 1e-6
    assert probes.dead_dimensions(x) == 0.5
    assert probes.dead_dimensions(x, tol=1e-9) == 0.25


def test_correlations_are_scipys():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, generator=generator).double()
    noisy = x + torch.randn(200, generator=generator)
    tied = (noisy * 2).round()  # a score of few steps, as people give it
    assert len(tied.unique()) < 20
    for a, b in ((x, noisy), (x, tied), (tied, x.round()), (x.exp(), -tied), (x.float(), tied.long())):
        pair = a.numpy(), b.numpy()
        assert probes.spearman(a, b) == pytest.approx(stats.spearmanr(*pair).statistic, abs=1e-12)
        assert probes.pearson(a, b) == pytest.approx(stats.pearsonr(*pair).statistic, abs=1e-7)
    assert probes.spearman(tied, tied) == pytest.approx(1)
    assert probes.spearman(x, -x.exp()) == pytest.approx(-1)
    near = 1 + 1e-9 * x  # of cosines close to each other
    assert probes.pearson(near, x) == pytest.approx(1, abs=1e-6)


def test_evaluate_on_digits(digits):
    train, test = digits
    got = probes.evaluate(train, test, per_class=(10, 50))
    assert list(got) == ["kNN", "linear", "linear, 10 a class", "linear, 50 a class"]
    assert got["kNN"][0] > 95
    assert got["kNN"][1] is None
    assert got["linear"][0] > 95
    mean, std = got["linear, 10 a class"]
    assert 86 < mean < 92
    assert std is not None
    assert 0 < std < 4
    assert mean < got["linear, 50 a class"][0] < got["linear"][0]
    assert probes.evaluate(train, test, per_class=(10,), draws=1)["linear, 10 a class"][1] is None


def test_evaluate_uses_unlabelled_rows_for_the_statistics_alone(digits):
    train, test = digits
    few = probes.few_labels(train.labels, 10, draw=0)
    hidden = torch.full_like(train.labels, -1)
    hidden[few] = train.labels[few]
    got = probes.evaluate(train._replace(labels=hidden), test, per_class=(10,), draws=1)
    expected = probes.evaluate(train, test, per_class=(10,), draws=1)
    one = 100 / len(test.labels)  # the samples are in another order: rounding may decide one
    assert got["linear"][0] == pytest.approx(expected["linear, 10 a class"][0], abs=1.5 * one)
    assert got["linear, 10 a class"][0] == pytest.approx(got["linear"][0], abs=1.5 * one)


X, Y = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])
TABLE = FeatureTable(X, Y, ["a", "b"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: probes.knn(X, Y, X, k=7), "k = 7 neighbours of a bank of 6"),
        (lambda: probes.knn(X, Y, X, k=0), "k = 0"),
        (lambda: probes.knn(X, Y, X, k=2, temperature=0), "temperature must be positive, not 0"),
        (lambda: probes.knn(X, Y, X, k=2, classes=1), "label 1 with 1 classes"),
        (lambda: probes.knn(X, Y[:5], X, k=2), "6 features but 5 labels"),
        (lambda: probes.knn(X, Y - 1, X, k=2), "labels must be 0 or more"),
        (lambda: probes.knn(X, Y.float(), X, k=2), r"labels must be integers \[N\], got torch.float32 \[6\]"),
        (lambda: probes.knn(X, Y, X[:, :2], k=2), "queries have 2 features, the training set 3"),
        (lambda: probes.knn(X, Y, X / 0, k=2), "queries hold NaN or infinity"),
        (lambda: probes.linear_probe(X[0], Y, X), r"features must be .* got torch.float32 \[3\]"),
        (lambda: probes.linear_probe(X.long(), Y, X), r"features must be floating point .* torch.int64"),
        (lambda: probes.linear_probe(X, Y, X, c=0), "c must be positive, not 0"),
        (lambda: probes.linear_probe(X, Y * 0, X), "2 classes or more, got only label 0"),
        (lambda: probes.fit_linear(X, Y, 1), "labels below classes"),
        (lambda: probes.few_labels(Y, 4, 0), "^per_class is 4, but class 0 has only 3 labels$"),
        (lambda: probes.few_labels(Y, 0, 0), "per_class must be 1 or more, not 0"),
        (lambda: probes.few_labels(Y * 0 - 1, 1, 0), "no labels to draw from"),
        (lambda: probes.accuracy(Y, Y[:5]), r"as many predictions as labels, got \[6\] and \[5\]"),
        (lambda: probes.effective_rank(X[:0]), r"N > 0; got torch.float32 \[0, 3\]"),
        (lambda: probes.dead_dimensions(X * math.nan), "hold NaN"),
        (lambda: probes.spearman(X[:, 0], X[:5, 0]), r"needs two \[N\], N > 1; got \[6\] and \[5\]"),
        (lambda: probes.spearman(X, X), r"needs two \[N\], N > 1; got \[6, 3\]"),
        (lambda: probes.spearman(X[:1, 0], X[:1, 0]), r"N > 1; got \[1\]"),
        (lambda: probes.spearman(X[:, 0], Y * 0), "nothing correlates with a constant"),
        (lambda: probes.pearson(X[:, 0], X[:, 0] * 0 + 0.1), "nothing correlates with a constant"),
        (lambda: probes.spearman(X[:, 0] * math.nan, Y), "finite numbers, got NaN"),
        (lambda: probes.pearson(X[:, 0], Y / 0), "finite numbers, got NaN"),
        (lambda: probes.evaluate(TABLE, TABLE), "^per_class is 10, but class 0 has only 3 labels$"),
        (lambda: probes.evaluate(TABLE, TABLE, (1,), draws=0), "draws must be 1 or more, not 0"),
        (lambda: probes.evaluate(TABLE, TABLE._replace(classes=["a"])), "classes differ"),
        (lambda: probes.evaluate(TABLE, TABLE._replace(labels=Y - 1)), "labels must be 0 or more"),
    ],
)
def test_wrong_inputs(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_columns_that_few_labels_allow():
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 9 + [-1] * 4)
    classes = ["ant", "bee", "cow", "never seen"]
    assert probes.few_label_columns(labels, classes, [1, 3]) == ([1, 3], [])
    possible, notes = probes.few_label_columns(labels, classes, [3, 4, 6])
    assert possible == [3]
    assert notes == [
        "linear, 4 a class: there are fewer labels of bee",
        "linear, 6 a class: there are fewer labels of ant, bee",
    ]
    many = torch.arange(9)
    assert probes.few_label_columns(many, [f"c{i}" for i in range(9)], [2])[1] == [
        "linear, 2 a class: there are fewer labels of c0, c1, c2 and 6 more classes"
    ]
    assert probes.few_label_columns(labels, classes, []) == ([], [])
    with pytest.raises(ValueError, match=r"per_class must be 1 or more, not \[0\]"):
        probes.few_label_columns(labels, classes, [0])
