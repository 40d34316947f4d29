"""Outputs of a table in place of samples: every layout, their scores, what is refused, and that they are learned."""

from __future__ import annotations

import gzip
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from raft_core.capabilities import RunPlans
from raft_core.config.run_config import check
from raft_core.errors import ConfigError, DataError
from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.raft_plus_plus import RaftPlusPlus
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet, read_prompts
from raft_core.rewards.given import Given
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.best_of_k import BestOfK
from raft_core.sources.from_table import FromTable
from raft_core.sources.table import read_table
from raft_core.store.store import Store, read_round
from raft_core.testing import FakePolicy, FakeReward, FakeWriter
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Grouping, Prompt, Request, Sample

USER, GOOD, BAD = ({"role": r, "content": c} for r, c in (("user", "q"), ("assistant", "1,1"), ("assistant", "0,0")))
HH = "\n\nHuman: q\n\nAssistant:"
# layout → (rows, the prompt as a run has it, [output and score of each group])
LAYOUTS = {
    "demonstrations": ([{"prompt": "q", "response": "1,1"}], "q", [[("1,1", 1)]]),
    "conversations": ([{"messages": [USER, GOOD]}], "q", [[("1,1", 1)]]),
    "scored": (
        [{"prompt": "q", "response": t, "score": s} for t, s in (("a", 2), ("b", None))],
        "q",
        [[("a", 2), ("b", None)]],
    ),
    "unpaired": (
        [{"prompt": "q", "completion": t, "label": label} for t, label in (("1,1", True), ("0,0", False))],
        "q",
        [[("1,1", 1), ("0,0", 0)]],
    ),
    "unpaired conversations": ([{"prompt": [USER], "completion": [BAD], "label": False}], "q", [[("0,0", 0)]]),
    "samples": ([{"prompt": "q", "text": "a"}, {"prompt": "q", "text": "b", "failed": "why"}], "q", [[("a", 1)]]),
    "pairs": ([{"prompt": "q", "chosen": "a", "rejected": "b"}] * 2, "q", [[("a", 1), ("b", 0)]] * 2),
    "binarised": (
        [{"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 8.5, "score_rejected": 3.0}],
        "q",
        [[("1,1", 8.5), ("0,0", 3)]],
    ),
    "implicit prompt": ([{"chosen": [USER, GOOD], "rejected": [USER, BAD]}], "q", [[("1,1", 1), ("0,0", 0)]]),
    "HH-RLHF": ([{"chosen": f"{HH} a", "rejected": f"{HH} b"}], HH.strip(), [[(" a", 1), (" b", 0)]]),
    "UltraFeedback": (
        [{"instruction": "q", "completions": [{"response": t, "overall_score": s} for t, s in (("a", 4.5), ("b", 7))]}],
        "q",
        [[("a", 4.5), ("b", 7)]],
    ),
    "ballots": (
        [{"prompt": "q", "candidates": ["a", "b", "c"], "best": best} for best in ([0, 2], None)],
        "q",
        [[("a", 0.5), ("b", 0), ("c", 0.5)]],
    ),
}


def plans(policy, prompts, trace=False):
    return RunPlans(policy, Given(), prompts, 8, trace)


def lines(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode())) if path.suffix == ".gz" else path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_a_layout_gives_its_outputs_with_its_scores_and_its_prompts(tmp_path, name, ending):
    rows, prompt, expected = LAYOUTS[name]
    table = read_table(lines(tmp_path / f"t.{ending}", rows))
    assert list(table.groups) == [prompt] and table.modality == "text"
    assert [[(each.output, each.score) for each in group.outputs] for group in table.groups[prompt]] == expected
    if ending == "jsonl":  # the same file gives the run its prompts
        prompts = list({p.text: p for p in read_prompts(tmp_path / "t.jsonl")}.values())
        source = FromTable(str(tmp_path / "t.jsonl"))
        asked = source.requests(prompts, 8, 0, 1)
        assert Grouping.of(asked).sizes.tolist() == [len(group) for group in expected]
        assert source.check_run(plans(FakeWriter(), prompts, trace=False)) == []


def png(level):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (level,) * 3).save(buffer, format="PNG")
    return buffer.getvalue()


def test_pictures_come_from_files_and_from_cells_of_a_table(tmp_path):
    (tmp_path / "a.png").write_bytes(png(10))
    named = read_table(lines(tmp_path / "t.jsonl", [{"prompt": "q", "image": "a.png", "score": 3}]))
    assert named.modality == "image" and named.groups["q"][0].outputs[0].loaded().getpixel((0, 0)) == (10, 10, 10)
    cells = {
        "caption": ["q", "q"],
        "jpg_0": [png(1), png(2)],
        "jpg_1": [png(3), png(4)],
        "label_0": [1.0, 0.5],
        "label_1": [0.0, 0.5],
    }
    pyarrow.parquet.write_table(pa.table(cells), tmp_path / "pick.parquet")
    source = FromTable(str(tmp_path / "pick.parquet"))
    (prompt,) = {p.text: p for p in read_prompts(tmp_path / "pick.parquet")}.values()
    assert not any("jpg" in name for name in prompt.meta)  # what every sample would be stored with
    policy = FakeWriter("image")
    asked = source.requests([prompt], 8, 0, 1)
    samples = source.render_samples(policy, source.samples(policy, asked, trace=False))
    assert Given()(samples).tolist() == [1, 0, 0.5, 0.5] and Grouping.of(samples).sizes.tolist() == [2, 2]
    assert [s.output.getpixel((0, 0))[0] for s in samples] == [1, 3, 2, 4] and samples[0].output.size == (8, 8)


