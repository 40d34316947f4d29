"""Episodes: a policy's turns and what an environment says between them, as one sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from raft_core.environment import Environment
from raft_core.rng import seed_for
from raft_core.types import Prompt
from raft_text.model.encoding import PromptEncoder
from raft_text.model.turns import TOLD, TOLD_LENGTHS, TURNS
from raft_text.process.growing import Drawn, Finish, Task, first_stop


@dataclass
class Episode:
    """One conversation while it goes on.

    Attributes:
        context: token ids of all that has been said.
        state: the environment's.
        turns: what the policy has drawn.
        told: token ids that the environment said behind each turn but the last.
        shown: the same as a person reads it.
        full: whether there is no room for another turn.
    """

    context: list[int]
    state: Any
    turns: list[Drawn] = field(default_factory=list)
    told: list[Sequence[int]] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    full: bool = False

    def drawn(self) -> Drawn:
        """All turns as one completion."""
        traced = [turn.log_probs for turn in self.turns if turn.log_probs is not None]
        told = [(turn.entropy, len(turn.tokens)) for turn in self.turns if turn.entropy is not None]
        n = sum(length for _, length in told)
        finish: Finish = "length" if self.full else self.turns[-1].finish
        return Drawn(
            tokens=torch.cat([turn.tokens for turn in self.turns]),
            log_probs=torch.cat(traced) if len(traced) == len(self.turns) else None,
            entropy=sum(entropy * length for entropy, length in told) / n if len(told) == len(self.turns) and n else None,
            finish=finish,
        )

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """What a sample keeps of it besides; nothing of a single turn."""
        if len(self.turns) == 1:
            return {}
        return {
            TURNS: torch.tensor([len(turn.tokens) for turn in self.turns]),
            TOLD: torch.tensor([token for said in self.told for token in said], dtype=torch.int64),
            TOLD_LENGTHS: torch.tensor([len(said) for said in self.told]),
        }


@dataclass(frozen=True)
class Episodes:
    """Draws whole episodes where a task asks for completions.

    Each turn may have as many tokens as ``sampling`` allows, and reads all that was said before; an episode that has no room
    for another counts as cut off. Turns are drawn by seeds of their own, the first by the sample's.

    Attributes:
        environment: that answers.
        encode: texts to tokens.
        draw: a completion for each prompt of a task.
    """

    environment: Environment
    encode: PromptEncoder
    draw: Callable[[Task], list[Drawn]]

    def __call__(self, task: Task, prompts: Sequence[Prompt]) -> list[Episode]:
        """One episode per prompt and seed."""
        own = task.sampling.stop
        task = replace(task, sampling=replace(task.sampling, stop=(*own, *self.environment.stop)))
        states = self.environment.reset(prompts)
        episodes = [Episode(list(ids), state) for ids, state in zip(task.prompts, states, strict=True)]
        live = list(range(len(episodes)))
        for number in range(task.sampling.max_turns):
            seeds = [seed_for(task.seeds[i], "turn", number) if number else task.seeds[i] for i in live]
            contexts, texts = [episodes[i].context for i in live], [task.texts[i] for i in live]
            for i, drawn in zip(live, self.draw(replace(task, prompts=contexts, texts=texts, seeds=seeds)), strict=True):
                episodes[i].turns.append(drawn)
            if number + 1 < task.sampling.max_turns:
                live = [i for i in self._answered(episodes, live, prompts, own) if self._has_room(episodes[i], task)]
            if not live:
                break
        return episodes

    def _answered(
        self, episodes: Sequence[Episode], live: Sequence[int], prompts: Sequence[Prompt], own: Sequence[str]
    ) -> list[int]:
        """Those that the environment answers, and so go on."""
        said: dict[int, str] = {}
        for i in live:
            turn = episodes[i].turns[-1]
            text = self.encode.text(turn.tokens)
            if (turn.finish == "stop" and first_stop(text, own) is None) or (
                turn.finish == "end" and self.encode.is_chat(prompts[i])
            ):
                said[i] = text
        steps = self.environment.step([episodes[i].state for i in said], list(said.values())) if said else []
        for i, step in zip(list(said), steps, strict=True):
            episodes[i].state = step.state
            if step.reply is None:
                said.pop(i)
            else:
                self._tell(episodes[i], step.reply, prompts[i])
        return list(said)

    def _tell(self, episode: Episode, reply: str, prompt: Prompt) -> None:
        turn = episode.turns[-1]
        told = self.encode.told(reply, prompt, ended=turn.finish == "end")
        episode.told.append(told)
        episode.shown.append(f"\n\nTool: {reply}\n\nAssistant: " if turn.finish == "end" else reply)
        episode.context += [*turn.tokens.tolist(), *told]

    def _has_room(self, episode: Episode, task: Task) -> bool:
        """Whether another turn fits; if not, what was said last is forgotten, for nobody reads it."""
        most = self.encode.context
        if most is None or len(episode.context) + task.sampling.max_new_tokens <= most:
            return True
        episode.told.pop()
        episode.shown.pop()
        episode.full = True
        return False
