"""A causal language model as a policy: asked for completions, trained on the tokens that it drew."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from raft_core.capabilities import NllUnit
from raft_core.conversations import ANSWERS, response, transcript
from raft_core.errors import ConfigError, DataError, DeviceError, ModelError, RaftError
from raft_core.machine.devices import resolve_device
from raft_core.prompt_files.drawing import without_negative
from raft_core.protocols import Phase, Purpose
from raft_core.sampling import chunks, whole_prompts
from raft_core.store.checkpoint import policy_hash
from raft_core.types import MESSAGES, Message, Prompt, Request, Sample
from raft_text import metrics
from raft_text.export import files as export
from raft_text.export import merged
from raft_text.model import device as hardware
from raft_text.model import loading
from raft_text.model.critic import ValueHead, load_critic
from raft_text.model.encoding import PromptEncoder
from raft_text.model.engine import Engine, load_draft, room_mistakes
from raft_text.model.features import ngram_features
from raft_text.model.likelihood import DrawnScoring, Row, padded, rows_at_once
from raft_text.model.readable import encoder_of, prompt_mistakes
from raft_text.model.turns import TURNS, Passages
from raft_text.options import Critic, Lora, Memory, Prompting, Rejection, Sampling, VllmServer
from raft_text.process.rejection import Watcher
from raft_text.process.sampler import Drawn, Task, draw, first_stop
from raft_text.process.stages import StageWatcher, stage_tokens
from raft_text.process.token_choice import Picker, replay_mistakes
from raft_text.process.vllm_engine import VllmEngine
from raft_text.process.vllm_server import ServedVllm

#: Batches that are asked for at once, so that prompts of similar length can be put together.
POOL = 4


class CausalLM:
    """Any causal language model of transformers.

    The likelihood ``nll`` is the model's own. Log-probs of steps, which ratios and divergences are made of, are those of the
    distribution that completions are drawn from: temperature, repetition penalty and minimum length are part of it.

    Args:
        model: bundled:NAME, a folder, or ORGANISATION/NAME on the Hub.
        lora: what is trained; null = full fine-tuning.
        prompting: how a prompt's text becomes what the model reads.
        sampling: how completions are drawn.
        rejection: when a completion is given up before it is finished; null = never.
        memory: how the model is fitted into memory.
        device: auto, cpu, cuda or cuda:N.
        dtype: of the frozen weights; auto = bfloat16 on CUDA where it is native, float32 elsewhere. What is trained is float32.
        references: table of prompts and responses (columns prompt and response) whose perplexity is measured in each round.
        critic: what PPO needs beside the policy; null = none. It is trained and kept with the policy, and not exported.

    Attributes:
        on_step: told, after each token, how many the longest completion of a batch has and how many it may have; nobody by
            default. The engine vllm tells nothing.
    """

    modality = "text"
    nll_unit: NllUnit = "nats"
    traces_written = True
    #: Whether samples say how likely the model finds the response that the prompts' table gives; ``ResponseLoss`` asks for it.
    measures_responses = False
    on_step: Callable[[int, int], None] | None = None

    def __init__(
        self,
        model: str,
        lora: Lora | None = Lora(),  # noqa: B008 - frozen
        prompting: Prompting = Prompting(),  # noqa: B008 - frozen
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        rejection: Rejection | None = None,
        memory: Memory = Memory(),  # noqa: B008 - frozen
        device: str = "auto",
        dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto",
        references: str | None = None,
        critic: Critic | None = None,
    ):
        self.model = model
        self.lora = lora
        self.prompting = prompting
        self.sampling = sampling
        self.rejection = rejection
        self.memory = memory
        self.device = device
        self.dtype = dtype
        self.references = references
        self.critic = critic
        self.batch_size = POOL * sampling.batch_size
        self._engine: Engine | None = None
        self._draft: Any = None
        self._value_head: ValueHead | None = None
        self._vllm: Any = None
        self._watcher: Watcher | None = None
        self._references: list[Sample] = []
        self._unchecked: list[tuple[Prompt, str | None]] = []  # prompts, and what was written to them

    def check(self) -> list[str]:
        found = hardware.mistakes(self.device, self.dtype, self.lora, self.sampling, self.memory)
        if self.rejection and self.sampling.engine != "transformers":
            found.append("rejection needs the engine transformers: vllm does not let a completion be looked at while it grows")
        if self.critic and self.critic.separate and self.memory.offload:
            found.append("critic.separate keeps a second network on the device, which memory.offload cannot move: choose one")
        for model, chat in ((self.model, self.prompting.chat), (self.sampling.draft, False)):
            if model is not None:
                found += self._model_mistakes(model, chat)
        for attempt in (self._watch, self._read_references):
            try:
                attempt()
            except RaftError as error:
                found.append(str(error))
        return found

    def _model_mistakes(self, model: str, chat: bool) -> list[str]:
        try:
            place, where = loading.locate(model)
            if place == "hub":
                return []
            mistakes = loading.folder_mistakes(Path(where), chat=chat)
            mistakes = mistakes or room_mistakes(loading.read_facts(Path(where)).context, self.sampling)
            if self.sampling.stop and model == self.model and not mistakes:
                loading.stop_tokens(loading.load_tokenizer(model, chat=chat), self.sampling.stop)
            return encoder_of(model, self.prompting, self.sampling).chat.mistakes() if chat and not mistakes else mistakes
        except (ModelError, ConfigError) as error:
            return [str(error)]

    def check_prompts(self, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
        """Prompts that leave no room for a completion, and conversations that the chat template refuses.

        Of the Hub's models that is told when they are loaded, before their weights are.
        """
        self._unchecked = [(prompt, None) for prompt in (*train, *held_out)]
        return without_negative([*train, *held_out]) + self._unreadable()

    def check_written(self, prompts: Sequence[Prompt], outputs: Sequence[str]) -> list[str]:
        """Prompts with responses that do not fit the context, and conversations that the chat template refuses.

        Of the Hub's models that is told when they are loaded, before their weights are.
        """
        self._unchecked += zip(prompts, outputs, strict=True)
        return self._unreadable()

    def _unreadable(self) -> list[str]:
        try:
            return [] if loading.locate(self.model)[0] == "hub" else self._prompt_mistakes()
        except ModelError:  # told by ``check``
            return []

    def _prompt_mistakes(self) -> list[str]:
        """Why prompts and responses are refused; those that were checked are not checked again.

        Raises:
            ModelError: the model's folder, or its tokenizer, cannot be read.
        """
        unchecked, self._unchecked = self._unchecked, []
        return prompt_mistakes(self.model, self.prompting, self.sampling, unchecked)

    def _require_readable(self) -> None:
        """Check what could not be checked before the tokenizer was there.

        Raises:
            ConfigError: settings that the chat template does not take.
            DataError: prompts that are refused.
        """
        if self.prompting.chat and (mistakes := encoder_of(self.model, self.prompting, self.sampling).chat.mistakes()):
            raise ConfigError(mistakes)
        if self._unchecked and (mistakes := self._prompt_mistakes()):
            raise DataError(mistakes[0])

    def load(self) -> None:
        """Load the weights and add fresh adapters.

        Raises:
            ModelError: the model cannot be loaded, adapted or sampled as asked.
            DeviceError: the hardware cannot do what is asked.
            ConfigError: the chat template does not take what is asked of it.
            DataError: prompts, checked before, that the model does not take.
        """
        if found := hardware.mistakes(self.device, self.dtype, self.lora, self.sampling, self.memory):
            raise DeviceError("; ".join(found))
        self._require_readable()
        if isinstance(self.sampling.engine, VllmServer):
            self._vllm = ServedVllm(self.sampling.engine, self.save)
            self._vllm.require_reachable()
        device = resolve_device(self.device)
        dtype = hardware.pick_dtype(self.dtype, device)
        self._engine = Engine.load(self.model, self.lora, self.prompting, self.sampling, self.memory, device, dtype)
        self._draft = None if self.sampling.draft is None else load_draft(self.sampling.draft, self._engine)
        parts = (self._engine.network, self.model, self.lora, self.memory, device)
        self._value_head = None if self.critic is None else load_critic(self.critic, *parts)
        self._engine.prove_packing(self._value_head)
        self._watcher = self._watch()
        self._references = self._read_references(encode=True)

    def notes(self) -> list[str]:
        """What a person should know of how the model was loaded, in words; nothing before that."""
        return [] if self._engine is None else list(self._engine.notes)

    def _watch(self) -> Watcher | None:
        return None if self.rejection is None else Watcher(self.rejection)

    def _read_references(self, encode: bool = False) -> list[Sample]:
        """The references as samples; only read, and not encoded, before the tokenizer is there."""
        if self.references is None:
            return []
        from raft_core.prompts import read_prompts

        try:
            prompts = read_prompts(self.references)
        except DataError as error:
            raise DataError(f"references: {error}") from error
        if any(response(prompt) is None for prompt in prompts):
            raise DataError(
                f"references: {self.references} needs a text in the column {' or '.join(ANSWERS)} of every row, beside the "
                "prompt"
            )
        if not encode:
            return []
        requests = [Request(prompt, 0, 0) for prompt in prompts]
        return self._encoded(requests, [response(prompt) or "" for prompt in prompts])

    @property
    def engine(self) -> Engine:
        """The loaded model and what wraps it.

        Raises:
            ModelError: ``load`` has not been called.
        """
        if self._engine is None:
            raise ModelError(f"the model {self.model} is not loaded yet: call load() first")
        return self._engine

    @property
    def encode(self) -> PromptEncoder:
        return self.engine.encode

    def visible(self, text: str) -> str:
        """The part of a prompt that the model takes in.

        Raises:
            DataError: a prompt that leaves no room for a completion.
        """
        self.encode(text)
        return self.encode.visible(text)

    def visible_messages(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The part of a conversation that the model takes in.

        Raises:
            DataError: it leaves no room for a completion, or the chat template refuses it.
        """
        self.encode(Prompt(transcript(messages), {MESSAGES: list(messages)}))
        return self.encode.visible_messages(messages)

    # ------------------------------------------------------------------ drawing

    def check_trace(self) -> list[str]:
        """Why completions cannot be drawn so that ``step_log_probs`` can replay them, in words; empty when they can."""
        return replay_mistakes(self.sampling)

    def sample(
        self, requests: Sequence[Request], *, purpose: Purpose = "use", strength: float = 1.0, trace: bool = False
    ) -> list[Sample]:
        if trace and (mistakes := self.check_trace()):
            raise ConfigError(mistakes)
        engine, reference = self.engine, self._is_reference(strength)
        prompts = [engine.encode(request.prompt) for request in requests]
        chats = [engine.encode.is_chat(request.prompt) for request in requests]
        order = sorted(range(len(requests)), key=lambda i: len(prompts[i]))  # stable: the K of a prompt stay together
        # Turns of a chat end otherwise than texts do, so the two are not drawn together.
        parts = [
            part for chat in (False, True) for part in chunks([i for i in order if chats[i] == chat], self.sampling.batch_size)
        ]
        drawn: dict[int, Drawn] = {}
        with torch.no_grad(), engine.placed(), engine.version(reference), engine.drawing(trace=trace, reference=reference):
            for part in parts:
                task = self._task([requests[i] for i in part], [prompts[i] for i in part], purpose, trace)
                drawn |= dict(zip(part, self._drawn(task, reference), strict=True))
        samples = [self._sample(request, drawn[i]) for i, request in enumerate(requests)]
        samples = self._traced(samples, reference) if trace and self.sampling.engine != "transformers" else samples
        return self._measured(samples, reference) if self.measures_responses else samples

    def check_stages(self, at: Sequence[float]) -> list[str]:
        """Engines that do not let a completion be looked at while it grows, and completions too short for so many looks."""
        found = []
        if self.sampling.engine != "transformers":
            found.append("completions are looked at while they grow, which the engine vllm does not allow: use transformers")
        if self.rejection is not None:
            found.append("rejection gives completions up by rules, and Halving by their scores: choose one of them")
        if self.sampling.draft is not None:
            found.append("with a draft model completions do not grow together: leave sampling.draft out")
        if len(stage_tokens(at, self.sampling.max_new_tokens)) < len(at) or self.sampling.max_new_tokens < 2:
            most = self.sampling.max_new_tokens
            found.append(f"sampling.max_new_tokens is {most}, too few for {len(at)} looks on the way at {list(at)}")
        return found

    def sample_in_stages(
        self,
        requests: Sequence[Request],
        at: Sequence[float],
        goes_on: Callable[[Sequence[Sample]], Sequence[bool]],
        *,
        trace: bool = False,
    ) -> list[Sample]:
        """Completions of whole prompts together, in parts of about ``sampling.batch_size``."""
        if trace and (mistakes := self.check_trace()):
            raise ConfigError(mistakes)
        engine = self.engine
        drawn: dict[int, Sample] = {}
        with torch.no_grad(), engine.placed(), engine.version(False), engine.drawing(trace=trace, reference=False):
            for chat in (False, True):  # turns of a chat end otherwise than texts do
                places = [i for i, request in enumerate(requests) if engine.encode.is_chat(request.prompt) == chat]
                for part in whole_prompts([requests[i] for i in places], self.sampling.batch_size):
                    own, places = places[: len(part)], places[len(part) :]
                    drawn |= dict(zip(own, self._drawn_in_stages(part, at, goes_on, trace), strict=True))
        samples = [drawn[i] for i in range(len(requests))]
        return self._measured(samples, False) if self.measures_responses else samples

    def _drawn_in_stages(
        self, part: Sequence[Request], at: Sequence[float], goes_on: Callable[[Sequence[Sample]], Sequence[bool]], trace: bool
    ) -> list[Sample]:
        def previews(numbers: Sequence[int], texts: Sequence[str]) -> Sequence[bool]:
            return goes_on([Sample(part[number], output=text) for number, text in zip(numbers, texts, strict=True)])

        task = self._task(part, [self.encode(request.prompt) for request in part], "round", trace)
        tokens = stage_tokens(at, self.sampling.max_new_tokens)
        watcher = StageWatcher(tokens, previews, lambda drawn: self._text(self._sample(part[0], drawn)))
        completions = draw(self.engine.network, replace(task, watcher=watcher), self.engine.device)
        samples = [self._sample(request, drawn) for request, drawn in zip(part, completions, strict=True)]
        return [replace(s, meta={**s.meta, "evaluations": len(s.tensors["tokens"])}) for s in samples]

    @staticmethod
    def _is_reference(strength: float) -> bool:
        """Whether the frozen start is to be drawn from.

        Raises:
            ModelError: neither it nor what was trained.
        """
        if strength not in (0, 1):
            raise ModelError(f"CausalLM cannot be sampled at strength {strength:g}: give 1 (as trained) or 0 (its start)")
        return strength == 0

    def _task(self, requests: Sequence[Request], prompts: Sequence[Sequence[int]], purpose: Purpose, trace: bool) -> Task:
        return Task(
            prompts=prompts,
            texts=[request.prompt.text for request in requests],
            seeds=[request.seed for request in requests],
            sampling=self.sampling.for_comparison() if purpose == "compare" else self.sampling,
            ends=self._ends(self.encode.is_chat(requests[0].prompt)),
            decode=self.encode.text,
            watcher=self._watcher if purpose == "round" else None,
            trace=trace,
            on_step=self.on_step,
        )

    def _ends(self, chat: bool) -> Sequence[int]:
        """Tokens that end a completion: the engine's, for a conversation where prompts are texts what ends a turn too, and
        those that ``stop`` names."""
        ends = self.engine.ends if chat == self.prompting.chat else self.encode.ends(chat=chat)
        return sorted({*ends, *loading.stop_tokens(self.encode.tokenizer, self.sampling.stop)})

    def _drawn(self, task: Task, reference: bool) -> list[Drawn]:
        if self.sampling.engine == "transformers":
            return draw(self.engine.network, task, self.engine.device, self._draft)
        if self._vllm is None:
            assert self.lora is not None  # checked with the hardware
            self._vllm = VllmEngine(loading.locate(self.model)[1], self.lora, None, self.save)
        return self._vllm.draw(task, None if reference else policy_hash(self))

    def _sample(self, request: Request, drawn: Drawn) -> Sample:
        tensors = {"tokens": drawn.tokens}
        if drawn.log_probs is not None:
            tensors |= {"step_log_probs": drawn.log_probs, "step_mask": torch.ones(len(drawn.tokens), dtype=torch.bool)}
        meta: dict[str, Any] = {"tokens": len(drawn.tokens), "finish": drawn.finish}
        if drawn.entropy is not None:
            meta["entropy"] = drawn.entropy
        if drawn.finish == "rejected":
            meta |= {"rejected": True, "tokens_saved_at_most": self.sampling.max_new_tokens - len(drawn.tokens)}
        sample = Sample(request, tensors=tensors, meta=meta)
        if drawn.finish != "failed":
            return sample
        return sample.as_failed("the next token's probabilities are not finite")

    def _traced(self, samples: Sequence[Sample], reference: bool) -> list[Sample]:
        """The samples with log-probs of this model: another engine's own would differ by its kernels' rounding."""
        with torch.no_grad():
            rows = self._log_probs(samples, reference, drawn=True)
        masks = [torch.ones(len(row), dtype=torch.bool) for row in rows]
        return [
            replace(sample, tensors={**sample.tensors, "step_log_probs": row.float().cpu(), "step_mask": mask})
            for sample, row, mask in zip(samples, rows, masks, strict=True)
        ]

    def fitted(self, request: Request, output: str) -> str:
        """The response as it is."""
        return output

    def written(self, requests: Sequence[Request], outputs: Sequence[str], *, trace: bool = False) -> list[Sample]:
        """Rendered samples of completions that were written elsewhere: by a person, or by a teacher.

        Args:
            trace: with the log-probs that this model gives them.

        Raises:
            DataError: one that exceeds the model's context.
        """
        samples = self._encoded(requests, outputs)
        samples = self._traced(samples, False) if trace else samples
        return self._measured(samples, False) if self.measures_responses else samples

    def _measured(self, samples: Sequence[Sample], reference: bool) -> list[Sample]:
        """The samples with ``response_loss`` in their meta, nats per token, where the prompts' table has a response."""
        asked = {s.prompt.id: s.request for s in samples if response(s.prompt) is not None}
        given = self._encoded(list(asked.values()), [response(request.prompt) or "" for request in asked.values()])
        with torch.no_grad():
            nll = self.nll(given, None, reference=reference).tolist() if given else []
        losses = {s.prompt.id: value / s.meta["tokens"] for s, value in zip(given, nll, strict=True)}
        return [
            replace(s, meta={**s.meta, "response_loss": losses[s.prompt.id]}) if s.prompt.id in losses else s for s in samples
        ]

    def _encoded(self, requests: Sequence[Request], texts: Sequence[str]) -> list[Sample]:
        samples = []
        for request, text in zip(requests, texts, strict=True):
            turns = self.encode.turns(request.prompt, text)
            tokens = torch.tensor([token for turn in turns for token in turn], dtype=torch.int64)
            lengths = {TURNS: torch.tensor([len(turn) for turn in turns])} if len(turns) > 1 else {}
            meta = {"tokens": len(tokens), "finish": "written"}
            samples.append(Sample(request, output=text, tensors={"tokens": tokens, **lengths}, meta=meta))
        return samples

    def render(self, samples: Sequence[Sample]) -> list[Sample]:
        return [sample.with_output(self._text(sample)) for sample in samples]

    def _text(self, sample: Sample) -> str:
        tokens = sample.tensors["tokens"]
        text = self.encode.text(tokens[-int(sample.tensors[TURNS][-1]) :] if TURNS in sample.tensors else tokens)
        return text[: first_stop(text, self.sampling.stop)] if sample.meta.get("finish") == "stop" else text

    # ------------------------------------------------------------------ likelihood

    def draw(self, samples: Sequence[Sample], seeds: Sequence[int]) -> None:
        return None  # a likelihood without randomness

    def nll(self, samples: Sequence[Sample], draw: None, *, reference: bool = False) -> torch.Tensor:
        """[B] negative log-likelihood of each completion given its prompt, summed over its tokens, in nats."""
        return torch.stack([-row.sum() for row in self._log_probs(samples, reference)])

    def nll_terms(self, samples: Sequence[Sample]) -> list[int]:
        """[B] tokens of each completion, at least 1."""
        return [max(1, len(sample.tensors["tokens"])) for sample in samples]

    def step_log_probs(self, samples: Sequence[Sample], *, reference: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """([B, S] log-prob of each token in nats, 0 after the last, [B, S] bool mask of tokens).

        Of the distribution that tokens are drawn from, as far as it is one that can be drawn from again (``check_trace``).
        """
        return padded(self._log_probs(samples, reference, drawn=True))

    def token_log_probs(self, samples: Sequence[Sample], *, reference: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``step_log_probs``, but of the model itself: the terms of ``nll``."""
        return padded(self._log_probs(samples, reference))

    def log_ratios(self, samples: Sequence[Sample]) -> torch.Tensor:
        """[B] log π − log π_ref of each completion, in nats, of the distributions that completions are drawn from; no gradient.

        Where top-k or top-p cut tokens off, both are of the tokens that the present policy leaves, and the one that is there:
        the mean over its own samples is then a divergence of what is sampled, and 0 before training.
        """
        passages = Passages(self.encode, samples)
        found: list[torch.Tensor] = []
        with torch.no_grad():
            for rows, picker in self._parts(passages):
                drawn = DrawnScoring(picker, rows, cut=True)
                sides = []
                for reference in (False, True):  # in this order: the policy's own side says what is cut off
                    with self.engine.placed(), self.engine.version(reference):
                        sides.append(self.engine.log_probs(rows, drawn))
                found += [own - start for own, start in zip(*sides, strict=True)]
        return torch.stack([row.sum() for row in passages.of_samples(found)])

    @property
    def estimates_values(self) -> bool:
        return self.critic is not None

    def step_log_probs_and_values(self, samples: Sequence[Sample]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """([B, S] log-prob of each token, [B, S] the critic's estimate before it, 0 after the last, [B, S] bool mask).

        Raises:
            ModelError: there is no critic.
        """
        head = self._value_head
        if head is None:
            raise ModelError("the policy has no critic: give it one with critic: {}")
        engine, passages = self.engine, Passages(self.encode, samples)
        with engine.placed(), engine.version(False):
            parts = self._parts(passages)
            pairs = [p for rows, picker in parts for p in engine.log_probs_and_values(rows, head, DrawnScoring(picker, rows))]
        log_probs, mask = padded(passages.of_samples([row for row, _ in pairs]))
        return log_probs, padded(passages.of_samples([row for _, row in pairs]))[0], mask

    def _log_probs(self, samples: Sequence[Sample], reference: bool, *, drawn: bool = False) -> list[torch.Tensor]:
        """[T] log-probs of each sample's tokens: of the model itself, or of what they are drawn from."""
        engine, passages = self.engine, Passages(self.encode, samples)
        with engine.placed(), engine.version(reference):
            parts = self._parts(passages)
            scored = [engine.log_probs(rows, DrawnScoring(picker, rows) if drawn else None) for rows, picker in parts]
        return passages.of_samples([row for part in scored for row in part])

    def _parts(self, passages: Passages) -> Iterator[tuple[Sequence[Row], Picker]]:
        """(prompts and completions, how tokens are drawn there), in order. Without gradients a large batch is taken in parts.

        A turn of a chat ends otherwise than a text, so a part is of one kind.
        """
        for chat, run in itertools.groupby(zip(passages.rows, passages.chats, strict=True), key=lambda row: row[1]):
            rows = [row for row, _ in run]
            most = max(len(rows), 1)
            if not torch.is_grad_enabled() and not self.engine.sharded:
                most = min(self.sampling.batch_size, rows_at_once(rows, self.engine.vocabulary))
            picker = Picker(self.sampling, self._ends(chat))
            yield from ((part, picker) for part in chunks(rows, most))

    # ------------------------------------------------------------------ measuring

    def embed(self, samples: Sequence[Sample]) -> np.ndarray:
        return ngram_features([sample.output for sample in samples])

    def figures(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Figures of a round's rendered samples, by name: variety, length, entropy, perplexity of the references."""
        found = metrics.text_figures([sample.output for sample in samples if not sample.meta.get("rejected")])
        found |= metrics.drawn_figures(samples)
        if self._references:
            found["perplexity"] = metrics.perplexity(self, self._references)
        return {f"text/{name}": value for name, value in found.items()}

    # ------------------------------------------------------------------ weights

    @contextlib.contextmanager
    def resident(self, phase: Phase) -> Iterator[None]:
        with self.engine.placed() if phase != "render" else contextlib.nullcontext():
            yield

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        return self.engine.parameters if self._value_head is None else {**self.engine.parameters, **self._value_head.parameters}

    def shardable(self) -> torch.nn.Module:
        """The network, whose weights may be spread over processes where all of them are trained.

        Raises:
            ConfigError: what moves weights, or reads them in an order of its own.
        """
        if self.critic or self.memory.packing or (self.memory.offload and self.engine.device.type == "cuda"):
            raise ConfigError(
                "weights that are spread over processes (FSDP) go with neither critic nor memory.offload nor memory.packing: "
                "leave these off, or train without FSDP, each process with all weights"
            )
        return self.engine.network

    def renew(self, parameters: Mapping[str, torch.nn.Parameter], *, sharded: bool) -> None:
        """Take these parameters in place of the present ones; spread ones are read in as many passes whatever the samples."""
        self.engine.parameters.update(parameters)
        self.engine.sharded = sharded

    def describe(self) -> dict[str, Any]:
        facts = {"model": self.model, "method": "LoRA" if self.lora else "full fine-tuning", "device": self.device}
        parts = {"lora": self.lora, "prompting": self.prompting, "sampling": self.sampling, "rejection": self.rejection}
        parts |= {"critic": self.critic}
        facts |= {name: asdict(part) for name, part in parts.items() if part is not None}
        if self._engine is not None:
            facts |= self._engine.describe()
        return facts

    def save(self, folder: Path) -> list[Path]:
        """Write what was trained: adapters as peft keeps them, or the whole model as transformers does; returns the files."""
        note = export.note(self.model, self.lora, self.prompting, self.sampling)
        if self.engine.adapter is None:
            return export.save_whole(self.engine.network, self.encode.tokenizer, Path(folder), note)
        return export.save_adapter(self.engine.adapter, self.engine.parameters, Path(folder), note)

    def write_card(self, run_folder: Path, folder: Path, place: str | None = None) -> Path:
        """Write the model card beside the exported weights, from what the run's folder tells; returns its path."""
        from raft_text.export.card import write_run_card

        return write_run_card(Path(run_folder), Path(folder), place)

    @staticmethod
    def merge_settings(dtype: str) -> Mapping[str, Any]:
        loaded = dtype if dtype == "bfloat16" else "float32"  # a CPU takes no float16, which is rounded to at the end
        plain = {"sampling.engine": "transformers", "memory.quantize": None, "memory.attention": "sdpa", "critic": None}
        return {"dtype": loaded, "device": "cpu", **plain}

    @staticmethod
    def merge_mistakes(path: Path) -> list[str]:
        return merged.mistakes(Path(path))

    def merge(self, path: Path, *, strength: float = 1.0, dtype: str = "float32") -> list[Path]:
        """Write the whole model as a folder of transformers; returns its files."""
        return merged.save_merged(self.engine, self.encode.tokenizer, Path(path), strength, getattr(torch, dtype))

    @staticmethod
    def arguments_for(path: Path) -> dict[str, Any]:
        """Constructor arguments under which a policy can take a file's or folder's weights, as far as these tell them.

        Raises:
            ModelError: no weights are there.
        """
        return export.arguments_for(Path(path))

    def load_weights(self, path: Path) -> None:
        """Take trained weights from a checkpoint, an adapter folder of peft, or a transformers folder; a critic's are left out.

        Raises:
            ModelError: the file cannot be read, or was made for other settings; says which.
        """
        parameters = self.engine.parameters
        values = export.read_values(Path(path), parameters)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(values[name])
