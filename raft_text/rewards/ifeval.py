"""Checks of verifiable instructions, by the ids and with the arguments of IFEval.

A check is a function; what its signature has besides the text are the arguments that an instruction must have.

Source: IFEval (2311.07911) and its released code. Differs: keywords are text and not regular expressions; words and sentences
are told apart without the models of NLTK; English capitals and lower case look at the case alone; a text without letters is in
no language; arguments that are missing are refused and not drawn at random.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_type_hints

from raft_core.errors import MissingDependency, nearest
from raft_text.rewards.pattern import is_json

Relation = Literal["less than", "at least"]
OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def _compared(count: int, relation: Relation, limit: int) -> bool:
    return count < limit if relation == "less than" else count >= limit


def _existence(text: str, keywords: list[str]) -> bool:
    return all(word.lower() in text.lower() for word in keywords)


def _frequency(text: str, keyword: str, frequency: int, relation: Relation) -> bool:
    return _compared(text.lower().count(keyword.strip().lower()), relation, frequency)


def _forbidden_words(text: str, forbidden_words: list[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words)


def _letter_frequency(text: str, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    return _compared(text.lower().count(letter.lower()), let_relation, let_frequency)


def _response_language(text: str, language: str) -> bool:
    import langdetect  # pyright: ignore[reportMissingImports] - an extra

    langdetect.DetectorFactory.seed = 0  # it draws at random, from a generator that each detection seeds anew
    try:
        return langdetect.detect(text) == language
    except langdetect.LangDetectException:  # a text without letters
        return False


def _number_words(text: str, num_words: int, relation: Relation) -> bool:
    return _compared(len(re.findall(r"\w+", text)), relation, num_words)


def _number_sentences(text: str, num_sentences: int, relation: Relation) -> bool:
    return _compared(len(sentences(text)), relation, num_sentences)


def _number_paragraphs(text: str, num_paragraphs: int) -> bool:
    found = _without_blank_ends(re.split(r"\s?\*\*\*\s?", text))
    return len(found) == num_paragraphs and all(part.strip() for part in found)


def _nth_paragraph_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    found = [part.strip() for part in text.split("\n\n")]
    if len(list(filter(None, found))) != num_paragraphs or nth_paragraph > num_paragraphs or not found[nth_paragraph - 1]:
        return False
    word = found[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


def _number_placeholders(text: str, num_placeholders: int) -> bool:
    return sum(len(re.findall(r"\[[^\]\[]*\]", line)) for line in text.splitlines()) >= num_placeholders


def _postscript(text: str, postscript_marker: str) -> bool:
    spaced = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    marker = postscript_marker.strip()
    return re.search(spaced.get(marker, re.escape(marker.lower())), text.lower()) is not None


def _number_bullet_lists(text: str, num_bullets: int) -> bool:
    lines = [line.lstrip() for line in text.splitlines()]
    return sum(line.startswith("-") or bool(re.match(r"\*[^*]", line)) for line in lines) == num_bullets


def _constrained_response(text: str) -> bool:
    return any(option in text for option in OPTIONS)


def _number_highlighted_sections(text: str, num_highlights: int) -> bool:
    single = [found.strip("*") for found in re.findall(r"\*[^\n*]*\*", text)]
    double = [found[2:-2] for found in re.findall(r"\*\*[^\n*]*\*\*", text)]
    return sum(bool(part.strip()) for part in single + double) >= num_highlights


def _multiple_sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


def _json_format(text: str) -> bool:
    inner = re.sub(r"^```(?:json|Json|JSON)?|```$", "", text.strip())
    return is_json(inner.strip())


def _title(text: str) -> bool:
    spans = [(line.find("<<") + 2, line.rfind(">>"), line) for line in text.splitlines() if "<<" in line]
    return any(line[start:end].strip("<> ") for start, end, line in spans if end > start)


def _two_responses(text: str) -> bool:
    parts = [part.strip() for part in _without_blank_ends(text.split("******"))]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def _repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end_checker(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _quotation(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _capital_word_frequency(text: str, capital_frequency: int, capital_relation: Relation) -> bool:
    words = re.findall(r"\w+(?:[-.'’]\w+)*", text)
    return _compared(sum(word.isupper() for word in words), capital_relation, capital_frequency)


CHECKS: dict[str, Callable[..., bool]] = {
    "change_case:capital_word_frequency": _capital_word_frequency,
    "change_case:english_capital": str.isupper,
    "change_case:english_lowercase": str.islower,
    "combination:repeat_prompt": _repeat_prompt,
    "combination:two_responses": _two_responses,
    "detectable_content:number_placeholders": _number_placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:constrained_response": _constrained_response,
    "detectable_format:json_format": _json_format,
    "detectable_format:multiple_sections": _multiple_sections,
    "detectable_format:number_bullet_lists": _number_bullet_lists,
    "detectable_format:number_highlighted_sections": _number_highlighted_sections,
    "detectable_format:title": _title,
    "keywords:existence": _existence,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:frequency": _frequency,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _response_language,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_words": _number_words,
    "punctuation:no_comma": lambda text: "," not in text,
    "startend:end_checker": _end_checker,
    "startend:quotation": _quotation,
}
ABBREVIATED = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|e\.g|i\.e|Inc|Ltd|Co)|(?-i:\b[A-Z]))\.$", re.IGNORECASE)


def sentences(text: str) -> list[str]:
    """The sentences of a text, which end in ``.``, ``!`` or ``?`` before a space, unless that is an abbreviation's."""
    parts = re.split(r"(?:(?<=[.!?])|(?<=[.!?][\"'”’)\]]))\s+", text.strip())
    found: list[list[str]] = []
    for before, part in itertools.pairwise(["", *parts]):
        if found and ABBREVIATED.search(before):
            found[-1].append(part)
        elif part:
            found.append([part])
    return [" ".join(sentence) for sentence in found]


