"""The audio commands. Each imports what it needs only when it runs."""

from collections.abc import Sequence
from inspect import getdoc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bt_multimodal.modality import Modality

NAME = "audio"


def modality() -> "Modality":
    """Returns how audio data is opened."""
    from encoders.audio.modality import AUDIO

    return AUDIO


def pretrain(argv: Sequence[str] | None = None) -> int:
    """Pretrain an audio encoder with Barlow Twins, without labels.

        bt-multimodal audio pretrain --config audio/synthetic
        bt-multimodal audio pretrain --config audio/speech_commands_cpu --data.source FOLDER

    --data.source is a folder of WAV, FLAC, OGG or MP3 files (with or without train/ and test/; subfolders are
    labels), a CSV, TSV or JSONL manifest, a Parquet or tar file (WebDataset) or a folder of them, or a hub
    data set's name. --data.stream N streams a hub data set, Parquet or tar files during training, for data
    that does not fit on a disk; an epoch is then N clips. --model.encoder is a class path, also of your own
    code: my_lab.MyEncoder is any nn.Module with features_dim.

    The run directory keeps config.yaml, metrics.csv, checkpoints/, encoder.safetensors, curves.png and, where
    there are labels, features.png, table.txt and table.json. Repeat a command with the same --run_dir to
    resume a stopped run.
    """
    from bt_multimodal.commands.pretrain import pretrain as command

    return command(getdoc(pretrain) or "", modality, argv, NAME)


def probe(argv: Sequence[str] | None = None) -> int:
    """Evaluate an audio encoder on frozen features: weighted kNN, linear probes, HEAR's MLPs.

        bt-multimodal audio probe --encoder runs/speech_commands_cpu/TIME --data.source FOLDER

    --encoder is a run directory or an encoder.safetensors file; --data.source is as in pretraining, with
    labels. --mlp adds HEAR's recipe: one or two hidden layers and four learning rates, with early stopping
    and model selection on a validation split of the training clips (11 minutes for 3,828 clips on two CPU
    cores).

    The table has three rows: the mean and standard deviation of every log-mel band, the untrained encoder
    (same class, random weights) and the trained encoder. Its columns are kNN (k = 20), a linear probe on
    all labels (standardised features), and linear probes on a few labels per class over several draws (mean
    and standard deviation). If the source has no test split, 20 % are held out.
    """
    from bt_multimodal.commands.probe import probe as command

    return command(getdoc(probe) or "", modality, argv, name=NAME)
