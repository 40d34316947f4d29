"""Samples of another run in place of the policy's own: its winners teach a student, or all of them are weighed anew."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from raft_core.capabilities import RunPlans, SharesLatents, Writes
from raft_core.conversations import shortened
from raft_core.errors import ConfigError, DataError, StoreError
from raft_core.media.medium import medium_named
from raft_core.protocols import Policy
from raft_core.reading.files import home_path
from raft_core.reading.json_data import parse_json
from raft_core.soundness import failed_of
from raft_core.sources.written import (
    WrittenGroup,
    WrittenOutput,
    as_samples,
    check_written,
    output_of,
    scored,
    unfit,
    with_outputs,
    written_requests,
)
from raft_core.store.manifest import read_run
from raft_core.store.rounds import SAMPLES, round_folder, rounds_in, stored_tensors
from raft_core.store.tables import SCORE, read_columns
from raft_core.store.tensors import UnusableError
from raft_core.types import Prompt, Request, Sample


@dataclass(frozen=True)
class RunOutput:
    """An output of a run, such as a picture, read when it is looked at.

    Attributes:
        folder: of the run.
        rnd: its round.
        row: its place among the samples of the round.
        digest: of what fixed it: the policy and the request.
        modality: of the run, which its column is named after.
    """

    folder: Path
    rnd: int
    row: int
    digest: str
    modality: str

    def load(self) -> Any:
        """The output as a reward sees it.

        Raises:
            StoreError: it is not there any more.
        """
        cell = self._cell()
        if cell is None:
            raise StoreError(f"sample {self.row} of round {self.rnd} of {self.folder} is not there any more")
        return medium_named(self.modality).from_cell(cell)

    def is_kept(self) -> bool:
        """Whether the run has kept it."""
        return self._cell() is not None

    def _cell(self) -> Mapping[str, Any] | None:
        try:
            columns, _ = read_columns(round_folder(self.folder, self.rnd) / SAMPLES, self.modality.__eq__, [self.row])
        except UnusableError as error:
            raise StoreError(f"sample {self.row} of round {self.rnd} of {self.folder} cannot be read: {error}") from error
        return columns[self.modality][0]


class FromRun:
    """Samples that another run has kept, drawn by whichever model: distillation, and learning offline from a run.

    Texts are read by the student's own tokenizer. Pictures are encoded by its own autoencoder, or their latents are taken as
    they are where the two have the same. The reward ``Given`` takes the scores that the run's reward gave, turned so that
    higher is better; any other reward scores the samples anew. Samples that failed or were given up are left out, and of equal
    texts the best-scored stands for all. The samples of a prompt over all rounds are one group, of which a round uses at most
    k, other ones in each.

    Args:
        run: its folder.
        which: ``kept``: those that the run trained on; ``all``: every one.
        per_prompt: at most so many of each prompt, the best; null = all.
        rounds: only of the last so many rounds; null = of all.

    Source: RAFT (2304.06767), table 8: a teacher's winners train a smaller model.
    """

    def __init__(
        self,
        run: str,
        which: Literal["kept", "all"] = "kept",
        per_prompt: int | None = None,
        rounds: int | None = None,
    ):
        mistakes = [
            f"{name} is {value}, but at least 1 is needed (null takes all)"
            for name, value in (("per_prompt", per_prompt), ("rounds", rounds))
            if value is not None and value < 1
        ]
        if mistakes:
            raise ConfigError(mistakes)
        self.run = run
        self.which = which
        self.per_prompt = per_prompt
        self.rounds = rounds
        self._without: list[str] = []
        self._at_hand: tuple[int, Sequence[Mapping[str, Any]]] | None = None

    @property
    def folder(self) -> Path:
        return home_path(self.run)

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What the run says of itself.

        Raises:
            StoreError: it is none.
        """
        return read_run(self.folder)

    @cached_property
    def groups(self) -> Mapping[str, Sequence[WrittenGroup]]:
        """The samples of each prompt, best first.

        Raises:
            StoreError: the run cannot be read.
            DataError: it has none.
        """
        found: dict[str, dict[str, WrittenOutput]] = {}
        for rnd in rounds_in(self.folder)[-(self.rounds or 0) :]:
            for prompt, each in _samples_of(self.folder, rnd, self.facts.get("modality", "image"), kept=self.which == "kept"):
                others = found.setdefault(prompt, {})
                key = each.output.strip() if isinstance(each.output, str) else each.digest
                if key not in others or _better(each, others[key]):
                    others[key] = each
        if not found:
            raise DataError(f"{self.folder} holds no samples that could be learned (which: {self.which})")
        # Stable, so of equal scores the earlier one stays.
        best = {prompt: sorted(each.values(), key=_descending)[: self.per_prompt] for prompt, each in found.items()}
        return {prompt: [WrittenGroup(tuple(outputs), choice=False)] for prompt, outputs in best.items()}

    # ------------------------------------------------------------------ checking

    def check(self) -> list[str]:
        """Why the run cannot be learned from, in words."""
        try:
            _ = self.facts, self.groups
        except (StoreError, DataError) as error:
            return [f"run: {error}"]
        return []

    def check_run(self, plans: RunPlans) -> list[str]:
        """A policy that cannot take the samples, and prompts that the run was never asked."""
        if self.check():  # told already
            return []
        modality = str(self.facts.get("modality", plans.policy.modality))
        if found := unfit(plans, modality, str(self.folder), type(self).__name__):
            return found
        self._without = [prompt.text for prompt in plans.train if not self._groups(prompt)]
        if len(self._without) == len(plans.train):
            first = shortened(plans.train[0].text)
            return [f"{self.folder} has no sample for any training prompt (the first: {first}): take the prompts of that run"]
        return check_written(plans, self._groups)

    def notes(self) -> list[str]:
        """Prompts of which nothing can be learned."""
        n = len(self._without)
        return [f"{n} training prompts have no sample in {self.folder}, the first: {shortened(self._without[0])}"] if n else []

    # ------------------------------------------------------------------ samples

    def requests(self, prompts: Sequence[Prompt], k: int, seed: int, rnd: int) -> list[Request]:
        """A request for each sample of the prompts; the seed names it.

        Raises:
            DataError: the round's prompts have none.
        """
        asked = written_requests(self._groups, prompts, k, seed, rnd)
        if not asked:
            none = f"none of the {len(prompts)} prompts of round {rnd} has a sample in {self.folder}"
            raise DataError(f"{none}: raise prompts.per_round, or take the prompts of that run")
        return asked

    def samples(self, policy: Policy, requests: Sequence[Request], *, trace: bool) -> list[Sample]:
        found = [output_of(self._groups, request) for request in requests]
        if not self._shares_latents(policy):
            return as_samples(policy, requests, found, trace=trace)
        return [self._taken_over(policy, request, each) for request, each in zip(requests, found, strict=True)]

    def render_samples(self, policy: Policy, samples: Sequence[Sample]) -> list[Sample]:
        """The outputs as the run has them."""
        return with_outputs(policy, self._groups, samples)

    def _shares_latents(self, policy: Policy) -> bool:
        return isinstance(policy, SharesLatents) and self.facts.get("latent_space") == policy.latent_space

    def _taken_over(self, policy: Policy, request: Request, each: WrittenOutput) -> Sample:
        """A picture with the latents that it was drawn as; encoded where they were not kept or are of another size."""
        assert isinstance(each.output, RunOutput) and isinstance(policy, Writes)
        picture = each.output.load()
        stored = self._stored(each.output.rnd)
        latents = stored[each.output.row].get("latents") if stored else None
        if latents is None or policy.fitted(request, picture).size != picture.size:
            return as_samples(policy, [request], [each], trace=False)[0]
        return scored([Sample(request, picture, {"latents": latents}, {"finish": "written"})], [each])[0]

    def _stored(self, rnd: int) -> Sequence[Mapping[str, Any]]:
        """The tensors of a round's samples, none where they were not kept; those of the last round asked for stay at hand."""
        if self._at_hand is None or self._at_hand[0] != rnd:
            self._at_hand = rnd, stored_tensors(self.folder, rnd)
        return self._at_hand[1]

    def _groups(self, prompt: Prompt) -> Sequence[WrittenGroup]:
        return self.groups.get(prompt.text.strip(), ())


