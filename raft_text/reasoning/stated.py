"""Where a text states its final answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from raft_text.reasoning.markup import LONGEST, SPECIAL, plain_text

# "The answer is", "Final answer:", "the answer to the question would be", "Answer = ", a heading "Answer", "Ans:".
LINK = r"(?:['’]s|is|was|equals|becomes|(?:would|should|must|will|has\s+to)\s+be|comes\s+(?:out\s+)?to)\b"
PHRASE = rf"""
    (?<![^\W_])answers?(?![^\W_])
        (?:\s+(?:choice|option|here|now|then|thus|therefore|again)\b | ,[^,.\n]{{1,30}}, | \s*\([^()\n]{{0,40}}\)
           | \s+(?:I|we|you|that)\s[^.\n:=]{{1,40}}?(?=\sis\b))?
        (?:\s+(?:to|for|of)\b[^.\n:=]{{0,100}}?)? [*_`"']*\s* (?:{LINK}[*_\s]*:? | [=-]> | [:：=→—] | –(?=\s))[*_]*
  | \bfinal\s+answer\b (?=[*_`]*\s*\n | \s+[-+$\\(\d])
  | ^[#*_>\ \t]*(?:final\ |the\ )?answer[*_\ \t]*$
  | \bans\s*[.:=]"""
MARKER = re.compile(
    rf"""(?P<boxed>\\(?:boxed|fbox)\b)
  | (?P<hashes>\#\#\#\#(?!\#)(?!\s*(?:step|part|case|phase|solution|conclusion|final|answer|explanation)\b|\s*\d+[.)]\s+[a-z]))
  | (?P<opened><(?P<tag>(?:final[_\s-]?)?answer)>)
  | (?P<ended>\bis\s+(?:the|my|our)\s+(?:(?:final|correct|right)\s+)?answer\b(?!\s*[:=]|\s+(?:is|to|for)\b))
  | (?P<phrase>{PHRASE})""",
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
SUPPOSED = re.compile(r"\b(?:if|suppos(?:e|ing)|assum(?:e|ing)|whether|unless)\s+(?:that\s+)?(?:\w+\s+){0,2}$", re.IGNORECASE)
THOUGHT = re.compile(r"</(?:think|thinking|thought)>", re.IGNORECASE)
THINKING = re.compile(r"<(?:think|thinking|thought)>", re.IGNORECASE)
# A model that goes on to a problem of its own has answered more than it was asked.
NEXT_QUESTION = re.compile(r"^[#* \t]*(?:question|problem|q|exercise|human|user)\b\s*\d*[*\s]*[:.]", re.I | re.M)
MORE_BOXES = re.compile(r"[\s.]*(?:,|;|&|,?\s*\b(?:and|or)\b)\s*", re.IGNORECASE)
MULTIPLIED = re.compile(r"(?:\\\)|[\s$])*((?:hundred|thousand|million|billion|trillion|dozen|lakh|crore)s?)\b", re.IGNORECASE)
DELIMITERS = re.compile(r"[\s*_>#`$•]*(?:```\w*)?$")
DISPLAY = {"\\[": "\\]", "$$": "$$"}

# Second thoughts: the last of these with an answer behind it counts, and a plain retraction leaves none.
SECOND_THOUGHT = re.compile(
    r"""(?P<strong>(?:^|[\n.!?,;:…–—(-]\s*|\b(?:no|oh|hmm|but)[\s,]+)
        (?:wait|hold\s+on)(?=\s*[,.!:;…–—-]|\s+(?:no|actually|that|it|I)\b|\s*$)
      | \b(?:scratch\s+that | oops | on\s+second\s+thought | correction\s*[:,–—-]
        | I(?:'ve)?\s+(?:have\s+)?made\s+(?:a|an)\s+(?:\w+\s+)?(?:mistake|error)
        | that(?:'s|\s+is|\s+was)\s+(?:wrong|incorrect|not\s+(?:right|correct))))
    | \b(?:actually | sorry | I\s+mean(?:t)? | or\s+rather | no\s*[,:–—])""",
    re.IGNORECASE | re.VERBOSE,
)
LEAD = re.compile(
    r"""(?:[\s,.:;!–—…-] | (?:it|that|this)(?:'s|\s+is|\s+should\s+be|\s+must\s+be|\s+would\s+be) | should\s+be | must\s+be
      | make\s+(?:it|that) | the\s+(?:\w+\s+)?answer\s+(?:is|should\s+be|must\s+be) | actually | no\b | sorry | I\s+mean
      | so\b){0,20}""",
    re.IGNORECASE | re.VERBOSE,
)
# An answer by itself: a number with at most two words behind it, a formula, or a letter.
BARE = re.compile(
    r"""(?:[$€£-]?\s?\d[\d.,/]*(?<![.,])(?:\s*(?:%|\\?\$))?(?:\s+(?!(?:are|is|was|were|of)\b)[A-Za-z]+){0,2} | \\?\$[^$\n]+\$
      | \\\([^\n]+?\\\) | \(?[A-E]\)?)(?=\s*(?:[.,;!)]|$))""",
    re.VERBOSE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A final answer in a text.

    Attributes:
        text: what is stated, in the words of the text.
        start: where in the text the marker begins that announces it.
    """

    text: str
    start: int


def final(text: str) -> str | None:
    """The piece of a text that states its answer, or None; see ``statement``."""
    found = statement(text)
    return None if found is None else found.text


def statement(text: str) -> Statement | None:
    """The final answer that a text states.

    It follows the last marker: ReFT's "Therefore, the answer is:" (or any "answer is", "answer:", "is the answer"), GSM8K's
    ``####``, LaTeX's ``\\boxed{…}`` or ``<answer>…</answer>``: the content of braces or tags, else the rest of the line, else
    the next line that is not blank. Thoughts in ``<think>`` state none. What is taken back afterwards ("wait, 12") is replaced.

    Returns:
        None where there is no marker, the answer is cut off inside of its braces or tags, thoughts do not end, or a further
        question of the model's own is answered differently.
    """
    begin = _after_thoughts(text)
    if begin is None:
        return None
    markers = [each for each in MARKER.finditer(text, begin) if _announces(text, each)]
    if not markers:
        return None
    found = _read(text, markers)
    first, last = markers[0], markers[-1]
    if found is None or (last is not first and _goes_astray(text, markers, found)):
        return None
    return Statement(found, last.start()) if found.strip() else None


def _after_thoughts(text: str) -> int | None:
    """Where the answer may begin; None if the text is all thoughts."""
    ends = [each.end() for each in THOUGHT.finditer(text)]
    begin = ends[-1] if ends else 0
    return None if THINKING.search(text, begin) else begin


def _announces(text: str, marker: re.Match[str]) -> bool:
    if marker["ended"]:  # "that is the answer" states none
        return re.search(r"\d", _before(text, marker)) is not None
    return not (marker["phrase"] and SUPPOSED.search(text[max(0, marker.start() - 40) : marker.start()]))


def _before(text: str, marker: re.Match[str]) -> str:
    """The sentence that leads up to a marker."""
    return re.split(r"[.!?:\n]\s", text[max(0, marker.start() - LONGEST) : marker.start()])[-1].strip()


def _read(text: str, markers: list[re.Match[str]]) -> str | None:
    """What stands at the last marker, second thoughts included."""
    last, end = markers[-1], len(text)
    tagged = next((each for each in reversed(markers) if each["opened"]), None)
    if tagged:
        closing = re.compile(rf"</{re.escape(tagged['tag'])}>", re.IGNORECASE).search(text, tagged.end())
        if closing is None:
            return None
        if last is tagged:
            return _amended(text[last.end() : closing.start()].strip(), text[closing.end() :])
        if last.start() < closing.start():
            end = closing.start()
    if last["ended"]:
        return _before(text, last)
    if last["boxed"]:
        return _boxed(text, markers)
    piece, after = _line(text[last.end() : end])
    return None if piece is None else _amended(piece, after)


# --- Boxes ------------------------------------------------------------------------------------------------------------


def _boxed(text: str, markers: list[re.Match[str]]) -> str | None:
    """The content of the last box with the sign before and the scale word behind it; several boxes in a list as one answer."""
    boxes = [each for each in markers if each["boxed"]]
    stated, end = _braced(text, boxes[-1].end())
    if stated is None:
        return None
    begin = boxes[-1].start()
    for earlier in reversed(boxes[:-1]):
        content, closed = _braced(text, earlier.end())
        if content is None or len(stated) > LONGEST or not MORE_BOXES.fullmatch(plain_text(text[closed:begin])):
            break
        stated, begin = f"{content}, {stated}", earlier.start()
    before = text[: boxes[-1].start()].removesuffix("$")
    if before.endswith("-") and not re.search(r"[\w)}]\s*-$", before[-20:]):
        stated = f"-{stated}" if re.fullmatch(r"[\w.\\{},/ ]*", stated) else f"-({stated})"
    scale = MULTIPLIED.match(text, end)
    return _amended(f"{stated} {scale[1]}" if scale else stated, text[end:])


def _braced(text: str, position: int) -> tuple[str | None, int]:
    """(content of the braces at a position, where they end); without braces the first character, as TeX reads it."""
    position = len(text) - len(text[position:].lstrip()) if text[position : position + 1].isspace() else position
    if text[position : position + 1] != "{":
        return text[position : position + 1] or None, position + 1
    depth = 0
    for place in range(position, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[position + 1 : place], place + 1
    return None, len(text)


# --- Lines ------------------------------------------------------------------------------------------------------------


def _line(rest: str) -> tuple[str | None, str]:
    """(the first line with content, what follows it); a formula on lines of its own counts as one, unfinished as none."""
    position = 0
    for line in rest.splitlines(keepends=True):
        here, position = position, position + len(line)
        begins = re.match(r"\s*(\\\[|\$\$)", line)
        if begins:
            closing = rest.find(DISPLAY[begins[1]], here + begins.end())
            if closing < 0:
                return None, ""
            return " ".join(rest[here + begins.end() : closing].split()), rest[closing + 2 :]
        if DELIMITERS.fullmatch(line):
            continue
        if here and NEXT_QUESTION.match(line):
            return None, ""
        piece = line.strip()
        return (re.sub(r"^[-*•]\s+", "", piece) if here else piece), rest[position:]
    return None, ""


# --- Second thoughts --------------------------------------------------------------------------------------------------


def _amended(piece: str, after: str) -> str | None:
    """The answer when the text has been read on: corrected, taken back (None), or as it was."""
    question = NEXT_QUESTION.search(after)
    told = f"{piece}\n{after[: question.start()] if question else after}"
    answer: str | None = piece
    for thought in SECOND_THOUGHT.finditer(told):
        lead = LEAD.match(told, thought.end())
        bare = BARE.match(told, lead.end() if lead else thought.end())
        if bare:
            answer = bare[0]
        elif thought["strong"]:
            answer = None
    return answer


def _goes_astray(text: str, markers: list[re.Match[str]], stated: str) -> bool:
    """Whether a text answers another question besides, or gives two answers behind ``####``, with different results."""
    first, last = markers[0], markers[-1]
    asked = NEXT_QUESTION.search(text, first.end(), last.start())
    hashes = [each for each in markers if each["hashes"]]
    if not asked and not (last["hashes"] and len(hashes) > 1):
        return False
    before = [each for each in markers if each.start() < asked.start()] if asked else hashes[:-1]
    between = text[before[-1].end() : last.start()]
    if not asked and SECOND_THOUGHT.search(between):
        return False
    earlier = _read(text[: asked.start() if asked else last.start()], before)
    return earlier is None or SPECIAL.sub("", earlier).strip(" .*") != SPECIAL.sub("", stated).strip(" .*")
