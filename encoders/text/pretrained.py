"""Pretrained text encoders from the transformers library, for fine-tuning with twins or probing."""

import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from encoders.text.attention import kernels_for_any_length
from encoders.text.dropout import set_dropout, view_rate
from encoders.text.lengths import check_ids, check_length, in_length_groups
from encoders.text.pooling import check_pooling, pool


class PretrainedText(nn.Module):
    """BERT, RoBERTa, MPNet, DistilBERT, ModernBERT or a similar model, or T5's encoder, with pooling.

    BERT's "pooler", which only next-sentence prediction trains, is omitted: it would have no gradients.
    Weights are float32, whatever the file holds.

    Args:
        name: a hub name, a local folder, or a configuration (or its JSON text), which builds the
            architecture with random weights: ``{model_type: bert, num_hidden_layers: 4}``.
        pooling: ``"mean"``, ``"cls"`` or ``"first_last"`` (`encoders.text.pooling`).
        dropout: dropout rate in training if the view has none; ``None`` uses the configuration's.

    Raises:
        ValueError: if there is no such model or pooling, the file lacks weights, or the model is not a
            bidirectional text encoder.
    """

    loads_by_name: ClassVar = {"name": ()}  # not of an encoder file, which has a configuration there

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
        """Returns ``name`` as a configuration, which builds the class without the folder or the hub."""
        config = {**self.model.config.to_diff_dict(), "model_type": self.model.config.model_type}
        return {"name": json.dumps(config, sort_keys=True)}

    def forward(self, view: dict[str, Tensor]) -> Tensor:
        """Encodes ``input_ids`` and ``attention_mask``, both ``[B, L]``, as ``[B, features_dim]``.

        Raises:
            ValueError: if a text is longer than the model takes, or an id is beyond its vocabulary.
        """
        check_ids(view["input_ids"], self.vocabulary)
        rate = view_rate(view)
        set_dropout(self.model, self.dropout if rate is None else rate)
        return in_length_groups(self._embed, view)

    def _embed(self, view: dict[str, Tensor]) -> Tensor:
        ids, mask = view["input_ids"], view["attention_mask"]
        check_length(ids, self.length)
        all_layers = self.pooling == "first_last"
        with kernels_for_any_length():
            output = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=all_layers)
        states = output.hidden_states if all_layers else [output.last_hidden_state]
        return pool(states, mask, self.pooling)


def _load(name: str) -> Any:
    """Loads the network of a name with its weights, or of a configuration's JSON text with random ones."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig  # slow to import

    is_config = name.lstrip().startswith("{")
    shown = "the model of a configuration" if is_config else repr(name)
    name = os.path.expanduser(name)
    if name.startswith(("/", ".", "~")) and not Path(name).is_dir():
        raise ValueError(f"there is no folder {shown}")
    try:
        config: Any
        config = AutoConfig.for_model(**json.loads(name)) if is_config else AutoConfig.from_pretrained(name)
        network, options = _network(config)
        if is_config:
            return network(config, **options)
        with _quiet():  # it would warn of the pooler's weights; missing ones are checked below
            model, report = network.from_pretrained(
                name, config=config, dtype=torch.float32, output_loading_info=True, **options
            )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise ValueError(f"cannot load {shown}: {' '.join(str(error).split())[:300]}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(f"{shown} lacks {len(missing)} of the model's weights, such as {missing[0]}")
    return model.train()  # like any new module; transformers returns it in evaluation mode


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _network(config: Any) -> tuple[Any, dict[str, Any]]:
    """Returns the class for a configuration, and options for its constructor."""
    import transformers

    kind = type(config)
    network: Any = None
    if kind in transformers.MODEL_FOR_MASKED_LM_MAPPING and not config.is_encoder_decoder:
        network = transformers.MODEL_MAPPING[kind]
    elif kind in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:  # T5's encoder, but also decoders
        candidate: Any = transformers.MODEL_FOR_TEXT_ENCODING_MAPPING[kind]
        network = candidate if candidate.__name__.endswith("EncoderModel") else None
    if network is None or not hasattr(config, "hidden_size"):
        raise ValueError(f"its type is {config.model_type}, which is not a bidirectional text encoder")
    arguments = inspect.signature(network.__init__).parameters
    return network, {"add_pooling_layer": False} if "add_pooling_layer" in arguments else {}


def _positions(model: nn.Module) -> int | None:
    """Returns the longest text in tokens, or ``None`` if there is no limit."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and MPNet count positions from the row after the padding's.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    limit = getattr(model.config, "max_position_embeddings", None)
    return None if limit is None else int(limit)
