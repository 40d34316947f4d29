"""The same question for RAFT: rounds of alignment by each proxy, the gold watching."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raft_core.config.run_config import check
from raft_core.preferences.learner import Scale
from raft_core.reporter import Reporter
from raft_core.store.manifest import read_history
from raft_core.workflows.align import align_run
from raft_core.workflows.study import Curve, Proxy, distilled_kl


def run_config(plain: Mapping[str, Any], proxy: Path, gold: Mapping[str, Any], rounds: int, folder: Path) -> dict[str, Any]:
    """A run's configuration with a proxy as its reward and the gold as its only judge; it stops for nothing."""
    return {
        **plain,
        "reward": {"class_path": "LearnedReward", "init_args": {"folder": str(proxy), "name": "proxy"}},
        "judges": [dict(gold)],
        "rounds": rounds + 1,  # the last one samples the policy of ``rounds`` updates
        "stop_when": [],
        "warn_when": [],
        "trackers": [],
        "keep": {"checkpoints": 1, "latents": False, "images": False},
        "evaluation": {"k": 1, "prompts": 1},
        "export": "last",
        "output": str(folder),
    }


def raft_curves(
    plain: Mapping[str, Any],
    proxies: Sequence[Proxy],
    gold: Mapping[str, Any],
    gold_scale: Scale,
    rounds: int,
    folder: Path,
    reporter: Reporter,
) -> list[Curve]:
    """Gold and proxy after 0, 1, 2 … rounds by each proxy.

    A likelihood ratio of diffusion cannot be had, so the distance is its bound: that of perfectly distilled best-of-k.

    Args:
        plain: a checked run configuration as plain data.
        gold: the gold judge as a configuration has it.
    """
    curves = []
    for proxy in proxies:
        reporter.line(f"\nRAFT by the proxy of {proxy.labels} labels")
        checked = check(run_config(plain, proxy.folder, gold, rounds, folder / f"labels_{proxy.labels}"))
        run = align_run(checked, reporter)
        curves.append(_curve(proxy, read_history(run), checked.config.k, checked.config.judges[0], gold_scale))
    return curves


def _curve(proxy: Proxy, history: Sequence[Mapping[str, Any]], k: int, gold: Any, scale: Scale) -> Curve:
    sign = 1 if gold.info.higher_is_better else -1
    golds = [scale(sign * row[f"judge/{gold.info.name}"]) for row in history]
    done = [row["round"] - 1 for row in history]
    unknown = [math.nan] * len(done)
    return Curve(
        label=f"{proxy.labels} labels",
        steps=done,
        distance=[math.sqrt(distilled_kl(rounds, k)) for rounds in done],
        gold=golds,
        gold_low=unknown,
        gold_high=unknown,
        proxy=[row["reward/mean"] for row in history],
    )
