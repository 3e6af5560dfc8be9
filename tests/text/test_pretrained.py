"""Encoders of transformers give their own numbers, for any padding, at the dropout of the view."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from bt_multimodal.twins import check_representation
from encoders.text.dropout import set_dropout
from encoders.text.pooling import POOLINGS
from encoders.text.pretrained import PretrainedText

SIZES = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 32,
}  # fmt: skip
CONFIGS = {
    "bert": {**SIZES, "max_position_embeddings": 24},
    "roberta": {**SIZES, "max_position_embeddings": 26},
    "mpnet": {**SIZES, "max_position_embeddings": 26},
    "distilbert": {
        "vocab_size": 60, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32,
        "max_position_embeddings": 24,
    },
    "modernbert": {
        **SIZES, "max_position_embeddings": 24, "local_attention": 8, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
    },
    "t5": {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2},
}  # fmt: skip
POSITIONS = {"t5": None}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    from transformers import AutoConfig, AutoModel, T5EncoderModel

    made = {}
    for kind, sizes in CONFIGS.items():
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **sizes)
        model = T5EncoderModel(config) if kind == "t5" else AutoModel.from_config(config)
        for module in model.modules():  # at the usual 0.02 so small a model hardly hears its texts
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.3)
        made[kind] = str(tmp_path_factory.mktemp(kind))
        model.save_pretrained(made[kind])
    return made


@pytest.fixture(params=CONFIGS)
def folder(folders, request):
    return folders[request.param]


def texts(count=40, columns=20, pad=1):
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, columns + 1, (count,), generator=generator)
    lengths[0], lengths[1] = 1, columns
    mask = (torch.arange(columns) < lengths[:, None]).long()
    ids = torch.randint(3, 60, mask.shape, generator=generator)
    return {"input_ids": torch.where(mask == 1, ids, pad), "attention_mask": mask}


def alone(view, i):
    length = int(view["attention_mask"][i].sum())
    return {name: tensor[i : i + 1, :length] for name, tensor in view.items()}


def at_rate(view, rate):
    return view | {"dropout": torch.full((len(view["input_ids"]),), rate)}


@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_it_is_transformers_own_output_pooled(folder, pooling):
    from transformers import AutoModel, T5EncoderModel

    encoder = PretrainedText(folder, pooling).eval()
    network = T5EncoderModel if encoder.model.config.model_type == "t5" else AutoModel
    theirs = network.from_pretrained(folder).eval()
    view = texts(5)
    found = encoder(view)
    assert encoder.features_dim == 16
    check_representation(encoder, found)
    for i, row in enumerate(found):
        output = theirs(**alone(view, i), output_hidden_states=True)
        first, last = output.hidden_states[1][0], output.last_hidden_state[0]
        expected = {"mean": last.mean(0), "cls": last[0], "first_last": (first.mean(0) + last.mean(0)) / 2}
        torch.testing.assert_close(row, expected[pooling], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_padding_and_groups_change_nothing(folder, pooling):
    encoder = PretrainedText(folder, pooling).eval()
    view = texts()
    found = encoder(view)
    assert found.isfinite().all()
    torch.testing.assert_close(found, encoder._embed(view), atol=1e-5, rtol=1e-5)
    for i in range(3):
        torch.testing.assert_close(found[i : i + 1], encoder(alone(view, i)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_the_rate_is_the_views(folder, attention):
    encoder = PretrainedText(folder)
    encoder.model.set_attn_implementation(attention)
    view = texts(8)
    clean = encoder.eval()(view)
    encoder.train()
    torch.testing.assert_close(encoder(at_rate(view, 0.0)), clean, atol=1e-5, rtol=1e-5)
    assert (encoder(at_rate(view, 0.3)) - encoder(at_rate(view, 0.3))).any()

    torch.manual_seed(1)

    def spread(rate):
        return torch.stack([encoder(at_rate(view, rate)) - clean for _ in range(4)]).pow(2).mean()

    low, middle, high = (spread(rate) for rate in (0.01, 0.05, 0.2))
    assert 0 < 1.5 * low < middle
    assert 1.5 * middle < high
    encoder.eval()
    torch.testing.assert_close(encoder(at_rate(view, 0.3)), clean, atol=1e-5, rtol=1e-5)


def test_every_dropout_is_set_and_set_back(folder):
    encoder = PretrainedText(folder).train()
    model = encoder.model

    def rates():
        attention = [vars(m).get("attention_dropout", vars(m).get("dropout")) for m in model.modules()]
        return [m.p for m in model.modules() if isinstance(m, nn.Dropout)], [
            a for a in attention if a is not None
        ]

    before = rates()
    assert sum(len(part) for part in before) > 3
    encoder(at_rate(texts(2), 0.25))
    assert all(rate == 0.25 for part in rates() for rate in part)
    encoder(texts(2))
    assert rates() == before
    twin = copy.deepcopy(encoder)
    set_dropout(twin.model, 0.5)
    assert rates() == before  # the copy's are its own
    assert next(m.p for m in twin.modules() if isinstance(m, nn.Dropout)) == 0.5


def test_its_own_rate(folders):
    encoder = PretrainedText(folders["bert"], dropout=0.0).train()
    view = texts(4)
    torch.testing.assert_close(encoder(view), encoder(view), atol=1e-5, rtol=1e-5)
    assert (encoder(at_rate(view, 0.2)) - encoder(view)).any()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_drops_out_at_the_rate_too(folder, attention, monkeypatch):
    encoder = PretrainedText(folder).train()
    encoder.model.set_attn_implementation(attention)
    seen = {"attention": [], "other": []}
    drop, attend = functional.dropout, functional.scaled_dot_product_attention

    def dropout(x, p=0.5, training=True, inplace=False):
        seen["attention" if x.ndim == 4 else "other"].append(p)
        return drop(x, p, training, inplace)

    def attention_function(*arguments, dropout_p=0.0, **options):
        seen["attention"].append(dropout_p)
        return attend(*arguments, dropout_p=dropout_p, **options)

    monkeypatch.setattr(functional, "dropout", dropout)
    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention_function)
    encoder(at_rate(texts(2), 0.25))
    assert seen["attention"] == [0.25] * 3  # layers
    assert set(seen["other"]) == {0.25}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_reach_every_parameter(folder, pooling):
    encoder = PretrainedText(folder, pooling).train()
    encoder(texts()).pow(2).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


@torch.no_grad()
def test_it_can_be_built_where_the_folder_is_not(folder):
    encoder = PretrainedText(folder).eval()
    assert list(encoder.portable) == ["name"]
    assert folder not in encoder.portable["name"]
    rebuilt = PretrainedText(**encoder.portable).eval()
    rebuilt.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(rebuilt(texts(4)), encoder(texts(4)), atol=1e-5, rtol=1e-5)
    assert rebuilt.portable == encoder.portable
    as_config = PretrainedText(json.loads(encoder.portable["name"]))  # as a YAML file has it
    as_config.load_state_dict(encoder.state_dict())
    assert as_config.portable == encoder.portable


@torch.no_grad()
def test_limits(folder):
    encoder = PretrainedText(folder).eval()
    kind = encoder.model.config.model_type
    assert encoder.length == POSITIONS.get(kind, 24)
    assert encoder(texts(2, columns=24)).isfinite().all()
    if encoder.length is not None:
        with pytest.raises(ValueError, match="25 tokens is longer than the 24"):
            encoder(texts(2, columns=25))
    with pytest.raises(ValueError, match="vocabularies of the tokeniser and the encoder must agree"):
        encoder({"input_ids": torch.tensor([[60]]), "attention_mask": torch.ones(1, 1)})


def test_half_precision_files_are_read_as_float32(folders, tmp_path):
    from transformers import BertModel

    BertModel.from_pretrained(folders["bert"]).to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in PretrainedText(str(tmp_path)).parameters()} == {torch.float32}


def lacking(folder):
    """A BERT of two layers whose configuration promises three."""
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(**SIZES | {"num_hidden_layers": 2})).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    return str(folder)


def damaged(folder):
    lacking(folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    return str(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (lambda folder: str(folder / "nowhere"), "there is no folder '.*nowhere'"),
        (lambda folder: str(folder), r"cannot load '.*': .*config\.json"),
        (lambda folder: '{"model_type": "gpt2"}', "its type is gpt2, which is not a bidirectional"),
        (lambda folder: '{"model_type": "bart"}', "its type is bart, which is not a bidirectional"),
        (lambda folder: '{"model_type": "vit"}', "its type is vit, which is not a bidirectional"),
        (lambda folder: '{"model_type": "perceiver"}', "its type is perceiver, which is no"),
        (lambda folder: '{"model_type": "nothing"}', "Unrecognized model"),
        (lambda folder: '{"hidden_size": 8}', "model_type"),
        (lambda folder: '{"model_type": "bert", "hidden_size": 10}', "not a multiple"),
        (lambda folder: '{"model_type": "bert", "hidden_size": "wide"}', "hidden_size"),
        (lambda folder: '{"model_type"', "cannot load the model of a configuration"),
        (lacking, "lacks 16 of the model's weights, such as encoder.layer.2"),
        (damaged, "cannot load"),
    ],
)
def test_no_such_encoder(tmp_path, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        PretrainedText(name(tmp_path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_folder_below_the_users_own(folders, monkeypatch):
    monkeypatch.setenv("HOME", folders["bert"])
    assert PretrainedText("~").features_dim == PretrainedText(folders["bert"]).features_dim


def test_no_such_pooling():
    with pytest.raises(ValueError, match="no pooling 'max'; there are mean, cls, first_last"):
        PretrainedText("bert-base-uncased", pooling="max")


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_a_loaded_model_trains_from_the_start(folders, kind):
    """transformers gives loaded models in evaluation mode, in which a bare loop would have no dropout."""
    encoder = PretrainedText(folders[kind], dropout=0.3)
    assert all(part.training for part in encoder.modules())
    view = {"input_ids": torch.tensor([[2, 5, 6, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.int64)}
    assert not torch.equal(encoder(view), encoder(view))
