"""LaTeX, Markdown and typography to plain characters, so that a number in them can be read."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 1000  # characters of a stated answer that are read: a model that runs wild writes lines without end

# Special tokens that a tokenizer left in the text, and tags of HTML. ``<5>`` is a number in angle brackets.
SPECIAL = re.compile(r"<[|｜][^<>]{0,40}[|｜]>|</?[A-Za-z][\w-]{0,20}\s*/?>|\[/?INST\]")
ANGLED = re.compile(r"<\s*([+-]?\\?\$?[\d.,]+[^<>]{0,30}?)\s*>", re.ASCII)
STRUCK = re.compile(r"~~[^~]*~~")
POWER = re.compile(r"(?<=[\d)])\s*\*\*\s*(?=[\d(])", re.ASCII)  # 2**3; other double asterisks are emphasis
EMPHASIS = re.compile(
    r"""(?<!\S)\*(?=[^\s*]+\s*$)                               # a footnote's star
    | (?<![\w*)])\*(?=[^\s*])([^*\n]*)(?<=[^\s*])\*(?![\w*(])  # *5*, but not 3*4*5
    | (?<!\w)_(?=[^\s_])([^_\n]*)(?<=[^\s_])_(?!\w)""",
    re.VERBOSE,
)
WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|emph|underline|math(?:rm|bf|it|sf|tt)|boldsymbol|mbox|operatorname)\s*\{([^{}]*)\}"
)
_UNIT = r"\{\s*(\\(?:text|mathrm)\{[^{}]*\})\s*\}"
UNITS_OVER = re.compile(rf"\\[dt]?frac\s*{_UNIT}\s*{_UNIT}")  # \frac{\text{m}}{\text{s}}
# Sizes of letters, gaps, and the end of a line.
LAID_OUT = re.compile(
    r"\\(?:tiny|small|normalsize|large|Large|LARGE|huge|Huge)(?![A-Za-z])|\\[hv]space\*?\s*\{[^{}]*\}|\\\\\s*$"
)
# What is opposite to something in parentheses: -(1/2) is -1/2.
OPPOSITE = re.compile(r"([-−])\s*\(\s*([\d.,]+(?:\s*/\s*[\d.,]+)?)\s*\)", re.ASCII)
COLOUR = re.compile(r"\\(?:text)?color\s*\{\w*\}")
FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([+-]?[\d.,]+)\s*\}|(\d))\s*(?:\{\s*(-?[\d.,]+)\s*\}|(\d))", re.ASCII)
OVER = re.compile(r"([+-]?[\d.,]+)\s*\\over\s*([\d.,]+)", re.ASCII)
# What separates groups of three digits, besides commas and plain spaces.
GROUPS = re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\,|\\ |~|['’]|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))", re.ASCII)
CURRENCY = re.compile(r"(-?)\s*(?:\b(?:US|CA|AU|NZ|HK|[AC](?=\\?\$\s?-?[\d.])))?(?:\\?\$|[€£¥₹])\s*(-?)")
MILLIONS = re.compile(r"([$€£¥₹]\s?[\d.,]+)\s?m\b", re.ASCII)  # of money, m is no metre
RUPEES = re.compile(r"\brs\s*\.|/-(?=\s|$)", re.IGNORECASE)  # Rs. 500/-
TIMES_AS = re.compile(r"(?<=\d)\s?x(?=\s+(?:as|more|the|faster|bigger|larger|higher|longer)\b)", re.ASCII)  # 5x as many
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
ARROWS = ("\\Rightarrow", "\\rightarrow", "\\implies", "\\to", "⇒", "→", "=>", "->")
ABOUT = ("\\approx", "\\simeq", "\\cong", "\\equiv", "\\doteq", "≈", "≃", "≅")
REPLACED = {
    **dict.fromkeys("−﹣－‐‑", "-"),
    **dict.fromkeys(("\\times", "\\cdot", "×", "·"), "*"),
    **dict.fromkeys((*ARROWS, *ABOUT), "="),
    **dict.fromkeys(("\\left", "\\right", "\\displaystyle", "\\!", "\\bf", "\\rm", "**", "__", "`", "#", "\\#"), ""),
    **dict.fromkeys(("\\(", "\\)", "\\[", "\\]", "\\,", "\\;", "\\:", "\\ ", "\\quad", "\\qquad", "~", "\\sim"), " "),
    **dict.fromkeys(("\\therefore", "∼", "\u00a0", "\u2009", "\u202f"), " "),
    **dict.fromkeys(("\\ldots", "\\dots", "\\cdots", "…"), "..."),
    **dict.fromkeys(("^{\\circ}", "^\\circ", "\\degree"), " degrees"),
    **dict.fromkeys(("\\lvert", "\\rvert", "\\vert", "\\mid"), "|"),
    "\\%": "%",
    "\\&": "&",
    "\\pm": "±",
    "\\Omega": "Ω",
    "\\mu": "µ",
    "⁄": "/",
}
# Longest first; a command ends where its letters end, so that \to is not the beginning of \top.
LITERAL = re.compile(
    "|".join(re.escape(each) + "(?![A-Za-z])" * each[-1].isalpha() for each in sorted(REPLACED, key=len, reverse=True))
)


def plain_text(text: str) -> str:
    """A formula or a line of Markdown as plain characters: LaTeX, typographic signs, emphasis and currency removed.

    Fractions become ``3/4``, powers ``x^2``, approximations and arrows ``=``; a LaTeX command that says something else stays.
    """
    text = SPECIAL.sub(" ", text[:LONGEST])
    text = STRUCK.sub(" ", ANGLED.sub(r" \1 ", text))
    text = MILLIONS.sub(r"\1M", GROUPS.sub("", COLOUR.sub("", text)))
    text = CURRENCY.sub(r" \1\2", text)
    text = POWER.sub("^", RUPEES.sub(" ", text))
    text = LAID_OUT.sub(" ", UNITS_OVER.sub(r" \1/\2", text))
    while (unwrapped := WRAPPER.sub(r" \1 ", text)) != text:
        text = unwrapped
    text = TIMES_AS.sub(" times", text)
    text = LITERAL.sub(lambda found: REPLACED[found[0]], text)
    text = EMPHASIS.sub(lambda found: found[1] or found[2] or "", text)
    text = FRACTION.sub(_fraction, text)
    text = OVER.sub(r" \1/\2", text)
    text = re.sub(r"([\^_])\s*\{([^{}]*)\}", r"\1\2", text)
    text = re.sub(r"(?<=\w)\s+([\^_])(?=[\w+-])", r"\1", text)  # of \text{cm}^2 the braces left a space
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda found: "^" + found[0].translate(SUPERSCRIPTS), text)
    text = OPPOSITE.sub(r"\1\2", re.sub(r"(?<!\\)[{}]", " ", text))
    return "".join(_vulgar(character) for character in text)


def _fraction(found: re.Match[str]) -> str:
    """`` 3/4`` of one of LaTeX's; a minus below goes above."""
    top, bottom = found[1] or found[2], found[3] or found[4]
    if bottom.startswith("-"):
        top, bottom = top.removeprefix("-") if top.startswith("-") else f"-{top.lstrip('+')}", bottom[1:]
    return f" {top}/{bottom}"


def _vulgar(character: str) -> str:
    """``½`` as `` 1/2``, everything else as it is."""
    if unicodedata.decomposition(character).startswith("<fraction>"):
        return " " + unicodedata.normalize("NFKC", character).replace("⁄", "/")
    return character
