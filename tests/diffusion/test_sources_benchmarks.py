"""The benchmarks of adaptive numbers and of halving, shrunken: they train, go on with what is there, and print their tables."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import adaptive_k, halving
from benchmarks.variants import compared

SMALL = ["policy.sampling.steps=4", "policy.sampling.batch_size=8", "prompts.per_round=2", "rounds=1", "trainer.steps=1"]
SMALL += ["trainer.batch_size=2", "evaluation.k=1", "evaluation.prompts=2"]


@pytest.mark.parametrize(("benchmark", "more"), [(adaptive_k, ["--pilot", "2"]), (halving, ["--looks", "0.5@0.5"])])
def test_a_benchmark_compares_its_variants(benchmark, more, tmp_path, monkeypatch, capsys):
    words = ["--recipes", "shapes/resolution", "--seeds", "0", "--k", "4", "--work", str(tmp_path), "--set", *SMALL]
    monkeypatch.setattr(sys, "argv", ["it", *words, "--output", str(tmp_path / "out.json"), *more])
    compared("", benchmark.RECIPES, benchmark.variants, benchmark.add_options, "runs")
    figures = json.loads((tmp_path / "out_shapes_resolution.json").read_text())
    base, *others = figures.values()
    assert base[0]["samples"] == 8 and base[0]["evaluations"] == 32
    fewer = others[-1][0]
    assert (fewer["samples"] < 8) if benchmark is adaptive_k else (fewer["evaluations"] == 24 and fewer["samples"] == 8)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(figures) and "| – |" in rows[1]
    compared("", benchmark.RECIPES, benchmark.variants, benchmark.add_options, "runs")  # nothing is trained again
