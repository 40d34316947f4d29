"""Tiny language models, written once per test session."""

from __future__ import annotations

import functools

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """kind → folder of a tiny random model: llama, gpt2 or qwen2; with or without a chat template."""
    root = tmp_path_factory.mktemp("tiny")

    @functools.cache
    def folder(kind="llama", *, chat=False, seed=0, context=128):
        from raft_text.testing import tiny_model

        return tiny_model(root / f"{kind}-{chat}-{seed}-{context}", kind, chat=chat, seed=seed, context=context)

    return folder


@pytest.fixture(scope="session")
def load(tiny):
    """Build and load a policy on a tiny model: 8 new tokens, batches of 4."""

    def loaded(kind="llama", *, sampling=None, chat=False, **arguments):
        from raft_text import CausalLM, Lora, Sampling

        settings = {"max_new_tokens": 8, "batch_size": 4} | (sampling or {})
        arguments = {"lora": Lora(rank=2)} | arguments
        policy = CausalLM(str(tiny(kind, chat=chat)), sampling=Sampling(**settings), **arguments)
        assert policy.check() == []
        policy.load()
        return policy

    return loaded


@pytest.fixture(scope="session")
def fresh(load):
    """kind → a loaded policy with fresh adapters that tests share: they must leave its weights alone."""
    return functools.cache(load)
