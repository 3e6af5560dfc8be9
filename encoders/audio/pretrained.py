"""Pretrained waveform encoders of transformers, for twin fine-tuning or probing."""

import torch
from torch import Tensor, nn


class PretrainedWaveform(nn.Module):
    """wav2vec 2.0, HuBERT, WavLM or their kin, averaged over the frames that hold sound.

    Views are those of `WaveformViews`. Models whose first layer normalises over time
    (``feat_extract_norm="group"``, such as wav2vec2-base) hear the padding through it; those with
    ``"layer"`` do not.

    Args:
        name: a hub name or a local folder.
        freeze_front: keep the convolutions that turn samples into frames as they are.

    Raises:
        ValueError: no such model, or one that does not take waveforms.
    """

    def __init__(self, name: str, freeze_front: bool = True):
        super().__init__()
        from transformers import AutoConfig, AutoModel  # slow to import

        try:
            # Its own masking and layer dropping are for another objective.
            config = AutoConfig.from_pretrained(name, apply_spec_augment=False, layerdrop=0.0)
            self.model = AutoModel.from_pretrained(name, config=config)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot load {name!r}: {' '.join(str(error).split())}") from error
        if not hasattr(self.model, "_get_feat_extract_output_lengths"):
            raise ValueError(f"{name!r} is a {type(self.model).__name__}, which does not take waveforms")
        if freeze_front:
            self.model.feature_extractor.requires_grad_(False)
        self.features_dim = int(self.model.config.hidden_size)

    def forward(self, view: dict[str, Tensor]) -> Tensor:
        """``input_values`` and ``attention_mask``, both ``[B, S]``, to ``[B, features_dim]``."""
        frames = self.model(**view).last_hidden_state
        lengths = self.model._get_feat_extract_output_lengths(view["attention_mask"].sum(1))
        heard = torch.arange(frames.shape[1], device=frames.device) < lengths.clamp(min=1)[:, None]
        weights = heard.unsqueeze(2).to(frames.dtype)
        return (frames * weights).sum(1) / weights.sum(1)
