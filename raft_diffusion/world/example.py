"""Makes the bundled example, a finished run that the demo can show at once: `python -m raft_diffusion.world.example`.

Without `--run` the recipe is aligned first, in about a minute. Of the run what a comparison needs is kept: its configuration,
its figures and the LoRA. `raft compare bundled:examples/resolution --prompts FILE` takes it like any other run.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from raft_core.files import write_json, write_text
from raft_core.manifest import METRICS, RUN, read_config, read_run, write_config

EXAMPLES = Path(__file__).parents[1] / "bundled" / "examples"
RECIPE = "shapes/resolution"
KEPT = (METRICS, "evaluation/evaluation.json")
README = """---
license: apache-2.0
library_name: diffusers
base_model: bundled:shapes
tags: [text-to-image, lora, raft]
---

# The bundled model after an alignment

What `raft align {recipe}` leaves (seed {seed}, {rounds} rounds), without its samples: the configuration, the figures of
every round, the comparison before and after (`evaluation/evaluation.json`), and a LoRA of rank 8 for the bundled Stable
Diffusion of shapes. It was made by

    python -m raft_diffusion.world.example

and is there so that something can be compared before anything has been aligned: `raft demo`, or
`raft compare bundled:examples/{name} --prompts bundled:prompts/resolution_heldout.txt`.
"""


def align(folder: Path) -> Path:
    """The run of the recipe, in this folder."""
    from raft_core import progress
    from raft_core.cli.settings import checked_config
    from raft_core.run import align_run

    return align_run(checked_config(RECIPE, ["--output", str(folder)], begins=True), progress.reporter())


def write_example(run: Path, target: Path) -> None:
    """Keep of a finished run what a comparison needs; an example that is there already is replaced.

    Raises:
        StoreError: there is no run, or the target cannot be written to.
    """
    from raft_diffusion.export import DIFFUSERS_FILE
    from raft_diffusion.weights_file import header, read_tensors, write_tensors

    facts, config = read_run(run), read_config(run)
    rounds = len((run / METRICS).read_text(encoding="utf-8").splitlines())
    if target.exists():
        shutil.rmtree(target)
    for name in KEPT:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, target / name)
    here = {**config, "output": None}  # and not the place where it lay on this machine
    write_config(target, here)
    write_json(target / RUN, {**facts, "config": here, "exported": [f"export/{DIFFUSERS_FILE}"]})
    weights = run / "export" / DIFFUSERS_FILE
    (target / "export").mkdir()
    note = header(weights)["__metadata__"] | {"raft.recipe": RECIPE}
    write_tensors(target / "export" / DIFFUSERS_FILE, read_tensors(weights), note)
    text = README.format(recipe=RECIPE, seed=facts["seed"], rounds=rounds, name=target.name)
    write_text(target / "README.md", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a finished run of the recipe; by default it is aligned now")
    parser.add_argument("--out", type=Path, default=EXAMPLES / Path(RECIPE).name)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_example(args.run or align(Path(folder) / "run"), args.out)


if __name__ == "__main__":
    main()
