"""The text commands. Each imports what it needs only when it runs."""

import argparse
from collections.abc import Sequence
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bt_multimodal.commands.cli import add_trust, arguments_of, plain_parser, run_plain

if TYPE_CHECKING:
    from bt_multimodal.evaluation.report import Comparison
    from bt_multimodal.modality import Modality

NAME = "text"


def modality() -> "Modality":
    """Returns how text data is opened."""
    from encoders.text.modality import TEXTS

    return TEXTS


def pretrain(argv: Sequence[str] | None = None) -> int:
    """Pretrain a text encoder with Barlow Twins, without labels.

        bt-multimodal text pretrain --config text/docstrings
        bt-multimodal text pretrain --config text/ag_news_cpu --data.source FOLDER

    --data.source is a .txt file with one text per line; a CSV, TSV, JSONL or Parquet file with a column of
    texts; a folder of such files, named after their splits (train.csv, test.csv); a hub data set's name;
    docstrings (real English, embedded); or several of these: '[A, B]'. --data.content_column is the column,
    by default text, sentence, ...; title+body joins two columns of a row, sentence1,sentence2 makes each a
    separate text. --data.stream N streams the source during training; an epoch is then N texts.
    --model.encoder is a class path, also of your own code: my_lab.MyEncoder is any nn.Module with
    features_dim.

    The run directory keeps config.yaml, metrics.csv, checkpoints/, encoder.safetensors (with the tokeniser),
    curves.png and, where there are labels, features.png, table.txt and table.json. Repeat a command with the
    same --run_dir to resume a stopped run.
    """
    from bt_multimodal.commands.pretrain import pretrain as command

    return command(getdoc(pretrain) or "", modality, argv, NAME)


def probe(argv: Sequence[str] | None = None) -> int:
    """Evaluate a text encoder on frozen features: weighted kNN and linear probes, or SentEval's protocol.

        bt-multimodal text probe --encoder runs/ag_news_cpu/TIME --data.source FOLDER
        bt-multimodal text probe --encoder runs/ag_news_cpu/TIME --data.source trec sst2 --senteval

    --encoder is a run directory, an encoder.safetensors file, or a folder or hub name of transformers or
    sentence-transformers. --pooling applies to a model of transformers: mean, cls or first_last; by default
    its folder's, or mean. --data.source is as in pretraining, with labels.

    The table has four rows: TF-IDF, its SVD with the encoder's number of dimensions, the untrained encoder
    (same class, random weights) and the trained encoder. Its columns are kNN (k = 20), a linear probe on all
    labels (standardised features; by cross-validation for TF-IDF), and linear probes on a few labels per
    class over several draws (mean and standard deviation). If the source has no test split, 20 % are held
    out. --run_dir keeps table.txt and table.json.

    --senteval trains logistic regressions on the unscaled features (Conneau and Kiela, 2018). The penalty is
    chosen on the validation split or, if there is none, by 10 folds of the training split. A source with one
    split is tested by 10 folds, and the penalty is chosen for each. Each source is one column of the table;
    columns sentence1 and sentence2 of a source are pairs; SentEval's folder downstream holds its tasks MR,
    CR, SUBJ, MPQA, SST2, TREC and MRPC. Further keys are --data.content_column, --data.label_column, --seed
    (of the untrained weights), --device, --folds N (default 10) and --run_dir.
    """
    from bt_multimodal.commands.probe import probe as command

    doc = getdoc(probe) or ""
    known, others = _senteval_switch().parse_known_args(arguments_of(argv))
    if known.senteval:
        return _run(senteval_parser(doc), others, lambda arguments: _senteval(arguments, known.pooling))

    def load(name: str | Path, weights: bool = True, trust: Sequence[str] = ()) -> Any:
        from encoders.text.loading import load_text_encoder

        return load_text_encoder(name, weights, known.pooling, trust)

    return command(doc, modality, others, load, NAME)


def _senteval_switch() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--pooling")
    parser.add_argument("--senteval", action="store_true")
    return parser


def senteval_parser(doc: str) -> argparse.ArgumentParser:
    """Returns the parser of `probe`'s arguments with ``--senteval``."""
    parser = plain_parser(doc)
    parser.add_argument("--encoder", required=True)
    add_trust(parser)
    parser.add_argument("--data.source", dest="sources", nargs="+", required=True)
    parser.add_argument("--data.content_column", dest="content_column")
    parser.add_argument("--data.label_column", dest="label_column")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--run_dir", type=Path)
    return parser


def _senteval(arguments: argparse.Namespace, pooling: str | None) -> "Comparison":
    from encoders.text.evaluation.compared import untrained_and_trained
    from encoders.text.evaluation.senteval_folder import open_all, transfer_tasks
    from encoders.text.evaluation.transfer import open_task, transfer_table

    columns = (arguments.content_column, arguments.label_column)
    tasks, missing = open_all(arguments.sources, transfer_tasks, lambda source: open_task(source, *columns))
    if missing:
        print(f"left out: {', '.join(missing)}")
    compared = untrained_and_trained(
        arguments.encoder, pooling, arguments.device, arguments.seed, arguments.trust
    )
    return transfer_table(tasks, compared.encode, compared.width, arguments.folds)


