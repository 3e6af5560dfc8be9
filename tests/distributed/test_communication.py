"""What a step of the loss sends over the wire, counted by the interfaces of ranks on hosts of their own."""

import pytest

from benchmarks.communication import METHODS, measure
from benchmarks.namespaces import why_not

N, D, WORLD = 256, 1024, 2


@pytest.fixture(autouse=True)
def _namespaces():
    if reason := why_not():
        pytest.skip(reason)


def test_gathered_embeddings_are_a_quarter_of_reducing_c():
    sent = dict(zip(((m.form, m.dtype) for m in METHODS), measure(WORLD, N, D), strict=True))
    reduced = sent["published", "float32"]
    # Packets' headers are 5 %, and more of what is short.
    assert reduced == pytest.approx(2 * (WORLD - 1) * D * D * 4, rel=0.08)
    assert sent["gram", "float32"] == pytest.approx(2 * (WORLD - 1) * N * D * 4, rel=0.12)
    assert sent["gram", "float32"] <= 0.30 * reduced
    assert sent["gram", "bfloat16"] <= 0.15 * reduced
    assert sent["direct", "float32"] <= 1.05 * reduced, "C is reduced once, forward"


def test_a_rank_that_fails_is_told(capfd):
    with pytest.raises(RuntimeError, match="rank 0 of 2 failed"):
        measure(2, N, -1)
    assert "negative dimension" in capfd.readouterr().err, "what the rank itself said"
