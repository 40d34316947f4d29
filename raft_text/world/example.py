"""Makes a bundled example of text, a finished run that the demo can show at once: `python -m raft_text.world.example RECIPE`.

Without `--run` the recipe is aligned first. Of the run what a comparison needs is kept: its configuration, its figures and the
LoRA, in half precision. `raft compare bundled:examples/NAME --prompts FILE` takes it like any other run.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from raft_core.workflows.example import align, keep

EXAMPLES = Path(__file__).parents[1] / "bundled" / "examples"
README = """---
license: apache-2.0
library_name: peft
base_model: {model}
tags: [text-generation, lora, raft]
---

# A bundled model after an alignment

What `raft align {recipe}` leaves (seed {{seed}}, {{rounds}} rounds), without its samples: the configuration, the figures of
every round, the comparison before and after (`evaluation/evaluation.json`), and the LoRA, in half precision. It was made by

    python -m raft_text.world.example {recipe}

and is there so that something can be compared before anything has been aligned: `raft demo`, or
`raft compare bundled:examples/{{name}} --prompts {prompts}`.
"""


def write_example(run: Path, target: Path, recipe: str) -> None:
    """Keep of a finished run what a comparison needs; an example that is there already is replaced.

    Raises:
        StoreError: there is no run, or the target cannot be written to.
    """
    from safetensors.torch import load_file, save_file

    from raft_core.store.manifest import read_config
    from raft_text.export.files import NOTE
    from raft_text.model.adapter import ADAPTER_CONFIG, ADAPTER_FILE

    config = read_config(run)
    told = README.format(recipe=recipe, model=config["policy"]["init_args"]["model"], prompts=config["prompts"]["held_out"])
    keep(run, target, [f"export/{name}" for name in (ADAPTER_FILE, ADAPTER_CONFIG, NOTE)], told)
    for name in (ADAPTER_CONFIG, NOTE):
        shutil.copyfile(run / "export" / name, target / "export" / name)
    weights = {name: value.half() for name, value in load_file(run / "export" / ADAPTER_FILE).items()}
    save_file(weights, target / "export" / ADAPTER_FILE, metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", help="text/sums_raft, say")
    parser.add_argument("--run", type=Path, help="a finished run of the recipe; by default it is aligned now")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or align(args.recipe, Path(folder) / "run")
        write_example(run, EXAMPLES / Path(args.recipe).name, args.recipe)


if __name__ == "__main__":
    main()
