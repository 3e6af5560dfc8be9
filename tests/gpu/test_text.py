"""Text encoders on a GPU: padding does not matter there either, and a run ends as one on a CPU."""

import csv
import json

import numpy as np
import pytest
import torch

from encoders.text.bag import BagOfNgrams
from encoders.text.lengths import in_length_groups
from encoders.text.pretrained import PretrainedText
from encoders.text.sentences import SentenceEncoder
from encoders.text.transformer import TextTransformer
from encoders.text.views import TextViews
from tasks import text_pretrain

BERT = json.dumps(
    {"model_type": "bert", "vocab_size": 261, "hidden_size": 64, "num_hidden_layers": 2,
     "num_attention_heads": 4, "intermediate_size": 128}
)  # fmt: skip
MODERNBERT = json.dumps(
    {"model_type": "modernbert", "vocab_size": 261, "hidden_size": 64, "num_hidden_layers": 3,
     "num_attention_heads": 4, "intermediate_size": 128, "pad_token_id": 0, "reference_compile": False}
)  # fmt: skip
ENCODERS = {
    "transformer": lambda: TextTransformer(261, 64, 2, 4),
    "bert": lambda: PretrainedText(BERT),
    "modernbert": lambda: PretrainedText(MODERNBERT),
    "bag": lambda: BagOfNgrams(512, 2, 64),
}
TEXTS = ["", "a", "some words", "😀 und עברית", "a longer text, word after word " * 12]


def encoder(name):
    torch.manual_seed(0)
    return ENCODERS[name]().eval().cuda()


def view(texts, columns=None):
    views = TextViews("bytes", length=400)
    made = views.clean_batch(views.collate([views.decode(text.encode()) for text in texts]))
    if columns is not None:
        more = columns - made["input_ids"].shape[1]
        made = {key: torch.nn.functional.pad(tensor, (0, more)) for key, tensor in made.items()}
    return {key: tensor.cuda() for key, tensor in made.items()}


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_padding_does_not_matter(name):
    network = encoder(name)
    together = network(view(TEXTS, columns=420))
    alone = torch.cat([network(view([text])) for text in TEXTS])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["transformer", "bert", "modernbert"])
@torch.no_grad()
def test_padding_does_not_matter_in_bfloat16(name):
    network = encoder(name)
    with torch.autocast("cuda", torch.bfloat16):
        together = network(view(TEXTS, columns=420))
        alone = torch.cat([network(view([text])) for text in TEXTS])
    assert torch.cosine_similarity(together, alone).min() > 0.999
    assert torch.cosine_similarity(together, network(view(TEXTS))).min() > 0.999


@pytest.mark.parametrize("name", ["transformer", "bert"])
def test_groups_give_what_the_whole_batch_gives(name):
    network, batch = encoder(name), view([TEXTS[i % 5] + "x" * i for i in range(40)])
    grads = []
    for size in (8, 40):
        network.zero_grad()
        in_length_groups(network._embed, batch, size).square().sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-3 * grads[1].abs().max().item())


@pytest.mark.parametrize("name", ENCODERS)
def test_encode_is_that_of_a_cpu(name):
    network, views = encoder(name), TextViews("bytes", length=400)
    on_gpu = SentenceEncoder(network, views).encode(TEXTS * 10, convert_to_tensor=True)
    assert on_gpu.device.type == "cuda"
    on_cpu = SentenceEncoder(network.cpu(), views).encode(TEXTS * 10, convert_to_tensor=True)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=2e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_of_the_task(tmp_path, precision):
    """With dropout at two rates; what it exports is the same encoder on a GPU and on a CPU."""
    words = {
        "sea": ["wave", "tide", "sail", "harbour", "boat"],
        "town": ["street", "house", "tram", "market", "square"],
    }
    for split, n in (("train", 64), ("test", 16)):
        rows = [
            f'"{words[topic][i % 5]} and {words[topic][(i + 1 + i % 3) % 5]}",{topic}'
            for i in range(n)
            for topic in words
        ]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *rows]))
    run = tmp_path / "run"
    argv = [
        "fit", "--config", "configs/text/docstrings.yaml", "--data.source", str(tmp_path),
        "--views", "encoders.text.presets.self_contrastive_decorrelation", "--views.vocabulary", "400",
        "--model.encoder", "encoders.text.transformer.TextTransformer", "--model.encoder.vocabulary", "400",
        "--model.encoder.width", "64", "--model.encoder.depth", "2", "--model.projector", "[256]",
        "--data.batch_size", "64", "--model.optimizer.lr", "0.003", "--probe.every", "20",
        "--trainer.accelerator", "gpu", "--trainer.precision", precision, "--trainer.max_epochs", "20",
        "--run_dir", str(run),
    ]  # fmt: skip
    assert text_pretrain.main(argv) == 0
    with open(run / "metrics.csv", encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    assert losses[-1] < losses[0]
    encode = SentenceEncoder.load(run, "cuda").encode
    sea, town = encode(["wave and sail", "boat and tide"]), encode(["street and tram", "square and house"])
    assert SentenceEncoder.load(run).encode("wave and sail") == pytest.approx(sea[0], abs=1e-4)
    assert np.isfinite(town).all()
