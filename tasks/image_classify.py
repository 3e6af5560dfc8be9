r"""Train a classifier on an image encoder: linear evaluation, few labels, transfer.

    python tasks/image_classify.py fit --config configs/image/imagenet_linear.yaml \
        --encoder RUN --data.source FOLDER
    python tasks/image_classify.py fit --help          every key, with its meaning

--encoder       a run directory or an encoder.safetensors (tasks/image_convert.py makes one of the
                reference code's files)
--fresh true    the same with fresh weights: what the encoder is worth untrained
--data.source   as in tasks/image_pretrain.py; labels are needed
--data.subset   a text file with the names of the training pictures to use, such as the published 1 %

Prints top-1 and top-5 on the test split; a run leaves config.yaml, checkpoints/, table.txt and table.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bt_multimodal.commands.classify import classify


def modality():
    """How images are opened."""
    from encoders.image.modality import IMAGES

    return IMAGES


if __name__ == "__main__":
    sys.exit(classify(__doc__ or "", modality))
