"""Run benchmarks by lm-eval's own harness: a model, or a trained one and its base.

  raft eval runs/gsm8k_qwen --tasks gsm8k,ifeval
  raft eval Qwen/Qwen2.5-0.5B-Instruct --tasks my_task.yaml \\
      --policy.prompting.chat true
  raft eval runs/mine --tasks mmlu_pro --limit 50

A task is one that lm-eval knows, or a file in its format. Prompts, answers
and figures are the harness's; with --policy.prompting.chat true it puts them
into the model's chat template. Its data come from the Hub. A task file may name
Python functions, which are run: use those that you trust.
Needs: pip install 'raft-align[harness]'
"""

from __future__ import annotations

import argparse
from pathlib import Path

USAGE = "raft eval RUN|MODEL --tasks NAMES [--SETTING VALUE …]"
TAKES_SETTINGS = True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", required=True, help="lm-eval's names, or files in its format, with commas between them")
    parser.add_argument("--shots", type=int, help="examples before each question; by default as each task says")
    parser.add_argument("--limit", type=int, help="at most so many documents of each task, to try it out")
    parser.add_argument("--batch_size", type=int, default=8, help="rows read together (8)")
    parser.add_argument("--checkpoint", help="of a run: best, last or a round; by default what it has exported")
    parser.add_argument("--output", type=Path, help="file; by default RUN/eval/TASKS.json or eval/NAME/TASKS.json")


def main(args: argparse.Namespace) -> None:
    from raft_core.config.run_config import Override, parse_overrides
    from raft_core.errors import ConfigError
    from raft_core.machine.files import write_json
    from raft_core.terminal import progress
    from raft_core.workflows.trained import open_source
    from raft_text.harness import Settings, find_tasks, run
    from raft_text.policy import CausalLM

    settings = Settings(shots=args.shots, limit=args.limit, batch_size=args.batch_size)
    tasks = find_tasks([word.strip() for word in args.tasks.split(",") if word.strip()])
    overrides = parse_overrides(args.settings)
    named = any(override.path == "policy" for override in overrides)
    source = open_source(args.target, overrides if named else [Override("policy", "CausalLM"), *overrides], models=True)
    policy, _ = source.build(rewards=False)
    if not isinstance(policy, CausalLM):
        raise ConfigError(f"raft eval is for language models, and {args.target} is of the policy {type(policy).__name__}")
    reporter = progress.reporter()
    reporter.line(f"{source.load(policy, args.checkpoint)}, {', '.join(tasks.names)}")
    sides = ["after"] if source.kind == "model" else ["before", "after"]
    found = {side: run(policy, tasks, settings, reference=side == "before") for side in sides}
    own = source.kind == "run" and not args.target.startswith("bundled:")
    folder = source.path / "eval" if own else Path("eval") / source.name.replace(":", "-")
    file = args.output or folder / f"{'-'.join(tasks.names)[:80]}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"model": policy.describe(), "limit": args.limit, **found})
    for line in lines(found):
        reporter.line(line)
    if args.limit is not None:
        reporter.line(f"of {args.limit} documents a task at most: not to be compared with figures of all")
    reporter.line(str(file))


def lines(found: dict) -> list[str]:
    """The figures as a table: task, metric, before, after; ± one standard error."""
    from raft_text.harness import Figure, figures

    def shown(figure: Figure | None) -> str:
        if figure is None:
            return "–"
        return f"{figure.value:.4g}" + ("" if figure.error is None else f" ± {figure.error:.2g}")

    sides = {side: {(f.task, f.metric): f for f in figures(results)} for side, results in found.items()}
    keys = list(dict.fromkeys(key for values in sides.values() for key in values))
    rows = [["task", "metric", *(sides if len(sides) > 1 else ["value"])]]
    rows += [[*key, *(shown(values.get(key)) for values in sides.values())] for key in keys]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