def sts(argv: Sequence[str] | None = None) -> int:
    """Evaluate semantic textual similarity: do cosines of features rank sentence pairs as people do?

        bt-multimodal text sts --encoder runs/stsb_from_scratch_cpu/TIME --data.source FOLDER
        bt-multimodal text sts --encoder sentence-transformers/all-MiniLM-L6-v2 --data.source downstream

    --encoder and --pooling are as in `text probe`. --data.source is one or more of: a .csv, .tsv, .jsonl or
    .parquet file, a folder of them named after their splits, a hub data set, or SentEval's folder downstream
    (STS12 to STS16, STS-B, SICK-R).

    The table shows Spearman's correlation x 100 of cosine and score, with one column per set (a year of
    SentEval is all of its pairs together) and their average. The rows are TF-IDF, its SVD with the encoder's
    number of dimensions, the untrained encoder (same class, random weights) and the trained encoder.
    """
    return _run(sts_parser(getdoc(sts) or ""), argv, _sts)


def sts_parser(doc: str) -> argparse.ArgumentParser:
    """Returns the parser of `sts`'s arguments."""
    parser = plain_parser(doc)
    parser.add_argument("--encoder", required=True)
    add_trust(parser)
    parser.add_argument("--pooling", help="mean, cls or first_last")
    parser.add_argument("--data.source", dest="sources", nargs="+", required=True)
    parser.add_argument("--data.columns", dest="columns", help="A,B,SCORE [sentence1,sentence2,score]")
    parser.add_argument("--data.split", dest="split", help="name of the split [test]")
    parser.add_argument(
        "--baseline", nargs="+", help="texts that TF-IDF is learnt from [the evaluated sentences]"
    )
    parser.add_argument("--run_dir", type=Path, help="folder for table.txt and table.json")
    parser.add_argument("--seed", type=int, default=0, help="seed of the untrained weights [0]")
    parser.add_argument("--device", default="cpu", help="[cpu]")
    return parser


def _sts(arguments: argparse.Namespace) -> "Comparison":
    from bt_multimodal.data.records import open_source
    from encoders.text.evaluation.compared import untrained_and_trained
    from encoders.text.evaluation.pairs import open_pairs
    from encoders.text.evaluation.senteval_folder import open_all, similarity_sets
    from encoders.text.evaluation.sts import sentences, similarity_table
    from encoders.text.tfidf import TfidfSvd, contents

    columns = arguments.columns and [column.strip() for column in arguments.columns.split(",")]
    sets, missing = open_all(
        arguments.sources, similarity_sets, lambda source: open_pairs(source, columns, arguments.split)
    )
    if missing:
        print(f"left out: {', '.join(missing)}")
    compared = untrained_and_trained(
        arguments.encoder, arguments.pooling, arguments.device, arguments.seed, arguments.trust
    )
    baseline = arguments.baseline
    texts = contents(open_source(baseline, modality()).train) if baseline else sentences(sets)
    model = TfidfSvd(texts, compared.width)
    learnt = ", ".join(baseline or ["these sentences"])
    baselines = {"TF-IDF": model.counted, f"TF-IDF's SVD ({compared.width})": model.reduced}
    return similarity_table(sets, baselines | compared.encode, learnt)


def convert(argv: Sequence[str] | None = None) -> int:
    """Write a text encoder as a folder for sentence-transformers.

        bt-multimodal text convert --encoder runs/ag_news_cpu/TIME --out FOLDER

    --encoder is a run directory or an encoder.safetensors file. --out is the folder to write, new or empty;
    SentenceTransformer(FOLDER) loads it. An encoder that is not a model of transformers loads with
    trust_remote_code=True, where this package is installed.
    """

    def run(arguments: argparse.Namespace) -> int:
        from bt_multimodal.encoder_file import load_encoder
        from bt_multimodal.evaluation.report import check_empty
        from encoders.text.exchange import save_sentence_transformer

        check_empty(Path(arguments.out))
        encoder, augmentations = load_encoder(arguments.encoder, trust=arguments.trust)
        save_sentence_transformer(encoder, augmentations, arguments.out, arguments.encoder, arguments.trust)
        print(f"wrote {arguments.out}")
        return 0

    return run_plain(convert_parser(getdoc(convert) or ""), argv, run, NAME)


def convert_parser(doc: str) -> argparse.ArgumentParser:
    """Returns the parser of `convert`'s arguments."""
    parser = plain_parser(doc)
    parser.add_argument("--encoder", required=True)
    add_trust(parser)
    parser.add_argument("--out", required=True)
    return parser


def _run(parser: argparse.ArgumentParser, argv: Sequence[str] | None, table: Any) -> int:
    """Runs an evaluation, prints its table, and saves it in ``--run_dir`` if given."""

    def run(arguments: argparse.Namespace) -> int:
        from bt_multimodal.evaluation.report import check_empty, save_comparison

        if arguments.run_dir:
            check_empty(arguments.run_dir)
        comparison = table(arguments)
        if arguments.run_dir:
            save_comparison(arguments.run_dir, comparison)
        print(comparison)
        return 0

    return run_plain(parser, argv, run, NAME)
