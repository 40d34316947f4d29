"""The page Text: what differs between two texts, how a vote is shown, and the page itself on the bundled examples."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from conftest import NARROW, WIDE, served, shot

from raft_core.errors import ConfigError, DataError
from raft_core.report.differing import differing
from raft_core.types import Prompt
from raft_demo.shared.comparable import comparables
from raft_demo.shared.limits import Limits
from raft_demo.shared.measures import Measure
from raft_demo.studio import Studio
from raft_demo.text import page as text
from raft_demo.text import texts
from raft_demo.text import view as text_view
from raft_demo.text.pieces import pieces
from raft_demo.text.texts import Asked, Chain, Completion, Completions, Party, Verdict

EXAMPLE = "bundled:examples/sums_raft"
HOSTILE = "<img src=x onerror=alert(1)>"


def asked(**changes) -> Asked:
    return replace(Asked("sums_raft", EXAMPLE, None, Prompt("How many?"), 1, 0, 1.0, 64), **changes)


# ---------------------------------------------------------------------- tokens


def decoder(vocabulary: dict[int, bytes]):
    """As byte-level tokenizers decode: what is not yet a character is a replacement character."""
    return lambda tokens: b"".join(vocabulary[token] for token in tokens).decode(errors="replace")


def test_pieces_are_what_each_token_adds_and_join_to_the_text():
    decode = decoder({0: b"two ", 1: "½".encode()[:1], 2: "½".encode()[1:], 3: b" cups", 9: b""})
    assert pieces(decode, [0, 1, 2, 3, 9], "two ½ cups") == ["two ", "", "½", " cups", ""]


def test_pieces_end_with_the_text_where_a_stop_text_has_cut_it():
    decode = decoder({0: b"yes", 1: b" END", 2: b" more"})
    assert pieces(decode, [0, 1, 2], "yes") == ["yes", "", ""]
    assert pieces(decode, [], "") == []


def test_what_differs_is_marked_on_both_sides():
    removed, added = differing(["a", " b", " c"], ["a", " x", " y", " c"])
    assert removed == [False, True, False] and added == [False, True, True, False]
    assert differing(["a"], ["a"]) == ([False], [False])
    assert differing([], ["a"]) == ([], [True])


def test_what_is_common_by_chance_amid_two_changes_counts_with_them():
    removed, added = differing(["All in all", " that", " makes 5"], ["Leo begins with 11 shells.", " that", " is"])
    assert removed == added == [True, True, True]
    removed, added = differing(["1", "5", " stamps.", " So", " 5"], ["1", "6", " stamps.", " So", " 6"])
    assert removed == added == [False, True, False, False, True]


# ---------------------------------------------------------------------- what is shown


def completions(before: str, after: str, **more) -> Completions:
    sides = ([Completion(said, re.findall(r"\s*\S+", said), "ended by itself")] for said in (before, after))
    return Completions(asked(), *sides, **more)


def test_differences_are_elements_and_not_colours_alone():
    html = text_view.shown(completions("so it is 5", "so it is 15"))
    assert "so it is<del> 5</del>" in html and "so it is<ins> 15</ins>" in html


def test_nothing_that_a_model_or_visitor_wrote_is_html():
    measure = Measure(HOSTILE, "reward", HOSTILE, True)
    scores = {HOSTILE: [0.5]}
    both = completions(HOSTILE, HOSTILE, measures=[measure], scores_before=scores, scores_after=scores, notes=[HOSTILE])
    party = Party(HOSTILE, [Chain(1, HOSTILE, HOSTILE, 0.5)], True, True, True)
    vote = Verdict(asked(), [party], HOSTILE, HOSTILE, [HOSTILE])
    table = texts.Accuracies(HOSTILE, [("top-1", 1, 2, 0.5, 0.4, 0.6)], [HOSTILE])
    for html in (text_view.shown(both), text_view.verdict(vote), text_view.accuracies(table)):
        assert "<img" not in html and "&lt;img" in html


def test_a_token_tells_how_likely_it_was_to_either_model():
    said = Completion("five", ["five"], "", before=[math.log(0.1)], after=[math.log(0.8)])
    html = text_view.shown(Completions(asked(), [said], [said]))
    assert "title='before 10 %, after 80 %'" in html and "data-up" in html and "data-down style='--by:0" not in html


def test_a_change_for_the_better_is_told_from_one_for_the_worse():
    lower = Measure("toxicity", "judge", "", higher_is_better=False)
    html = text_view.summary(
        completions("a", "b", measures=[lower], scores_before={"toxicity": [0.5]}, scores_after={"toxicity": [0.25]})
    )
    assert "raft-better'>−0.25" in html


def test_a_vote_tells_the_majority_the_choice_and_the_right_answer():
    parties = [
        Party("7", [Chain(1, "3 + 4 = 7", "", 0.1), Chain(3, "7", "", 0.2)], right=False, elected=True),
        Party("12", [Chain(2, "3 × 4 = 12", "", 0.9)], right=True, best=True),
        Party("", [Chain(4, "hm", "", 0.0)], right=False),
    ]
    html = text_view.verdict(Verdict(asked(), parties, "12", "judge"))
    assert "The majority says <b>7</b>: 2 of 4 chains." in html and "✗ wrong" in html
    assert "The reward judge chooses <b>12</b>. <span class='raft-better'>✓ right" in html
    assert "The right answer is 12; 1 of 4 chains reach it." in html
    assert html.index("<b>7</b><span") < html.index("<b>12</b><span") < html.index("<b>no answer</b>")
    assert html.count("<details class='raft-party' open") == 2, "the majority's and the chosen one; not what nobody elected"


def test_numbers_are_written_as_people_do():
    assert [texts.written(value) for value in (42.0, 0.5, "C", 1e6)] == ["42", "0.5", "C", "1000000"]


# ---------------------------------------------------------------------- what may be asked


@pytest.fixture
def studio(tmp_path):
    studio = Studio(tmp_path / "runs")
    yield studio
    studio.close()


def test_the_bundled_examples_can_be_chosen_at_once(studio):
    keys = [each.key for each in comparables(studio.all_runs(), "text")]
    assert EXAMPLE in keys
    assert not set(keys) & {each.key for each in comparables(studio.all_runs())}, "pictures are on another page"


def test_the_right_answer_comes_with_the_runs_own_prompt(studio):
    [example] = [each for each in comparables(studio.all_runs(), "text") if each.key == EXAMPLE]
    question = texts.defaults(example, studio.limits).prompts[0]
    assert texts.known_prompt(example, question).meta["answer_value"] is not None
    assert texts.known_prompt(example, "A question of my own?").meta == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": "x" * 2001}, "2001 characters"),
        ({"temperature": 3}, "the temperature is 3"),
        ({"temperature": math.nan}, "the temperature is nan"),
        ({"tokens": 513}, "the longest length is 513"),
        ({"seed": -1}, "the seed is -1"),
        ({"seed": "x"}, "which is no number"),
        ({"model": None}, "no model is chosen"),
    ],
)
def test_what_is_out_of_bounds_is_refused_in_words(studio, changes, words):
    given = {"model": EXAMPLE, "prompt": "How many?", "seed": 0, "temperature": 1.0, "tokens": 64, "k": 1}
    with pytest.raises(ConfigError, match=re.escape(words)):
        text.read(studio, **{**given, **changes})


@pytest.mark.parametrize("model", ["../../etc", "/etc/passwd", "bundled:sums", "bundled:examples/resolution", "none"])
def test_a_model_out_of_the_list_alone(studio, model):
    with pytest.raises(DataError, match="choose one of the list"):
        text.read(studio, model, "How many?", 0, 1.0, 64, 1)


@pytest.mark.parametrize("reranker", ["os.system", "raft_text.rewards.Length", "answer", "learned:../x"])
def test_a_reward_out_of_the_list_alone(studio, reranker):
    with pytest.raises(DataError):
        text._ways(studio, text.AFTER, reranker)


def test_chains_that_cannot_differ_do_not_vote(studio):
    with pytest.raises(ConfigError, match="give more than 0"):
        text._voters(studio, 8, 0)


def test_at_temperature_0_one_completion_is_enough(studio):
    assert text.read(studio, EXAMPLE, "How many?", 0, 0, 64, 4).k == 1


# ---------------------------------------------------------------------- the work


@pytest.fixture(scope="module")
def example():
    [found] = [each for each in comparables([], "text") if each.key == EXAMPLE]
    return found


@pytest.fixture(scope="module")
def question(example):
    return texts.known_prompt(example, texts.defaults(example, Limits()).prompts[2])


def test_texts_are_those_of_generate_and_every_part_arrives_in_turn(question):
    from raft_core.reporter import Silent
    from raft_core.workflows.generate import generate
    from raft_core.workflows.trained import open_source
    from raft_demo.text.work import complete

    parts = list(complete(asked(prompt=question, k=2, tokens=96)))
    assert [(bool(part.after), bool(part.measures)) for part in parts] == [
        (False, False),
        (True, False),
        (True, True),
        (True, True),
    ]
    last = parts[-1]
    source = open_source(EXAMPLE, [])
    policy, _ = source.build(rewards=False)
    source.load(policy)
    for side, reference in ((last.before, True), (last.after, False)):
        drawn = generate(policy, [question], k=2, seed=0, reporter=Silent(), strength=0.0 if reference else 1.0)
        assert [each.text for each in side] == [sample.output for sample in drawn]
        for each in side:
            assert "".join(each.pieces) == each.text and len(each.before) == len(each.after) == len(each.pieces)
            assert max(each.before) <= 0
    assert last.measures[0].role == "reward" and len(last.scores_after[last.measures[0].name]) == 2


def test_a_prompt_of_ones_own_is_written_to_and_not_scored_as_0():
    from raft_demo.text.work import complete

    *_, last = complete(asked(prompt=Prompt("Ida has 3 hats. She gets 4 hats. How many hats does Ida have now?"), tokens=96))
    assert math.isnan(last.scores_after["answer"][0]) and any("answer" in note for note in last.notes)
    assert "–" in text_view.shown(last)


def test_every_chain_is_in_one_party_and_the_rights_are_the_readers(question):
    from raft_demo.text.work import reason

    spec = {"class_path": "Length", "init_args": {"name": "length"}}
    [found] = reason(asked(prompt=question, k=8, tokens=96), False, "length", spec)
    numbers = sorted(chain.number for party in found.parties for chain in party.chains)
    assert numbers == list(range(1, 9)) and found.reranker == "length"
    assert sum(party.elected for party in found.parties) <= 1 and sum(party.best for party in found.parties) == 1
    longest = max((chain for party in found.parties for chain in party.chains), key=lambda chain: chain.score)
    assert longest.score in [chain.score for party in found.parties if party.best for chain in party.chains]
    for party in found.parties:
        assert party.right is (party.answer == found.reference)
    sizes = [len(party.chains) for party in found.parties if party.answer]
    assert sizes == sorted(sizes, reverse=True)


def test_a_visitors_right_answer_counts_and_has_to_be_readable():
    from raft_demo.text.work import reason

    own = asked(prompt=Prompt("Ida has 3 hats. She gets 4 hats. How many hats does Ida have now?"), k=2, tokens=96)
    [found] = reason(own, False, answer="7")
    assert found.reference == "7" and all(party.right is not None for party in found.parties)
    [found] = reason(own, True)
    assert found.reference == "" and all(party.right is None for party in found.parties)
    with pytest.raises(ConfigError, match="cannot be read"):
        next(reason(own, False, answer="many"))


def test_accuracies_are_of_one_chain_the_vote_and_the_choice(example):
    from raft_demo.text.work import OWN, measure

    [found] = measure(asked(k=4, tokens=96), texts.problems(example)[:5], False, OWN)
    assert [row[:3] for row in found.rows] == [("top-1", 1, 5), ("vote", 4, 5), ("rerank", 4, 5)]
    shares = {row[0]: row[3] for row in found.rows}
    assert shares["rerank"] >= max(shares["top-1"], shares["vote"]), "the run's reward knows the right answer"
    with pytest.raises(ConfigError, match="no right answers"):
        next(measure(asked(k=2), [Prompt("Why?")], False))


# ---------------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with served(tmp_path_factory.mktemp("text") / "runs") as app:
        yield app


def chosen_example(page):
    """The page with the bundled word problems, whichever example comes first."""
    page.get_by_label("Model", exact=True).click()
    page.get_by_role("option", name=re.compile("sums_raft")).click()
    page.locator("#text-prompts").get_by_role("button").nth(2).wait_for()


def write(page, what: str) -> None:
    page.locator("#text-start").click()
    page.locator("#text-result").get_by_text(what).first.wait_for(timeout=200_000)
    page.locator("#text-status").get_by_text("done").wait_for(timeout=200_000)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "dark", "name"), [(WIDE, False, "wide"), (NARROW, True, "narrow-dark")])
def test_a_person_compares_votes_and_measures(app, open_page, size, dark, name):
    page = open_page(app.url, tab="Text", size=size, dark=dark)
    page.locator("#text-start").wait_for()
    shot(page, f"text-empty-{name}")
    write(page, "Scores")
    before, after = page.locator("#text-result .raft-text").first.locator(".raft-said").all()
    assert before.inner_text().strip() and after.inner_text().strip()
    shot(page, f"text-compare-{name}")
    likelier = page.get_by_label("what training made likelier")
    likelier.check()
    page.locator("#text-result[data-mark=likelihood]").wait_for()  # the browser marks a moment later
    shot(page, f"text-likelier-{name}")
    page.get_by_label("Vote on a question").check()
    page.get_by_label("Right answer").wait_for()
    write(page, "majority says")
    assert page.locator("#text-result .raft-party").count() >= 1
    shot(page, f"text-vote-{name}")
    page.get_by_label("Accuracy on problems").check()
    page.get_by_label("number input for Problems", exact=True).fill("10")
    write(page, "accuracy")
    page.locator("#text-result tbody tr").nth(1).wait_for()
    assert page.locator("#text-result tbody tr").count() == 2
    shot(page, f"text-accuracy-{name}")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], "nothing sticks out sideways"


@pytest.mark.slow
def test_mistakes_are_told_on_the_page_and_the_next_try_works(app, open_page):
    page = open_page(app.url, tab="Text")
    page.locator("#text-prompt textarea").fill("")
    page.locator("#text-start").click()
    page.get_by_text("the prompt is empty").first.wait_for()
    page.locator("#text-prompts").get_by_role("button").nth(0).click()
    page.wait_for_function("document.querySelector('#text-prompt textarea').value.length > 9")  # the server fills it in
    page.locator("#text-prompt textarea").press("Shift+Enter")
    page.locator("#text-status").get_by_text("done").wait_for(timeout=200_000)
