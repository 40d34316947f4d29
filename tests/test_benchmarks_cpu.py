"""The benchmarks of memory and of scale, shrunken: they run, and what they print is what they found."""

from __future__ import annotations

import json

import pytest

from benchmarks import memory, scale


def test_scale_in_miniature(tmp_path, capsys):
    words = ["--rounds", "2", "4", "--prompts", "6", "--per_round", "2", "--k", "2", "--json", str(tmp_path / "scale.json")]
    scale.main(words)
    found = json.loads((tmp_path / "scale.json").read_text())
    assert [run["rounds"] for run in found["runs"]] == [2, 4]
    for run in found["runs"]:
        assert all(run[stage]["seconds"] > 0 and run[stage]["peak_bytes"] > 0 for stage in scale.STAGES)
    assert set(found["exponents"]) == set(scale.STAGES)
    assert "exponent" in capsys.readouterr().out


def test_exponents_by_hand():
    runs = [{"rounds": n, **{stage: {"seconds": seconds} for stage in scale.STAGES}} for n, seconds in ((10, 1.0), (40, 8.0))]
    assert scale.exponents(runs) == pytest.approx(dict.fromkeys(scale.STAGES, 1.5))


@pytest.mark.slow
def test_memory_in_miniature(tmp_path, capsys):
    words = ["--layers", "1", "--width", "64", "--tokens", "4", "--prompts", "2", "--k", "2"]
    memory.main([*words, "--json", str(tmp_path / "memory.json")])
    found = json.loads((tmp_path / "memory.json").read_text())
    assert list(found["methods"]) == list(memory.METHODS)
    assert all(row["weights_bytes"] > 0 for row in found["methods"].values())
    assert capsys.readouterr().out.count("× RAFT") == len(memory.METHODS)