def test_a_picture_that_cannot_be_opened_is_told_before_a_weight_is_loaded(tmp_path):
    (tmp_path / "a.png").write_bytes(png(10))
    (tmp_path / "b.png").write_bytes(b"no picture")
    rows = [{"prompt": "q", "image": f"{name}.png"} for name in "ab"]
    source = FromTable(lines(tmp_path / "t.jsonl", rows))
    (told,) = source.check_run(plans(FakeWriter("image"), [Prompt("q")]))
    assert "b.png" in told


def test_of_many_outputs_k_are_taken_in_a_round_and_of_a_choice_all(tmp_path):
    source = FromTable(lines(tmp_path / "t.jsonl", [{"prompt": "q", "response": str(i)} for i in range(20)]))
    rounds = [source.requests([Prompt("q")], 4, 0, rnd) for rnd in (1, 1, 2)]
    assert rounds[0] == rounds[1] != rounds[2] and [request.index for request in rounds[2]] == [0, 1, 2, 3]
    assert len({request.seed for request in rounds[0] + rounds[2]}) > 4
    row = {"prompt": "q", "candidates": list("abcdef"), "choice": 1}
    assert len(FromTable(lines(tmp_path / "t.jsonl", [row])).requests([Prompt("q")], 2, 0, 1)) == 6


def test_a_changed_table_asks_for_other_samples(tmp_path):
    """So that a resumed run cannot take those of another table for its own."""
    seeds = [
        [r.seed for r in FromTable(lines(tmp_path / "t.jsonl", [row])).requests([Prompt("q")], 2, 0, 1)]
        for row in (
            {"prompt": "q", "response": "a"},
            {"prompt": "q", "response": "b"},
            {"prompt": "q", "response": "a", "score": 2},
        )
    ]
    assert len({tuple(seed) for seed in seeds}) == 3


def run(folder, source, *, objective=None, scorer=None, policy=None, rounds=3):
    policy = policy or FakeWriter()
    trainer = Trainer(Optimizer(lr=0.3, weight_decay=0.0), steps=10)
    trainer.attach(policy, seed=1, rounds=rounds)
    prompts = PromptSet([Prompt("one"), Prompt("two")], [], per_round=2, seed=1)
    with Store.create(folder, {"seed": 1}, 1) as store:
        parts = (scorer or Scorer(Given()), BestOfK(), objective or Sft(), trainer, store, Monitor())
        align(policy, prompts, *parts, rounds=rounds, k=4, source=source)
        return policy, store.history()


@pytest.mark.parametrize("objective", [Sft(), RaftPlusPlus()], ids=lambda each: type(each).__name__)
def test_the_better_outputs_are_learned_without_a_reward(tmp_path, objective):
    pairs = [{"prompt": prompt, "chosen": "2,2", "rejected": "-2,-2"} for prompt in ("one", "two", "two")]
    source = FromTable(lines(tmp_path / "t.jsonl", pairs))
    policy, history = run(tmp_path / "run", source, objective=objective)
    samples, scores, kept = read_round(tmp_path / "run", 3, tensors=True)
    assert [s.output for s in samples] == ["2,2", "-2,-2"] * 3 and kept.tolist() == [True, False] * 3
    assert scores.columns["given"].tolist() == [1, 0] * 3
    moved = policy.mean[(policy.mean != 0).any(dim=1)]
    assert len(moved) == 2 and (moved > 0.4).all()
    assert history[-1]["reward/kept"] == 1 and history[-1]["reward/mean"] == 0.5


def test_any_other_reward_scores_the_outputs_itself(tmp_path):
    rows = [{"prompt": prompt, "response": text} for prompt in ("one", "two") for text in ("-1,-1", "3,3", "2,2")]
    run(tmp_path / "run", FromTable(lines(tmp_path / "t.jsonl", rows)), scorer=Scorer(FakeReward()), rounds=1)
    samples, _, kept = read_round(tmp_path / "run", 1)
    assert [s.output for s, each in zip(samples, kept, strict=True) if each] == ["3,3"] * 2


