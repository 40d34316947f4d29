"""What a user sets about a language model: how it is adapted, prompted, sampled, watched, and fitted into memory.

These dataclasses are the configuration's schema, and their docstrings its help.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from raft_core.errors import ConfigError
from raft_core.rewards.service.http import address_mistakes

PLACE = "{prompt}"
LARGEST_RANK = 65_536  # of no layer could an update have more
LEAST_TEMPERATURE = 1e-6  # besides 0; logits divided by much less are beyond float32
#: Arguments of a chat template that are set for each conversation, and not by a user.
TEMPLATE_OWN = ("messages", "conversation", "add_generation_prompt", "continue_final_message", "tools", "documents", "tokenize")


def _refuse(mistakes: Sequence[str]) -> None:
    if mistakes:
        raise ConfigError(mistakes)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on the linear layers; everything else stays frozen.

    Args:
        rank: of each update, ≥ 1. More rank, more capacity and larger files.
        alpha: scale of the update is alpha / rank; null = twice the rank, so the scale is 2.
        targets: names of the layers that get an adapter, such as [q_proj, v_proj]; [all-linear] = all linear ones but the head.
        seed: of the adapters' initial values.
        init: a LoRA to go on training: a folder as peft writes it, its .safetensors file, a run, or OWNER/NAME on the Hub. Its
            layers, rank, alpha and values are taken over; rank, alpha and targets are then not set.
        before: what a run that goes on from init is compared with, and held to: init, that LoRA as it was read, or base, the
            model without it.
    """

    rank: int = 16
    alpha: float | None = None
    targets: Sequence[str] = ("all-linear",)
    seed: int = 0
    init: str | None = None
    before: Literal["init", "base"] = "init"

    def __post_init__(self) -> None:
        mistakes = []
        if self.rank < 1:
            mistakes.append(f"lora.rank is {self.rank}, but at least 1 is needed; for full fine-tuning set lora to null")
        if self.rank > LARGEST_RANK:
            mistakes.append(f"lora.rank is {self.rank}, but at most {LARGEST_RANK} is possible; usual are 8 to 256")
        if self.alpha is not None and self.alpha <= 0:
            mistakes.append(f"lora.alpha is {self.alpha}, but must be positive")
        if not self.targets:
            mistakes.append("lora.targets is empty: nothing would be trained; [all-linear] takes every linear layer")
        object.__setattr__(self, "targets", tuple(self.targets))  # lists of YAML and JSON, so that equal settings are equal
        if self.before == "base" and self.init is None:
            mistakes.append("lora.before is 'base', but without lora.init a run begins at the base anyway")
        mistakes += [
            f"lora.{name} is {getattr(self, name)!r}, but lora.init brings its own: leave lora.{name} out, or give lora as a "
            "whole, {init: NAME}"
            for name in ("rank", "alpha", "targets")
            if self.init is not None and getattr(self, name) != type(self).__dataclass_fields__[name].default
        ]
        _refuse(mistakes)

    @property
    def effective_alpha(self) -> float:
        return float(2 * self.rank if self.alpha is None else self.alpha)


@dataclass(frozen=True)
class Prompting:
    """How a prompt becomes what the model reads.

    Args:
        chat: put a prompt's text into the tokenizer's chat template, as the user's message. Conversations (prompts with
            messages) go through it in any case.
        system: message that goes before a prompt that has no system message of its own; needs chat.
        system_in_user: put system messages before the user's first message, for templates that know no such role.
        template: text around the prompt, which stands where {prompt} is; of a conversation, around what the user said last.
        chat_template_kwargs: arguments of the chat template, such as {enable_thinking: false}. A prompt's table may have its
            own in a column of this name.
        learned_turns: which of the assistant's turns in a conversation are learned where its response is: ``all`` but those of
            weight 0, or the ``last`` one.
        max_tokens: longest prompt, without what the templates add; of a longer one the beginning is cut off (of a conversation,
            its oldest exchanges), and the run says so. null = nothing is ever cut off. In either case a prompt that leaves no
            room for the completion is refused.
    """

    chat: bool = False
    system: str | None = None
    system_in_user: bool = False
    template: str = PLACE
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    learned_turns: Literal["all", "last"] = "all"
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        mistakes = []
        if PLACE not in self.template:
            mistakes.append(f"prompting.template is {self.template!r}, but {PLACE} has to stand in it, where the prompt goes")
        if self.system is not None and not self.chat:
            mistakes.append("prompting.system is set, but prompting.chat is off: plain prompts have no system message")
        if self.max_tokens is not None and self.max_tokens < 1:
            mistakes.append(f"prompting.max_tokens is {self.max_tokens}, but at least 1 is needed; null cuts nothing off")
        for name in TEMPLATE_OWN:
            if name in self.chat_template_kwargs:
                mistakes.append(
                    f"prompting.chat_template_kwargs has {name!r}, which is set here for every prompt: leave it out"
                )
        _refuse(mistakes)


