"""A vLLM server as the generator: each round's adapters are written where it can read them, and it is told of them.

It speaks vLLM's HTTP API: completions of token ids that give token ids back, and adapters that are loaded while it runs. As
with vLLM in this process, what it draws follows from the samples' seeds as far as its kernels do.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import DeviceError
from raft_core.machine.files import remove
from raft_core.rewards.service.http import Client, Connection, Question, Trouble
from raft_text.options import VllmServer
from raft_text.process.sampler import Drawn, Task

AT_ONCE = 64  # completions that are asked for together; the server batches them as it likes
NOT_FINITE = -9999.0  # what the server says in place of a log-prob of −∞


class ServedVllm:
    """A server and the adapters that it was last given.

    Args:
        server: where it is.
        save: writes the present adapters into a folder, as peft reads them.
    """

    def __init__(self, server: VllmServer, save: Callable[[Path], Any]):
        self._url = server.vllm.rstrip("/").removesuffix("/v1")
        self._save = save
        connection = Connection(timeout_s=server.timeout_s, key_variable=server.key_variable)
        self._client = Client(connection, parallel=AT_ONCE, secure=self._url.startswith("https"))
        if server.folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="raft-lora-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        else:
            self._folder = Path(server.folder).expanduser().resolve()
        self._base: str | None = None
        self._known: list[str] = []  # adapters that the server holds, the newest last

    def require_reachable(self) -> None:
        """That a server is there, and which model it serves.

        Raises:
            DeviceError: it is not, or serves none.
        """
        self._base = self._asked(Question(f"{self._url}/v1/models", read=_base_model))

    def draw(self, task: Task, version: str | None) -> list[Drawn]:
        """A completion per prompt and seed, without log-probs.

        Args:
            version: names the present adapters; new ones are handed over when it changes. None = without adapters.

        Raises:
            DeviceError: the server does not answer, or refuses what it is asked.
        """
        if self._base is None:
            self.require_reachable()
        model = self._base if version is None else self._given(version)
        settings = {"model": model, **_settings(task)}
        questions = [
            Question(
                f"{self._url}/v1/completions",
                lambda prompt=prompt, seed=seed: _json({**settings, "prompt": list(prompt), "seed": seed % 2**63}),
                _drawn,
            )
            for prompt, seed in zip(task.prompts, task.seeds, strict=True)
        ]
        answers = self._client.ask_all(questions)
        if troubles := [answer for answer in answers if isinstance(answer, Trouble)]:
            raise DeviceError(
                f"{len(troubles)} of {len(answers)} completions could not be had of vLLM: {troubles[0]}; {RESUME}"
            )
        return answers

    def _given(self, version: str) -> str:
        """The name under which the server has these adapters."""
        name = f"raft-{version}"
        if name in self._known:
            return name
        folder = self._folder / name
        self._save(folder)
        loading = {"lora_name": name, "lora_path": str(folder)}
        try:
            self._client.ask(Question(f"{self._url}/v1/load_lora_adapter", lambda: _json(loading), words=True))
        except Trouble as trouble:
            if "already" not in str(trouble):  # another process of this run was first
                raise DeviceError(
                    f"vLLM does not take the LoRA of this round: {trouble}. It needs the environment variable "
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora, a --max-lora-rank of at least the policy's, and "
                    f"to see the folder {folder} (sampling.engine.folder)"
                ) from None
        self._known.append(name)
        self._forget()
        return name

    def _forget(self) -> None:
        """Have the server let go of all but the two newest: other processes may still be drawing with the one before."""
        while len(self._known) > 2:
            name = self._known.pop(0)
            self._client.ask_all(  # it may have forgotten it itself, or have been told by another process
                [Question(f"{self._url}/v1/unload_lora_adapter", lambda name=name: _json({"lora_name": name}), words=True)]
            )
            remove(self._folder / name)

    def _asked(self, question: Question) -> Any:
        try:
            return self._client.ask(question)
        except Trouble as trouble:
            raise DeviceError(f"sampling.engine: {trouble}; {RESUME}") from None


RESUME = "what was made so far is kept, start the server and go on by `raft resume RUN`"


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode()


def _settings(task: Task) -> dict[str, Any]:
    """What all completions of a task are asked for with."""
    s = task.sampling
    return {
        "temperature": s.temperature,
        "top_k": s.top_k or -1,
        "top_p": s.top_p,
        "repetition_penalty": s.repetition_penalty,
        "min_tokens": s.min_new_tokens,
        "max_tokens": s.max_new_tokens,
        "stop": list(s.stop),
        "stop_token_ids": list(task.ends),
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "return_token_ids": True,
        "logprobs": 0,  # of the drawn tokens alone: what is not finite shows there
    }


def _base_model(reply: Any) -> str:
    """The name of the model that the server was started with; adapters name it as their parent."""
    try:
        return next(model["id"] for model in reply["data"] if not model.get("parent"))
    except (KeyError, TypeError, AttributeError, StopIteration):
        raise Trouble("the server does not say which model it serves: is it vLLM?") from None


def _drawn(reply: Any) -> Drawn:
    """The completion of a reply."""
    try:
        (choice,) = reply["choices"]
        tokens = torch.tensor([int(token) for token in choice["token_ids"]], dtype=torch.int64)
        log_probs = [math.nan if p is None else float(p) for p in (choice.get("logprobs") or {}).get("token_logprobs", [])]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Trouble("the server gives no token ids of its completions: it needs vLLM 0.10.2 or newer") from None
    finish = "length" if choice.get("finish_reason") == "length" else "end"
    finish = "stop" if finish == "end" and isinstance(choice.get("stop_reason"), str) else finish
    if not all(math.isfinite(p) and p > NOT_FINITE for p in log_probs):
        finish = "failed"
    return Drawn(tokens, None, None, finish)
