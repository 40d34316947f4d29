"""The layouts that preferences come in, each as a pure function from a row to what it says.

=================  ==============================================================================================
pairs              ``prompt, chosen, rejected``; each a text or a conversation, as UltraFeedback's binarised form and TRL have
                   them
conversations      ``chosen, rejected`` as conversations that begin with the prompt (TRL's implicit prompt)
choices            ``prompt, candidates, choice``: an index from 0, several of them for a tie, or null for a tie of all
ballots            ``prompt, candidates, best``: as choices, but null says that nobody has chosen yet; passed over
HH-RLHF            ``chosen, rejected``: whole dialogues, ``\\n\\nHuman: … \\n\\nAssistant: …``, that part in the last answer
Pick-a-Pic         ``caption, jpg_0, jpg_1, label_0, label_1``; ½ and ½ is a tie, rows without a label are passed over
UltraFeedback      ``instruction, completions`` with ``response`` and ``overall_score``; the highest score is the choice
=================  ==============================================================================================

Conversations are OpenAI's or ShareGPT's (see ``raft_core.conversations``) and keep their roles; a prompt that is one may also
stand under ``messages``, beside its text. Any row may have ``margin`` (≥ 0, reward units) and ``tie`` (true: nobody won).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raft_core.conversations import (
    ANSWER,
    BadConversation,
    exchange,
    in_common,
    looks_like_messages,
    messages_of,
    shortened,
    transcript,
)
from raft_core.errors import nearest
from raft_core.preferences.preference import Context
from raft_core.preferences.rows import BadRow
from raft_core.types import MESSAGES


@dataclass(frozen=True)
class Said:
    """What a row says.

    Attributes:
        prompt: as a text.
        candidates: as they stand in the file, conversations without all but their last message.
        target: None = it says nothing (no label).
        margin: see ``Preference``.
        contexts: of each candidate, the conversation that it answers; None where the prompt is a text. Empty = of none.
        scores: of each candidate, where the row gives more than a choice. Empty = it does not.
    """

    prompt: str
    candidates: Sequence[Any]
    target: Sequence[float] | None
    margin: float = 0.0
    contexts: Sequence[Context] = ()
    scores: Sequence[float] = ()


def layout_of(columns: Sequence[str]) -> str:
    """Name of the layout with these columns.

    Raises:
        BadRow: none has them.
    """
    there = set(columns)
    for name, (needed, _) in LAYOUTS.items():
        if needed <= there:
            return name
    closest, missing = max(
        ((name, needed - there) for name, (needed, _) in LAYOUTS.items()),
        key=lambda found: len(LAYOUTS[found[0]][0] & there) / len(LAYOUTS[found[0]][0]),
    )
    if LAYOUTS[closest][0] & there:
        field = min(missing)
        raise BadRow(f"the field {field!r} is missing{nearest(field, there - LAYOUTS[closest][0])}")
    raise BadRow(
        f"has the fields {', '.join(sorted(there)) or '(none)'}, which is no layout of preferences: "
        "give prompt, chosen, rejected or prompt, candidates, choice"
    )


def read_row(values: Mapping[str, Any], layout: str) -> Said:
    """What a row of this layout says.

    Raises:
        BadRow: a field is missing, or holds what it cannot.
    """
    needed, reader = LAYOUTS[layout]
    for field in sorted(needed):
        if field not in values:
            raise BadRow(f"the field {field!r} is missing{nearest(field, values)}")
    try:
        said = reader(values)
    except BadConversation as error:
        raise BadRow(str(error)) from None
    if said.target is None:
        return said
    target = [1 / len(said.candidates)] * len(said.candidates) if values.get("tie") is True else said.target
    margin = values.get("margin")
    if margin is not None and (not _is_number(margin) or not 0 <= margin < math.inf):
        raise BadRow(f"margin is {margin!r}, but must be a number ≥ 0")
    return replace(said, target=target, margin=float(margin or 0))


def prompt_in(values: Mapping[str, Any]) -> str | None:
    """The prompt of a row of preferences that has no column for it alone; None of any other row.

    Raises:
        BadRow: a field holds what it cannot.
    """
    without_a_column = ("UltraFeedback", "HH-RLHF or conversations")
    name = next((name for name in without_a_column if LAYOUTS[name][0] <= set(values)), None)
    if name is None or "prompt" in values:
        return None
    if name == "UltraFeedback":
        return _text_of(values["instruction"], "instruction")
    return read_row(values, name).prompt


def _pairs(values: Mapping[str, Any]) -> Said:
    return _answers_to(values, {name: values[name] for name in ("chosen", "rejected")}, (1.0, 0.0))


def _choices(values: Mapping[str, Any]) -> Said:
    outputs = _candidates(values)
    choice = values["choice"]
    target = _chosen(list(range(len(outputs))) if choice is None else choice, len(outputs), "choice")
    return _answers_to(values, outputs, target)


def _ballots(values: Mapping[str, Any]) -> Said:
    outputs = _candidates(values)
    best = values["best"]
    return _answers_to(values, outputs, None if best is None else _chosen(best, len(outputs), "best"))


def _candidates(values: Mapping[str, Any]) -> dict[str, Any]:
    candidates = values["candidates"]
    if not isinstance(candidates, list) or len(candidates) < 2:
        raise BadRow(f"candidates is {shortened(candidates)}, but must be a list of two or more")
    return {f"candidates[{i}]": candidate for i, candidate in enumerate(candidates)}


def _answers_to(values: Mapping[str, Any], candidates: Mapping[str, Any], target: Sequence[float] | None) -> Said:
    """What a row says of candidates, by their names for messages, for its prompt, each a text or a conversation."""
    prompt = values["prompt"]
    whole = prompt if looks_like_messages(prompt) else values.get(MESSAGES)
    context = messages_of(whole, "prompt") if looks_like_messages(whole) else None
    if not isinstance(prompt, str):
        if context is None:
            raise BadRow(f"prompt is {shortened(prompt)}, but must be a text or a conversation")
        prompt = transcript(context)
    answers = [_answer(value, name, prompt, context) for name, value in candidates.items()]
    return Said(prompt, [answer for _, answer in answers], target, contexts=[before for before, _ in answers])


def _answer(value: Any, field: str, prompt: str, context: Context) -> tuple[Context, Any]:
    """(the conversation that a candidate answers, the candidate): of a conversation its last turn, behind all before that."""
    if not looks_like_messages(value):
        if value is None or isinstance(value, (list, bool, int, float)):
            raise BadRow(f"{field} is {shortened(value)}, but must be a text, a conversation or a picture")
        return context, value
    turns = messages_of(value, field)
    asked = [{"role": "user", "content": prompt}] if context is None else list(context)
    begins = in_common(turns, asked) == len(asked)  # with the prompt, which is not said again then
    said = turns[len(asked) :] if begins else turns
    before = asked if begins or said[0]["role"] == "assistant" else []
    if not said or said[-1]["role"] != "assistant":
        raise BadRow(f"{field} does not end with an assistant's message, so there is no answer to prefer")
    before = [*before, *said[:-1]]
    return (None if context is None and before == asked else before), _said(said[-1], field)


def _said(reply: Mapping[str, Any], field: str) -> str:
    """What an assistant's message says. What else it does is nothing that a reward reads."""
    if reply.get("tool_calls"):
        raise BadRow(f"{field} ends with a call of tools, which is no text that could be preferred")
    return reply["content"]


