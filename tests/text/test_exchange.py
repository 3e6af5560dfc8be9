"""Text encoders as folders of sentence-transformers: the same embeddings there and back."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bt_multimodal.encoder_file import export_encoder
from encoders.text.exchange import save_sentence_transformer
from encoders.text.pretrained import PretrainedText
from encoders.text.sentences import SentenceEncoder
from encoders.text.tokens import byte_tokens
from encoders.text.transformer import TextTransformer
from encoders.text.views import TextViews

TEXTS = ["A cat sat on the mat.", "Yes", "", "Größe 大小", "word " * 30, "half a pair \ud800", "No", "A cat",
         " spaces around ", "\n", "a\0b", "[CLS] in a text", "UPPER lower", "x" * 5000]  # fmt: skip


def sizes(kind):
    positions = 64 + 2 * (kind == "roberta")
    return {
        "model_type": kind, "vocab_size": byte_tokens().size, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": positions,
        "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2,
    }  # fmt: skip


def pretrained(kind, pooling="mean"):
    torch.manual_seed(0)
    encoder = PretrainedText(json.dumps(sizes(kind)), pooling)
    for parameter in encoder.parameters():
        if parameter.ndim == 2:  # at the usual 0.02 all texts are alike
            nn.init.normal_(parameter, std=0.3)
    return encoder


@pytest.fixture(scope="module")
def sentence_transformers():
    return pytest.importorskip("sentence_transformers")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_folder_of_sentence_transformers(tmp_path, sentence_transformers, pooling):
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    BertModel(BertConfig(**sizes("bert"))).save_pretrained(tmp_path / "bert")
    (tmp_path / "tokenizer.json").write_text(byte_tokens().to_json(), encoding="utf-8")
    PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="[PAD]"
    ).save_pretrained(tmp_path / "bert")
    modules = [Transformer(str(tmp_path / "bert"), max_seq_length=40), Pooling(16, pooling)]
    theirs = sentence_transformers.SentenceTransformer(modules=modules, device="cpu")
    theirs.save(str(tmp_path / "saved"))
    ours = SentenceEncoder.load(tmp_path / "saved")
    texts = [text for text in TEXTS if "\ud800" not in text]
    np.testing.assert_allclose(ours.encode(texts, batch_size=3), theirs.encode(texts), atol=1e-5)
    assert (ours.encoder.pooling, ours.augmentations.length) == (pooling, 40)


@pytest.mark.parametrize("kind", ["bert", "roberta", "t5"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pretrained_as_a_folder(tmp_path, sentence_transformers, kind, pooling):
    encoder, views = pretrained(kind, pooling), TextViews("bytes", length=40)
    save_sentence_transformer(encoder, views, tmp_path)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    texts = [text for text in TEXTS if "\ud800" not in text]
    expected = SentenceEncoder(encoder, views).encode(texts)
    assert np.ptp(expected, axis=0).min() > 0.01
    np.testing.assert_allclose(theirs.encode(texts), expected, atol=1e-5)
    assert theirs.max_seq_length == 40
    assert theirs.get_embedding_dimension() == 16
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in encoder.parameters())
    ours = SentenceEncoder.load(tmp_path)
    np.testing.assert_allclose(ours.encode(texts), expected, atol=1e-6)


@pytest.fixture
def exported(tmp_path):
    """A run's file of a Transformer from scratch."""
    torch.manual_seed(0)
    arguments = {"vocabulary": byte_tokens().size, "width": 16, "depth": 2, "heads": 2, "length": 40}
    path = tmp_path / "run" / "encoder.safetensors"
    path.parent.mkdir()
    export_encoder(
        path,
        TextTransformer(**arguments),
        {"class_path": "encoders.text.transformer.TextTransformer", "init_args": arguments},
        {"class_path": "encoders.text.views.TextViews", "init_args": {"tokenizer": "bytes", "length": 40}},
    )
    return path


