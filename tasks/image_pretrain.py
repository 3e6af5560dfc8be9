"""Barlow Twins on images: pretrain an encoder on any folder or table of pictures.

    python tasks/image_pretrain.py fit --config configs/image/digits.yaml
    python tasks/image_pretrain.py fit --config configs/image/cifar10_convnet_cpu.yaml --data.source FOLDER
    python tasks/image_pretrain.py fit --help          every key, with its meaning

--data.source   a folder of images (with or without train/ and test/; subfolders are labels), a
                CSV, TSV or JSONL manifest, a Parquet file or a folder of them, a hub data set's
                name, or sklearn:digits
--run_dir       where everything goes; a run found there is continued
--model.encoder a class path, yours included: my_lab.MyEncoder, any nn.Module with features_dim

A run leaves config.yaml, metrics.csv, checkpoints/, encoder.safetensors, curves.png, features.png,
table.txt and table.json. Evaluate an encoder with tasks/image_linear.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bt_multimodal.commands.pretrain import pretrain


def modality():
    """How images are opened."""
    from encoders.image.modality import IMAGES

    return IMAGES


if __name__ == "__main__":
    sys.exit(pretrain(__doc__ or "", modality))
