"""The page Align."""

from __future__ import annotations

import gradio as gr

from demos.backend.studio import Studio
from demos.backend.theme import empty

NAME = "Align"


def build(studio: Studio) -> None:
    """Lay the page out."""
    gr.HTML(empty("Under construction", ""))
