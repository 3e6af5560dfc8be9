"""Barlow Twins on audio: pretrain an encoder on any folder or table of sound files.

    python tasks/audio_pretrain.py fit --config configs/audio/speech_commands_cpu.yaml --data.source FOLDER
    python tasks/audio_pretrain.py fit --help          every key, with its meaning

--data.source   a folder of WAV, FLAC, OGG or MP3 files (with or without train/ and test/; subfolders are
                labels), a CSV, TSV or JSONL manifest, a Parquet or tar file (WebDataset) or a folder of
                them, or a hub data set's name
--data.stream   how many clips are called an epoch: a hub data set, or Parquet or tar files, are then
                read as they are trained on, for what does not fit a disk
--run_dir       where everything goes; a run found there is continued, at the step where it stopped
--model.encoder a class path, yours included: my_lab.MyEncoder, any nn.Module with features_dim

A run leaves config.yaml, metrics.csv, checkpoints/, encoder.safetensors, curves.png, features.png,
table.txt and table.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bt_multimodal.commands.pretrain import pretrain


def modality():
    """How audio is opened."""
    from encoders.audio.modality import AUDIO

    return AUDIO


if __name__ == "__main__":
    sys.exit(pretrain(__doc__ or "", modality))
