"""The page that the app opens with: the method told in bundled pictures. It waits for nothing and nobody."""

from __future__ import annotations

import gradio as gr

from raft_demo.story import view
from raft_demo.studio import Studio

NAME = "Story"
CSS = view.CSS


def build(studio: Studio) -> None:  # noqa: ARG001 - as every page
    """Lay the page out."""
    gr.HTML(view.page_html(view.read_story()), elem_id="story")