def test_an_output_without_a_score_is_never_selected(tmp_path):
    rows = [
        {"prompt": prompt, "response": text, "score": s}
        for prompt in ("one", "two")
        for text, s in (("9,9", None), ("1,1", -5))
    ]
    run(tmp_path / "run", FromTable(lines(tmp_path / "t.jsonl", rows)), rounds=1)
    _, scores, kept = read_round(tmp_path / "run", 1)
    assert kept.tolist() == [False, True] * 2 and np.isnan(scores.columns["given"]).tolist() == [True, False] * 2


@pytest.mark.parametrize(
    ("rows", "arguments", "told"),
    [
        ([{"prompt": "q"}], {}, "line 1: the prompt 'q' has no output"),
        ([{"prompt": "q", "response": "a", "label": "good"}], {}, "label is 'good', but must be a number, or true or false"),
        ([{"prompt": "q", "response": "a"}], {"score": "helpful"}, "there is no column 'helpful' of scores"),
        ([{"prompt": "q", "response": "a"}, {"prompt": "q", "image": "no.png"}], {}, "there is no picture no.png"),
        ([{"response": "a"}], {}, "there is no prompt"),
        ([{"prompt": "q", "candidates": ["a", "b"], "choice": 2}], {}, "choice is 2, but there are 2 candidates"),
        ([], {}, "holds no output"),
    ],
)
def test_a_table_that_is_wrong_is_told_by_file_and_line(tmp_path, rows, arguments, told):
    (message,) = FromTable(lines(tmp_path / "t.jsonl", rows), **arguments).check()
    assert told in message
    with pytest.raises(DataError, match=r"t\.jsonl"):
        read_table(lines(tmp_path / "t.jsonl", rows), **arguments)


def test_wrong_rows_can_be_left_out_and_are_counted(tmp_path):
    rows = [{"prompt": "q", "response": "a"}, {"prompt": "q", "label": 3}]
    source = FromTable(lines(tmp_path / "t.jsonl", rows), skip_invalid=True)
    assert source.check() == [] and "1 invalid rows" in source.notes()[0]


def test_what_does_not_go_with_the_policy_or_the_prompts_is_told(tmp_path):
    source = FromTable(lines(tmp_path / "t.jsonl", [{"prompt": "q", "response": "1,1"}]))
    asked = [Prompt("q")]
    assert (
        "which the policy FakePolicy cannot take: use FromPolicy"
        in source.check_run(plans(FakePolicy(), asked, trace=False))[0]
    )
    assert (
        "holds texts, but the policy FakeWriter makes images"
        in source.check_run(plans(FakeWriter("image"), asked, trace=False))[0]
    )
    (told,) = source.check_run(plans(FakeWriter(), [*asked, Prompt("other")], trace=False))
    assert "has no output for the prompt 'other'" in told and "prompts.train" in told
    assert "every_row" in source.check_run(plans(FakeWriter(), [Prompt("q"), Prompt("q", {"a": 1})], trace=False))[0]
    policy = FakeWriter()
    policy.traces_written = False
    assert "without ratios" in source.check_run(plans(policy, asked, trace=True))[0]
    own = FromTable(score="quality")
    assert "no column 'quality'" in own.check_run(plans(FakeWriter(), [Prompt("q", {"response": "1"})], trace=False))[0]
    assert "no response to learn" in own.check_run(plans(FakeWriter(), asked, trace=False))[0]


def test_a_configuration_tells_it_before_a_weight_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = {
        "policy": "raft_core.testing.FakeWriter",
        "prompts": {"train": "t.jsonl", "held_out_fraction": 0},
        "samples": {"class_path": "FromTable", "init_args": {"table": "t.jsonl"}},
        "reward": "Given",
        "trackers": [],
    }
    lines(tmp_path / "t.jsonl", [{"prompt": "q", "response": "1,1"}])
    checked = check(raw)
    assert isinstance(checked.config.samples, FromTable) and checked.plain["samples"]["class_path"] == "FromTable"
    lines(tmp_path / "t.jsonl", [{"prompt": "q", "response": " "}])
    with pytest.raises(ConfigError, match="samples: ' ' is no list of numbers"):
        check(raw)


def test_given_scores_are_those_that_came_with_the_sample_or_else_likeness_to_the_one_response():
    def sample(meta, output="a", said=None):
        return Sample(Request(Prompt("q", said or {}), 0, 0), output=output, meta=meta)

    found = Given()(
        [
            sample({"given": -2.5, "finish": "written"}),
            sample({"finish": "written"}, said={"response": "a"}),
            sample({}, "a ", {"response": "a"}),
            sample({}, "b", {"response": "a"}),
            sample({}, "a", {"response": "a", "label": True}),
            sample({}),
        ]
    )
    assert np.array_equal(found, [-2.5, np.nan, 1, 0, np.nan, np.nan], equal_nan=True)


def test_written_samples_of_the_fake_policy_are_its_own():
    policy = FakeWriter()
    (drawn,) = policy.render(policy.sample([Request(Prompt("q"), 0, 5)]))
    (again,) = policy.written([drawn.request], [drawn.output])
    assert torch.allclose(again.tensors["x"], drawn.tensors["x"], atol=1e-6)
