"""Errors in words on the page, whatever happens behind it."""

from __future__ import annotations

import functools
import html
import inspect
import logging
from collections.abc import Callable
from typing import Any

import gradio as gr

from raft_core.errors import RaftError
from raft_demo.shared.arguments import require_types
from raft_demo.shared.worker import UNEXPECTED

log = logging.getLogger("raft.demo")


def spoken(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A page's handler whose errors are shown as ``gr.Error``: a visitor's mistakes in words, anything else as such, with its
    traceback in the log. What it is given is compared with its annotations first. Works for functions and for generators."""

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def generator(*args: Any, **named: Any) -> Any:
            try:
                require_types(handler, args, named)
                yield from handler(*args, **named)
            except GeneratorExit:
                raise
            except Exception as error:
                raise _shown(error) from error

        return generator

    @functools.wraps(handler)
    def function(*args: Any, **named: Any) -> Any:
        try:
            require_types(handler, args, named)
            return handler(*args, **named)
        except Exception as error:
            raise _shown(error) from error

    return function


def _shown(error: Exception) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, RaftError):
        words = html.escape(str(error), quote=False).replace("\n", "<br>")  # it is shown as HTML, and may quote a visitor
        return gr.Error(words, duration=None, title="This cannot be done", print_exception=False)
    log.error("a page failed", exc_info=error)
    return gr.Error(UNEXPECTED, duration=None, title="Not foreseen", print_exception=False)
