"""Every ending that is taken for a clip's is one of a format that is decoded."""

# ruff: noqa: E501 -- tables of cases

import io

import numpy as np
import pytest
import soundfile

from encoders.audio.decode import decode_audio
from encoders.audio.modality import AUDIO

FORMATS = {
    ".wav": ("WAV", None), ".wave": ("WAV", None), ".bwf": ("WAVEX", None), ".rf64": ("RF64", None), ".w64": ("W64", None),
    ".flac": ("FLAC", None), ".ogg": ("OGG", "VORBIS"), ".oga": ("OGG", "VORBIS"), ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", None), ".mp2": ("MP3", None), ".mpga": ("MP3", None), ".aif": ("AIFF", None), ".aiff": ("AIFF", None),
    ".aifc": ("AIFF", "ULAW"), ".au": ("AU", None), ".snd": ("AU", None), ".caf": ("CAF", None), ".sph": ("NIST", None),
    ".nist": ("NIST", None), ".voc": ("VOC", None),
}  # fmt: skip


@pytest.mark.parametrize("ending", AUDIO.extensions)
def test_a_clip_with_this_ending_is_decoded(ending):
    kind, subtype = FORMATS[ending]
    clip = np.sin(np.arange(4800) / 10).astype(np.float32) / 2
    buffer = io.BytesIO()
    soundfile.write(buffer, clip, 16_000, format=kind, subtype=subtype)
    decoded = decode_audio(buffer.getvalue(), 16_000)
    assert 4700 < decoded.shape[-1] < 8000
    assert (
        abs(float(decoded.float().abs().max()) - float(np.abs(clip).max())) < 0.1
        or decoded.dtype.is_floating_point is False
    )
