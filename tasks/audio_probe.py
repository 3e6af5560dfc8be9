"""Evaluate an audio encoder on frozen features: weighted kNN, linear probes, the MLPs of HEAR.

    python tasks/audio_probe.py --encoder runs/speech_commands_cpu/20260101-120000 --data.source FOLDER
    python tasks/audio_probe.py --help

--encoder       a run directory or an encoder.safetensors
--data.source   as in tasks/audio_pretrain.py; labels are needed
--mlp           add HEAR's recipe: one or two hidden layers, four learning rates, early stopping and
                choice on a validation split of the training clips (3,828 clips: 11 minutes on two CPU cores)

The table compares mean and standard deviation of every log-mel band, the encoder untrained (same
class, fresh weights) and trained: kNN (k = 20), a linear probe on all labels (standardised
features), and linear probes on a few labels a class over several draws (mean and standard
deviation). Where the source has no test split, 20 % are held out.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bt_multimodal.commands.probe import probe


def modality():
    """How audio is opened."""
    from encoders.audio.modality import AUDIO

    return AUDIO


if __name__ == "__main__":
    sys.exit(probe(__doc__ or "", modality))
