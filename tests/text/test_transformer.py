"""The Transformer from scratch, its dropout, and pooling."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from bt_multimodal.micro_batches import embed_in_micro_batches
from bt_multimodal.twins import check_representation
from encoders.text.pooling import check_pooling, masked_mean, pool
from encoders.text.transformer import TextTransformer

SMALL = {"vocabulary": 60, "width": 16, "depth": 2, "heads": 2, "length": 24}


def texts(count=40, columns=20):
    """Rows of 1 to ``columns`` tokens; the padding is no token's embedding, so it shows if heard."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, columns + 1, (count,), generator=generator)
    lengths[0], lengths[1] = 1, columns
    mask = (torch.arange(columns) < lengths[:, None]).long()
    return {"input_ids": torch.randint(60, mask.shape, generator=generator), "attention_mask": mask}


def alone(view, i):
    length = int(view["attention_mask"][i].sum())
    return {name: tensor[i : i + 1, :length] for name, tensor in view.items()}


def at_rate(view, rate):
    return view | {"dropout": torch.full((len(view["input_ids"]),), rate)}


@pytest.fixture(params=["mean", "cls"])
def encoder(request):
    torch.manual_seed(0)
    return TextTransformer(**SMALL, pooling=request.param)


def test_it_is_the_transformer_of_torch():
    torch.manual_seed(0)
    encoder = TextTransformer(**SMALL).eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter)
    view = texts()
    x = encoder.tokens(view["input_ids"]) + encoder.positions.weight[:20]
    for ours in encoder.layers:
        theirs = nn.TransformerEncoderLayer(
            16, 2, 64, activation="gelu", batch_first=True, norm_first=True
        ).eval()
        pairs = {
            "self_attn.in_proj_weight": ours.queries_keys_values.weight,
            "self_attn.in_proj_bias": ours.queries_keys_values.bias,
        }
        for there, here in {
            "self_attn.out_proj": ours.output, "linear1": ours.mlp[0], "linear2": ours.mlp[2],
            "norm1": ours.attention_norm, "norm2": ours.mlp_norm,
        }.items():  # fmt: skip
            pairs |= {f"{there}.weight": here.weight, f"{there}.bias": here.bias}
        theirs.load_state_dict(pairs)
        x = theirs(x, src_key_padding_mask=view["attention_mask"] == 0)
    x = encoder.norm(x)
    expected = torch.stack([row[:n].mean(0) for row, n in zip(x, view["attention_mask"].sum(1), strict=True)])
    torch.testing.assert_close(encoder(view), expected, atol=1e-5, rtol=1e-5)


def test_pooling_by_hand():
    torch.manual_seed(0)
    states = [torch.randn(3, 5, 4) for _ in range(3)]
    lengths = [1, 5, 3]
    mask = torch.tensor([[int(j < n) for j in range(5)] for n in lengths])
    for i, n in enumerate(lengths):
        last = sum(states[2][i, j] for j in range(n)) / n
        first = sum(states[1][i, j] for j in range(n)) / n
        torch.testing.assert_close(pool(states, mask, "mean")[i], last)
        torch.testing.assert_close(pool(states, mask, "first_last")[i], (first + last) / 2)
        torch.testing.assert_close(pool(states, mask, "cls")[i], states[2][i, 0])


def test_sums_are_in_float32_and_padding_never_counts():
    tokens = torch.ones(1, 4096, 1, dtype=torch.bfloat16)
    tokens[:, 4001:] = torch.nan
    mask = (torch.arange(4096) < 4001).long()[None]  # bfloat16 has no 4001
    found = masked_mean(tokens, mask)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.ones(1, 1))


@torch.no_grad()
def test_padding_and_groups_change_nothing(encoder):
    encoder.eval()
    view = texts()
    found = encoder(view)
    check_representation(encoder, found)
    assert found.isfinite().all()
    torch.testing.assert_close(found, encoder._embed(view), atol=1e-5, rtol=0)
    for i in range(4):
        torch.testing.assert_close(found[i : i + 1], encoder(alone(view, i)), atol=1e-5, rtol=0)


def test_places_and_tokens_matter(encoder):
    view = {"input_ids": torch.tensor([[1, 2, 3], [1, 3, 2], [1, 2, 4]]), "attention_mask": torch.ones(3, 3)}
    found = encoder.eval()(view)
    assert (found[0] - found[1]).abs().max() > 1e-4
    assert (found[0] - found[2]).abs().max() > 1e-4


def test_gradients_reach_every_parameter(encoder):
    encoder.train()(texts()).pow(2).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_the_rate_is_the_views(encoder):
    view, clean = texts(), encoder.eval()(texts())
    encoder.train()
    torch.testing.assert_close(encoder(at_rate(view, 0.0)), clean, atol=1e-5, rtol=1e-5)
    torch.manual_seed(1)
    low, high = ((encoder(at_rate(view, rate)) - clean).pow(2).mean() for rate in (0.05, 0.3))
    assert 0 < 2 * low < high
    assert (encoder(view) - encoder(view)).any()  # without one, at its own
    assert {module.p for module in encoder.modules() if isinstance(module, nn.Dropout)} == {0.1}
    torch.testing.assert_close(encoder.eval()(at_rate(view, 0.3)), clean, atol=1e-5, rtol=1e-5)


def test_attention_drops_out_at_the_rate_too(encoder, monkeypatch):
    seen, attend = [], functional.scaled_dot_product_attention

    def attention(*arguments, dropout_p=0.0):
        seen.append(dropout_p)
        return attend(*arguments, dropout_p=dropout_p)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)
    encoder.train()(at_rate(texts(2), 0.25))
    encoder.eval()(at_rate(texts(2), 0.25))
    assert seen == [0.25, 0.25, 0.0, 0.0]


def test_micro_batches_drop_out_the_same_twice(encoder):
    """The second forward pass of a micro-batch is at the rate of its own view."""
    encoder.double().train()
    views = [at_rate(texts(12), rate) for rate in (0.3, 0.0)]

    def in_parts(view):
        parts = zip(*(tensor.tensor_split(3) for tensor in view.values()), strict=True)
        return torch.cat([encoder(dict(zip(view, part, strict=True))) for part in parts])

    grads = []
    for embed in in_parts, lambda view: embed_in_micro_batches(encoder, view, 3, encoder):
        encoder.zero_grad()
        torch.manual_seed(5)
        sum(embed(view).pow(2).sum() for view in views).backward()
        grads.append([p.grad.clone() for p in encoder.parameters()])
    for plain, again in zip(*grads, strict=True):
        torch.testing.assert_close(again, plain)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TextTransformer(width=10, heads=4), "width 10, depth 4, heads 4"),
        (lambda: TextTransformer(depth=0), "1 or more.*depth 0"),
        (lambda: TextTransformer(pooling="first_last"), "no pooling 'first_last'; there are mean, cls"),
        (lambda: check_pooling("max"), "no pooling 'max'; there are mean, cls, first_last"),
        (lambda: TextTransformer(dropout=1.5), "dropout probability"),
        (lambda: TextTransformer(**SMALL)(texts(columns=25)), "25 tokens is longer than the 24"),
        (lambda: TextTransformer(**SMALL | {"vocabulary": 50})(texts()), "vocabularies of the tokeniser and"),
    ],
)
def test_wrong_inputs(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_long_padding_is_no_long_text():
    encoder = TextTransformer(**SMALL).eval()
    view = {"input_ids": torch.zeros(2, 99, dtype=torch.long), "attention_mask": torch.zeros(2, 99)}
    view["attention_mask"][:, :24] = 1
    assert encoder(view).shape == (2, 16)
