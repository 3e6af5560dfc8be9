"""The HEAR API (Turian et al., "HEAR: Holistic Evaluation of Audio Representations", 2022, section 3).

``heareval`` and similar tools import a module with the three functions `load_model`,
`get_scene_embeddings` and `get_timestamp_embeddings`: ``encoders.audio.hear`` is one. Its model file is a
run directory or an ``encoder.safetensors`` file of an encoder that was trained on `SpectrogramViews`.

Legend: ``n`` sounds of one length, ``F`` features, ``T`` timestamps.
"""

from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from bt_multimodal.encoder_file import load_encoder
from encoders.audio.views import SpectrogramViews

HOP_MS = 50.0
_WINDOWS = 256  # per batch


class Model(nn.Module):
    """An encoder with its front end, and the attributes that HEAR requires.

    Attributes:
        sample_rate: in Hz.
        scene_embedding_size, timestamp_embedding_size: ``F``.
    """

    def __init__(self, encoder: nn.Module, augmentations: SpectrogramViews):
        super().__init__()
        self.encoder, self.augmentations = encoder, augmentations
        self.sample_rate = augmentations.rate
        self.scene_embedding_size = self.timestamp_embedding_size = int(encoder.features_dim)  # type: ignore[arg-type]

    def forward(self, audio: Tensor) -> Tensor:
        """Encodes waveforms ``[n, samples]`` in [-1, 1] as ``[n, F]``."""
        with torch.no_grad():
            return self.encoder(self.augmentations.clean_batch(audio)).float()


def load_model(model_file_path: str = "", trust: Sequence[str] | str = ()) -> Model:
    """Loads the model from a run directory or an ``encoder.safetensors`` file.

    Args:
        trust: packages whose code the file may use, as in `bt_multimodal.load_encoder`.

    Raises:
        ValueError: if there is no such file, or the encoder was not trained on spectrograms.
    """
    encoder, augmentations = load_encoder(model_file_path, trust=trust)
    if not isinstance(augmentations, SpectrogramViews):
        raise ValueError(f"HEAR needs an encoder of SpectrogramViews, not of {type(augmentations).__name__}")
    return Model(encoder, augmentations).eval()


def get_scene_embeddings(audio: Tensor, model: Model) -> Tensor:
    """Returns one embedding per sound, of its whole spectrogram.

    Sounds shorter than a view are padded to its length.

    Args:
        audio: ``[n, samples]`` at ``model.sample_rate``.

    Returns:
        Embeddings ``[n, F]``.
    """
    missing = max(0, model.augmentations.samples - audio.shape[1])
    return model(functional.pad(audio, (missing // 2, missing - missing // 2)))


def get_timestamp_embeddings(audio: Tensor, model: Model) -> tuple[Tensor, Tensor]:
    """Returns an embedding every 50 ms, of a window of one view's length around that time.

    Returns:
        Embeddings ``[n, T, F]`` and their times in milliseconds, ``[n, T]``, which start at 0.
    """
    window = model.augmentations.samples
    hop = round(model.sample_rate * HOP_MS / 1000)
    padded = functional.pad(audio, (window // 2, window - window // 2))
    windows = padded.unfold(1, window, hop)
    windows = windows[:, : 1 + audio.shape[1] // hop]
    n, count = windows.shape[:2]
    chunks = rearrange(windows, "n t samples -> (n t) samples").split(_WINDOWS)
    embeddings = rearrange(torch.cat([model(chunk) for chunk in chunks]), "(n t) f -> n t f", n=n)
    times = torch.arange(count, device=audio.device) * (1000 * hop / model.sample_rate)
    return embeddings, repeat(times, "t -> n t", n=n)
