"""Responses that were written elsewhere become the tokens that the model would draw, whatever its tokenizer does to a text."""

from __future__ import annotations

import pytest
from families import family

from raft_core.types import Prompt, Request
from raft_text import CausalLM, Lora, Prompting, Sampling
from raft_text.model.encoding import PromptEncoder
from raft_text.testing import tiny_tokenizer

SPACE = "▁"
PROMPTS = ("Q: is it?\nA:", "Q: is it?\nA: ", "say yes", "")
TEXTS = ("yes", " yes", "yes no", " no, yes", "\nyes", "  no", "n", "s yes ", "é yes")


def prepending(style):
    """SentencePiece's ways with spaces: before the first word of a text, or before every piece of it (as Llama 2's)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    merges = [("e", "s"), ("y", "es"), (SPACE, "yes"), ("n", "o"), (SPACE, "no"), (SPACE, "i"), (SPACE + "i", "s"), ("A", ":")]
    pieces = [*map(chr, range(33, 127)), SPACE, *(a + b for a, b in merges)]
    special = [f"<0x{byte:02X}>" for byte in range(256)] + ["<s>", "</s>", "<unk>"]
    vocabulary = {piece: number for number, piece in enumerate([*special, *pieces])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    read = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if style == "first":
        raw.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="first", split=False)  # type: ignore[assignment]
    else:
        raw.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])  # type: ignore[assignment]
    raw.decoder = decoders.Sequence([*read, decoders.Strip(" ", 1, 0)])  # type: ignore[assignment]
    made = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    assert made.decode(made("yes")["input_ids"]) == "yes"
    assert made.convert_ids_to_tokens(made("yes")["input_ids"])[-1] == f"{SPACE}yes"  # tokenised apart it is another word
    return made


STYLES = {"first": lambda: prepending("first"), "always": lambda: prepending("always"), "bytes": tiny_tokenizer}


def encoder(style):
    tokenizer = STYLES[style]()
    return PromptEncoder(tokenizer, Prompting(), None, 8, [tokenizer.eos_token_id])


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("prompt", PROMPTS[:3])
@pytest.mark.parametrize("text", TEXTS)
def test_a_response_is_read_as_it_was_written(style, prompt, text):
    encode = encoder(style)
    *tokens, end = encode.completion(prompt, text)
    assert end == encode.tokenizer.eos_token_id
    assert encode.text(tokens) == encode.text([*tokens, end]) == text
    assert encode.completion(prompt, encode.text(tokens)) == (*tokens, end)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("prompt", PROMPTS[:3])
@pytest.mark.parametrize("text", TEXTS)
def test_prompt_and_response_are_the_tokens_of_the_whole_text_where_no_token_spans_their_border(style, prompt, text):
    encode = encoder(style)
    whole = tuple(encode.tokenizer(prompt + text)["input_ids"])
    together = (*encode(prompt), *encode.completion(prompt, text)[:-1])
    spans = encode.tokenizer(prompt)["input_ids"] != list(whole[: len(encode(prompt))])
    assert spans or together == whole


@pytest.mark.parametrize("style", ["first", "always"])
def test_a_word_with_and_without_its_space_are_two(style):
    encode = encoder(style)
    names = encode.tokenizer.convert_ids_to_tokens
    assert names(list(encode.completion("A:", "yes"))) == ["yes", "</s>"]
    assert names(list(encode.completion("A:", " yes"))) == [f"{SPACE}yes", "</s>"]
    # Behind a space that is a token of the prompt already, the word has none of its own.
    assert names(list(encode("A: ")))[-1] == SPACE
    assert names(list(encode.completion("A: ", "yes"))) == ["yes", "</s>"]
    for word in ("yes", f"{SPACE}yes"):
        number = encode.tokenizer.convert_tokens_to_ids(word)
        assert encode.text([number]) == word.replace(SPACE, " ")
        assert encode.completion("A:", encode.text([number]))[0] == number


@pytest.mark.parametrize("style", ["first", "always"])
def test_a_drawn_word_that_is_learned_again_has_the_likelihood_that_it_was_drawn_with(tmp_path, style):
    tokenizer = STYLES[style]()
    policy = CausalLM(str(family(tmp_path, "mistral", tokenizer)), lora=Lora(rank=2), sampling=Sampling(max_new_tokens=3))
    policy.load()
    word = tokenizer.convert_tokens_to_ids(f"{SPACE}yes")
    request = Request(Prompt("Q: is it?\nA:"), 0, 0)
    (written,) = policy.written([request], [policy.encode.text([word])])
    assert written.tensors["tokens"].tolist() == [word, tokenizer.eos_token_id]
