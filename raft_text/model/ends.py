"""Which tokens end a completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raft_core.errors import ConfigError, ModelError
from raft_text.model.facts import no_end


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
