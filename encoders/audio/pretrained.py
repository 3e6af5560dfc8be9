"""Pretrained audio encoders from the transformers library, for fine-tuning with twins or probing."""

import json
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.compliance.kaldi import fbank

_FRAME = 400  # samples in one of Kaldi's frames at 16 kHz


class PretrainedWaveform(nn.Module):
    """wav2vec 2.0, HuBERT, WavLM or a similar model, averaged over the frames that hold sound.

    Its views come from `WaveformViews`. Padding affects the features of models whose first layer normalises
    over time (``feat_extract_norm="group"``, such as wav2vec2-base), but not of those with ``"layer"``.

    Args:
        name: a hub name, a local folder, or a configuration's JSON text, which builds the architecture with
            random weights.
        freeze_front: freeze the convolutions that turn samples into frames.

    Raises:
        ValueError: if there is no such model, or it does not take waveforms.
    """

    loads_by_name: ClassVar = {"name": ()}  # not of an encoder file, which has a configuration there

    def __init__(self, name: str, freeze_front: bool = True):
        super().__init__()
        # The model's own masking and layer dropping serve another objective.
        self.model = _load(name, apply_spec_augment=False, layerdrop=0.0)
        if not hasattr(self.model, "_get_feat_extract_output_lengths"):
            raise ValueError(f"{name!r} is a {type(self.model).__name__}, which does not take waveforms")
        if freeze_front:
            self.model.feature_extractor.requires_grad_(False)
        self.features_dim = int(self.model.config.hidden_size)

    @property
    def portable(self) -> dict[str, Any]:
        """Returns ``name`` as a configuration, which builds the class without the folder or the hub."""
        return {"name": _configuration(self.model)}

    def forward(self, view: dict[str, Tensor]) -> Tensor:
        """Encodes ``input_values`` and ``attention_mask``, both ``[B, S]``, as ``[B, features_dim]``."""
        frames = self.model(**view).last_hidden_state
        lengths = self.model._get_feat_extract_output_lengths(view["attention_mask"].sum(1))
        mask = torch.arange(frames.shape[1], device=frames.device) < lengths.clamp(min=1)[:, None]
        return _masked_mean(frames, mask)


class PretrainedAST(nn.Module):
    """The Audio Spectrogram Transformer (Gong et al., 2021), averaged over the patches that hold sound.

    Its views come from `WaveformViews` with ``normalise: false`` at 16 kHz. Sound beyond the model's length
    (10.24 s for the published ones) is cut. The front end is Kaldi's log-mel energies.

    Args:
        name: a hub name, a local folder, or a configuration's JSON text, which builds the architecture with
            random weights.
        mean, std: mean and standard deviation of AudioSet's log-mels, which normalise the published
            models' inputs.

    Raises:
        ValueError: if there is no such model, or it is not an Audio Spectrogram Transformer.
    """

    loads_by_name: ClassVar = {"name": ()}  # not of an encoder file, which has a configuration there

    def __init__(self, name: str, mean: float = -4.2677393, std: float = 4.5689974):
        super().__init__()
        self.model = _load(name)
        config = self.model.config
        if config.model_type != "audio-spectrogram-transformer":
            raise ValueError(f"{name!r} is a {type(self.model).__name__}, not an ASTModel")
        self.mean, self.std = mean, std
        self.features_dim = int(config.hidden_size)

    @property
    def portable(self) -> dict[str, Any]:
        """Returns ``name`` as a configuration, which builds the class without the folder or the hub."""
        return {"name": _configuration(self.model)}

    def forward(self, view: dict[str, Tensor]) -> Tensor:
        """Encodes ``input_values`` and ``attention_mask``, both ``[B, S]``, as ``[B, features_dim]``."""
        config = self.model.config
        lengths = view["attention_mask"].sum(1)
        mels = view["input_values"].new_zeros(len(lengths), config.max_length, config.num_mel_bins)
        counts = []
        with torch.autocast(mels.device.type, enabled=False):
            for row, wave, length in zip(mels, view["input_values"].float(), lengths.tolist(), strict=True):
                sound = functional.pad(wave[:length], (0, max(0, _FRAME - length)))  # at least one frame
                energies = fbank(sound[None], num_mel_bins=config.num_mel_bins, window_type="hanning")
                counts.append(min(len(energies), config.max_length))
                row[: counts[-1]] = energies[: counts[-1]]
        patches = self.model((mels - self.mean) / (2 * self.std)).last_hidden_state[:, 2:]
        columns = 1 + (config.max_length - config.patch_size) // config.time_stride
        starts = config.time_stride * torch.arange(columns, device=mels.device)
        mask = starts < torch.tensor(counts, device=mels.device)[:, None]
        rows = patches.shape[1] // columns
        return _masked_mean(patches, repeat(mask, "b t -> b (f t)", f=rows))


def _load(name: str, **options: Any) -> Any:
    from transformers import AutoConfig, AutoModel  # slow to import

    is_config = name.lstrip().startswith("{")
    shown = "the model of a configuration" if is_config else repr(name)
    try:
        if is_config:
            config = AutoConfig.for_model(**{**json.loads(name), **options})
            model = AutoModel.from_config(config, trust_remote_code=False)
        else:
            model = AutoModel.from_pretrained(name, config=AutoConfig.from_pretrained(name, **options))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"cannot load {shown}: {' '.join(str(error).split())[:300]}") from error
    return model.train()  # like any new module; transformers returns it in evaluation mode


def _configuration(model: Any) -> str:
    config = {**model.config.to_diff_dict(), "model_type": model.config.model_type}
    return json.dumps(config, sort_keys=True)


def _masked_mean(frames: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean ``[B, F]`` of frames ``[B, T, F]`` where ``mask [B, T]`` is true."""
    weights = rearrange(mask, "b t -> b t 1").to(frames.dtype)
    return (frames * weights).sum(1) / weights.sum(1)
