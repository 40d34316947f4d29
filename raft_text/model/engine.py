"""A loaded language model, ready to work: adapted, placed, and wrapped for drawing and for training."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from raft_core.errors import ConfigError, ModelError
from raft_core.models.reference import CopyReference
from raft_text.model import device as hardware
from raft_text.model import loading
from raft_text.model.adapter import fetched, find_adapter, taken_up
from raft_text.model.critic import ValueHead
from raft_text.model.encoding import PromptEncoder, Tools
from raft_text.model.ends import end_tokens, stop_tokens
from raft_text.model.facts import context_length, keeps_state, room_mistakes
from raft_text.model.likelihood import Both, Row, Scoring, token_log_probs, token_log_probs_and_values
from raft_text.model.lora import (
    AdapterReference,
    add_adapters,
    checkpointed_layers,
    checkpointing,
    folded,
    left_out,
    tied_notes,
    train_in_full,
    trainable,
)
from raft_text.model.packing import Forward, Packing, find_packing
from raft_text.options import Lora, Memory, Prompting, Sampling


class Engine:
    """What exists only once the weights are loaded.

    Attributes:
        network: the transformers model, with adapters in it if there are any.
        adapter: peft's configuration of the adapters; None for full fine-tuning.
        lora: their settings; of adapters that are gone on with, those of their file.
        encode: prompts to tokens and completions to text.
        ends: ids of the tokens that end a completion of a plain prompt, as the prompting has it.
        device: where the network works.
        dtype: of the frozen weights; of the computation where everything is trained.
        vocabulary: tokens that the network knows.
        parameters: trained parameters by stable name, float32.
        reference: enters a context in which the network is the frozen start.
        packing: how samples share a row; None = they do not, or ``prove_packing`` has not been called.
        sharded: whether the weights are spread over processes, so that every call has to make one pass.
        notes: what a person should know of how the model was loaded.
    """

    def __init__(
        self, network: Any, encode: PromptEncoder, ends: Sequence[int], lora: Lora | None, memory: Memory, device: torch.device
    ):
        self.network = network
        self.encode = encode
        self.ends = tuple(ends)
        self.device = device
        self.dtype: torch.dtype = network.dtype
        self.vocabulary: int = network.get_input_embeddings().num_embeddings
        self._memory = memory
        start = None if lora is None or lora.init is None else find_adapter(fetched(lora.init), lora)
        self.lora = lora if start is None else start.lora
        self.adapter = None if self.lora is None else add_adapters(network, self.lora)
        if lora is None:
            train_in_full(network)
        self.parameters = trainable(network)
        if start is not None:
            start.put(self.parameters)
        if memory.gradient_checkpointing and not checkpointed_layers(network):
            raise ModelError(
                f"memory.gradient_checkpointing is on, but no layer of {type(network).__name__} can forget its activations: "
                "leave it off"
            )
        if memory.quantize is None:
            network.to(device)
        at_base = lora is not None and (start is None or lora.before == "base")
        self.reference = AdapterReference(network) if at_base else CopyReference(self.parameters)
        self._folds = lora is not None and self.dtype == torch.float32 and memory.quantize is None
        self.packing: Packing | None = None
        self.sharded = False
        self.notes = [
            *state_notes(network),
            *attention_notes(network, memory),
            *left_out(network, self.adapter),
            *tied_notes(network),
        ]
        self._offload = memory.offload and device.type == "cuda"
        self._users = 0

    @classmethod
    def load(
        cls,
        model: str,
        lora: Lora | None,
        prompting: Prompting,
        sampling: Sampling,
        memory: Memory,
        device: torch.device,
        dtype: Any,
        tools: Tools = None,
    ) -> Engine:
        """Load tokenizer and weights, in this order, and build the engine on them.

        Raises:
            ModelError: the model or its tokenizer cannot be loaded, adapted or used as asked.
            ConfigError: the completions are longer than the model's context, or could never end at a stop text.
        """
        tokenizer = loading.load_tokenizer(model, chat=prompting.chat)
        stop_tokens(tokenizer, sampling.stop)
        context = context_length(loading.load_config(model))
        if mistakes := room_mistakes(context, sampling):
            raise ConfigError(mistakes)
        if lora is not None and lora.init is not None:
            taken_up(lora, model)
        quantization = hardware.quantization(memory.quantize)
        network = loading.load_model(model, dtype, attention=memory.attention, quantization=quantization)
        ends = end_tokens(tokenizer, network, model)
        vocabulary = network.get_input_embeddings().num_embeddings
        encode = PromptEncoder(tokenizer, prompting, context, sampling.max_new_tokens, ends, model, vocabulary, tools or ())
        turn_ends = encode.ends(chat=prompting.chat)
        if turn_ends != ends:  # so that what is exported knows where a turn ends
            network.generation_config.eos_token_id = list(turn_ends)
        return cls(network, encode, turn_ends, lora, memory, device)

    def stops(self, stop: Sequence[str], *, chat: bool) -> list[int]:
        """Ids of the tokens that end a completion of a text or, with ``chat``, a turn; the special ones among ``stop`` too."""
        ends = self.ends if chat == self.encode.is_chat("") else self.encode.ends(chat=chat)
        return sorted({*ends, *stop_tokens(self.encode.tokenizer, stop)})

    @contextlib.contextmanager
    def placed(self) -> Iterator[None]:
        """Inside, the network is on the device; outside it is on the CPU if it is to make room there."""
        self._users += 1
        try:
            if self._offload and self._users == 1:
                self._move(self.device)
            yield
        finally:
            self._users -= 1
            if self._offload and self._users == 0:
                self._move(torch.device("cpu"))
                torch.cuda.empty_cache()

    def _move(self, device: torch.device) -> None:
        """In place, and not what is trained: the optimiser remembers where it met that."""
        staying = {id(parameter) for parameter in self.parameters.values()}
        for tensor in itertools.chain(self.network.parameters(), self.network.buffers()):
            if id(tensor) not in staying:
                tensor.data = tensor.data.to(device)

    @contextlib.contextmanager
    def version(self, reference: bool) -> Iterator[None]:
        """The policy's weights, or the frozen start's, which take no gradient; computed with as both are sampled."""
        with contextlib.ExitStack() as stack:
            if reference:
                stack.enter_context(torch.no_grad())
                stack.enter_context(self.reference())
            stack.enter_context(self._precision())
            yield

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """The trainer's precision where it asks for one, else the model's own.

        No casts of weights are kept: a kept one would go on standing for the policy when the reference's values are swapped in,
        and one made without a gradient would pass none on.
        """
        kind = self.device.type
        if torch.is_autocast_enabled(kind):
            return torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), cache_enabled=False)
        half = self.adapter is None and self.dtype != torch.float32
        return torch.autocast(kind, dtype=self.dtype, cache_enabled=False) if half else contextlib.nullcontext()

    def drawing(self, *, trace: bool, reference: bool) -> contextlib.AbstractContextManager[None]:
        """The fastest weights to draw with; traced tokens are drawn as they are trained, to be replayed to the last digit."""
        return folded(self.network) if self._folds and not (trace or reference) else contextlib.nullcontext()

    def prove_packing(self, critic: ValueHead | None) -> None:
        """Find out how samples share a row without seeing each other, if they are to.

        Raises:
            ModelError: there is no way.
        """
        if not self._memory.packing:
            return
        forwards: list[Forward] = [lambda ids, packed: self.network(input_ids=ids, use_cache=False, **packed).logits]
        if critic is not None and critic.trunk is not None:
            forwards.append(critic.read_trunk)
        with self.placed(), self.version(False):
            self.packing = find_packing(self.network, forwards, self.dtype, self.device)

    def log_probs(self, rows: Sequence[Row], scoring: Scoring | None = None) -> list[torch.Tensor]:
        """[T] log-probs of each completion's tokens, in nats; differentiable. As ``token_log_probs``."""
        with self._forgetting(self.network):
            settings: dict[str, Any] = {"packing": self.packing, "scoring": scoring, "at_once": self.sharded}
            return token_log_probs(self.network, rows, self.device, **settings)

    def log_probs_and_values(self, rows: Sequence[Row], critic: ValueHead, scoring: Scoring | None = None) -> list[Both]:
        """([T] log-probs, [T] the critic's estimates) of each completion; differentiable, in one pass on a shared trunk."""
        settings: dict[str, Any] = {"packing": self.packing, "scoring": scoring}
        with self._forgetting(self.network), self._forgetting(critic.trunk):
            return token_log_probs_and_values(self.network, critic, rows, self.device, **settings)

    def _forgetting(self, network: Any) -> contextlib.AbstractContextManager[None]:
        training = self._memory.gradient_checkpointing and torch.is_grad_enabled() and network is not None
        return checkpointing(network) if training else contextlib.nullcontext()

    def describe(self) -> dict[str, Any]:
        """Plain facts that are known once the weights are there."""
        return {
            "class": type(self.network).__name__,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "attention": loading.attention_of(self.network),
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "trained_parameters": sum(parameter.numel() for parameter in self.parameters.values()),
        }