def _samples_of(folder: Path, rnd: int, modality: str, *, kept: bool) -> Iterator[tuple[str, WrittenOutput]]:
    """(prompt, output with its score) of a round's sound and finished samples.

    Args:
        kept: only those that were trained on.

    Raises:
        StoreError: the round is damaged, or its outputs were not kept.
    """
    path = round_folder(folder, rnd) / SAMPLES
    wanted = {"prompt", "prompt_id", "index", "seed", "text", "kept", "policy_hash", "meta"}
    try:
        columns, facts = read_columns(path, lambda name: name in wanted or name.startswith(SCORE))
    except UnusableError as error:
        raise StoreError(f"round {rnd} of {folder} cannot be read: {error}") from error
    scores = columns.get(SCORE + facts["reward"], [None] * len(columns["prompt"]))
    sign, found = -1 if facts["reward"] in facts["descending"] else 1, False
    for row, (prompt, score, meta) in enumerate(zip(columns["prompt"], scores, columns["meta"], strict=True)):
        if failed_of(meta) or parse_json(meta).get("rejected") or (kept and not columns["kept"][row]):
            continue
        output = columns["text"][row] if "text" in columns else _lazily(folder, rnd, row, modality, columns)
        if output is None or (isinstance(output, RunOutput) and not found and not output.is_kept()):
            raise StoreError(f"round {rnd} of {folder} holds no outputs: keep.images was off")
        found = True
        yield prompt.strip(), WrittenOutput(output, None if score is None else sign * float(score))


def _lazily(folder: Path, rnd: int, row: int, modality: str, columns: Mapping[str, Sequence[Any]]) -> RunOutput:
    made = [columns[name][row] for name in ("policy_hash", "prompt_id", "index", "seed")]
    return RunOutput(folder, rnd, row, json.dumps([rnd, *made]), modality)


def _better(one: WrittenOutput, other: WrittenOutput) -> bool:
    return one.score is not None and (other.score is None or one.score > other.score)


def _descending(each: WrittenOutput) -> float:
    return float("inf") if each.score is None else -each.score
