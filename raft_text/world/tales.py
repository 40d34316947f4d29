"""Short stories of five to eight sentences, written procedurally: somebody plans something, and it goes well, badly or so-so.

What happens has a mood, and the next thing is likely to have the same one, but luck can turn. An opening of two sentences is
the prompt; it tells who, when, where and what is planned, and nothing of how it goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raft_core.rng import numpy_rng, seed_for
from raft_text.world.tales_plots import PLOTS, Mood
from raft_text.world.tales_words import AFTER_ALL, BOYS, CALLS, FELT, GIRLS, KIN, OPENINGS, SAID, SKY, TIMES

Split = Literal["read", "check", "train", "held_out"]

MOODS: tuple[Mood, ...] = ("good", "plain", "bad")
#: Share of each mood where nothing has happened yet, and how often the mood stays as it is.
AT_FIRST = (0.38, 0.24, 0.38)
STAYS = 0.55
#: How often weather, a remark and a feeling are told of.
SKY_TOLD, SAID_TOLD, FELT_TOLD = 0.5, 0.6, 0.5
#: Of a hundred tales, how many are in each split; who plans what with whom decides which one.
SHARES: dict[Split, int] = {"held_out": 10, "check": 5, "train": 20, "read": 65}
ROLL_CALL = 14

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")
_START = re.compile(r'(?:^|(?<=\. ))("?)([a-z])')


@dataclass(frozen=True, slots=True)
class Tale:
    """A story.

    Attributes:
        opening: the prompt, two sentences.
        rest: how it goes on, without the space between the two.
        cast: what decides the split: plot, thing, the two people.
        moods: of the events and of the ending.
    """

    opening: str
    rest: str
    cast: tuple[str, ...]
    moods: tuple[Mood, ...]

    @property
    def text(self) -> str:
        return f"{self.opening} {self.rest}"

    @property
    def split(self) -> Split:
        """Which split it belongs to. Tales of the same people and plan are in the same one, however they go."""
        place = seed_for("tales", *self.cast) % 100
        for name, share in SHARES.items():
            place -= share
            if place < 0:
                return name
        raise AssertionError("the shares sum to 100")


def tales(seed: int, *path: str | int, split: Split | None = None) -> Iterator[Tale]:
    """Tales without end, the same for the same seed and path; of one split, or of all."""
    rng = numpy_rng(seed, "tales", *path)
    while True:
        tale = write_tale(rng)
        if split is None or tale.split == split:
            yield tale


def write_tale(rng: np.random.Generator) -> Tale:
    """A random tale."""
    name = _pick(rng, tuple(PLOTS))
    plot = PLOTS[name]
    thing = _pick(rng, plot.things)
    people = _people(rng)
    bound = {**people, "thing": thing, "the": re.sub(r"^(an?|some) ", "the ", thing)}
    bound |= {"place": _pick(rng, plot.places), "time": _worded(rng, _pick(rng, TIMES), {})}
    bound |= {"plan": _worded(rng, plot.plan, bound), "kin": _worded(rng, _pick(rng, KIN), people)}
    opening = _worded(rng, _pick(rng, OPENINGS), bound)
    first = _mood(rng)
    then = _mood(rng, first)
    last = _mood(rng, then)
    told: list[str] = []
    if rng.random() < SKY_TOLD:
        told.append(_pick(rng, SKY[_mood(rng)]))
    told.append(_pick(rng, plot.first[first]))
    if rng.random() < SAID_TOLD:
        told.append(_pick(rng, SAID[first]))
    told.append(_pick(rng, plot.then[then]))
    if rng.random() < FELT_TOLD:
        told.append(_pick(rng, FELT[then]))
    told.append(_pick(rng, plot.last[last] if last == then and rng.random() < 0.75 else AFTER_ALL[last]))
    rest = " ".join(_worded(rng, sentence, bound) for sentence in told)
    return Tale(_capitals(opening), _capitals(rest), (name, thing, people["hero"], people["friend"]), (first, then, last))


def roll_call(rng: np.random.Generator) -> str:
    """Short sentences in which the same two people and the same thing come up again and again.

    In a tale that is rare, and a model that reads tales alone is slow to find out that a name is one that was told before.
    """
    hero, friend = (str(name) for name in rng.permutation(GIRLS + BOYS)[:2])
    thing = re.sub(r"^(an?|some|the) ", "", _pick(rng, PLOTS[_pick(rng, tuple(PLOTS))].things))
    told: list[str] = []
    for _ in range(ROLL_CALL):
        one, other = (hero, friend) if rng.random() < 0.5 else (friend, hero)
        told.append(_worded(rng, _pick(rng, CALLS), {"hero": one, "friend": other, "thing": thing}))
    return _capitals(" ".join(told))


def _mood(rng: np.random.Generator, before: Mood | None = None) -> Mood:
    if before is not None and rng.random() < STAYS:
        return before
    return MOODS[int(rng.choice(len(MOODS), p=AT_FIRST))]


def _people(rng: np.random.Generator) -> dict[str, str]:
    """The words for the two people of a tale."""
    girl, other_girl = rng.random(2) < 0.5
    girls, boys = (tuple(str(name) for name in rng.permutation(names)) for names in (GIRLS, BOYS))
    he, fhe = (("she", "her", "her") if each else ("he", "him", "his") for each in (girl, other_girl))
    kin = ("sister", "mother", "aunt") if other_girl else ("brother", "father", "uncle")
    return {
        "hero": girls[0] if girl else boys[0],
        "friend": girls[1] if other_girl else boys[1],
        **dict(zip(("he", "him", "his"), he, strict=True)),
        **dict(zip(("fhe", "fhim", "fhis"), fhe, strict=True)),
        **dict(zip(("sibling", "parent", "uncle"), kin, strict=True)),
    }


def _worded(rng: np.random.Generator, text: str, bound: Mapping[str, str]) -> str:
    """One wording of a text, with the words of the tale in it."""
    chosen = _CHOICE.sub(lambda found: _pick(rng, found[1].split("|")), text)
    return _ARTICLE.sub(r"\1n ", chosen.format(**bound))


def _capitals(text: str) -> str:
    return _START.sub(lambda found: found[1] + found[2].upper(), text)


def _pick(rng: np.random.Generator, among: Sequence[str]) -> str:
    return among[int(rng.integers(len(among)))]