def _without_blank_ends(parts: list[str]) -> list[str]:
    """The parts of a text that its dividers make; a divider before the first or behind the last one makes none."""
    start = 1 if len(parts) > 1 and not parts[0].strip() else 0
    end = len(parts) - (1 if len(parts) > 1 and not parts[-1].strip() else 0)
    return parts[start:end]


# --- Instructions that cannot be checked --------------------------------------------------------------------------------


@functools.cache
def _arguments(name: str) -> dict[str, Any]:
    """Argument → type of an instruction's check."""
    if not inspect.isfunction(CHECKS[name]):
        return {}
    return {key: kind for key, kind in get_type_hints(CHECKS[name]).items() if key not in ("text", "return")}


def mistakes_in(name: object, given: object) -> list[str]:
    """What is wrong with an instruction's id and its arguments, in words; also a package that it needs and that is missing."""
    if not isinstance(name, str) or name not in CHECKS:
        return [f"the instruction {name!r} is not known{nearest(str(name), CHECKS)}"]
    if not isinstance(given, Mapping):
        return [f'the arguments of {name} are {given!r}, but must be an object such as {{"num_words": 300}}']
    wanted = _arguments(name)
    problems = [f"{name} has no argument {key!r}{nearest(str(key), wanted)}" for key in given if key not in wanted]
    for key, kind in wanted.items():
        needed = _unfit(key, given.get(key), kind)
        if needed:
            problems.append(f"{name}: {key} is {given.get(key)!r}, but must be {needed}")
    if name == "language:response_language" and importlib.util.find_spec("langdetect") is None:
        problems.append(str(MissingDependency("langdetect", "instructions", f"the instruction {name}")))
    return problems


def _unfit(key: str, value: object, kind: Any) -> str | None:
    """What an argument would have to be, or None if it is that."""
    if kind is int:
        least = 1 if key == "nth_paragraph" else 0
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return None if fits else f"a whole number, at least {least}"
    if kind == Relation:
        return None if value == "less than" or value == "at least" else "'less than' or 'at least'"
    if kind is not str:
        return None if isinstance(value, list) and value and all(isinstance(v, str) and v for v in value) else "a list of texts"
    if key == "letter":
        return None if isinstance(value, str) and len(value) == 1 else "one character"
    return None if isinstance(value, str) and value.strip() else "a text"
