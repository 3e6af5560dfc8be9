"""Text from the command line: a table of texts to an encoder that loads again."""

import csv
import json

import pytest
import torch

from bt_multimodal.encoder_file import load_encoder
from encoders.text.docstrings import docstrings
from tasks import text_pretrain

SMALL = ["fit", "--config", "configs/text/ag_news_cpu.yaml", "--trainer.max_epochs", "2",
         "--model.warmup_epochs", "1", "--model.projector", "[32]", "--data.batch_size", "16",
         "--model.encoder.width", "16",
         "--views.vocabulary", "400", "--probe.per_class", "[5]"]  # fmt: skip
TRANSFORMER = "encoders.text.transformer.TextTransformer"
WORDS = {"sea": "wave tide sail harbour boat", "town": "street house tram market square"}


def run(argv):
    return text_pretrain.main(argv)


def texts(kind, n):
    words = WORDS[kind].split()
    return [f'{words[i % 5]} and {words[(i + 1) % 5]},\n"{words[i * 7 % 5]}" 🌊 מים {i}' for i in range(n)]


@pytest.fixture
def table(tmp_path):
    """80 texts with quotes, newlines, emoji and right-to-left words; one empty, one of 100,000 words."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for split, n in (("train", 40), ("test", 10)):
        with open(folder / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["title", "text", "label"])
            for kind in WORDS:
                writer.writerows([kind, text, kind] for text in texts(kind, n))
            if split == "train":
                writer.writerow(["empty", "", "sea"])
                writer.writerow(["long", "street house " * 50_000, "town"])
    return folder


def test_a_table_of_texts(tmp_path, table, capsys):
    out = tmp_path / "run"
    assert run([*SMALL, "--data.source", str(table), "--run_dir", str(out)]) == 0
    printed = capsys.readouterr().out
    for words in ("TF-IDF", "TF-IDF's SVD (16)", "untrained encoder", "trained encoder", "20 test texts"):
        assert words in printed
    rows = json.loads((out / "table.json").read_text(encoding="utf-8"))["rows"]
    assert {*rows["TF-IDF"]} == {*rows["trained encoder"]} == {"kNN", "linear", "linear, 5 a class"}
    assert rows["TF-IDF"]["linear"][0] > 90
    assert "tokenizer: bpe" in (out / "config.yaml").read_text(encoding="utf-8")
    # The tokeniser is in the file, which needs nothing else of the run.
    (out / "encoder.safetensors").rename(tmp_path / "alone.safetensors")
    encoder, views = load_encoder(tmp_path / "alone.safetensors")
    assert views.tokens.size <= 400
    view = views.clean_batch(views.collate([views.clean(views.decode(b"wave and tide"))]))
    assert encoder(view).shape == (1, 16)


def test_a_run_continues_with_its_own_texts_only(tmp_path, table, capsys):
    out = tmp_path / "run"
    argv = [*SMALL, "--data.source", str(table), "--run_dir", str(out), "--probe.table", "false"]
    assert run(argv) == 0
    more = [*argv, "--trainer.max_epochs", "3", "--resume", "extend"]
    assert run(more) == 0
    with open(table / "train.csv", "a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(["new", "lighthouse lighthouse keeper", "sea"] for _ in range(30))
    capsys.readouterr()
    assert run([*more, "--trainer.max_epochs", "4"]) == 2
    assert "the training texts have changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "more"),
    [
        ("lines.txt", []),
        ("rows.jsonl", ["--data.content_column", "head+body"]),
        ("rows.jsonl", ["--data.content_column", "head,body"]),
        ("rows.parquet", ["--data.content_column", "body", "--data.stream", "60"]),
    ],
)
def test_texts_of_any_kind_without_labels(tmp_path, source, more, capsys):
    rows = [{"head": kind, "body": text.replace("\n", " ")} for kind in WORDS for text in texts(kind, 40)]
    path = tmp_path / source
    if path.suffix == ".txt":
        path.write_text("\n\n".join(row["body"] for row in rows), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        from datasets import Dataset

        Dataset.from_list(rows).to_parquet(path)
    out = tmp_path / "run"
    assert run([*SMALL, "--data.source", str(path), "--run_dir", str(out), *more]) == 0
    assert "test texts" not in capsys.readouterr().out
    assert load_encoder(out).encoder.features_dim == 16


def test_several_sources(tmp_path, table):
    (tmp_path / "more.txt").write_text("\n".join(f"lighthouse number {i}" for i in range(50)))
    sources = f"[{table}, {tmp_path / 'more.txt'}]"
    out = tmp_path / "run"
    assert run([*SMALL, "--data.source", sources, "--run_dir", str(out)]) == 0
    tokens = load_encoder(out).augmentations.tokens
    assert len(tokens.encode("lighthouse")) < 5  # learnt from both
    assert len(tokens.encode("harbour")) < 5


def test_an_architecture_of_transformers_from_scratch(tmp_path, table):
    out, sizes = tmp_path / "run", {"vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "intermediate_size": 16}
    argv = [*SMALL, "--data.source", str(table), "--run_dir", str(out), "--probe.table", "false"]
    at = argv.index("--model.encoder.width")
    argv[at : at + 2] = ["--model.encoder", "encoders.text.pretrained.PretrainedText",
                         "--model.encoder.name", json.dumps({"model_type": "bert", **sizes})]  # fmt: skip
    assert run(argv) == 0
    assert load_encoder(out).encoder.model.config.num_hidden_layers == 1


def test_a_transformer_with_dropout_alone(tmp_path, table):
    out = tmp_path / "run"
    argv = ["fit", "--views", "encoders.text.presets.self_contrastive_decorrelation",
            "--views.tokenizer", "bytes", "--model.encoder", TRANSFORMER, "--model.encoder.vocabulary", "261",
            "--model.encoder.width", "16", "--model.encoder.depth", "1", "--model.projector", "[32]",
            "--model.loss.lambd", "0.005", "--model.optimizer", "torch.optim.AdamW",
            "--model.warmup_epochs", "0", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1",
            "--data.batch_size", "16", "--data.source", str(table), "--run_dir", str(out),
            "--probe.table", "false"]  # fmt: skip
    assert run([*argv, "--model.accumulate", "2"]) == 0
    assert load_encoder(out).augmentations._rates["dropout"] == (0.05, 0.155)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--data.content_column", "txt"],
         "no content column 'txt'; available columns: title, text, label; did you mean 'text'?"),
        (["--data.source", "nowhere.csv"], "'nowhere.csv' does not exist"),
        (["--data.source", "docstring"], "did you mean 'docstrings'?"),
        (["--views.tokenizer", "./nothing"], "cannot load the tokeniser './nothing'"),
        (["--views.delete", "1.5"], "error: delete must be a share from 0 to below 1"),
        (["--views.crop", "[0.1, 0.2, 0.3]"],
         "views.crop takes two numbers or null, not [0.1, 0.2, 0.3]"),
        (["--views.mask", "most"], "views.mask takes a number or two numbers, not most"),
        (["--views.lenght", "3"], "TextViews has no key lenght; did you mean length?"),
        (["--model.encoder", TRANSFORMER, "--model.encoder.vocabulary", "300"],
         "the vocabularies of the tokeniser and the encoder must agree"),
        (["--model.encoder", "encoders.text.pretrained.PretrainedText", "--model.encoder.name", "./no"],
         "there is no folder './no'"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line(tmp_path, table, change, words, capsys):
    argv = [*SMALL, "--data.source", str(table), "--run_dir", str(tmp_path / "run"), *change]
    assert run(argv) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert error.startswith("error: ")
    assert "\n" not in error


@pytest.mark.slow
def test_documentation_strings():
    columns = docstrings()
    assert len(columns["text"]) == len(columns["label"]) == len({*columns["text"]}) >= 2000
    counts = {label: columns["label"].count(label) for label in columns["label"]}
    assert len(counts) == 9
    assert max(counts.values()) == 400
    assert not any(">>>" in text for text in columns["text"])
    assert all(len(text.split()) >= 12 for text in columns["text"])


def test_the_first_lines_of_a_stream_are_learnt_from(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"zebra crossing {i}" for i in range(64)))
    argv = [*SMALL, "--data.source", str(path), "--data.stream", "64", "--run_dir", str(tmp_path / "run")]
    assert run(argv) == 0
    loaded = load_encoder(tmp_path / "run")
    assert len(loaded.augmentations.tokens.encode("zebra crossing")) <= 3
    assert torch.isfinite(loaded.encoder.table.weight).all()
