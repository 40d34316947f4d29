"""The report of a run: one page that opens anywhere, and the same numbers as JSON. Made from the run folder alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raft_core.evaluation.files import as_plain
from raft_core.evaluation.table import Row, notes, rows, sentences, split_name
from raft_core.machine.files import write_json, write_text
from raft_core.report.data import FailureLine, PhaseCost, RunData, alarms, charts, costs, failures, read_run_data
from raft_core.report.facts import component, label, policy_facts
from raft_core.report.pictures import GRID_PAIRS, PairView, best_median_worst, first_of_each
from raft_core.report.plots import Chart, Whisker, whisker
from raft_core.report.render import render_page
from raft_core.report.rounds import Story, story
from raft_core.report.words import account, ended_early, ending, headline

PAGE, NUMBERS = "index.html", "report.json"
FIRST = ("Reward", "Judge", "Diversity", "Different samples")  # curves that every reader wants


@dataclass(frozen=True)
class Page:
    """Everything on the page, in the order in which it is shown."""

    title: str
    lead: str
    headline: Sequence[str]
    alarms: Sequence[str]
    sentences: Mapping[str, Sequence[str]]
    grid: Sequence[PairView]
    grid_note: str
    table: Sequence[tuple[str, Sequence[tuple[Row, Whisker | None]]]]
    notes: Sequence[str]
    charts: Sequence[Chart]
    more_charts: Sequence[Chart]
    extremes: Mapping[str, Sequence[PairView]]
    story: Story | None
    account: Sequence[Sequence[str]]
    costs: Sequence[PhaseCost]
    failures: Sequence[FailureLine]
    facts: Mapping[str, str]
    prompts: Mapping[str, Sequence[str]]
    versions: Mapping[str, str]
    config: str


def write_report(run_folder: Path) -> Path:
    """Write ``report/index.html`` and ``report/report.json`` of a run, finished or not; returns the page's path.

    Raises:
        StoreError: the folder holds no run, or cannot be written to.
    """
    folder = Path(run_folder) / "report"
    data = read_run_data(Path(run_folder))
    page = page_of(data)
    write_json(folder / NUMBERS, numbers_of(data, page))
    write_text(folder / PAGE, render_page(page))
    return folder / PAGE


def page_of(data: RunData) -> Page:
    """What is shown of a run."""
    evaluations = data.evaluations
    shown = evaluations[0] if evaluations else None
    metrics = {row["round"]: row for row in data.history}
    spent, drawn = costs(data.history), charts(data.history, label(reward_name(data)))
    return Page(
        title=data.name,
        lead=lead(data),
        headline=headline(data),
        alarms=alarms(data),
        sentences={f"On {len(e.prompts)} {split_name(e.split)}": sentences(e) for e in evaluations},
        grid=first_of_each(shown) if shown else (),
        grid_note=grid_note(data),
        table=[(table_title(data, e.split), table_of(data, e.split)) for e in evaluations],
        notes=notes(evaluations),
        charts=[one for one in drawn if one.title.startswith(FIRST)],
        more_charts=[one for one in drawn if not one.title.startswith(FIRST)],
        extremes=best_median_worst(shown) if shown else {},
        story=story(data.rounds, metrics, data.stored),
        account=account(data, spent),
        costs=spent,
        failures=failures(data),
        facts=facts(data),
        prompts=prompts(data),
        versions=data.run.get("versions", {}),
        config=config_text(data.config),
    )


def lead(data: RunData) -> str:
    """The run in one line."""
    done, model = len(data.history), str(data.run.get("policy", {}).get("model", ""))
    parts = [f"{model}, " if model else "", f"{done} round{'' if done == 1 else 's'}"]
    if data.rounds:
        first = data.rounds[0]
        parts.append(f" of {len(first.samples) // first.k} prompts × {first.k} samples")
    if reason := ending(data):
        parts.append(f"; {'it ended early' if ended_early(data) else reason}")
    return "".join(parts)


def reward_name(data: RunData) -> str:
    if data.evaluations:
        return data.evaluations[0].scores_before.reward
    return data.rounds[0].scores.reward if data.rounds else ""


def grid_note(data: RunData) -> str:
    """How the pairs at the top were chosen."""
    if not data.evaluations:
        return ""
    shown = data.evaluations[0]
    of = len(shown.prompts)
    n = min(of, GRID_PAIRS)
    which = f"each of the {of} {split_name(shown.split)}" if n == of else f"{n} of the {of} {split_name(shown.split)}"
    return f"The first sample of {which}: nothing is picked. Both sides of a pair began with the same random numbers."


def table_title(data: RunData, split: str) -> str:
    evaluation = next(e for e in data.evaluations if e.split == split)
    return f"{len(evaluation.prompts)} {split_name(split)} × {evaluation.k}"


def table_of(data: RunData, split: str) -> list[tuple[Row, Whisker | None]]:
    """Rows of one set of prompts, each with its interval drawn about zero."""
    evaluation = next(e for e in data.evaluations if e.split == split)
    differences = [c.difference for c in evaluation.comparisons]
    differences += [evaluation.diversity.difference] if evaluation.diversity else []
    return list(zip(rows([evaluation]), [whisker(d) for d in differences], strict=True))


def facts(data: RunData) -> dict[str, str]:
    """What was run, in short; the configuration has the rest."""
    run, config = data.run, data.config
    found = {
        "Seed": str(run.get("seed", "")),
        "Reward": reward_name(data),
        "Selector": component(config.get("selector")),
        "Objective": component(config.get("objective")),
        "Rounds": f"{len(data.history)} of at most {config['rounds']}" if "rounds" in config else str(len(data.history)),
        "Compared checkpoint": f"after round {data.checkpoint}" if data.checkpoint is not None else "",
    }
    found |= policy_facts(run.get("policy", {}))
    return {name: value for name, value in found.items() if value}


def prompts(data: RunData) -> dict[str, list[str]]:
    """Prompts by what they were used for."""
    trained = dict.fromkeys(sample.prompt.text for stored in data.rounds for sample in stored.samples)
    found = {"Trained on, in the rounds shown": list(trained)} if trained else {}
    return found | {f"Evaluated, {split_name(e.split)}": [p.text for p in e.prompts] for e in data.evaluations}


def config_text(config: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)


def numbers_of(data: RunData, page: Page) -> dict[str, Any]:
    """Everything on the page that is no picture."""
    pairs = {
        title: [{"prompt": p.prompt, "seed": p.seed, "index": p.index, "scores": p.scores, "change": p.change} for p in chosen]
        for title, chosen in {"First samples": page.grid, **page.extremes}.items()
    }
    return {
        "title": page.title,
        "lead": page.lead,
        "headline": page.headline,
        "alarms": page.alarms,
        "sentences": page.sentences,
        "checkpoint": data.checkpoint,
        "evaluations": [as_plain(evaluation) for evaluation in data.evaluations],
        "notes": page.notes,
        "history": [dict(row) for row in data.history],
        "pairs": pairs,
        "account": page.account,
        "costs": [asdict(cost) for cost in page.costs],
        "failures": [asdict(failure) for failure in page.failures],
        "facts": page.facts,
        "prompts": page.prompts,
        "versions": page.versions,
        "config": data.config,
    }
