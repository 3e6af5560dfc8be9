"""Barlow Twins on text: pretrain an encoder on any collection of texts.

    python tasks/text_pretrain.py fit --config configs/text/docstrings.yaml
    python tasks/text_pretrain.py fit --config configs/text/ag_news_cpu.yaml --data.source FOLDER
    python tasks/text_pretrain.py fit --help           every key, with its meaning

--data.source   a .txt with one text a line; a CSV, TSV, JSONL or Parquet file with a column of texts; a
                folder of one of these, named after their splits (train.csv, test.csv); a hub data set's
                name; docstrings (real English, embedded); or several of them: '[A, B]'
--data.content_column  the column, by default text, sentence, ...; title+body joins two columns of a row,
                sentence1,sentence2 takes each as a text of its own
--data.stream   how many texts are called an epoch: the source is then read as it is trained on
--run_dir       where everything goes; a run found there is continued, at the step where it stopped
--model.encoder a class path, yours included: my_lab.MyEncoder, any nn.Module with features_dim
--views         encoders.text.views.TextViews, or a published set of encoders.text.presets: simcse,
                self_contrastive_decorrelation, tsdae, cropping

A run leaves config.yaml, metrics.csv, checkpoints/, encoder.safetensors (the tokeniser is in it),
curves.png and, where there are labels, features.png, table.txt and table.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bt_multimodal.commands.pretrain import pretrain


def modality():
    """How texts are opened."""
    from encoders.text.modality import TEXTS

    return TEXTS


if __name__ == "__main__":
    sys.exit(pretrain(__doc__ or "", modality))
