"""How the app looks: one theme and the few rules that it cannot say. Fonts are the system's, so nothing is fetched."""

from __future__ import annotations

import gradio as gr

SANS = ["ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
#: Gradio's own are too pale to be read with ease: at least 4.5 : 1 (WCAG 2, AA).
READABLE = {
    "body_text_color_subdued": "*neutral_600",
    "input_placeholder_color": "*neutral_500",
    "input_placeholder_color_dark": "*neutral_400",
    "color_accent": "*primary_600",
    "checkbox_label_background_fill_selected": "*primary_600",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_hover_dark": "*primary_700",
    "button_secondary_background_fill_hover_dark": "*primary_700",
}
KINDS = ("title", "label")  # of labels: above an input, and in the corner of an output

CSS = """
.dark { --color-accent: var(--primary-400); }
.gradio-container { width: 100%; max-width: 1240px !important; margin: 0 auto !important; }
.raft-head h1 { font-size: 1.35rem; margin: 0; }
.raft-head p { margin: .15rem 0 0; color: var(--body-text-color-subdued); }
.raft-empty { padding: 2.5rem 1rem; text-align: center; color: var(--body-text-color-subdued);
  border: 1px dashed var(--border-color-primary); border-radius: var(--radius-lg); }
.raft-empty b { color: var(--body-text-color); }
.raft-table { width: 100%; border-collapse: collapse; font-size: .92rem; }
.raft-table, .raft-table tr { border: 0 !important; }
.raft-table th, .raft-table td { padding: .35rem .6rem !important; text-align: right; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important; }
.raft-table tbody tr:last-child > * { border-bottom: 0 !important; }
.raft-table th:first-child, .raft-table td:first-child { text-align: left; }
.raft-scroll { overflow-x: auto; }
.raft-better { color: #15803d; } .raft-worse { color: #b91c1c; }
.dark .raft-better { color: #4ade80; } .dark .raft-worse { color: #f87171; }
.raft-muted { color: var(--body-text-color-subdued); }
footer { display: none !important; }
@media (max-width: 640px) {
  .gradio-container > .main { padding: .4rem !important; }
  .raft-table { font-size: .82rem; }
}
"""


def theme() -> gr.themes.Base:
    """Calm and plain: one accent, generous radius, readable sizes."""
    base = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", radius_size="md", font=SANS, font_mono=MONO)
    plain = {"background_fill": "none", "text_color": "*body_text_color"}  # labels are many, and none is what a page is about
    both = {f"block_{kind}_{name}{mode}": value for kind in KINDS for mode in ("", "_dark") for name, value in plain.items()}
    page = base.background_fill_primary  # which set would put back to white
    return base.set(**both, **READABLE, block_title_padding="0", background_fill_primary=page)


def empty(headline: str, hint: str) -> str:
    """HTML of an empty state: what is missing and what to do about it. Both texts are the app's own, never a visitor's."""
    return f"<div class='raft-empty'><b>{headline}</b><br>{hint}</div>"
