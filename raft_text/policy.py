"""A causal language model as a policy: asked for completions, trained on the tokens that it drew."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from raft_core.capabilities import NllUnit
from raft_core.conversations import response, transcript
from raft_core.environment import Environment
from raft_core.errors import ConfigError, DeviceError, ModelError, RaftError
from raft_core.machine.devices import resolve_device
from raft_core.models.public_name import public_name
from raft_core.prompt_files.drawing import without_negative
from raft_core.protocols import Phase, Purpose
from raft_core.store.checkpoint import policy_hash
from raft_core.types import MESSAGES, Message, Prompt, Request, Sample
from raft_text import metrics
from raft_text.export import files as export
from raft_text.export import merged
from raft_text.model import device as hardware
from raft_text.model.adapter import init_mistakes
from raft_text.model.critic import ValueHead, load_critic
from raft_text.model.encoding import PromptEncoder, Tools
from raft_text.model.engine import Engine, load_draft
from raft_text.model.facts import keeps_state
from raft_text.model.features import ngram_features
from raft_text.model.likelihood import padded
from raft_text.model.places import locate
from raft_text.model.readable import PromptCheck, model_mistakes
from raft_text.options import Critic, Lora, Memory, Prompting, Rejection, Sampling, VllmServer
from raft_text.process.completions import Completions, text_of, written_sample
from raft_text.process.generated import prove_replay
from raft_text.process.growing import Drawn, Task
from raft_text.process.rejection import Watcher
from raft_text.process.replay import Replay
from raft_text.process.sampler import draw
from raft_text.process.stages import stage_tokens
from raft_text.process.token_choice import replay_mistakes
from raft_text.process.vllm_engine import VllmEngine
from raft_text.process.vllm_server import ServedVllm
from raft_text.references import read_references

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
        environment: what answers between the turns of a sample, such as a tool; null = a sample is one turn. What it says is
            read and not learned.

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
        environment: Environment | None = None,
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
        self.environment = environment
        self.batch_size = POOL * sampling.batch_size
        self._engine: Engine | None = None
        self._draft: Any = None
        self._value_head: ValueHead | None = None
        self._vllm: Any = None
        self._watcher: Watcher | None = None
        self._references: list[Sample] = []
        self._prompts = PromptCheck(model, prompting, sampling, self._tools)

    def check(self) -> list[str]:
        found = hardware.mistakes(self.device, self.dtype, self.lora, self.sampling, self.memory)
        if self.rejection and self.sampling.engine != "transformers":
            found.append("rejection needs the engine transformers: vllm does not let a completion be looked at while it grows")
        if self.critic and self.critic.separate and self.memory.offload:
            found.append("critic.separate keeps a second network on the device, which memory.offload cannot move: choose one")
        others = self.sampling.engine != "transformers"
        if others and self.lora and self.lora.init and self.lora.before == "init":
            found.append("sampling.engine vllm draws the frozen start without a LoRA: set lora.before to base with lora.init")
        if self.environment and others:
            found.append("an environment needs the engine transformers: with vllm it is not known where a turn has ended")
        if self.environment and self.sampling.min_new_tokens:
            found.append("sampling.min_new_tokens is for completions of one turn: set it to 0 with an environment")
        for model in filter(None, (self.model, self.sampling.draft)):
            own = model == self.model
            chat = self.prompting.chat and own
            found += model_mistakes(model, self.prompting, self.sampling, self._tools, chat=chat, stops=own)
        if not found:  # of a model that is none nothing more is to be said
            found += init_mistakes(self.lora, self.model)
        for attempt in (self._watch, self._read_references):
            try:
                attempt()
            except RaftError as error:
                found.append(str(error))
        return found

    def check_prompts(self, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
        """Prompts that leave no room for a completion, and conversations that the chat template refuses.

        Of the Hub's models that is told when they are loaded, before their weights are.
        """
        prompts = [*train, *held_out]
        return [*without_negative(prompts), *self._prompts.mistakes([(prompt, None) for prompt in prompts])]

    def check_written(self, prompts: Sequence[Prompt], outputs: Sequence[str]) -> list[str]:
        """Prompts with responses that do not fit the context, and conversations that the chat template refuses.

        Of the Hub's models that is told when they are loaded, before their weights are.
        """
        return self._prompts.mistakes(list(zip(prompts, outputs, strict=True)), besides=True)

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
        self._prompts.require()
        if isinstance(self.sampling.engine, VllmServer):
            self._vllm = ServedVllm(self.sampling.engine, self.save)
            self._vllm.require_reachable()
        device = resolve_device(self.device)
        dtype = hardware.pick_dtype(self.dtype, device)
        self._engine = Engine.load(
            self.model, self.lora, self.prompting, self.sampling, self.memory, device, dtype, self._tools
        )
        if keeps_state(self._engine.network):
            with self._engine.placed(), self._engine.version(False):
                prove_replay(self._engine.network, self._engine.ends, device)
        self._draft = None if self.sampling.draft is None else load_draft(self.sampling.draft, self._engine)
        parts = (self._engine.network, self.model, self._engine.lora, self.memory, device)
        self._value_head = None if self.critic is None else load_critic(self.critic, *parts)
        self._engine.prove_packing(self._value_head)
        self._watcher = self._watch()
        references = self._read_references()
        asked = [Request(prompt, 0, 0) for prompt in references]
        self._references = self._encoded(asked, [response(prompt) or "" for prompt in references])

    @property
    def _tools(self) -> Tools:
        """What a chat is offered; None without an environment."""
        return None if self.environment is None else tuple(self.environment.tools)

    def notes(self) -> list[str]:
        """What a person should know of how the model was loaded, in words; nothing before that."""
        return [] if self._engine is None else list(self._engine.notes)

    def _watch(self) -> Watcher | None:
        return None if self.rejection is None else Watcher(self.rejection)

    def _read_references(self) -> list[Prompt]:
        return [] if self.references is None else read_references(self.references)

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
    def replay(self) -> Replay:
        """Reads samples again, to say how likely they are."""
        return Replay(self.engine, self.sampling)

    @property
    def encode(self) -> PromptEncoder:
        return self.engine.encode

    def visible(self, text: str) -> str:
        """The part of a prompt that the model takes in.

        Raises:
            DataError: a prompt that leaves no room for a completion.
        """
        self.encode(text)
        return self.encode.seen.text(text)

    def visible_messages(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The part of a conversation that the model takes in.

        Raises:
            DataError: it leaves no room for a completion, or the chat template refuses it.
        """
        self.encode(Prompt(transcript(messages), {MESSAGES: list(messages)}))
        return self.encode.seen.messages(messages)

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

        def drawn(task: Task) -> list[Drawn]:
            return self._drawn(task, reference)

        completions = Completions(engine, self.sampling, self._watcher, drawn, self.on_step, self.environment)
        with torch.no_grad(), engine.placed(), engine.version(reference), engine.drawing(trace=trace, reference=reference):
            samples = completions(requests, purpose, trace)
        if trace and self.sampling.engine != "transformers":
            samples = self.replay.traced(samples, reference=reference)
        return self._measured(samples, reference) if self.measures_responses else samples

    def check_stages(self, at: Sequence[float]) -> list[str]:
        """Engines that do not let a completion be looked at while it grows, and completions too short for so many looks."""
        found = []
        if self.sampling.engine != "transformers":
            found.append("completions are looked at while they grow, which the engine vllm does not allow: use transformers")
        if self.rejection is not None:
            found.append("rejection gives completions up by rules, and Halving by their scores: choose one of them")
        if self.environment is not None:
            found.append("Halving gives up completions of one turn: leave the environment out, or take another source")
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

        def drawn(task: Task) -> list[Drawn]:
            return self._drawn(task, False)

        completions = Completions(engine, self.sampling, None, drawn, self.on_step)
        with torch.no_grad(), engine.placed(), engine.version(False), engine.drawing(trace=trace, reference=False):
            samples = completions.in_stages(requests, at, goes_on, trace)
        return self._measured(samples, False) if self.measures_responses else samples

    @staticmethod
    def _is_reference(strength: float) -> bool:
        """Whether the frozen start is to be drawn from.

        Raises:
            ModelError: neither it nor what was trained.
        """
        if strength not in (0, 1):
            raise ModelError(f"CausalLM cannot be sampled at strength {strength:g}: give 1 (as trained) or 0 (its start)")
        return strength == 0

    def _drawn(self, task: Task, reference: bool) -> list[Drawn]:
        if self.sampling.engine == "transformers":
            return draw(self.engine.network, task, self.engine.device, self._draft)
        if self._vllm is None:
            assert self.engine.lora is not None  # checked with the hardware
            self._vllm = VllmEngine(locate(self.model)[1], self.engine.lora, None, self.save)
        return self._vllm.draw(task, None if reference else policy_hash(self))

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
        samples = self.replay.traced(samples, reference=False) if trace else samples
        return self._measured(samples, False) if self.measures_responses else samples

    def _encoded(self, requests: Sequence[Request], texts: Sequence[str]) -> list[Sample]:
        return [written_sample(self.encode, request, text) for request, text in zip(requests, texts, strict=True)]

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

    def render(self, samples: Sequence[Sample]) -> list[Sample]:
        return [sample.with_output(text_of(self.encode, sample, self.sampling.stop)) for sample in samples]

    # ------------------------------------------------------------------ likelihood

    def draw(self, samples: Sequence[Sample], seeds: Sequence[int]) -> None:
        return None  # a likelihood without randomness

    def nll(self, samples: Sequence[Sample], draw: None, *, reference: bool = False) -> torch.Tensor:
        """[B] negative log-likelihood of each completion given its prompt, summed over its tokens, in nats."""
        return torch.stack([-row.sum() for row in self.replay.log_probs(samples, reference=reference)])

    def nll_terms(self, samples: Sequence[Sample]) -> list[int]:
        """[B] tokens of each completion, at least 1."""
        return [max(1, len(sample.tensors["tokens"])) for sample in samples]

    def step_log_probs(self, samples: Sequence[Sample], *, reference: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """([B, S] log-prob of each token in nats, 0 after the last, [B, S] bool mask of tokens).

        Of the distribution that tokens are drawn from, as far as it is one that can be drawn from again (``check_trace``).
        """
        return padded(self.replay.log_probs(samples, reference=reference, drawn=True))

    def token_log_probs(self, samples: Sequence[Sample], *, reference: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``step_log_probs``, but of the model itself: the terms of ``nll``."""
        return padded(self.replay.log_probs(samples, reference=reference))

    def log_ratios(self, samples: Sequence[Sample]) -> torch.Tensor:
        """[B] log π − log π_ref of each completion, in nats, of the distributions that completions are drawn from; no gradient.

        Where top-k or top-p cut tokens off, both are of the tokens that the present policy leaves, and the one that is there:
        the mean over its own samples is then a divergence of what is sampled, and 0 before training.
        """
        return self.replay.log_ratios(samples)

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
        pairs = self.replay.log_probs_and_values(samples, head)
        log_probs, mask = padded([row for row, _ in pairs])
        return log_probs, padded([row for _, row in pairs])[0], mask

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
        lora = self.lora if self._engine is None else self._engine.lora
        parts = {"lora": lora, "prompting": self.prompting, "sampling": self.sampling, "rejection": self.rejection}
        parts |= {"critic": self.critic}
        facts |= {} if self.environment is None else {"environment": type(self.environment).__name__}
        facts |= {name: asdict(part) for name, part in parts.items() if part is not None}
        if self.lora is not None and self.lora.init is not None:
            facts["goes_on_from"] = public_name(self.lora.init)
        if self._engine is not None:
            facts |= self._engine.describe()
        return facts

    def save(self, folder: Path) -> list[Path]:
        """Write what was trained: adapters as peft keeps them, or the whole model as transformers does; returns the files."""
        note = export.note(self.model, self.engine.lora, self.prompting, self.sampling)
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