@dataclass(frozen=True)
class Decoding:
    """How completions are drawn where that is otherwise than in the rounds.

    Args:
        temperature: of the distribution p^(1/temperature); 0 = always the likeliest token.
        top_k: draw from so many of the likeliest tokens only; null = from all.
        top_p: draw from the likeliest tokens that together have this probability; 1 = from all.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0


def _decoding_mistakes(at: str, part: Decoding | Sampling) -> list[str]:
    mistakes = []
    if part.temperature < 0:
        mistakes.append(f"{at}.temperature is {part.temperature}, but must not be negative; 0 takes the likeliest token")
    elif 0 < part.temperature < LEAST_TEMPERATURE:
        mistakes.append(
            f"{at}.temperature is {part.temperature}, by which no logit can be divided: give 0, the likeliest token, or "
            f"at least {LEAST_TEMPERATURE}"
        )
    if not 0 < part.top_p <= 1:
        mistakes.append(f"{at}.top_p is {part.top_p}, but must be in (0, 1]")
    if part.top_k is not None and part.top_k < 1:
        mistakes.append(f"{at}.top_k is {part.top_k}, but at least 1 is needed")
    return mistakes


@dataclass(frozen=True)
class VllmServer:
    """A vLLM server that generates, on this machine or another: ``engine: {vllm: http://127.0.0.1:8000}``.

    Start it with the policy's base model, so that it takes a new LoRA each round:
    ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora --max-lora-rank RANK``.

    Args:
        vllm: its address.
        folder: where each round's LoRA is written for the server to read: it has to see this folder, too. By default a
            temporary one, which a server on this machine sees.
        key_variable: environment variable that holds the server's key; null = it needs none.
        timeout_s: seconds for one completion.
    """

    vllm: str
    folder: str | None = None
    key_variable: str | None = None
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        _refuse([f"sampling.engine: {mistake}" for mistake in address_mistakes(self.vllm)])


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Args:
        temperature: of the distribution p^(1/temperature); 0 = always the likeliest token.
        top_k: draw from so many of the likeliest tokens only; null = from all.
        top_p: draw from the likeliest tokens that together have this probability; 1 = from all.
        repetition_penalty: logits of tokens that have occurred are divided by this if positive, multiplied if not; 1 = none.
        min_new_tokens: the end-of-text token is not drawn before so many tokens.
        max_new_tokens: longest completion; with an environment, longest turn.
        max_turns: with an environment, at most so many turns of one sample.
        stop: texts at which a completion ends; they are not part of the output. Of the tokenizer's special tokens, which no
            text shows, one by itself.
        batch_size: completions that grow together.
        draft: a smaller model with the same tokenizer, a folder or a Hub id, that guesses tokens ahead. The completions stay
            the same, whatever it guesses; they come faster if it guesses well.
        draft_tokens: how many tokens it guesses ahead.
        engine: what generates: transformers; vllm (CUDA only, in an extra); or a vLLM server, ``{vllm: http://HOST:PORT}``.
        compared: how completions are drawn in the comparison before and after instead; ``{temperature: 0}`` compares what is
            likeliest, and so the top-1 accuracy. null = as in the rounds.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    min_new_tokens: int = 0
    max_new_tokens: int = 128
    max_turns: int = 8
    stop: Sequence[str] = ()
    batch_size: int = 32
    draft: str | None = None
    draft_tokens: int = 4
    engine: Literal["transformers", "vllm"] | VllmServer = "transformers"
    compared: Decoding | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.engine, (str, VllmServer)):  # as a configuration, or a person, writes it
            written: Any = self.engine
            object.__setattr__(self, "engine", VllmServer(**(written if isinstance(written, Mapping) else vars(written))))
        mistakes = _decoding_mistakes("sampling", self)
        if self.compared is not None:
            mistakes += _decoding_mistakes("sampling.compared", self.compared)
        if self.repetition_penalty <= 0:
            mistakes.append(f"sampling.repetition_penalty is {self.repetition_penalty}, but must be positive; 1 is none")
        for name in ("max_new_tokens", "max_turns", "batch_size", "draft_tokens"):
            if (value := getattr(self, name)) < 1:
                mistakes.append(f"sampling.{name} is {value}, but at least 1 is needed")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            mistakes.append(
                f"sampling.min_new_tokens is {self.min_new_tokens}, but must be in [0, max_new_tokens], which is "
                f"{self.max_new_tokens}"
            )
        if isinstance(self.stop, str) or not all(self.stop):
            mistakes.append(f"sampling.stop is {self.stop!r}, but must be a list of texts, none of them empty")
        if self.engine != "transformers" and self.draft is not None:
            mistakes.append("sampling.draft is for the engine transformers; leave it out with vllm")
        _refuse(mistakes)
        object.__setattr__(self, "stop", tuple(self.stop))

    def for_comparison(self) -> Sampling:
        """As it is in the comparison before and after."""
        return self if self.compared is None else replace(self, **asdict(self.compared), compared=None)


@dataclass(frozen=True)
class Rejection:
    """When a completion is given up before it is finished, because it cannot be chosen any more.

    What is given up is not scored and never selected. A rule is *sound* if it gives up only what the selector would not have
    chosen; the selection is then the same as without it, and only tokens are saved.

    Args:
        patterns: regular expressions; a completion in which one of them is found is given up.
        bound: a function ``my_file.py:my_function`` of (prompts, beginnings of completions) that returns for each the highest
            reward that it can still reach.
        below: completions whose bound is below this are given up; needs ``bound``.
        every: tokens between two looks at a completion.
    """

    patterns: Sequence[str] = ()
    bound: str | None = None
    below: float | None = None
    every: int = 8

    def __post_init__(self) -> None:
        mistakes = []
        if not self.patterns and self.bound is None:
            mistakes.append("rejection has neither patterns nor a bound: nothing would ever be given up; set it to null")
        if (self.bound is None) != (self.below is None):
            mistakes.append("rejection.bound and rejection.below go together: give both, or neither")
        if self.every < 1:
            mistakes.append(f"rejection.every is {self.every}, but at least 1 token lies between two looks")
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                mistakes.append(f"rejection.patterns: {pattern!r} is no regular expression: {error}")
        _refuse(mistakes)
        object.__setattr__(self, "patterns", tuple(self.patterns))


@dataclass(frozen=True)
class Critic:
    """What estimates, before each token, how much reward is still to come. PPO learns by it; it begins with 0 everywhere.

    Args:
        separate: a network of its own, which begins as the model and is trained as the policy is (its LoRA, or all of it), at
            twice the cost. Otherwise one linear layer on the policy's last hidden states, which the value loss then trains too.

    Source: ReFT (2401.08967), section 4.4: both do equally well.
    """

    separate: bool = False


@dataclass(frozen=True)
class Memory:
    """How the model is fitted into memory.

    Args:
        gradient_checkpointing: forget activations and compute them again in the backward pass: less memory, a third more time.
        quantize: 4bit or 8bit base weights, on CUDA, with LoRA alone (needs the extra bitsandbytes); null = none.
        packing: train on samples laid end to end in one row instead of padded rows of similar length. No sample sees another:
            that is proved with the model when it is loaded, and a model that cannot keep them apart is refused. For long rows
            with an attention that knows of packing; padded rows are faster for short ones.
        offload: on CUDA, keep the frozen weights on the CPU while samples are scored.
        attention: sdpa (PyTorch's own), eager, or flash_attention_2 (CUDA only, in a package of its own).
    """

    gradient_checkpointing: bool = False
    quantize: Literal["4bit", "8bit"] | None = None
    packing: bool = False
    offload: bool = False
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"

    def __post_init__(self) -> None:
        if self.quantize and self.offload:
            _refuse(["memory.offload cannot move the quantised weights of memory.quantize; choose one of the two"])