def state_notes(network: Any) -> list[str]:
    """That a model is drawn from otherwise than most."""
    if not keeps_state(network):
        return []
    return [
        f"{type(network).__name__} keeps a state of what it has read: each sample reads its prompt itself, and prompts of one "
        "length are drawn together"
    ]


def attention_notes(network: Any, memory: Memory) -> list[str]:
    """That the model computes attention otherwise than it was asked to."""
    used = loading.attention_of(network)
    if used == memory.attention or keeps_state(network):
        return []
    return [
        f"{type(network).__name__} does not know the attention {memory.attention!r}: {used!r} takes its place, which needs "
        f"more memory for long texts (memory.attention: {used} says the same)"
    ]


def load_draft(model: str, engine: Engine) -> Any:
    """A smaller model that guesses ahead, beside the engine's.

    Raises:
        ModelError: it cannot be loaded, or has another vocabulary.
    """
    draft = loading.load_model(model, engine.dtype)
    for network in (draft, engine.network):
        if keeps_state(network):
            raise ModelError(
                f"sampling.draft: {type(network).__name__} keeps a state of what it has read, which cannot be taken back where "
                "a guess is wrong: leave the draft out"
            )
    sizes = draft.config.vocab_size, engine.network.config.vocab_size
    if sizes[0] != sizes[1]:
        raise ModelError(
            f"sampling.draft {model} has a vocabulary of {sizes[0]} tokens and the model one of {sizes[1]}: a draft model "
            "needs the same tokenizer"
        )
    return draft.to(engine.device)
