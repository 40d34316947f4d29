"""Pages and drawings as text: HTML and SVG, from the templates beside this file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raft_core.format import duration, size
from raft_core.machine.files import write_text
from raft_core.report.facts import label
from raft_core.report.plots import Chart

if TYPE_CHECKING:
    from jinja2 import Environment

COLOURS = ("#0f8b6f", "#d1603d", "#3d6fd1", "#8a4fbf", "#b58a00", "#c2407f", "#5b6770", "#2b9db5")
GUIDE = 99  # number of the colour of a line that is only there to compare with


def render_page(page: Any) -> str:
    """A report's page as one self-contained HTML file."""
    # The page's own script, and by its digest no other: what stands in a run folder could not run even if it were not escaped.
    script = _templates().get_template("report.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _templates().get_template("report.html.j2").render(page=page, script_digest=f"sha256-{digest}")


def render_chart(drawn: Chart) -> str:
    """A chart alone, as an HTML figure with an SVG; its colours are what the page around it sets (``.chart`` in report.css)."""
    return str(_templates().get_template("parts.html.j2").module.chart_svg(drawn))  # type: ignore[attr-defined] - a macro


def render_plot(panels: Sequence[Chart]) -> str:
    """Charts side by side as an SVG file of its own, with titles, axes and legends."""
    rows = max(len(panel.legend) + bool(panel.note) for panel in panels)
    return _templates().get_template("plot.svg.j2").render(panels=panels, rows=rows, colours=COLOURS, guide=GUIDE)


def write_plot(panels: Sequence[Chart], path: Path) -> Path:
    """Write charts side by side as SVG, whole or not at all; returns the path.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    write_text(path, render_plot(panels))
    return path


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("raft_core.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "size": size, "label": label}
    return environment
