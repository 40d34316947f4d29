"""ReFT's texts: what a model reads of a question, what it is taught to write, and the program in what it wrote.

Source: ReFT (2401.08967), released code: instruction, cue and answer trigger are its own; with programs, the prompt already
holds the head of the function and the question as its docstring.
"""

from __future__ import annotations

import re

from raft_text.reasoning.answers import TRIGGER

# For ``prompting.template`` of a language-model policy; {prompt} is the question.
N_COT = "Question:\n{prompt}\nAnswer reasoning:\n"
HEAD = 'def solution():\n    """{prompt}"""\n'
P_COT = N_COT + HEAD

FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
DEFINITION = re.compile(r"^def solution\s*\(", re.MULTILINE)
QUOTES = re.compile(r'"""|' + "'''")


def words(answer_cot: str, answer_value: str) -> str:
    """What a model is taught to write after ``N_COT``: the reasoning, then the answer on a line of its own."""
    return f"{answer_cot.strip()}\n{TRIGGER} {answer_value.strip()}"


def program(answer_cot: str, question: str) -> str:
    """What a model is taught to write after ``P_COT``: the program without the head that the prompt already holds."""
    return answer_cot.strip().removeprefix(HEAD.format(prompt=question.strip())).rstrip()


def program_of(completion: str) -> str:
    """The program in a completion.

    A fenced block that defines ``solution`` counts as it is. Else it is the definition itself, with the imports before it, up
    to the first line that is neither blank nor indented; and where nothing is defined, the completion is the body that
    continues the head of ``P_COT``.
    """
    fenced = [block for block in FENCE.findall(completion) if DEFINITION.search(block)]
    if fenced:
        return fenced[-1]
    found = DEFINITION.search(completion)
    if not found:
        return "def solution():\n" + _block(_indented(completion))
    imports = [line for line in completion[: found.start()].splitlines() if line.startswith(("import ", "from "))]
    head, _, rest = completion[found.start() :].partition("\n")
    return "\n".join([*imports, head, _block(rest)])


def _block(text: str) -> str:
    """The lines of an indented block, multi-line strings included; what follows it is left out."""
    kept: list[str] = []
    quoted = False
    for line in text.splitlines():
        if line.strip() and not line[0].isspace() and not quoted:
            break
        kept.append(line)
        quoted ^= len(QUOTES.findall(line)) % 2 == 1
    return "\n".join(kept) + "\n"


def _indented(text: str) -> str:
    """The text with its first line as far in as the others: many tokenizers drop the spaces that a completion begins with."""
    first, *others = text.lstrip("\n").splitlines() or [""]
    depth = min((_depth(line) for line in others if line.strip() and line[0].isspace()), default=4)
    return "\n".join([" " * max(depth, _depth(first)) + first.lstrip(), *others])


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())
