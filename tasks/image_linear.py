"""Evaluate an image encoder on frozen features: weighted kNN and linear probes.

    python tasks/image_linear.py --encoder runs/digits/20260101-120000 --data.source sklearn:digits
    python tasks/image_linear.py --help

--encoder       a run directory or an encoder.safetensors
--data.source   as in tasks/image_pretrain.py; labels are needed

The table compares raw pixels, the encoder untrained (same class, fresh weights) and trained: kNN
(k = 20), a linear probe on all labels, and linear probes on a few labels a class over several
draws (mean and standard deviation). Where the source has no test split, 20 % are held out.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bt_multimodal.commands.probe import probe


def modality():
    """How images are opened."""
    from encoders.image.modality import IMAGES

    return IMAGES


if __name__ == "__main__":
    sys.exit(probe(__doc__ or "", modality))
