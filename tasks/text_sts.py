"""Semantic textual similarity: do cosines of representations rank pairs of sentences as people do?

    python tasks/text_sts.py --encoder runs/text/TIME --data.source FOLDER
    python tasks/text_sts.py --encoder sentence-transformers/all-MiniLM-L6-v2 --data.source downstream
    python tasks/text_sts.py --help

--encoder       a run directory, an encoder.safetensors, or a folder or hub name of transformers or
                sentence-transformers
--pooling       of a model of transformers: mean, cls or first_last; without it what its folder says, or mean
--data.source   one or more: a .csv, .tsv, .jsonl or .parquet file, a folder of them named after their
                splits, a hub dataset, or SentEval's folder downstream (STS12 to STS16, STS-B, SICK-R)
--data.columns  A,B,SCORE; found by convention if not given (sentence1,sentence2,score)
--data.split    by default test
--baseline      texts that TF-IDF is learnt from, such as those that the encoder was trained on; without
                it the evaluated sentences
--run_dir       where to keep table.txt and table.json, for tasks/seeds.py
--seed          of the untrained weights (default 0)
--device        default cpu

The table has Spearman's correlation x 100 of cosine and score, a column for every set (a year of SentEval
is all of its pairs together) and their average; the rows are TF-IDF, its SVD of as many dimensions as the
encoder has, the encoder untrained (same class, fresh weights) and trained.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bt_multimodal.evaluation.report import Comparison

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(argv: Sequence[str]) -> int:
    """Evaluate; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--pooling")
    parser.add_argument("--data.source", dest="sources", nargs="+", required=True)
    parser.add_argument("--data.columns", dest="columns")
    parser.add_argument("--data.split", dest="split")
    parser.add_argument("--baseline", nargs="+")
    parser.add_argument("--run_dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    if not argv:
        print((__doc__ or "").strip())
        return 0
    arguments = parser.parse_args(argv)
    from bt_multimodal.commands.cli import fail

    try:
        print(_evaluate(arguments))
    except (ValueError, OSError) as error:
        return fail(str(error))
    return 0


def _evaluate(arguments: argparse.Namespace) -> "Comparison":
    from bt_multimodal.data.records import open_source
    from bt_multimodal.evaluation.report import check_empty, save_comparison
    from encoders.text.evaluation.compared import untrained_and_trained
    from encoders.text.evaluation.pairs import open_pairs
    from encoders.text.evaluation.senteval_folder import open_all, similarity_sets
    from encoders.text.evaluation.sts import sentences, similarity_table
    from encoders.text.modality import TEXTS
    from encoders.text.tfidf import TfidfSvd, contents

    sys.path.insert(0, os.getcwd())  # a user's own encoder
    run = arguments.run_dir
    if run:
        check_empty(run)
    columns = arguments.columns and [column.strip() for column in arguments.columns.split(",")]
    sets, missing = open_all(
        arguments.sources, similarity_sets, lambda source: open_pairs(source, columns, arguments.split)
    )
    if missing:
        print(f"left out: {', '.join(missing)}")
    compared = untrained_and_trained(arguments.encoder, arguments.pooling, arguments.device, arguments.seed)
    texts = contents(open_source(arguments.baseline, TEXTS).train) if arguments.baseline else sentences(sets)
    model = TfidfSvd(texts, compared.width)
    learnt = ", ".join(arguments.baseline or ["these sentences"])
    counts = {"TF-IDF": model.counted, f"TF-IDF's SVD ({compared.width})": model.reduced}
    comparison = similarity_table(sets, counts | compared.encode, learnt)
    if run:
        save_comparison(run, comparison)
    return comparison


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
