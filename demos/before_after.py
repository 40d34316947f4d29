"""Align the bundled image model and write a picture of before and after: python demos/before_after.py [--rounds N]"""

import argparse

import raft_core as raft

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--k", type=int, default=16, help="samples per prompt and round")
parser.add_argument("--output", default="before_after.png")
arguments = parser.parse_args()

colours = ("red", "blue", "green", "yellow", "orange")
run = raft.align(
    "bundled:shapes",
    reward="Aesthetic",  # selects; it never sees the caption
    prompts=[f"a large {colour} {shape}" for colour in colours for shape in ("circle", "heart")],
    held_out=[f"a large {colour} square" for colour in colours],
    rounds=arguments.rounds,
    k=arguments.k,
)
run.before_after().save(arguments.output)
print(run.evaluation.table[["prompts", "name", "role", "before", "after", "low", "high"]].to_string(index=False))
print(f"before (left) and after (right): {arguments.output}; the report: {run.report.path}")
