"""Tiny Stable Diffusions, written once per test session."""

from __future__ import annotations

import functools

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """kind → folder of a tiny random pipeline: sd1, sd2 or sdxl."""
    root = tmp_path_factory.mktemp("tiny")

    @functools.cache
    def folder(kind="sd1"):
        from raft_diffusion.testing import tiny_pipeline

        return tiny_pipeline(root / kind, kind)

    return folder


@pytest.fixture(scope="session")
def load(tiny):
    """Build and load a policy on a tiny pipeline: 3 steps, DDIM, batches of 4."""

    def loaded(kind="sd1", *, sampling=None, **arguments):
        from raft_diffusion import Sampling, StableDiffusion

        settings = {"scheduler": "ddim", "steps": 3, "batch_size": 4, "guidance_scale": 3.0} | (sampling or {})
        policy = StableDiffusion(str(tiny(kind)), sampling=Sampling(**settings), **arguments)
        assert policy.check() == []
        policy.load()
        return policy

    return loaded


@pytest.fixture(scope="session")
def fresh(load):
    """kind → a loaded policy with fresh adapters that tests share: they must leave its weights alone."""
    return functools.cache(load)
