"""Evaluate a text encoder on frozen features: weighted kNN and linear probes, or SentEval's protocol.

    python tasks/text_probe.py --encoder runs/text/TIME --data.source FOLDER
    python tasks/text_probe.py --encoder runs/text/TIME --data.source trec sst2 --senteval
    python tasks/text_probe.py --help

--encoder       a run directory, an encoder.safetensors, or a folder or hub name of transformers or
                sentence-transformers
--pooling       of a model of transformers: mean, cls or first_last; without it what its folder says, or mean
--data.source   as in tasks/text_pretrain.py; labels are needed

The table compares TF-IDF, its SVD of as many dimensions as the encoder has, the encoder untrained (same
class, fresh weights) and trained: kNN (k = 20), a linear probe on all labels (standardised features; of
TF-IDF by cross-validation), and linear probes on a few labels a class over several draws (mean and
standard deviation). Where the source has no test split, 20 % are held out. --run_dir is where to keep
table.txt and table.json, for tasks/seeds.py.

--senteval      logistic regressions on the features as they are (Conneau and Kiela, 2018). Their penalty is
                chosen on the validation split, or where there is none by 10 folds of the training split; a
                source of one split is tested by 10 folds, each with a choice of its own. Several sources
                make a column each; columns sentence1 and sentence2 are pairs; SentEval's folder downstream
                is its tasks MR, CR, SUBJ, MPQA, SST2, TREC and MRPC. It takes, beside the above,
                --data.content_column, --data.label_column, --seed (of the untrained weights), --device,
                --folds N (default 10) and --run_dir
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bt_multimodal.commands.cli import fail
from bt_multimodal.commands.probe import probe

if TYPE_CHECKING:
    from bt_multimodal.evaluation.report import Comparison


def modality():
    """How texts are opened."""
    from encoders.text.modality import TEXTS

    return TEXTS


def main(argv: Sequence[str]) -> int:
    """Evaluate; the exit status."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--pooling")
    own.add_argument("--senteval", action="store_true")
    known, others = own.parse_known_args(argv)
    if known.senteval:
        return _senteval(others, known.pooling)

    def load(name: str | Path, weights: bool = True) -> Any:
        from encoders.text.loading import load_text_encoder

        return load_text_encoder(name, weights, known.pooling)

    return probe(__doc__ or "", modality, others, load)


def _senteval(argv: Sequence[str], pooling: str | None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--data.source", dest="sources", nargs="+", required=True)
    parser.add_argument("--data.content_column", dest="content_column")
    parser.add_argument("--data.label_column", dest="label_column")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--run_dir", type=Path)
    arguments = parser.parse_args(argv)
    try:
        print(_transfer(arguments, pooling))
    except (ValueError, OSError) as error:
        return fail(str(error))
    return 0


def _transfer(arguments: argparse.Namespace, pooling: str | None) -> "Comparison":
    from bt_multimodal.evaluation.report import check_empty, save_comparison
    from encoders.text.evaluation.compared import untrained_and_trained
    from encoders.text.evaluation.senteval_folder import open_all, transfer_tasks
    from encoders.text.evaluation.transfer import open_task, transfer_table

    sys.path.insert(0, os.getcwd())  # a user's own encoder
    run = arguments.run_dir
    if run:
        check_empty(run)
    columns = (arguments.content_column, arguments.label_column)
    tasks, missing = open_all(arguments.sources, transfer_tasks, lambda source: open_task(source, *columns))
    if missing:
        print(f"left out: {', '.join(missing)}")
    compared = untrained_and_trained(arguments.encoder, pooling, arguments.device, arguments.seed)
    comparison = transfer_table(tasks, compared.encode, compared.width, arguments.folds)
    if run:
        save_comparison(run, comparison)
    return comparison


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
