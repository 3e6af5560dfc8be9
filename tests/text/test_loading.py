"""Encoders by what a user calls them: exports, folders of transformers and sentence-transformers, the hub."""

import json
import shutil

import numpy as np
import pytest
import torch

from bt_multimodal.encoder_file import export_encoder
from encoders.text.bag import BagOfNgrams
from encoders.text.loading import load_text_encoder
from encoders.text.pretrained import PretrainedText
from encoders.text.sentences import SentenceEncoder
from encoders.text.tokens import byte_tokens

TEXTS = ["A plane is taking off.", "a much longer text than twenty bytes", "rain"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A small BERT of bytes, as transformers saves it."""
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=261, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=200, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(byte_tokens().to_json()), pad_token="[PAD]"
    ).save_pretrained(folder)
    return folder


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def modules(*kinds, at=""):
    paths = [at, *(f"{i}_{kind}" for i, kind in enumerate(kinds) if i)]
    return [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]


POOLINGS = {
    "mean": {
        "word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False,
    },
    "cls": {
        "word_embedding_dimension": 16, "pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True,
    },
    "new cls": {"embedding_dimension": 16, "pooling_mode": "cls", "include_prompt": True},
}  # fmt: skip


@pytest.fixture
def made(plain, tmp_path):
    """A folder of sentence-transformers, of 20 tokens at most; below ``at`` the transformer."""

    def make(pooling, at=""):
        root = tmp_path / "model"
        shutil.copytree(plain, root / at, dirs_exist_ok=True)
        write(root / "modules.json", modules("Transformer", "Pooling", at=at))
        write(root / at / "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})
        write(root / "1_Pooling" / "config.json", pooling)
        return root

    return make


def embedded(loaded):
    return SentenceEncoder(*loaded).encode(TEXTS)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("at", ["", "0_Transformer"])
def test_a_folder_of_sentence_transformers_gives_its_embeddings(made, pooling, at):
    oracle = pytest.importorskip("sentence_transformers")
    folder = made(POOLINGS[pooling], at)
    loaded = load_text_encoder(folder)
    assert loaded.encoder.pooling == pooling.split()[-1]
    assert loaded.augmentations.length == 20
    expected = oracle.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(embedded(loaded), expected, atol=1e-5)
    assert not loaded.encoder.training


def test_a_folder_of_transformers_is_averaged_over_all_that_it_takes(plain):
    encoder, views = load_text_encoder(str(plain))
    assert (encoder.pooling, views.length) == ("mean", 200)
    expected = SentenceEncoder(PretrainedText(str(plain)).eval(), views).encode(TEXTS)
    np.testing.assert_allclose(embedded((encoder, views)), expected, atol=1e-5)


LENGTHS = {
    "of sentence-transformers": (20, 30, 20),
    "of the tokeniser": (None, 30, 30),
    "beyond the positions": (None, 400, 200),
    "without a limit": (None, 10**30, 200),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_the_longest_text(made, case):
    of_model, of_tokeniser, expected = LENGTHS[case]
    folder = made(POOLINGS["mean"])
    write(folder / "sentence_bert_config.json", {"max_seq_length": of_model} if of_model else {})
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    write(folder / "tokenizer_config.json", {**settings, "model_max_length": of_tokeniser})
    assert load_text_encoder(folder).augmentations.length == expected


def test_pooling_is_the_users_where_given(plain, made):
    assert load_text_encoder(plain, pooling="first_last").encoder.pooling == "first_last"
    assert load_text_encoder(made(POOLINGS["mean"]), pooling="cls").encoder.pooling == "cls"
    strange = {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}
    assert load_text_encoder(made(strange), pooling="cls").encoder.pooling == "cls"


def test_without_weights_it_is_the_same_class_with_others(made):
    folder = made(POOLINGS["cls"])
    trained = load_text_encoder(folder)
    torch.manual_seed(3)
    fresh = load_text_encoder(folder, weights=False)
    assert fresh.encoder.pooling == "cls"
    assert fresh.augmentations.length == trained.augmentations.length
    shapes = [{name: w.shape for name, w in one.encoder.state_dict().items()} for one in (trained, fresh)]
    assert shapes[0] == shapes[1]
    assert np.abs(embedded(fresh) - embedded(trained)).max() > 0.1


def test_an_export_and_its_run_directory(tmp_path):
    encoder = BagOfNgrams(300, 1, 8)
    specs = (
        {"class_path": "encoders.text.bag.BagOfNgrams", "init_args": {"buckets": 300, "width": 8}},
        {"class_path": "encoders.text.views.TextViews", "init_args": {"tokenizer": "bytes"}},
    )
    export_encoder(tmp_path / "encoder.safetensors", encoder, *specs)
    for path in (tmp_path, tmp_path / "encoder.safetensors"):
        assert torch.equal(load_text_encoder(path).encoder.table.weight, encoder.table.weight)
    assert not torch.equal(load_text_encoder(tmp_path, False).encoder.table.weight, encoder.table.weight)
    with pytest.raises(ValueError, match="trained with its own pooling"):
        load_text_encoder(tmp_path, pooling="mean")
    # a folder that sentence-transformers loads with code of ours
    write(tmp_path / "modules.json", [{"path": "", "type": "encoders.text.exchange.SentenceModule"}])
    assert torch.equal(load_text_encoder(tmp_path).encoder.table.weight, encoder.table.weight)


def test_a_hub_name_is_what_the_hub_serves(made, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    folder = made(POOLINGS["cls"])
    asked = []

    def serve(name, file):
        asked.append(file)
        if not (folder / file).is_file():
            raise EntryNotFoundError(f"no {file}")
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", serve)
    loaded = {}
    monkeypatch.setattr(
        "encoders.text.loading.PretrainedText",
        lambda name, pooling: loaded.update(name=name) or PretrainedText(str(folder), pooling),
    )
    monkeypatch.setattr("encoders.text.views.load_tokens", lambda name: byte_tokens())
    encoder, views = load_text_encoder("owner/model")
    assert (loaded["name"], encoder.pooling, views.length) == ("owner/model", "cls", 20)
    assert asked == [
        "modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "tokenizer_config.json"
    ]  # fmt: skip


def change(file, content):
    def apply(folder):
        (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))

    return apply


WRONG = {
    "more modules": (
        change("modules.json", modules("Transformer", "Pooling", "Dense")),
        "not a transformer and its pooling alone: it has Transformer, Pooling, Dense",
    ),
    "no transformer": (change("modules.json", modules("StaticEmbedding")), "it has StaticEmbedding"),
    "another pooling": (
        change("1_Pooling/config.json", {"pooling_mode_max_tokens": True}), "pooled by max, which is not"
    ),
    "two poolings": (
        change("1_Pooling/config.json", {"pooling_mode": ["mean", "cls"]}), "pooled by mean and cls",
    ),
    "lower case": (
        change("sentence_bert_config.json", {"do_lower_case": True}), "expects lower-case texts",
    ),
    "no JSON": (change("modules.json", "{"), "modules.json is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_folders(case, made):
    apply, message = WRONG[case]
    folder = made(POOLINGS["mean"])
    apply(folder)
    with pytest.raises(ValueError, match=message):
        load_text_encoder(folder)


def test_what_is_not_there(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match=r"there is no encoder at .*run/encoder.safetensors"):
        load_text_encoder(tmp_path / "run")
    with pytest.raises(ValueError, match="nowhere' does not exist"):
        load_text_encoder(tmp_path / "nowhere")

    def unreachable(name, file):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(
        ValueError, match="'owner/none' does not exist here, nor can the hub serve it: no netw"
    ):
        load_text_encoder("owner/none")
