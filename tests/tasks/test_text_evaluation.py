"""Text encoders evaluated from the command line: similarity of pairs, probes, SentEval's protocol."""

import csv

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bt_multimodal.encoder_file import export_encoder
from bt_multimodal.evaluation.figures import Figure
from bt_multimodal.evaluation.report import load_comparison
from encoders.text.bag import BagOfNgrams
from encoders.text.evaluation.sts import cosines
from encoders.text.views import TextViews
from tasks import seeds, text_probe, text_sts

WORDS = {"sea": ["wave", "ship", "salt", "tide"], "hill": ["rock", "goat", "peak", "path"]}


@pytest.fixture
def encoder(tmp_path):
    """A run directory with a bag of bytes."""
    torch.manual_seed(5)  # no seed of a task's untrained encoder
    bag = BagOfNgrams(buckets=512, ngrams=2, width=16)
    folder = tmp_path / "run"
    folder.mkdir()
    export_encoder(
        folder / "encoder.safetensors", bag,
        {"class_path": "encoders.text.bag.BagOfNgrams",
         "init_args": {"buckets": 512, "ngrams": 2, "width": 16}},
        {"class_path": "encoders.text.views.TextViews", "init_args": {"tokenizer": "bytes"}},
    )  # fmt: skip
    return bag.eval()


