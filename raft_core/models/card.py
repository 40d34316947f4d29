"""The model card: what was trained from what, by which reward, to which effect, and how to use it.

What all modalities' cards say and how they say it. A card is published: whatever prompts, names and files say in it is shown as
text, never as HTML, pictures or links, and no path of this machine is in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raft_core.evaluation.evaluate import Evaluation
from raft_core.evaluation.files import read_results
from raft_core.evaluation.table import Row, rows, split_name
from raft_core.machine.files import write_text
from raft_core.models.public_name import is_local, public_name
from raft_core.store.manifest import read_config, read_run

CARD = "README.md"
TEMPLATE = "card.md.j2"
PROMPTS_SHOWN = 5
HERE = "path/to/this/folder"  # in snippets, until it is known where the weights will lie
#: What has a meaning in Markdown inside a line, in GitHub's tables and links, and in the Hub's formulas.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~$@#])")
_ADDRESS = re.compile(r"(?i)(://|www\.)")


class Markdown(str):
    """Text that is Markdown already; everything else is escaped where it is put into a card."""


def escaped(value: object) -> Markdown:
    """Text as Markdown that shows it, on one line: nothing in it is taken for HTML, a picture, a link, a table or emphasis."""
    if isinstance(value, Markdown):
        return value
    line = "".join(letter if letter.isprintable() else " " for letter in str(value))
    line = _SPECIAL.sub(r"\\\1", line.replace("&", "&amp;"))
    return Markdown(_ADDRESS.sub(lambda found: found[1].replace(":", "&#58;").replace(".", "&#46;"), line))


def verbatim(text: str, longest: int) -> Markdown:
    """A text of several lines as an indented block, which Markdown shows as it is, cut at ``longest`` characters."""
    shown = text if len(text) <= longest else text[: longest - 1] + "…"
    lines = re.split(r"\r\n|\r|\n", shown.strip("\r\n"))  # all that ends a line in Markdown
    return Markdown("\n".join(f"    {line}" for line in lines))


@dataclass(frozen=True)
class Facts:
    """What a run's folder tells, whatever its modality.

    Attributes:
        model: as the configuration names it.
        policy: what the policy says of itself.
        reward: its name; so are selector and objective.
        selector: how samples were chosen.
        objective: the loss.
        rounds: trained, up to the exported checkpoint.
        k: samples per prompt and round.
        rows: of the table before and after, diversity included.
        level: coverage of its intervals.
        failed: samples that are in no figure because the model gave no output, in words.
        prompts: some of those that were trained on.
        shown: the evaluation that examples come from, on held-out prompts where there are some.
        made: the further lines of the table *How it was made*, by their names.
        versions: of the libraries.
    """

    model: str
    policy: Mapping[str, Any]
    reward: str
    selector: str
    objective: str
    rounds: str
    k: object
    rows: Sequence[Row]
    level: str
    failed: Sequence[str]
    prompts: Sequence[str]
    shown: Evaluation | None
    made: Mapping[str, object]
    versions: Mapping[str, str]


def read_facts(run_folder: Path) -> Facts:
    """The facts of a run.

    Raises:
        StoreError: the run cannot be read.
    """
    config, run = read_config(run_folder), read_run(run_folder)
    policy, results = run.get("policy", {}), read_results(run_folder)
    evaluations = sorted(results.evaluations, key=lambda e: e.split != "heldout") if results else []
    trained = next((e for e in evaluations if e.split == "train"), None)
    prompts = list(dict.fromkeys(p.text for p in trained.prompts))[:PROMPTS_SHOWN] if trained else []
    reward, selector, objective = (component(config.get(part)) for part in ("reward", "selector", "objective"))
    rounds, k = results.checkpoint if results else config.get("rounds"), config.get("k")
    such_as = f", such as {', '.join(repr(prompt) for prompt in prompts)}" if prompts else ""
    return Facts(
        model=str(policy.get("model", "unknown")),
        policy=policy,
        reward=_name(reward),
        selector=_name(selector),
        objective=_name(objective),
        rounds="1 round" if rounds == 1 else f"{rounds} rounds",
        k=k,
        rows=[replace(row, split=split_name(row.split)) for row in rows(evaluations)],
        level=f"{100 * evaluations[0].level:.0f} %" if evaluations else "",
        failed=[f"{split_name(e.split)}, {side}: {words}" for e in evaluations for side, words in e.failed.items()],
        prompts=prompts,
        shown=evaluations[0] if evaluations else None,
        made={
            "reward": reward,
            "judges": ", ".join(component(judge) for judge in config.get("judges") or []) or "none",
            "prompts": f"{run.get('prompts', {}).get('train', 'unknown')} in training{such_as}",
            "method": f"{selector}, {objective}, rounds: {rounds}, K = {k}",
            "seed": config.get("seed"),
        },
        versions=run.get("versions", {}),
    )


def component(entry: Any) -> str:
    """A component of the configuration in words: its class without the package, its arguments without this machine's paths."""
    if isinstance(entry, Mapping) and "class_path" in entry:
        name = public_path(str(entry["class_path"])).rpartition(".py:")[2].rpartition(".")[2]
        arguments = {key: value for key, value in (entry.get("init_args") or {}).items() if _matters(key, value)}
        if name == "FunctionReward":
            return component(arguments.get("path"))
        return name + (f"({', '.join(f'{key}={component(value)}' for key, value in arguments.items())})" if arguments else "")
    if isinstance(entry, Mapping):
        return f"{{{', '.join(f'{key}: {component(value)}' for key, value in entry.items())}}}"
    if isinstance(entry, (list, tuple)):
        return f"[{', '.join(component(item) for item in entry)}]"
    return public_path(entry) if isinstance(entry, str) else "none" if entry is None else str(entry)


def _matters(argument: str, value: Any) -> bool:
    """Whether an argument says something of what was done, and not of the machine or that nothing was set."""
    return value is not None and argument not in ("batch_size", "device")


def _name(component_words: str) -> str:
    """A component without its arguments."""
    return component_words.partition("(")[0]


def public_path(text: str) -> str:
    """Text that may be a path of this machine, as its last part."""
    return Path(text).name if Path(text).is_absolute() or text.startswith("~") else text


def front_matter(facts: Facts, library: str, task: str, tags: Sequence[str], **more: Any) -> Markdown:
    """YAML for the Hub. The licence is left to the user, a base model that lies on this machine is not named."""
    import yaml

    base = {} if is_local(facts.model) or facts.model.startswith("bundled:") else {"base_model": facts.model}
    matter = {**base, "library_name": library, "pipeline_tag": task, "tags": [*tags, "raft", "alignment"], **more}
    return Markdown(yaml.safe_dump(matter, sort_keys=False, allow_unicode=True).strip())


def title_name(model: str) -> str:
    """The model in a title: without who made it."""
    return Path(public_name(model)).name.removeprefix("bundled:").removesuffix(".safetensors")


def write_card(folder: Path, package: str, facts: Facts, **words: Any) -> Path:
    """Write ``README.md`` by the template of a modality's package, which extends ``base_card.md.j2``; returns its path.

    Args:
        folder: beside the weights.
        package: in whose ``templates`` the template lies.
        facts: of the run.
        words: what the two templates say besides; what is not ``Markdown`` is escaped.

    Raises:
        StoreError: the folder cannot be written to.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("raft_core.models")]),
        undefined=jinja2.StrictUndefined,
        finalize=escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template(TEMPLATE).render(facts=facts, base=public_name(facts.model), **words)
    write_text(folder / CARD, re.sub(r"\n{3,}", "\n\n", text))
    return folder / CARD
