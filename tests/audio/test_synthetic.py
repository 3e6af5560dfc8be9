"""The embedded sounds are what they say: the same every time, one second, of kinds that differ."""

import pytest
import torch

from bt_multimodal.data.records import open_records
from encoders.audio.decode import decode_audio
from encoders.audio.log_mel import LogMel
from encoders.audio.modality import AUDIO
from encoders.audio.synthetic import synthetic


@pytest.mark.slow
def test_synthetic_sounds():
    columns = synthetic()
    assert columns["audio"] == synthetic()["audio"]
    splits = open_records(
        "synthetic",
        extensions=AUDIO.extensions,
        content_columns=AUDIO.columns,
        embedded=AUDIO.embedded,
        require_labels=True,
    )
    assert (len(splits.train), len(splits.test), splits.held_out) == (800, 200, True)
    assert splits.train.classes == sorted(set(columns["label"]))
    assert len(splits.train.classes) == 10
    clips = torch.stack([decode_audio(raw, 16_000) for raw in columns["audio"]])
    assert clips.shape == (1000, 16_000)
    assert clips.abs().amax(1).min() > 0.09
    assert clips.abs().max() <= 0.9

    # White noise is flat over the bands' power per hertz; rumble sits at the bottom.
    loudest = LogMel()(clips).mean(-1).squeeze(1)
    kinds = columns["label"]
    rumble = loudest[[k == "rumble" for k in kinds]].mean(0)
    noise = loudest[[k == "noise" for k in kinds]].mean(0)
    assert rumble[0] - rumble[-1] > noise[0] - noise[-1] + 1