def write(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(path)


def texts(count, seed):
    random = np.random.default_rng(seed)
    for i in range(count):
        topic = ("sea", "hill")[i % 2]
        yield " ".join(random.choice(WORDS[topic], 3)), topic


@pytest.fixture
def pairs(tmp_path):
    """The share of words that two texts have in common, and an empty text."""
    rows = [
        (a, b, 5 * len({*a.split()} & {*b.split()}) / len({*a.split()} | {*b.split()}))
        for (a, _), (b, _) in zip(texts(40, 1), texts(40, 2), strict=True)
    ]
    return write(tmp_path / "pairs.csv", ["sent1", "sent2", "similarity"], [*rows, ("", "rock", 0)])


@pytest.fixture
def labelled(tmp_path):
    for name, count in (("train", 80), ("validation", 30), ("test", 40)):
        write(tmp_path / "topics" / f"{name}.csv", ["text", "label"], texts(count, count))
    return str(tmp_path / "topics")


def test_similarity(tmp_path, encoder, pairs, capsys):
    out = tmp_path / "table"
    argv = ["--encoder", str(tmp_path / "run"), "--data.source", pairs]
    assert text_sts.main([*argv, "--run_dir", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed == (out / "table.txt").read_text(encoding="utf-8")
    table = load_comparison(out)
    assert table.measure == "Spearman x 100"
    assert list(table.rows) == ["TF-IDF", "TF-IDF's SVD (16)", "untrained encoder", "trained encoder"]
    assert "41; TF-IDF learnt from these sentences" in table.title

    with open(pairs, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    views = TextViews("bytes")

    def embed(column):
        with torch.no_grad():
            return np.concatenate(
                [
                    encoder(views.clean_batch(views.collate([views.decode(row[column].encode())]))).numpy()
                    for row in rows
                ]
            )

    by_hand = spearmanr(
        cosines(embed("sent1"), embed("sent2")).numpy(), [float(row["similarity"]) for row in rows]
    )
    name = f"{tmp_path.name}/pairs"
    assert table.rows["trained encoder"][name][0] == pytest.approx(100 * by_hand.statistic, abs=0.05)
    assert table.rows["untrained encoder"] != table.rows["trained encoder"]

    other = tmp_path / "other"
    assert text_sts.main([*argv, "--seed", "1", "--run_dir", str(other)]) == 0
    rows = load_comparison(other).rows
    assert rows["untrained encoder"] != table.rows["untrained encoder"]
    assert rows["trained encoder"] == table.rows["trained encoder"]
    assert text_sts.main([*argv, "--seed", "1"]) == 0
    assert (
        capsys.readouterr().out.count((other / "table.txt").read_text(encoding="utf-8")) == 2
    )  # the seed says it all
    assert seeds.main([str(out), str(other)]) == 0
    assert "of 2 runs" in capsys.readouterr().out


def test_similarity_of_sentevals_sets_beside_others(tmp_path, encoder, pairs, labelled, capsys):
    sick = tmp_path / "downstream" / "SICK" / "SICK_test_annotated.txt"
    sick.parent.mkdir(parents=True)
    sick.write_text("pair_ID\tA\tB\tscore\n" + "".join(f"{i}\tship {i}\tpeak {i}\t{i}\n" for i in range(5)))
    argv = ["--encoder", str(tmp_path / "run"), "--data.source", str(tmp_path / "downstream"), pairs]
    assert text_sts.main([*argv, "--baseline", labelled]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("left out: STS12 (no STS.input.MSRpar.txt), STS13")
    assert lines[1] == f"pairs: SICK-R 5, {tmp_path.name}/pairs 41; TF-IDF learnt from {labelled}"
    assert lines[2].split() == ["Spearman", "x", "100", "SICK-R", f"{tmp_path.name}/pairs", "average"]
    assert len(lines) == 2 + 2 + 4


def test_probes(tmp_path, encoder, labelled, capsys):
    argv = ["--encoder", str(tmp_path / "run"), "--data.source", labelled, "--per_class", "5"]
    assert text_probe.main(argv) == 0
    table = capsys.readouterr().out
    for words in ("40 test texts, 80 for the probes", "kNN", "linear, 5 a class", "TF-IDF's SVD (16)",
                  "untrained encoder", "trained encoder"):  # fmt: skip
        assert words in table


def test_probes_are_kept(tmp_path, encoder, labelled, capsys):
    out = tmp_path / "table"
    argv = ["--encoder", str(tmp_path / "run"), "--data.source", labelled, "--per_class", "5", "--no_linear"]
    assert text_probe.main([*argv, "--run_dir", str(out)]) == 0
    assert capsys.readouterr().out == (out / "table.txt").read_text(encoding="utf-8")
    assert "trained encoder" in load_comparison(out).rows
    assert text_probe.main([*argv, "--run_dir", str(out)]) == 2
    assert capsys.readouterr().err == f"error: {out} is not empty\n"


def test_sentevals_protocol(tmp_path, encoder, labelled, capsys):
    from encoders.text.evaluation.senteval import Samples, protocol
    from encoders.text.loading import load_text_encoder
    from encoders.text.sentences import SentenceEncoder

    out = tmp_path / "table"
    argv = ["--senteval", "--encoder", str(tmp_path / "run"), "--data.source", labelled]
    assert text_probe.main([*argv, "--run_dir", str(out)]) == 0
    assert capsys.readouterr().out == (out / "table.txt").read_text(encoding="utf-8")
    table = load_comparison(out)
    assert list(table.rows) == ["TF-IDF", "TF-IDF's SVD (16)", "untrained encoder", "trained encoder"]
    encode = SentenceEncoder(*load_text_encoder(tmp_path / "run")).encode

    def samples(count):
        found, labels = zip(*texts(count, count), strict=True)
        return Samples(encode(list(found)), np.array(labels))

    by_hand = protocol(samples(80), samples(30), samples(40)).accuracy
    assert table.rows["trained encoder"] == {"topics": Figure(by_hand)}
    assert by_hand > 80

    file = str(tmp_path / "topics" / "train.csv")
    assert text_probe.main([*argv, file, "--folds", "3"]) == 0
    assert "topics/train: 80 in 3 folds" in capsys.readouterr().out


def test_sentevals_folder_beside_others(tmp_path, encoder, labelled, capsys):
    folder = tmp_path / "downstream" / "CR"
    folder.mkdir(parents=True)
    for topic, ending in (("sea", "pos"), ("hill", "neg")):
        lines = [text for text, label in texts(60, 3) if label == topic]
        (folder / f"custrev.{ending}").write_text("\n".join(lines))
    argv = ["--senteval", "--encoder", str(tmp_path / "run"), "--folds", "3", "--data.source"]
    assert text_probe.main([*argv, str(folder.parent), labelled]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("left out: MR (no rt-polarity.pos), SUBJ")
    assert "CR: 60 in 3 folds" in lines[1]
    assert lines[2].split() == ["accuracy", "in", "%", "CR", "topics", "average"]
    assert float(lines[-1].split()[2]) > 80


def test_a_model_of_transformers(tmp_path, pairs, labelled, capsys):
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from encoders.text.tokens import byte_tokens

    folder = tmp_path / "bert"
    config = BertConfig(
        vocab_size=261, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(byte_tokens().to_json()), pad_token="[PAD]"
    ).save_pretrained(folder)
    capsys.readouterr()
    assert text_sts.main(["--encoder", str(folder), "--data.source", pairs]) == 0
    mean = capsys.readouterr().out
    assert text_sts.main(["--encoder", str(folder), "--data.source", pairs, "--pooling", "cls"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] != mean.splitlines()[-1]
    argv = ["--encoder", str(folder), "--data.source", labelled, "--pooling", "cls"]
    assert text_probe.main([*argv, "--per_class", "5", "--no_linear"]) == 0
    assert text_probe.main([*argv, "--senteval"]) == 0
    assert capsys.readouterr().out.count("trained encoder") == 4


TASKS = {"sts": text_sts.main, "probe": text_probe.main}


@pytest.mark.parametrize("task", TASKS)
def test_without_arguments_it_says_what_it_is(task, capsys):
    assert TASKS[task]([]) == 0
    bare = capsys.readouterr().out
    assert "--encoder" in bare
    assert "--data.source" in bare
    with pytest.raises(SystemExit) as end:
        TASKS[task](["--help"])
    assert end.value.code == 0
    assert bare.strip() in capsys.readouterr().out


WRONG = {
    "no encoder": ("sts", ["--encoder", "{tmp}/none", "--data.source", "{pairs}"], "none' does not exist"),
    "no pairs": ("sts", ["--encoder", "{tmp}/run", "--data.source", "{tmp}/none.csv"], "does not exist"),
    "no score": (
        "sts", ["--encoder", "{tmp}/run", "--data.source", "{tmp}/topics"], "no first sentence column"
    ),
    "columns": (
        "sts", ["--encoder", "{tmp}/run", "--data.source", "{pairs}", "--data.columns", "sent1, sent2, gold"],
        "no score column 'gold'",
    ),
    "the run itself": (
        "sts", ["--encoder", "{tmp}/run", "--data.source", "{pairs}", "--run_dir", "{tmp}/run"],
        "run is not empty",
    ),
    "pooling of a run": (
        "sts", ["--encoder", "{tmp}/run", "--data.source", "{pairs}", "--pooling", "cls"],
        "trained with its own pooling",
    ),
    "no baseline": (
        "sts", ["--encoder", "{tmp}/run", "--data.source", "{pairs}", "--baseline", "{tmp}/none.txt"],
        "none.txt' does not exist",
    ),
    "no device": (
        "sts", ["--encoder", "{tmp}/run", "--data.source", "{pairs}", "--device", "nonsense"],
        "there is no device 'nonsense'",
    ),
    "probe, no device": (
        "probe", ["--encoder", "{tmp}/run", "--data.source", "{tmp}/topics", "--device", "nonsense"],
        "there is no device 'nonsense'",
    ),
    "probe, one class": (
        "probe", ["--encoder", "{tmp}/run", "--data.source", "{one}"], "a linear probe needs 2 classes"
    ),
    "probe, no draws": (
        "probe", ["--encoder", "{tmp}/run", "--data.source", "{tmp}/topics", "--draws", "0"],
        "draws must be 1 or more, not 0",
    ),
    "probe, no encoder": ("probe", ["--encoder", "{tmp}/none", "--data.source", "{tmp}/topics"], "not exist"),
    "probe, no texts": ("probe", ["--encoder", "{tmp}/run", "--data.source", "{pairs}"], "no content column"),
    "probe, no labels": ("probe", ["--encoder", "{tmp}/run", "--data.source", "{lines}"], "no label column"),
    "senteval, no labels": (
        "probe", ["--senteval", "--encoder", "{tmp}/run", "--data.source", "{lines}"], "no label column"
    ),
    "senteval, the run itself": (
        "probe",
        ["--senteval", "--encoder", "{tmp}/run", "--data.source", "{tmp}/topics", "--run_dir", "{tmp}/run"],
        "run is not empty",
    ),
    "senteval, few": (
        "probe",
        ["--senteval", "--encoder", "{tmp}/run", "--data.source", "{tmp}/topics/test.csv", "--folds", "50"],
        "folds is 50: it must",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line(case, tmp_path, encoder, pairs, labelled, capsys):
    task, argv, message = WRONG[case]
    lines = tmp_path / "lines.txt"
    lines.write_text("one\ntwo\nthree\n")
    one = write(tmp_path / "one.csv", ["text", "label"], [(f"wave {i}", "sea") for i in range(60)])
    names = {"{tmp}": str(tmp_path), "{pairs}": pairs, "{lines}": str(lines), "{one}": one}
    for name, path in names.items():
        argv = [argument.replace(name, path) for argument in argv]
    assert TASKS[task](argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run" / "table.json").exists()
