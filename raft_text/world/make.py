"""Makes the bundled language models from a seed: `python -m raft_text.world.make [--stage NAME] [--out DIR] [--seed N]`.

Each stage resumes from its checkpoint under `--work`, and writes its files under `--out`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

BUNDLED = Path(__file__).parents[1] / "bundled"
CHECKED = 100
MOST = 100_000


@dataclass(frozen=True)
class Build:
    """Where the parts go, what they are seeded with, and how long is trained at most."""

    out: Path
    work: Path
    seed: int
    steps: int

    def log(self, stage: str, **figures: Any) -> None:
        """Keeps a stage's figures in `work/figures.json`."""
        path = self.work / "figures.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known | {stage: figures}, indent=2) + "\n")
        print(stage, figures, flush=True)


def make_prompts(build: Build) -> None:
    """The problems and the openings of the recipes: to be trained on without what follows, and held out."""
    from raft_text.world.files import write_problems
    from raft_text.world.tales_files import write_tales

    write_problems(build.out / "prompts")
    write_tales(build.out / "prompts")


def make_sums(build: Build) -> None:
    """The model of the word problems, which knows how to work them out and half of the time does not bother to."""
    from raft_text.world.problems import stories
    from raft_text.world.sums import STEPS, accuracy, batch_of, build_model, lessons
    from raft_text.world.tokenizer import build_tokenizer
    from raft_text.world.training import Schedule, train

    tokenizer = build_tokenizer()
    model = build_model(tokenizer, build.seed)
    asked = list(islice(stories(build.seed, "check", split="check"), CHECKED))
    most = min(build.steps, STEPS)

    def loss(step):
        tokens, mask, labels = batch_of(lessons(build.seed, step, most), tokenizer)
        return model(input_ids=tokens, attention_mask=mask, labels=labels).loss

    measure = lambda: accuracy(model, tokenizer, asked)  # noqa: E731
    steps, seconds = train(model, loss, measure, Schedule(most, most, check_every=400), build.work / "sums.pt")
    publish(model, tokenizer, build.out / "sums")
    build.log("sums", seconds=round(seconds), steps=steps, parameters=sum(p.numel() for p in model.parameters()))


def make_tales(build: Build) -> None:
    """The model of the tales, which reads tales that it has not read before until the steps are over."""
    from raft_text.world import tales_model as tales
    from raft_text.world.training import Schedule, train

    tokenizer = tales.build_tales_tokenizer()
    model = tales.build_tales_model(tokenizer, build.seed)
    checked = tales.some_tales("check", CHECKED, build.seed)
    most = min(build.steps, tales.STEPS)

    def loss(step):
        tokens, mask, labels = tales.batch_of(tales.lesson(build.seed, step, most), tokenizer)
        return model(input_ids=tokens, attention_mask=mask, labels=labels).loss

    measure = lambda: tales.foreseen(model, tokenizer, checked)[0]  # noqa: E731
    steps, seconds = train(model, loss, measure, Schedule(most, most, check_every=100), build.work / "tales.pt")
    publish(model, tokenizer, build.out / "tales")
    build.log("tales", seconds=round(seconds), steps=steps, parameters=sum(p.numel() for p in model.parameters()))


def make_tales_card(build: Build) -> None:
    """Measures the model of the tales and writes its card."""
    from raft_text.world.tales_cards import measure_tales, write_tales_card

    figures = json.loads((build.work / "figures.json").read_text())["tales"]
    folder = build.out / "tales"
    write_tales_card(folder, figures, measure_tales(folder), build.seed, f"one of {os.cpu_count()} CPU cores, no GPU")


def publish(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a transformers folder with half-precision weights."""
    import copy

    from raft_text.model.loading import quiet

    with quiet():
        copy.deepcopy(model).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_cards(build: Build) -> None:
    """Measures the models and writes their cards."""
    from raft_text.world.cards import measure_sums, write_sums_card

    reached = measure_sums(build.out / "sums")
    (build.work / "gates.json").write_text(json.dumps(reached, indent=2) + "\n")
    figures = json.loads((build.work / "figures.json").read_text())
    write_sums_card(build.out / "sums", figures["sums"], reached, build.seed, f"one of {os.cpu_count()} CPU cores, no GPU")


STAGES: dict[str, Callable[[Build], None]] = {
    "prompts": make_prompts,
    "sums": make_sums,
    "tales": make_tales,
    "tales_card": make_tales_card,
    "cards": make_cards,
}


def main() -> None:
    """Runs one stage or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BUNDLED, help="folder of the parts (default: the package's own)")
    parser.add_argument("--work", type=Path, default=Path("runs/text-world"), help="checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=MOST, help="updates at most (default: each model's own)")
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="all")
    options = parser.parse_args()
    build = Build(options.out, options.work, options.seed, options.steps)
    for name in STAGES if options.stage == "all" else [options.stage]:
        started = time.perf_counter()
        STAGES[name](build)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
