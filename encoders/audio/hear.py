"""The HEAR API (Turian et al., "HEAR: Holistic Evaluation of Audio Representations", 2022, section 3).

``heareval`` and its kin import a module with these three functions: this one is
``encoders.audio.hear``, the model file a run directory or an ``encoder.safetensors`` whose views
are `SpectrogramViews`. ``n`` sounds of one length, ``F`` features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bt_multimodal.encoder_file import load_encoder
from encoders.audio.views import SpectrogramViews

HOP_MS = 50.0
_WINDOWS = 256  # at once


class Model(nn.Module):
    """An encoder and its front end; ``sample_rate`` and the two sizes are what HEAR asks for."""

    def __init__(self, encoder: nn.Module, augmentations: SpectrogramViews):
        super().__init__()
        self.encoder, self.augmentations = encoder, augmentations
        self.sample_rate = augmentations.rate
        self.scene_embedding_size = self.timestamp_embedding_size = int(encoder.features_dim)  # type: ignore[arg-type]

    def forward(self, audio: Tensor) -> Tensor:
        """Waveforms ``[n, samples]`` in [-1, 1] to ``[n, F]``."""
        with torch.no_grad():
            return self.encoder(self.augmentations.clean_batch(audio)).float()


def load_model(model_file_path: str = "") -> Model:
    """The model of a run directory or an ``encoder.safetensors``.

    Raises:
        ValueError: no such file, or an encoder that was not trained on spectrograms.
    """
    encoder, augmentations = load_encoder(model_file_path)
    if not isinstance(augmentations, SpectrogramViews):
        raise ValueError(f"HEAR needs an encoder of SpectrogramViews, not of {type(augmentations).__name__}")
    return Model(encoder, augmentations).eval()


def get_scene_embeddings(audio: Tensor, model: Model) -> Tensor:
    """One embedding a sound: the encoder on its whole spectrogram, at least one view long.

    Args:
        audio: ``[n, samples]`` at ``model.sample_rate``.

    Returns:
        ``[n, F]``.
    """
    missing = max(0, model.augmentations.samples - audio.shape[1])
    return model(functional.pad(audio, (missing // 2, missing - missing // 2)))


def get_timestamp_embeddings(audio: Tensor, model: Model) -> tuple[Tensor, Tensor]:
    """An embedding every 50 ms: of the stretch as long as a view around it.

    Returns:
        Embeddings ``[n, T, F]`` and their times in milliseconds, ``[n, T]``, from 0.
    """
    window = model.augmentations.samples
    hop = round(model.sample_rate * HOP_MS / 1000)
    padded = functional.pad(audio, (window // 2, window - window // 2))
    windows = padded.unfold(1, window, hop)
    windows = windows[:, : 1 + audio.shape[1] // hop]
    n, times = windows.shape[:2]
    chunks = windows.reshape(n * times, window).split(_WINDOWS)
    embeddings = torch.cat([model(chunk) for chunk in chunks]).view(n, times, -1)
    at = torch.arange(times, device=audio.device) * (1000 * hop / model.sample_rate)
    return embeddings, at.expand(n, -1)