def _conversations(values: Mapping[str, Any]) -> Said:
    """Two conversations: what they begin with is the prompt."""
    chosen, rejected = (exchange(messages_of(values[name], name), name) for name in ("chosen", "rejected"))
    if chosen.reply is None or rejected.reply is None:
        name = "chosen" if chosen.reply is None else "rejected"
        raise BadRow(f"{name} does not end with an assistant's message, so there is no answer to prefer")
    alike = in_common(chosen.context, rejected.context)
    if not alike:
        raise BadRow("chosen and rejected have not one message in common, so there is no prompt that both answer")
    prompt = transcript(chosen.context[:alike])
    answers = [_said(chosen.reply, "chosen"), _said(rejected.reply, "rejected")]
    return Said(prompt, answers, (1.0, 0.0), contexts=[chosen.context, rejected.context])


def _chosen(choice: Any, n: int, field: str) -> list[float]:
    """[n] target of an index, or of a list of indices."""
    winners = choice if isinstance(choice, list) else [choice]
    for winner in winners:
        if not isinstance(winner, int) or isinstance(winner, bool):
            meaning = "a tie" if field == "choice" else "not yet chosen"
            raise BadRow(f"{field} is {shortened(choice)}, but must be an index, a list of indices, or null for {meaning}")
        if not 0 <= winner < n:
            raise BadRow(f"{field} is {winner}, but there are {n} candidates: 0 to {n - 1}")
    if not winners or len(set(winners)) < len(winners):
        raise BadRow(f"{field} is {shortened(choice)}, but must name candidates, each once")
    return [1 / len(winners) if i in winners else 0.0 for i in range(n)]


