"""What the files of a causal language model tell without a weight, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_core.errors import ModelError
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_text.model.places import PICKLES
from raft_text.options import Sampling

#: What a configuration calls the longest text that the model takes.
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
_CAUSAL = ("ForCausalLM", "LMHeadModel")
#: Kinds of layers, as configurations call them, that keep nothing of the past but keys and values, or nothing at all.
KEYS_AND_VALUES = {
    "attention",
    "full_attention",
    "sliding_attention",
    "chunked_attention",
    "window_attention",
    "dense",
    "sparse",
}


@dataclass(frozen=True)
class Facts:
    """What the files of a model tell without a weight.

    Attributes:
        config: ``config.json``.
        context: longest text in tokens; None = not said.
        vocabulary: tokens that the model knows; None = not said.
        ends: whether an end-of-text token is named anywhere.
        chats: whether there is a chat template.
    """

    config: Mapping[str, Any]
    context: int | None
    vocabulary: int | None
    ends: bool
    chats: bool


def read_facts(folder: Path) -> Facts:
    """Facts of a model's folder.

    Raises:
        ModelError: ``config.json`` is missing or is no JSON.
    """
    config = _json(folder / "config.json", required=True)
    tokenizer, generation = _json(folder / "tokenizer_config.json"), _json(folder / "generation_config.json")
    special = _json(folder / "special_tokens_map.json")
    return Facts(
        config=config,
        context=next((config[key] for key in _CONTEXT_KEYS if isinstance(config.get(key), int)), None),
        vocabulary=next((size for part in (config, config.get("text_config") or {}) if (size := part.get("vocab_size"))), None),
        ends=any(s.get("eos_token") for s in (tokenizer, special))
        or any(c.get("eos_token_id") is not None for c in (config, generation)),
        chats=bool(tokenizer.get("chat_template")) or (folder / "chat_template.jinja").is_file(),
    )


def exceeds_embedding(folder: Path) -> bool:
    """Whether the tokenizer of a model's folder has tokens that its embedding has no rows for, as far as the files tell."""
    known, content = read_facts(folder).vocabulary, _json(folder / "tokenizer.json")
    vocabulary = content.get("model", {}).get("vocab") or {}
    numbers = [token["id"] for token in content.get("added_tokens") or ()]
    numbers += [len(vocabulary) - 1] if isinstance(vocabulary, list) else list(vocabulary.values())
    return known is not None and max(numbers, default=0) >= known


def _json(path: Path, required: bool = False) -> dict[str, Any]:
    if not path.is_file():
        if required:
            raise ModelError(f"model: {path.parent} is no transformers model: {path.name} is missing")
        return {}
    try:
        return read_object(path, repeated_keys=True)  # as the libraries read it
    except (OSError, Unreadable) as error:
        raise ModelError(f"model: {path} is no JSON object: {error}") from error


def folder_mistakes(folder: Path, *, chat: bool) -> list[str]:
    """What is wrong with a model's folder, as far as its file names and configuration tell."""
    try:
        facts = read_facts(folder)
    except ModelError as error:
        return [str(error)]
    found = config_mistakes(facts.config, str(folder))
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for path in folder.iterdir() if path.suffix in PICKLES]
        found.append(
            f"model: {folder} has pickled weights ({pickles[0]}), which can run code when they are loaded; convert them with "
            "model.save_pretrained(folder) on a machine where you trust them"
            if pickles
            else f"model: {folder} has no weights (*.safetensors)"
        )
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json")):
        found.append(f"model: {folder} has no tokenizer (tokenizer.json); save one with tokenizer.save_pretrained(folder)")
    elif not facts.ends:
        found.append(no_end(str(folder)))
    if chat and not facts.chats:
        found.append(no_chat_template(str(folder)))
    return found


def config_mistakes(config: Mapping[str, Any], where: str) -> list[str]:
    """Why a configuration is not that of a causal language model; empty when it is."""
    names = config.get("architectures") or []
    if config.get("is_encoder_decoder"):
        what = names[0] if names else config.get("model_type", "an encoder–decoder")
        return [f"model: {where} holds a {what}, which reads with an encoder: only causal (decoder-only) models are supported"]
    if names and not any(name.endswith(_CAUSAL) for name in names):
        return [
            f"model: {where} holds a {names[0]}, which is not causal: it does not predict the next token; choose a model whose "
            "class ends in ForCausalLM"
        ]
    if any(name.startswith("Bert") for name in names) and not config.get("is_decoder"):
        return [f"model: {where} holds a {names[0]} that is no decoder (is_decoder is not set), so it is not causal"]
    return []


def keeps_state(network: Any) -> bool:
    """Whether a model keeps more of what it has read than keys and values: a state-space model, a hybrid with convolutions."""
    kinds = getattr(network.config.get_text_config(), "layer_types", None) or ()
    return bool(getattr(network, "_is_stateful", False)) or not {str(kind) for kind in kinds} <= KEYS_AND_VALUES


def no_end(where: str) -> str:
    """The message about a tokenizer without an end-of-text token."""
    return (
        f"model: the tokenizer of {where} has no end-of-text token (eos_token), so no completion would ever end by itself: set "
        "it with tokenizer.eos_token = … and save the tokenizer"
    )


def no_chat_template(where: str) -> str:
    """The message about a tokenizer without a chat template."""
    return (
        f"prompting.chat is on, but the tokenizer of {where} has no chat template: choose a chat model, or set prompting.chat "
        "to false and prompting.template to the text around a prompt"
    )


def context_length(config: Any) -> int | None:
    """Longest text in tokens that the model takes, by its configuration; None when it sets no limit."""
    return next((value for key in _CONTEXT_KEYS if isinstance(value := getattr(config, key, None), int)), None)


def room_mistakes(context: int | None, sampling: Sampling) -> list[str]:
    """Completions that fill the context leave no room for a prompt."""
    if context is None or sampling.max_new_tokens < context:
        return []
    return [
        f"sampling.max_new_tokens is {sampling.max_new_tokens}, but the model's context is {context} tokens, prompt included: "
        f"at most {context - 1} are possible"
    ]
