"""Pretrained text encoders of transformers, for twin fine-tuning or probing."""

import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from encoders.text.attention import kernels_for_any_length
from encoders.text.dropout import set_dropout, view_rate
from encoders.text.lengths import check_ids, check_length, in_length_groups
from encoders.text.pooling import check_pooling, pool


class PretrainedText(nn.Module):
    """BERT, RoBERTa, MPNet, DistilBERT, ModernBERT and their kin, or T5's encoder, pooled to a vector.

    A head that only next-sentence prediction trains (BERT's "pooler") is left away: it would have no
    gradients. Weights are float32, whatever the file has.

    Args:
        name: a hub name, a local folder, or a configuration (or its JSON text), which gives the
            architecture with random weights: ``{model_type: bert, num_hidden_layers: 4}``.
        pooling: ``"mean"``, ``"cls"`` or ``"first_last"`` (`encoders.text.pooling`).
        dropout: the rate in training where the view has none; ``None``: the configuration's own.

    Raises:
        ValueError: no such model or pooling, a file that lacks weights, or a model that is no
            bidirectional encoder of text.
    """

    def __init__(self, name: str | dict[str, Any], pooling: str = "mean", dropout: float | None = None):
        super().__init__()
        check_pooling(pooling)
        self.model = _load(name if isinstance(name, str) else json.dumps(name))
        config = self.model.config
        self.pooling, self.dropout = pooling, dropout
        self.features_dim = int(config.hidden_size)
        self.vocabulary = self.model.get_input_embeddings().num_embeddings
        self.length = _positions(self.model)

    @property
    def portable(self) -> dict[str, Any]:
        """``name`` such that the class can be built where the folder or the hub is not."""
        config = {**self.model.config.to_diff_dict(), "model_type": self.model.config.model_type}
        return {"name": json.dumps(config, sort_keys=True)}

    def forward(self, view: dict[str, Tensor]) -> Tensor:
        """``input_ids`` and ``attention_mask``, both ``[B, L]``, to ``[B, features_dim]``.

        Raises:
            ValueError: a text longer than the model takes, or an id beyond its vocabulary.
        """
        check_ids(view["input_ids"], self.vocabulary)
        rate = view_rate(view)
        set_dropout(self.model, self.dropout if rate is None else rate)
        return in_length_groups(self._embed, view)

    def _embed(self, view: dict[str, Tensor]) -> Tensor:
        ids, mask = view["input_ids"], view["attention_mask"]
        check_length(ids, self.length)
        layers = self.pooling == "first_last"
        with kernels_for_any_length():
            output = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=layers)
        states = output.hidden_states if layers else [output.last_hidden_state]
        return pool(states, mask, self.pooling)


def _load(name: str) -> Any:
    """The network, with the weights of ``name`` or, of a configuration's JSON text, fresh ones."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig  # slow to import

    fresh = name.lstrip().startswith("{")
    shown = "the model of a configuration" if fresh else repr(name)
    name = os.path.expanduser(name)
    if name.startswith(("/", ".", "~")) and not Path(name).is_dir():
        raise ValueError(f"there is no folder {shown}")
    try:
        config: Any = AutoConfig.for_model(**json.loads(name)) if fresh else AutoConfig.from_pretrained(name)
        network, options = _network(config)
        if fresh:
            return network(config, **options)
        with _quiet():  # of the pooler's weights; missing ones are looked at here
            model, report = network.from_pretrained(
                name, config=config, dtype=torch.float32, output_loading_info=True, **options
            )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise ValueError(f"cannot load {shown}: {' '.join(str(error).split())[:300]}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(f"{shown} lacks {len(missing)} of the model's weights, such as {missing[0]}")
    return model.train()  # as any new module; transformers gives it in evaluation mode


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _network(config: Any) -> tuple[Any, dict[str, Any]]:
    """The class for a configuration, and options for its constructor."""
    import transformers

    kind = type(config)
    network: Any = None
    if kind in transformers.MODEL_FOR_MASKED_LM_MAPPING and not config.is_encoder_decoder:
        network = transformers.MODEL_MAPPING[kind]
    elif kind in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:  # T5's encoder, but decoders too
        half: Any = transformers.MODEL_FOR_TEXT_ENCODING_MAPPING[kind]
        network = half if half.__name__.endswith("EncoderModel") else None
    if network is None or not hasattr(config, "hidden_size"):
        raise ValueError(f"its type is {config.model_type}, which is no bidirectional encoder of text")
    takes = inspect.signature(network.__init__).parameters
    return network, {"add_pooling_layer": False} if "add_pooling_layer" in takes else {}


def _positions(model: nn.Module) -> int | None:
    """The longest text in tokens; ``None`` where there is no limit."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and MPNet count from the row after the padding's
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    limit = getattr(model.config, "max_position_embeddings", None)
    return None if limit is None else int(limit)