@pytest.fixture(scope="module")
def task():
    path = Path(__file__).parents[2] / "tasks" / "text_convert.py"
    spec = importlib.util.spec_from_file_location("text_convert", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_encoder_of_ours_as_a_folder(tmp_path, sentence_transformers, exported, task, capsys):
    folder, again = str(tmp_path / "folder"), str(tmp_path / "again")
    assert task.main(["--encoder", str(exported.parent), "--out", folder]) == 0
    assert capsys.readouterr().out == f"wrote {folder}\n"
    ours = SentenceEncoder.load(exported)
    assert ours.name == "run"
    expected = ours.encode(TEXTS)
    theirs = sentence_transformers.SentenceTransformer(folder, device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(theirs.encode(TEXTS), expected, atol=1e-5)
    assert (theirs.max_seq_length, theirs.get_embedding_dimension()) == (40, 16)
    np.testing.assert_allclose(SentenceEncoder.load(folder).encode(TEXTS), expected, atol=1e-6)
    with torch.no_grad():  # trained further there, and saved
        theirs[0].encoder.norm.weight.mul_(2)
    theirs.save(again)
    reloaded = sentence_transformers.SentenceTransformer(again, device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(reloaded.encode(TEXTS), theirs.encode(TEXTS), atol=1e-6)
    assert abs(reloaded.encode(TEXTS) - expected).max() > 0.01


def test_the_weights_written_are_the_encoders_and_train_on(tmp_path, sentence_transformers, exported):
    ours = SentenceEncoder.load(exported)
    with torch.no_grad():
        ours.encoder.norm.weight.mul_(2)
    save_sentence_transformer(ours.encoder, ours.augmentations, tmp_path, exported)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(theirs.encode(TEXTS), ours.encode(TEXTS), atol=1e-5)
    theirs.train()
    theirs(theirs.preprocess(TEXTS))["sentence_embedding"].sum().backward()
    assert all(p.grad is not None for p in theirs.parameters())


@pytest.mark.parametrize(
    ("encoder", "views", "message"),
    [
        (lambda: nn.Identity(), lambda: object(), "object is not an augmentation set for texts"),
        (lambda: nn.Identity(), lambda: TextViews("bytes"), "an? Identity needs the file"),
        (
            lambda: pretrained("bert", "first_last"), lambda: TextViews("bytes"),
            "no pooling of the first and the last layer",
        ),
    ],
)  # fmt: skip
def test_wrong_inputs(tmp_path, encoder, views, message):
    with pytest.raises(ValueError, match=message):
        save_sentence_transformer(encoder(), views(), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_the_task_says_what_is_wrong_in_one_line(tmp_path, task, image_encoder, capsys):
    assert task.main([]) == 0
    assert "--encoder" in capsys.readouterr().out
    for encoder, message in (
        (tmp_path / "no", "there is no encoder"),
        (image_encoder, "not an augmentation set"),
    ):
        assert task.main(["--encoder", str(encoder), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_task_writes_into_no_folder_of_another_model(tmp_path, exported, task, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "encoder.safetensors").write_text("another's")  # which would be loaded in the new one's place
    assert task.main(["--encoder", str(exported), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"error: {out} is not empty\n"
    assert [path.name for path in out.iterdir()] == ["encoder.safetensors"]


def test_the_task_finds_an_encoder_in_the_folder_it_is_started_from(tmp_path):
    (tmp_path / "my_words.py").write_text(
        "import torch\nclass Mine(torch.nn.Linear):\n    features_dim = 3\n"
        "    def __init__(self):\n        super().__init__(3, 3)\n"
    )
    mine = tmp_path / "mine.safetensors"
    views = {"class_path": "encoders.text.views.TextViews", "init_args": {"tokenizer": "bytes"}}
    export_encoder(mine, nn.Linear(3, 3), {"class_path": "my_words.Mine"}, views)
    task = Path(__file__).parents[2] / "tasks" / "text_convert.py"
    command = [sys.executable, str(task), "--encoder", str(mine), "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--trust my_words" in done.stderr
    command += ["--trust", "my_words"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "wrote out\n"), done.stderr
