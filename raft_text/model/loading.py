"""Causal language models and their tokenizers, loaded from the Hub, a folder, or the package; safetensors only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raft_core.errors import ModelError
from raft_core.machine.torchvision import ensure_importable
from raft_text.model.facts import config_mistakes, no_chat_template, read_facts
from raft_text.model.places import locate


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers shows no progress bars and logs errors alone."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _not_loaded(what: str, model: str, error: Exception) -> str:
    """The message about files that could not be read or fetched."""
    place, where = locate(model)
    remedy = "; without a network, or to be sure of what is loaded, give the folder of a copy" if place == "hub" else ""
    return f"model: {what} of {where} could not be loaded: {' '.join(str(error).split())}{remedy}"


def load_tokenizer(model: str, *, chat: bool) -> Any:
    """The tokenizer of a model.

    Raises:
        ModelError: it has none, or none that can be used as asked.
    """
    ensure_importable()
    from transformers import AutoTokenizer

    _, where = locate(model)
    try:
        with quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(_not_loaded("the tokenizer", model, error)) from error
    if chat and not tokenizer.chat_template:
        raise ModelError(no_chat_template(model))
    return tokenizer


def load_config(model: str) -> Any:
    """The transformers configuration of a causal model.

    Raises:
        ModelError: it cannot be had, or is not that of a causal model.
    """
    ensure_importable()
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    place, where = locate(model)
    if place == "folder" and (mistakes := config_mistakes(read_facts(Path(where)).config, model)):
        raise ModelError("; ".join(mistakes))
    try:
        with quiet():
            config: Any = AutoConfig.from_pretrained(where)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(_not_loaded("the configuration", model, error)) from error
    if mistakes := config_mistakes(config.to_dict(), model):
        raise ModelError("; ".join(mistakes))
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(f"model: {model} is of the type {config.model_type!r}, for which transformers has no causal model")
    return config


def load_model(model: str, dtype: Any, *, attention: str = "sdpa", quantization: Any = None) -> Any:
    """The model on the CPU (on CUDA when it is quantised), ready to predict and not to train.

    Args:
        attention: its implementation; where the model does not know ``sdpa``, ``eager`` takes its place (``attention_of``).

    Raises:
        ModelError: it cannot be loaded.
    """
    config = load_config(model)
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    _, where = locate(model)
    known: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if attention == "sdpa" and not known._supports_sdpa:
        attention = "eager"
    placed: dict[str, Any] = {} if quantization is None else {"quantization_config": quantization, "device_map": {"": 0}}
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                where,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                attn_implementation=attention,
                output_loading_info=True,
                **placed,
            )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(_not_loaded("the model", model, error)) from error
    network, info = loaded
    if missing := sorted(info["missing_keys"]):  # the library would go on with random ones
        raise ModelError(f"model: the weights of {model} lack {missing[0]!r} ({len(missing)} such tensors): fetch them again")
    network.requires_grad_(False)
    return network.eval()


def attention_of(network: Any) -> str:
    """Which implementation of attention a network computes with."""
    return str(getattr(network.config, "_attn_implementation", None))
