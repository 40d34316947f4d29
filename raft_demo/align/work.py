"""What the page Align needs models for: checking a configuration, and planning it. Only the worker's process needs this."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raft_core.config.run_config import Checked, as_yaml, check
from raft_core.errors import RaftError
from raft_core.evaluation.table import number
from raft_core.format import duration
from raft_core.machine.files import write_text
from raft_demo.shared.reporting import PageReporter
from raft_demo.shared.worker import Progress

if TYPE_CHECKING:
    from raft_core.workflows.plan import Counts, Probe


def prepare(raw: Mapping[str, Any], recipe: Path, prompts: Sequence[str] | None, file: Path) -> Iterator[str]:
    """The whole configuration as YAML, checked; the prompts, if there are some of its own, are written to ``file``.

    Raises:
        ConfigError: with every mistake that there is.
    """
    yield as_yaml(_checked(raw, recipe, prompts, file).plain)


def plan(raw: Mapping[str, Any], recipe: Path, prompts: Sequence[str] | None) -> Iterator[Any]:
    """What a configuration would cost and gain: the counts at once, then the probe.

    Yields:
        ``Progress``, and {"said": one sentence, "lines": [(label, text)], "more": the same, "advice": [...], "complete": bool}.
    """
    from raft_core.machine.out_of_memory import make_room
    from raft_core.workflows.align import loaded_warnings
    from raft_core.workflows.plan import advice, count, probe
    from raft_core.workflows.plan_words import count_lines, probe_lines, summary_lines

    with tempfile.TemporaryDirectory() as folder:
        checked = _checked(raw, recipe, prompts, Path(folder) / "prompts.txt")
    counts = count(checked)
    first = list(count_lines(checked, counts))
    yield {"said": "", "lines": first, "more": [], "advice": checked.notes, "complete": False}
    yield Progress("loading the models")
    try:
        found = probe(checked, PageReporter())
        cut = loaded_warnings(checked.config.policy, [*checked.prompts.train, *checked.prompts.held_out])
        lines = list(summary_lines(checked, counts, found))
        more = [line for part in (count_lines, probe_lines) for line in part(checked, counts, found)]
        said = _said(checked, counts, found)
        notes = [*checked.notes, *cut, *advice(counts, found, checked.config)]
    finally:
        del checked
        make_room()
    yield {"said": said, "lines": lines, "more": more, "advice": notes, "complete": True}


def _said(checked: Checked, counts: Counts, found: Probe) -> str:
    """The plan as a person would say it."""
    config = checked.config
    total = config.rounds * found.round_s(counts) + found.evaluation_s(counts)
    gain = number(found.gain(config.k).value, signed=True)
    name = config.reward.info.name
    return f"About {duration(total)}; the best of {config.k} should score {gain} above the average sample ({name})."


def _checked(raw: Mapping[str, Any], recipe: Path, prompts: Sequence[str] | None, file: Path) -> Checked:
    """Raises RaftError; then nothing is left of ``file``."""
    raw = dict(raw)
    if prompts:
        write_text(file, "".join(f"{line}\n" for line in prompts))
        own = raw.get("prompts") or {}
        raw["prompts"] = {"train": str(file), "held_out_fraction": own.get("held_out_fraction", 0.2)}
    try:
        return check(raw, base=recipe.parent, name=recipe.stem)
    except RaftError:
        file.unlink(missing_ok=True)
        raise
