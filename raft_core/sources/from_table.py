"""Outputs that were made elsewhere in place of samples: demonstrations, labels, scores, preferences."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from raft_core.capabilities import RunPlans
from raft_core.conversations import ANSWERS, response, shortened
from raft_core.errors import DataError
from raft_core.preferences.rows import BadRow
from raft_core.protocols import Policy
from raft_core.sources.table import WrittenTable, read_table, score_of
from raft_core.sources.written import (
    Loadable,
    WrittenGroup,
    WrittenOutput,
    as_samples,
    check_written,
    output_of,
    unfit,
    with_outputs,
    written_requests,
)
from raft_core.types import Prompt, Request, Sample


@dataclass(frozen=True)
class FromTable:
    """Outputs that a person or another model has made, in place of the policy's samples.

    What is trained on is chosen among them by their scores as among any samples. The reward ``Given`` takes the scores of the
    table; any other reward scores the outputs itself. Of a prompt with several outputs at most k are used in a round, other
    ones in each; the candidates of one choice always are all used.

    Args:
        table: a file of outputs or preferences, a folder of them, or bundled:NAME; by default the responses that stand in the
            prompts' table (column response, completion, answer or chosen, or the last message of a conversation).
        score: the column of the scores; by default score or label of a table, where there is one. Demonstrations score 1.
        skip_invalid: leave out rows that are wrong instead of refusing the table.
    """

    table: str | None = None
    score: str | None = None
    skip_invalid: bool = False

    @cached_property
    def written(self) -> WrittenTable | None:
        """The table; None where it is the prompts' own.

        Raises:
            DataError: it cannot be read.
        """
        return None if self.table is None else read_table(self.table, self.score, skip_invalid=self.skip_invalid)

    # ------------------------------------------------------------------ checking

    def check(self) -> list[str]:
        """Why the table cannot be read, in words."""
        try:
            _ = self.written
        except DataError as error:
            return [f"table: {error}"]
        return []

    def notes(self) -> list[str]:
        """How many rows were left out."""
        invalid = self.written.invalid if self.written else []
        return [f"{len(invalid)} invalid rows of {self.table} are left out, the first: {invalid[0]}"] if invalid else []

    def check_run(self, plans: RunPlans) -> list[str]:
        """A policy that takes no outputs of others, or none of this kind, and prompts that have none."""
        if self.check():  # told already
            return []
        modality, where = (
            ("text", "the table of the prompts") if self.written is None else (self.written.modality, str(self.table))
        )
        found = unfit(plans, modality, where, type(self).__name__) or self._lacking(plans.train)
        return found or self._damaged(plans.train) or check_written(plans, self._groups)

    def _lacking(self, prompts: Sequence[Prompt]) -> list[str]:
        """In words, naming the first, that some of the prompts have no output."""
        if self.written is None:
            return lacking_responses(prompts) or self._unscored(prompts)
        texts = [prompt.text.strip() for prompt in prompts]
        if len(set(texts)) < len(texts):
            return [f"prompts.every_row asks for a prompt more than once, and {self.table} gives all of its outputs each time"]
        lacking = [prompt for prompt in prompts if not self._groups(prompt)]
        if not lacking:
            return []
        others = f" ({len(lacking)} of {len(prompts)} prompts have none)" if len(lacking) > 1 else ""
        return [
            f"{self.table} has no output for the prompt {shortened(lacking[0].text)}{others}: take the prompts from the table "
            f"itself, with prompts.train: {self.table}"
        ]

    def _damaged(self, prompts: Sequence[Prompt]) -> list[str]:
        """In words, naming the first, that pictures of these prompts cannot be opened."""
        outputs = [each.output for prompt in prompts for group in self._groups(prompt) for each in group.outputs]
        with ThreadPoolExecutor() as pool:
            found = [wrong for wrong in pool.map(_wrong_with, outputs) if wrong]
        more = f" ({len(found)} of {len(outputs)} outputs)" if len(found) > 1 else ""
        return [f"{self.table}: {found[0]}{more}"] if found else []

    def _unscored(self, prompts: Sequence[Prompt]) -> list[str]:
        """In words, that a prompt's own row has no score that can be read."""
        try:
            for prompt in prompts:
                self._groups(prompt)
        except BadRow as error:
            return [f"the row of the prompt {shortened(prompt.text)}: {error}"]
        return []

    # ------------------------------------------------------------------ samples

    def requests(self, prompts: Sequence[Prompt], k: int, seed: int, rnd: int) -> list[Request]:
        """A request for each output of the prompts, group by group; the seed names the output."""
        return written_requests(self._groups, prompts, k, seed, rnd)

    def samples(self, policy: Policy, requests: Sequence[Request], *, trace: bool) -> list[Sample]:
        return as_samples(policy, requests, [output_of(self._groups, request) for request in requests], trace=trace)

    def render_samples(self, policy: Policy, samples: Sequence[Sample]) -> list[Sample]:
        """The outputs as the table has them."""
        return with_outputs(policy, self._groups, samples)

    def _groups(self, prompt: Prompt) -> Sequence[WrittenGroup]:
        if self.written is not None:
            return self.written.groups.get(prompt.text.strip(), ())
        text = response(prompt)
        if text is None:
            return ()
        score = 1.0 if self.score is None else score_of(prompt.meta, self.score)
        return [WrittenGroup((WrittenOutput(text, score),), choice=False)]


def _wrong_with(output: str | Loadable) -> str | None:
    try:
        if not isinstance(output, str):
            output.load()
    except DataError as error:
        return str(error)
    return None


def lacking_responses(prompts: Sequence[Prompt]) -> list[str]:
    """In words, naming the first, that some of the prompts have no response in their table; empty when all have one."""
    lacking = [prompt for prompt in prompts if response(prompt) is None]
    if not lacking:
        return []
    more = f" ({len(lacking)} of {len(prompts)} prompts have none)" if len(lacking) > 1 else ""
    needed = f"the prompts' table needs a text in the column {' or '.join(ANSWERS)}"
    if lacking[0].messages is not None:
        needed = f"a conversation has to end with an assistant's message, or {needed}"
    return [f"the prompt {shortened(lacking[0].text)} has no response to learn{more}: {needed}"]
