"""The commands on audio. What they import waits until they run."""

from collections.abc import Sequence
from inspect import getdoc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bt_multimodal.modality import Modality

NAME = "audio"


def modality() -> "Modality":
    """How audio is opened."""
    from encoders.audio.modality import AUDIO

    return AUDIO


def pretrain(argv: Sequence[str] | None = None) -> int:
    """Pretrain an audio encoder with Barlow Twins, without labels.

        bt-multimodal audio pretrain --config audio/synthetic
        bt-multimodal audio pretrain --config audio/speech_commands_cpu --data.source FOLDER

    --data.source is a folder of WAV, FLAC, OGG or MP3 files (with or without train/ and test/; subfolders are
    labels), a CSV, TSV or JSONL manifest, a Parquet or tar file (WebDataset) or a folder of them, or a hub
    data set's name. --data.stream says how many clips are called an epoch: a hub data set, or Parquet or tar
    files, are then read while they are trained on, for what does not fit a disk. --model.encoder is a class
    path, yours included: my_lab.MyEncoder is any nn.Module with features_dim.

    The run directory keeps config.yaml, metrics.csv, checkpoints/, encoder.safetensors, curves.png and, where
    there are labels, features.png, table.txt and table.json. The same command with the same --run_dir
    continues a run that was stopped.
    """
    from bt_multimodal.commands.pretrain import pretrain as command

    return command(getdoc(pretrain) or "", modality, argv, NAME)


def probe(argv: Sequence[str] | None = None) -> int:
    """Evaluate an audio encoder on frozen features: weighted kNN, linear probes, the MLPs of HEAR.

        bt-multimodal audio probe --encoder runs/speech_commands_cpu/TIME --data.source FOLDER

    --encoder is a run directory or an encoder.safetensors; --data.source is as in pretraining, with labels.
    --mlp adds HEAR's recipe: one or two hidden layers, four learning rates, early stopping and choice on a
    validation split of the training clips (11 minutes for 3,828 clips on two CPU cores).

    The table compares mean and standard deviation of every log-mel band, the encoder untrained (same
    class, fresh weights) and trained: kNN (k = 20), a linear probe on all labels (standardised
    features), and linear probes on a few labels a class over several draws (mean and standard
    deviation). Where the source has no test split, 20 % are held out.
    """
    from bt_multimodal.commands.probe import probe as command

    return command(getdoc(probe) or "", modality, argv, name=NAME)
