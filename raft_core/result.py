"""What the front door from Python returns: a finished run, a comparison, outputs; each shows itself in a notebook."""

from __future__ import annotations

import html
import webbrowser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raft_core.errors import ConfigError
from raft_core.media.medium import common_medium
from raft_core.types import Sample

if TYPE_CHECKING:
    import pandas as pd

    from raft_core.evaluation.evaluate import Evaluation
    from raft_core.protocols import Policy

SHOWN_PROMPTS, SHOWN_SAMPLES, SIDE = 8, 4, 128


class Run:
    """A run in its folder.

    Args:
        folder: of the run.
        policy: with the weights that the run has exported, if it is still in memory.

    Attributes:
        folder: of the run.
        loaded: the policy that is in memory, or None.
    """

    def __init__(self, folder: str | Path, policy: Policy | None = None):
        from raft_core.store.manifest import read_run

        self.folder = Path(folder)
        self.loaded = policy
        self._facts = read_run(self.folder)

    @property
    def status(self) -> str:
        """``finished``, ``interrupted``, ``failed`` or ``running``."""
        return str(self._facts.get("status", ""))

    @property
    def reason(self) -> str:
        """Why it ended, in words."""
        return str(self._facts.get("reason", ""))

    @cached_property
    def policy(self) -> Policy:
        """The policy with its trained weights, loaded; draw from it by ``generate``."""
        if self.loaded is None:
            from raft_core.workflows.trained import open_source

            source = open_source(str(self.folder), [])
            policy, _ = source.build(rewards=False)
            source.load(policy)
            self.loaded = policy
        return self.loaded

    def generate(self, prompts: Any, **settings: Any) -> Outputs:
        """Draw from the trained policy; see ``raft_core.generate``."""
        from raft_core.api import generate

        return generate(self, prompts, **settings)

    @property
    def evaluation(self) -> Comparison:
        """Before and after, on the prompts that were trained on and on those that were held out.

        Raises:
            ConfigError: the run was not evaluated.
        """
        from raft_core.evaluation.files import read_results

        results = read_results(self.folder)
        if results is None:
            raise ConfigError(f"{self.folder} has no comparison of before and after yet: finish it by `raft resume`")
        return Comparison(tuple(results.evaluations))

    def before_after(self) -> Any:
        """Before and after from the same noise: a picture of some prompts, or a table of texts. A notebook shows it."""
        return self.evaluation.before_after()

    @property
    def scores(self) -> pd.DataFrame:
        """Every sample of every round: round, prompt, index, seed, every score, kept. NaN = not scored."""
        import pandas as pd
        import pyarrow.parquet as pq

        from raft_core.store.rounds import SAMPLES, round_folder, rounds_in
        from raft_core.store.tables import SCORE

        frames = []
        for rnd in rounds_in(self.folder):
            path = round_folder(self.folder, rnd) / SAMPLES
            names = [name for name in pq.read_schema(path).names if name.startswith(SCORE)]
            columns = ["round", "prompt", "index", "seed", *names, "kept"]
            frames.append(pq.read_table(path, columns=columns).to_pandas())
        table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
        return table.rename(columns={name: name.removeprefix(SCORE) for name in table.columns})

    @property
    def history(self) -> pd.DataFrame:
        """The figures of every round."""
        import pandas as pd

        from raft_core.store.manifest import read_history

        return pd.DataFrame(read_history(self.folder))

    @property
    def export(self) -> list[Path]:
        """The files of the trained weights and the model card."""
        return [self.folder / name for name in self._facts.get("exported", [])]

    @property
    def report(self) -> Report:
        """The report, one file that any browser opens."""
        return Report(self.folder / "report" / "index.html")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {self.status}, {self.reason})"

    def _repr_html_(self) -> str:
        rows = [("run folder", self.folder), ("status", f"{self.status}: {self.reason}"), ("report", self.report.path)]
        cells = "".join(f"<tr><td>{name}</td><td>{html.escape(str(value))}</td></tr>" for name, value in rows)
        return f"<table>{cells}</table>{self.evaluation._repr_html_() if self.status == 'finished' else ''}"


@dataclass(frozen=True)
class Report:
    """A report's file."""

    path: Path

    def open(self) -> None:
        """Open it in the browser."""
        webbrowser.open(self.path.resolve().as_uri())

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        return f'<a href="{html.escape(self.path.resolve().as_uri())}" target="_blank">{html.escape(str(self.path))}</a>'


@dataclass(frozen=True)
class Comparison:
    """Before and after on one or more sets of prompts, with intervals."""

    evaluations: tuple[Evaluation, ...]

    @property
    def table(self) -> pd.DataFrame:
        """A row per reward and judge: before, after, the mean difference with its interval, the win rate."""
        import pandas as pd

        return pd.DataFrame(
            {
                "prompts": each.split,
                "name": c.name,
                "role": c.role,
                "before": c.before,
                "after": c.after,
                "difference": c.difference.value,
                "low": c.difference.low,
                "high": c.difference.high,
                "win_rate": c.win_rate.value,
                "pairs": c.pairs,
            }
            for each in self.evaluations
            for c in each.comparisons
        )

    def before_after(self) -> Any:
        """Samples from the same noise before and after: a picture of some prompts, or a table of texts."""
        shown = self.evaluations[-1]  # prompts that were held out, where there are some
        medium = common_medium([sample.output for sample in (*shown.before, *shown.after)])
        return medium.before_after(shown.before, shown.after, shown.k)

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False, float_format=lambda value: f"{value:.3g}")


class Outputs(Sequence[Any]):
    """Pictures or texts, prompt by prompt; ``samples`` knows the prompt and the seed of each."""

    def __init__(self, samples: Sequence[Sample]):
        self.samples = list(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        found = self.samples[index]
        return [sample.output for sample in found] if isinstance(found, list) else found.output

    def __iter__(self) -> Iterator[Any]:
        return (sample.output for sample in self.samples)

    def _repr_html_(self) -> str:
        return common_medium(list(self)).html(self.samples)
