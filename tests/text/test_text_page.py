"""What docs/guides/align_text.md shows is true: its configuration is valid, its code runs, its table names every figure."""

from __future__ import annotations

import json
import re
from pathlib import Path

import datasets
import yaml

from raft_cli.sft import completed
from raft_core.config.run_config import check
from raft_core.objectives.raft_plus_plus import RaftPlusPlus
from raft_core.selectors.all_best import AllBest
from raft_core.types import Prompt, Request, Sample
from raft_text import Rejection
from raft_text.metrics import drawn_figures, text_figures

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "align_text.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def test_its_configurations_pass_the_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("one\ntwo\nthree\n")
    Path("my_file.py").write_text(
        "def my_function(prompts, outputs):\n    return [0.0] * len(outputs)\nmy_bound = my_function\n"
    )
    first, chats, cut, tools, early, distil, ratios, rules = blocks("yaml")
    config = check(yaml.safe_load(first), base=tmp_path).config
    assert config.policy.prompting.chat and config.policy.sampling.batch_size == 64
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"messages": [*talk, *talk]}] * 2)
    chat = check(yaml.safe_load(first) | yaml.safe_load(chats), base=tmp_path)
    assert chat.config.policy.prompting.chat_template_kwargs == {"enable_thinking": False}
    assert [len(prompt.messages or ()) for prompt in (*chat.prompts.train, *chat.prompts.held_out)] == [3]
    Path("sums.jsonl").write_text("".join(json.dumps({"prompt": str(i), "answer_value": "1"}) + "\n" for i in range(5)))
    for line in cut.splitlines():
        check(yaml.safe_load(first) | yaml.safe_load(line) | {"prompts": {"train": "sums.jsonl"}}, base=tmp_path)
    with_tools = {**yaml.safe_load(tools), "prompts": {"train": "sums.jsonl"}, "judges": []}
    assert check(with_tools, base=tmp_path).config.policy.environment.functions == ("calculator", "python")
    learned = check(yaml.safe_load(first) | yaml.safe_load(distil), base=tmp_path).config
    assert learned.objective.teacher.name == "Qwen/Qwen2.5-7B-Instruct" and learned.objective.beta == 0.5
    clipped = check(yaml.safe_load(first) | yaml.safe_load(ratios), base=tmp_path).config
    assert clipped.objective == RaftPlusPlus(0.2, 0.28) and clipped.selector == AllBest(1.0)
    Path("pairs.jsonl").write_text("".join(json.dumps({"prompt": str(i), "response": "r"}) + "\n" for i in range(2000)))
    tuned = check(completed({"policy": yaml.safe_load(first)["policy"]} | yaml.safe_load(early)), base=tmp_path).config
    assert [judge.info.name for judge in tuned.judges] == ["response_loss"] and tuned.stop_when
    for line in rules.splitlines():
        Rejection(**yaml.safe_load(line)["rejection"])


def test_its_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for block in blocks("python"):
        exec(compile(block, "docs/guides/align_text.md", "exec"), {})
    assert "tensor([" in capsys.readouterr().out


def test_it_names_every_figure():
    meta = {"tokens": 1, "finish": "rejected", "entropy": 1.0, "rejected": True, "turns": 2, "tokens_saved_at_most": 3}
    found = {**text_figures(["a b " * 100]), **drawn_figures([Sample(Request(Prompt("p"), 0, 0), meta=meta)])}
    assert set(re.findall(r"`text/(\w+)`", PAGE)) == {*found, "perplexity"}
