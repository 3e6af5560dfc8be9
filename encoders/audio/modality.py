"""Audio as a modality: file names, column names and baseline features."""

from functools import cache

from einops import rearrange
from torch import Tensor

from bt_multimodal.modality import Modality
from encoders.audio.log_mel import LogMel
from encoders.audio.synthetic import synthetic


@cache
def _log_mel() -> LogMel:
    return LogMel()


def mean_and_std(view: Tensor | dict[str, Tensor]) -> Tensor:
    """Returns mean and standard deviation over time of every log-mel band, ``[B, 2 F]``.

    Args:
        view: spectrograms ``[B, 1, F, T]``, or a view of waveforms, whose spectrograms are computed first.
    """
    mels = _log_mel()(view["input_values"]) if isinstance(view, dict) else view
    return rearrange([mels.mean(-1), mels.std(-1)], "statistic b 1 f -> b (statistic f)")


AUDIO = Modality(
    unit="clips",
    raw="log-mel mean, std",
    raw_features=mean_and_std,
    extensions=(
        ".wav",
        ".flac",
        ".ogg",
        ".opus",
        ".mp3",
        ".aiff",
        ".au",
        ".oga",
        ".aif",
        ".aifc",
        ".snd",
        ".caf",
        ".w64",
        ".rf64",
        ".wave",
        ".sph",
        ".nist",
        ".voc",
        ".mp2",
        ".mpga",
        ".bwf",
    ),  # those that libsndfile tells apart by their contents
    columns=("audio", "sound", "wav", "path", "file", "filename", "file_name", "clip", "slice_file_name"),
    embedded={"synthetic": synthetic},
)
