"""The comparison before and after may draw otherwise than the rounds, and nothing else does."""

from __future__ import annotations

import pytest

from raft_core.errors import ConfigError
from raft_core.evaluation.evaluate import evaluate
from raft_core.rewards.scoring import Scorer
from raft_core.sampling import requests, sampled
from raft_core.types import Prompt
from raft_text import CausalLM, Sampling
from raft_text.options import Decoding
from raft_text.rewards.length import Length

PROMPTS = [Prompt("What is 1 and 1?"), Prompt("Count the apples.")]


class Bar:
    def advance(self, n):
        pass


def outputs(policy, samples):
    return [sample.output for sample in policy.render(samples)]


def test_only_the_comparison_is_drawn_at_another_temperature(load):
    policy = load(sampling={"compared": Decoding(temperature=0)})
    found = evaluate(policy, PROMPTS, Scorer(Length()), k=4, seed=0)
    for samples in (found.before, found.after):
        texts = [sample.output for sample in samples]
        assert len(set(texts[:4])) == len(set(texts[4:])) == 1
    asked = requests(PROMPTS, 4, 0, "evaluation")
    for drawn in (policy.sample(asked), sampled(policy, asked, Bar())):
        assert len(set(outputs(policy, drawn))) > 2


def test_without_it_the_comparison_is_drawn_as_the_rounds_are(load):
    policy = load()
    found = evaluate(policy, PROMPTS, Scorer(Length()), k=4, seed=0)
    assert [s.output for s in found.after] == outputs(policy, policy.sample(requests(PROMPTS, 4, 0, "evaluation")))


def test_its_settings_are_checked_with_the_others():
    with pytest.raises(ConfigError) as refused:
        Sampling(temperature=-1, compared=Decoding(temperature=-2, top_p=0, top_k=0))
    assert len(refused.value.mistakes) == 4
    assert all("compared" in mistake for mistake in refused.value.mistakes[1:])


def test_it_is_no_part_of_what_an_exported_model_is_sampled_by(load, tmp_path):
    policy: CausalLM = load(sampling={"compared": Decoding(temperature=0)})
    policy.save(tmp_path / "exported")
    assert "compared" not in "".join(path.read_text() for path in (tmp_path / "exported").glob("*.json"))
