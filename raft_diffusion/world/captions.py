"""Captions of scenes, and back: "a large red star on the left, on a navy background".

Size, place and background may be left out; colour and shape are always said.
"""

import re

from raft_diffusion.world.scenes import ATTRIBUTES, BACKGROUNDS, COLOURS, SHAPES, SIZES

PLACES = {
    "center": "in the center",
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
}
_GRAMMAR = re.compile(
    rf"an? (?:(?P<size>{'|'.join(SIZES)}) )?(?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})"
    rf"(?: (?P<place>{'|'.join(PLACES.values())}))?"
    rf"(?:,? on a (?P<background>{'|'.join(BACKGROUNDS)}) background)?[.]?"
)
_POSITIONS = {place: position for position, place in PLACES.items()}


def caption(names: dict[str, str]) -> str:
    """The caption that says the given attributes; `colour` and `shape` are required."""
    words = [names[key] for key in ("size", "colour", "shape") if names.get(key)]
    text = ("an " if words[0][0] in "aeiou" else "a ") + " ".join(words)
    if names.get("position"):
        text += " " + PLACES[names["position"]]
    if names.get("background"):
        text += ("," if names.get("position") else "") + f" on a {names['background']} background"
    return text


def parse_caption(text: str) -> dict[str, str]:
    """The attributes that a caption says, by name; empty when the text is no caption of this world."""
    match = _GRAMMAR.fullmatch(" ".join(text.lower().split()))
    if match is None:
        return {}
    said = {key: value for key, value in match.groupdict().items() if value}
    if "place" in said:
        said["position"] = _POSITIONS[said.pop("place")]
    return {key: said[key] for key in ATTRIBUTES if key in said}


def drop_names(rng, names: dict[str, str], share: float) -> dict[str, str]:
    """Size, position and background are each left out with probability `share`."""
    return {key: value for key, value in names.items() if key in ("colour", "shape") or rng.random() >= share}
