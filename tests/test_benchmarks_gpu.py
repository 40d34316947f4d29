"""The script that measures a GPU, in miniature: what it runs there runs here."""

from __future__ import annotations

import json

import pytest

from benchmarks.gpu.__main__ import PHASES, main, measured, table


@pytest.mark.slow
def test_in_miniature(tmp_path, capsys):
    main(["--miniature", "--json", str(tmp_path / "gpu_cpu.json")])
    found = json.loads((tmp_path / "gpu_cpu.json").read_text())
    assert [row["case"] for row in found["cases"]] == ["sd1", "sdxl", "qwen2"]
    for row in found["cases"]:
        assert "left_out" not in row, row
        for side in ("toolkit", "bare"):
            assert set(row[side]["seconds"]) == set(row[side]["peak_bytes"]) == set(PHASES)
            assert all(value > 0 for value in row[side]["peak_bytes"].values())
        assert row["round_ratio"] > 0
    assert all(row["toolkit"]["failed_pictures"] == 0 for row in found["cases"] if row["case"] != "qwen2")
    printed = capsys.readouterr().out
    assert all(row["case"] in printed for row in found["cases"])


def test_a_case_that_fails_or_has_no_time_does_not_cost_the_others():
    def broken():
        raise RuntimeError("CUDA error: no kernel image")

    rows = [measured(("broken", broken), float("inf")), measured(("late", broken), 0.0)]
    assert rows[0]["left_out"] == "RuntimeError: CUDA error: no kernel image"
    assert rows[1]["left_out"] == "no time was left"
    lines = table({"machine": {"device": "a card"}, "cases": rows}).splitlines()
    assert "no kernel image" in lines[2] and "no time was left" in lines[3]


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        main([])
    assert "torch sees no CUDA device" in capsys.readouterr().err
