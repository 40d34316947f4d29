"""Captions of scenes in several plain forms, and back: "a large blue cat on the left, on a pink background".

The object is always said, and its tint if it has one. Size, place and background may be left out. A caption that says no tint
means an object in its own colours.
"""

import re
from collections.abc import Callable

import numpy as np

from raft_diffusion.world.emoji.scenes import ATTRIBUTES, NATURAL
from raft_diffusion.world.emoji.sprites import OBJECTS, TINTS

PLACES = {
    "center": "in the center",
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
}
OPTIONAL = ("size", "background", "position")


def _thing(names, article=True):
    words = [names[key] for key in ("size", "tint", "object") if names.get(key, NATURAL) != NATURAL]
    text = " ".join(words)
    return f"{_article(text)} {text}" if article else text


def _article(text):
    return "an" if text[0] in "aeiou" else "a"


def _joined(parts, between):
    return between.join(part for part in parts if part)


def _place(names):
    return PLACES[names["position"]] if names.get("position") else ""


def _ground(names, article=True):
    if not names.get("background"):
        return ""
    return f"a {names['background']} background" if article else f"{names['background']} background"


def plain(names: dict[str, str]) -> str:
    """ "a large blue cat on the left, on a pink background"."""
    ground = _ground(names)
    return _joined([_joined([_thing(names), _place(names)], " "), ground and f"on {ground}"], ", " if _place(names) else " ")


def picture(names: dict[str, str]) -> str:
    """ "a picture of a large blue cat on the left, on a pink background"."""
    return f"a picture of {plain(names)}"


def emoji(names: dict[str, str]) -> str:
    """ "an emoji of a large blue cat on the left, on a pink background"."""
    return f"an emoji of {plain(names)}"


def ground_first(names: dict[str, str]) -> str:
    """ "on a pink background, a large blue cat on the left"."""
    ground = _ground(names)
    return _joined([ground and f"on {ground}", _joined([_thing(names), _place(names)], " ")], ", ")


def ground_with(names: dict[str, str]) -> str:
    """ "a pink background with a large blue cat on the left"."""
    return _joined([_ground(names), _joined([_thing(names), _place(names)], " ")], " with ")


def listed(names: dict[str, str]) -> str:
    """ "large blue cat, on the left, pink background"."""
    return _joined([_thing(names, article=False), _place(names), _ground(names, article=False)], ", ")


FORMS: tuple[Callable[[dict[str, str]], str], ...] = (plain, picture, emoji, ground_first, ground_with, listed)
FORM_WEIGHTS = (0.5, 0.1, 0.1, 0.1, 0.1, 0.1)


def _one_of(name: str, values) -> str:
    return f"(?P<{name}>{'|'.join(values)})"


_SIZE, _TINT = (f"(?:{_one_of(name, values)} )?" for name, values in (("size", ATTRIBUTES["size"]), ("tint", TINTS)))
_NOUN = re.compile(f"(?:(?:an?|the|one) )?{_SIZE}{_TINT}{_one_of('object', OBJECTS)}")
_PLACE = re.compile(_one_of("place", PLACES.values()))
_GROUND = re.compile(
    f"(?:(?:on|against) )?(?:(?:an?|the) )?{_one_of('background', ATTRIBUTES['background'])} background(?: with)?"
)
_LEAD = re.compile(r"(?:an? )?(?:picture|image|emoji|drawing|photo) of ")
_POSITIONS = {place: position for position, place in PLACES.items()}


def caption(names: dict[str, str]) -> str:
    """The plain caption that says the given attributes; `object` is required, and `tint` for an object that has one."""
    return plain(names)


def draw_caption(rng: np.random.Generator, names: dict[str, str]) -> str:
    """One form of caption at random."""
    return FORMS[rng.choice(len(FORMS), p=FORM_WEIGHTS)](names)


def drop_names(rng: np.random.Generator, names: dict[str, str], share: float) -> dict[str, str]:
    """Size, background and place are each left out with probability `share`."""
    return {key: value for key, value in names.items() if key not in OPTIONAL or rng.random() >= share}


def parse_caption(text: str) -> dict[str, str]:
    """The attributes that a caption says, by name; empty when the text is no caption of this world.

    Of the parts object, place and background each may come once, in any order, with commas or without. `tint` is among the
    answers always.
    """
    rest = " ".join(text.lower().replace(",", " ").split()).rstrip(" .!")
    rest = _LEAD.sub("", rest, count=1) if _LEAD.match(rest) else rest
    said: dict[str, str] = {}
    while rest:
        match = next((found for part in (_GROUND, _PLACE, _NOUN) if (found := part.match(rest))), None)
        if match is None or not re.match(r" |$", rest[match.end() :]):
            return {}
        named = {key: value for key, value in match.groupdict().items() if value}
        if said.keys() & named.keys():
            return {}
        said |= named
        rest = rest[match.end() :].lstrip()
    if "object" not in said:
        return {}
    if "place" in said:
        said["position"] = _POSITIONS[said.pop("place")]
    said.setdefault("tint", NATURAL)
    return {key: said[key] for key in ATTRIBUTES if key in said}