def _dialogues(values: Mapping[str, Any]) -> Said:
    chosen, rejected = values["chosen"], values["rejected"]
    if looks_like_messages(chosen) and looks_like_messages(rejected):
        return _conversations(values)
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise BadRow("the field 'prompt' is missing, and chosen and rejected are not both dialogues")
    alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    cut = chosen[:alike].rfind(ANSWER)
    if cut < 0:
        raise BadRow(f"prompt is missing, and chosen and rejected have no beginning up to {ANSWER.strip()!r} in common")
    cut += len(ANSWER)
    return Said(chosen[:cut], [chosen[cut:], rejected[cut:]], (1.0, 0.0))


def _pick_a_pic(values: Mapping[str, Any]) -> Said:
    candidates = [values["jpg_0"], values["jpg_1"]]
    if values.get("has_label") is False:
        return Said("", candidates, None)
    labels = [values["label_0"], values["label_1"]]
    if not all(_is_number(label) and label in (0, 0.5, 1) for label in labels) or sum(labels) != 1:
        raise BadRow(f"label_0 and label_1 are {labels[0]!r} and {labels[1]!r}, but must be 1 and 0, 0 and 1, or ½ and ½")
    return Said(_text_of(values["caption"], "caption"), candidates, [float(label) for label in labels])


def _ultra_feedback(values: Mapping[str, Any]) -> Said:
    completions = values["completions"]
    if not isinstance(completions, list) or not all(isinstance(c, Mapping) and "response" in c for c in completions):
        raise BadRow("completions must be a list of objects with a 'response'")
    if len(completions) < 2:  # the published files have a few of them
        return Said("", [], None)
    scores = [completion.get("overall_score") for completion in completions]
    if not all(_is_number(score) and math.isfinite(score) for score in scores):
        raise BadRow(f"overall_score is {shortened(scores)}, but every completion needs a number")
    best = [score == max(scores) for score in scores]
    outputs = [_text_of(completion["response"], "response") for completion in completions]
    target = [won / sum(best) for won in best]
    return Said(_text_of(values["instruction"], "instruction"), outputs, target, scores=[float(score) for score in scores])


def _text_of(value: Any, field: str) -> str:
    if isinstance(value, str):
        return value
    raise BadRow(f"{field} is {shortened(value)}, but must be a text")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# In the order in which they are tried: a layout that needs less comes after one that needs more.
LAYOUTS: dict[str, tuple[frozenset[str], Callable[[Mapping[str, Any]], Said]]] = {
    "pairs": (frozenset({"prompt", "chosen", "rejected"}), _pairs),
    "choices": (frozenset({"prompt", "candidates", "choice"}), _choices),
    "ballots": (frozenset({"prompt", "candidates", "best"}), _ballots),
    "Pick-a-Pic": (frozenset({"caption", "jpg_0", "jpg_1", "label_0", "label_1"}), _pick_a_pic),
    "UltraFeedback": (frozenset({"instruction", "completions"}), _ultra_feedback),
    "HH-RLHF or conversations": (frozenset({"chosen", "rejected"}), _dialogues),
}
