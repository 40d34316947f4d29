"""Causal language models and their tokenizers from the Hub, a folder, or the package; safetensors only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raft_core.errors import ConfigError, ModelError, nearest
from raft_core.machine.torchvision import ensure_importable
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object

Place = Literal["folder", "hub"]

BUNDLED = "bundled:"
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
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
ONLY_ATTENTION = "only models whose every layer is attention can be sampled here"


def locate(model: str) -> tuple[Place, str]:
    """Where ``model`` is, in words and as a path or Hub id.

    Raises:
        ModelError: a bundled model or a path that does not exist, or a file.
    """
    if model.startswith(BUNDLED):
        return "folder", str(bundled(model.removeprefix(BUNDLED)))
    path = Path(model).expanduser()
    if path.is_dir():
        return "folder", str(path)
    if path.suffix in PICKLES:
        raise ModelError(
            f"model: {model} is a pickle, which can run code when it is loaded; give the folder of a transformers model in "
            "safetensors"
        )
    if path.is_file():
        raise ModelError(f"model: {model} is a file; give the folder of a transformers model (config.json, *.safetensors)")
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1 or not model.strip("/"):
        raise ModelError(
            f"model: {model} does not exist; give a folder, ORGANISATION/NAME on the Hub, or one of the bundled models"
        )
    return "hub", model


def bundled(name: str) -> Path:
    """The folder of a language model that ships with the package.

    Raises:
        ModelError: there is none of this name.
    """
    known = [path.parent.name for path in BUNDLED_FOLDER.glob("*/config.json")]
    if name not in known:
        raise ModelError(f"no bundled language model is called {name!r}{nearest(name, known)}")
    return BUNDLED_FOLDER / name


# ---------------------------------------------------------------------- what the files tell


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
    if kinds := sorted({str(kind) for kind in config.get("layer_types") or ()} - KEYS_AND_VALUES):
        what = names[0] if names else f"model of the type {config.get('model_type')}"
        return [f"model: {where} holds a {what}, whose layers of the kind {' and '.join(kinds)} keep a state; {ONLY_ATTENTION}"]
    if any(name.startswith("Bert") for name in names) and not config.get("is_decoder"):
        return [f"model: {where} holds a {names[0]} that is no decoder (is_decoder is not set), so it is not causal"]
    return []


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


# ---------------------------------------------------------------------- loading


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
        ModelError: it cannot be had, or is not that of a causal attention model.
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
        ModelError: it cannot be loaded, or keeps a state that is no attention cache.
    """
    config = load_config(model)
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    _, where = locate(model)
    known: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if getattr(known, "_is_stateful", False):
        raise ModelError(f"model: {model} is a {known.__name__}, which keeps a recurrent state; {ONLY_ATTENTION}")
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


def context_length(config: Any) -> int | None:
    """Longest text in tokens that the model takes, by its configuration; None when it sets no limit."""
    return next((value for key in _CONTEXT_KEYS if isinstance(value := getattr(config, key, None), int)), None)


def end_tokens(tokenizer: Any, network: Any, model: str) -> tuple[int, ...]:
    """Ids of the tokens that end a text, by the tokenizer and by the model's own settings; those that the model knows.

    Raises:
        ModelError: there is none.
    """
    size = network.get_input_embeddings().num_embeddings
    found: set[int] = set()
    for said in (tokenizer.eos_token_id, network.generation_config.eos_token_id, network.config.eos_token_id):
        found |= {said} if isinstance(said, int) else set(said or ())
    if not found:
        raise ModelError(no_end(model))
    if known := tuple(sorted(end for end in found if end < size)):
        return known
    raise ModelError(
        f"model: the end-of-text token of {model} has the number {min(found)}, but the model knows {size} tokens, so no "
        "completion would ever end by itself: extend it with model.resize_token_embeddings(len(tokenizer)) and save it"
    )


def stop_tokens(tokenizer: Any, stop: Sequence[str]) -> tuple[int, ...]:
    """Ids of those stop texts that are special tokens: no completion's text shows them, but a completion can end at them.

    Raises:
        ConfigError: a stop text in which a special token stands beside other text.
    """
    found = []
    for text in stop:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        special = [i for i in ids if i in special_ids(tokenizer)]
        if special and text in tokenizer.get_vocab():
            found.append(tokenizer.convert_tokens_to_ids(text))
        elif special:
            token = tokenizer.convert_ids_to_tokens(special[0])
            raise ConfigError(
                f"sampling.stop has {text!r}, but {token!r} is a special token, which no completion's text shows, so it would "
                f"never be found: give {token!r} alone, and completions end at that token"
            )
    return tuple(found)


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of the tokens that are left out where a completion is read as text."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)
