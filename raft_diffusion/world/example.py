"""Makes the bundled example, a finished run that the demo can show at once: `python -m raft_diffusion.world.example`.

Without `--run` the recipe is aligned first, in about a minute. Of the run what a comparison needs is kept: its configuration,
its figures and the LoRA. `raft compare bundled:examples/resolution --prompts FILE` takes it like any other run.
"""

import argparse
import tempfile
from pathlib import Path

from raft_core.workflows.example import align, keep

EXAMPLES = Path(__file__).parents[1] / "bundled" / "examples"
RECIPE = "shapes/resolution"
README = """---
license: apache-2.0
library_name: diffusers
base_model: bundled:shapes
tags: [text-to-image, lora, raft]
---

# The bundled model after an alignment

What `raft align shapes/resolution` leaves (seed {seed}, {rounds} rounds), without its samples: the configuration, the figures
of every round, the comparison before and after (`evaluation/evaluation.json`), and a LoRA of rank 8 for the bundled Stable
Diffusion of shapes. It was made by

    python -m raft_diffusion.world.example

and is there so that something can be compared before anything has been aligned: `raft demo`, or
`raft compare bundled:examples/{name} --prompts bundled:prompts/resolution_heldout.txt`.

Five of the six shapes gain by it; stars, which the model hardly ever draws at 32×32, do not come, before or after.
"""


def write_example(run: Path, target: Path) -> None:
    """Keep of a finished run what a comparison needs; an example that is there already is replaced.

    Raises:
        StoreError: there is no run, or the target cannot be written to.
    """
    from raft_diffusion.export.files import DIFFUSERS_FILE
    from raft_diffusion.model.weights_file import header, read_tensors, write_tensors

    weights = f"export/{DIFFUSERS_FILE}"
    keep(run, target, [weights], README)
    note = header(run / weights)["__metadata__"] | {"raft.recipe": RECIPE}
    write_tensors(target / weights, read_tensors(run / weights), note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a finished run of the recipe; by default it is aligned now")
    parser.add_argument("--out", type=Path, default=EXAMPLES / Path(RECIPE).name)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_example(args.run or align(RECIPE, Path(folder) / "run"), args.out)


if __name__ == "__main__":
    main()
