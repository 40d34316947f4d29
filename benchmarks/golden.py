"""Record the rows of the main job, against which a test holds every later version.

    raft align --output RUN && python -m benchmarks.golden RUN tests/diffusion/golden/resolution.parquet

To the bit they are the same on the machine that recorded them, with the same library versions and number of threads; elsewhere
matrix products add up in another order. The file therefore names its machine.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from raft_core.store.rounds import read_round, rounds_in
from raft_core.store.tensors import hexdigest


def machine() -> dict[str, str]:
    """What the last bits depend on."""
    cpu = next((line for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    return {
        "processor": cpu.partition(":")[2].strip() or cpu,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def rows(run: Path) -> pa.Table:
    """One row per sample: round, prompt, index, seed, latents' and picture's digests, every score, kept."""
    columns: dict[str, list] = {}
    for rnd in rounds_in(run):
        samples, scores, kept = read_round(run, rnd, tensors=True)
        for i, sample in enumerate(samples):
            row = {
                "round": rnd,
                "prompt": sample.prompt.text,
                "index": sample.request.index,
                "seed": sample.seed,
                "latents": hexdigest(sample.tensors.items())[:16],
                "picture": hexdigest([("picture", torch.from_numpy(np.array(sample.output)))])[:16],
                **{f"score.{name}": float(values[i]) for name, values in scores.columns.items()},
                "kept": bool(kept[i]),
            }
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
    return pa.table(columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    table = rows(arguments.run).replace_schema_metadata({"machine": json.dumps(machine())})
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, arguments.file, compression="zstd")
    print(f"{len(table)} rows in {arguments.file}")


if __name__ == "__main__":
    main()
