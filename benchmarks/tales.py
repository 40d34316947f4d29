"""What aligning tales to sentiment has changed: the sentiment, how varied the tales are, and how the written ones are found.

    python -m benchmarks.tales runs/tales_sentiment runs/tales_sentiment-2 ...

Of each finished run, on its held-out prompts: mean reward before and after with a 95 % interval over prompts; distinct-2,
MSTTR-100 and the share of well-formed sentences (those of the grammar of the bundled tales) of what was drawn before and after;
and the perplexity of the policy's references under the start and under the export (95 %: both on the same resampled
references). Of several runs, the mean of each change, with Student's 95 % interval over runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raft_core.evaluation.files import read_results
from raft_core.prompts import read_prompts
from raft_core.rng import numpy_rng
from raft_core.types import Request
from raft_core.workflows.align import reopened
from raft_text.demonstrations import response
from raft_text.metrics import text_figures
from raft_text.world.tales_form import well_formed_share

RESAMPLES = 2000


def measured(run: Path, reward: str) -> dict[str, Any]:
    """The figures of one run, before and after, and their changes."""
    results = read_results(run)
    if results is None:
        raise SystemExit(f"{run} is not finished: raft resume {run}")
    held_out = next(each for each in results.evaluations if each.split == "heldout")
    scored = next(each for each in held_out.comparisons if each.name == reward)
    before, after = (_figures([sample.output for sample in side]) for side in (held_out.before, held_out.after))
    gain = scored.difference
    return {
        "run": str(run),
        "seed": held_out.seed,
        "prompts": len(held_out.prompts),
        reward: {"before": scored.before, "after": scored.after, "change": [gain.value, gain.low, gain.high]},
        "win_rate": [scored.win_rate.value, scored.win_rate.low, scored.win_rate.high],
        **{
            name: {"before": before[name], "after": after[name], "relative_change": after[name] / before[name] - 1}
            for name in ("length", "distinct_1", "distinct_2", "msttr_100", "well_formed")
        },
        "perplexity": perplexities(run),
    }


def _figures(texts: Sequence[str]) -> dict[str, float]:
    return {**text_figures(texts), "well_formed": well_formed_share(texts)}


def perplexities(run: Path) -> dict[str, Any]:
    """Per token, of the references under the start and the export, and the relative change with its interval."""
    import torch

    policy: Any = reopened(run).config.policy
    policy.load()
    policy.load_weights(run / "export")
    prompts = read_prompts(policy.references)
    written = policy.written([Request(prompt, 0, 0) for prompt in prompts], [response(prompt) or "" for prompt in prompts])
    tokens = np.array([len(sample.tensors["tokens"]) for sample in written])
    with torch.no_grad():
        start, end = (policy.nll(written, None, reference=reference).double().numpy() for reference in (True, False))
    drawn = numpy_rng(0, "tales", "perplexity").integers(len(tokens), size=(RESAMPLES, len(tokens)))
    ratios = np.exp((end - start)[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)) - 1
    before, after = (float(np.exp(side.sum() / tokens.sum())) for side in (start, end))
    low, high = np.quantile(ratios, (0.025, 0.975)).tolist()
    return {"before": before, "after": after, "relative_change": after / before - 1, "low": low, "high": high}


def over_runs(changes: Sequence[float]) -> list[float]:
    """[mean, low, high] with Student's 95 % interval; of a single run the mean alone."""
    from scipy.stats import t

    mean = float(np.mean(changes))
    if len(changes) < 2:
        return [mean]
    half = float(t.ppf(0.975, len(changes) - 1) * np.std(changes, ddof=1) / len(changes) ** 0.5)
    return [mean, mean - half, mean + half]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--reward", default="sentiment", help="column of the comparison (default: sentiment)")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    rows = [measured(run, options.reward) for run in options.runs]
    total = {options.reward: over_runs([row[options.reward]["change"][0] for row in rows])} | {
        name: over_runs([row[name]["relative_change"] for row in rows])
        for name in ("distinct_2", "msttr_100", "well_formed", "perplexity")
    }
    text = json.dumps({"runs": rows, "mean_change": total}, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
