"""vLLM as the generator: the base model stays loaded, and each round's adapters are swapped in.

CUDA only, in the extra ``vllm``. What it draws follows from the samples' seeds as far as vLLM's own kernels do: unlike the
default engine it does not promise the same tokens in every batch.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import DeviceError, MissingDependency
from raft_text.options import Lora
from raft_text.process.sampler import Drawn, Task


class VllmEngine:
    """A vLLM instance and the adapters that it was last given.

    Args:
        model: folder or Hub id of the base model.
        lora: of the policy.
        context: longest text in tokens; None = the model's own.
        save: writes the present adapters into a folder, as peft reads them.

    Raises:
        DeviceError: there is no CUDA device.
        MissingDependency: vLLM is not installed.
    """

    def __init__(self, model: str, lora: Lora, context: int | None, save: Callable[[Path], Any]):
        if not torch.cuda.is_available():
            raise DeviceError("sampling.engine is vllm, which works on CUDA alone, and torch sees no GPU: use transformers")
        try:
            from vllm import LLM  # pyright: ignore[reportMissingImports] - an extra
        except ImportError:
            raise MissingDependency("vllm", "vllm", "sampling.engine vllm") from None
        self._save = save
        self._folder = Path(tempfile.mkdtemp(prefix="raft-lora-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._adapters: tuple[str, Any] | None = None
        self._given = 0
        # Half of the GPU: the trained copy of the model and its optimiser need the rest.
        self._llm = LLM(
            model, enable_lora=True, max_lora_rank=max(8, lora.rank), max_model_len=context, gpu_memory_utilization=0.5
        )

    def draw(self, task: Task, version: str | None) -> list[Drawn]:
        """A completion per prompt and seed, without log-probs.

        Args:
            version: names the present adapters; new ones are handed over when it changes. None = without adapters.
        """
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        s = task.sampling
        settings = [
            SamplingParams(
                seed=seed,
                temperature=s.temperature,
                top_k=s.top_k or -1,
                top_p=s.top_p,
                repetition_penalty=s.repetition_penalty,
                min_tokens=s.min_new_tokens,
                max_tokens=s.max_new_tokens,
                stop=list(s.stop),
                stop_token_ids=list(task.ends),
                include_stop_str_in_output=True,
                logprobs=0,  # of the drawn tokens alone: what is not finite shows in their sum
            )
            for seed in task.seeds
        ]
        prompts = [{"prompt_token_ids": list(prompt)} for prompt in task.prompts]
        outputs = self._llm.generate(prompts, settings, lora_request=self._lora(version), use_tqdm=False)
        return [self._drawn(output.outputs[0]) for output in outputs]

    def _lora(self, version: str | None) -> Any:
        if version is None:
            return None
        if self._adapters is None or self._adapters[0] != version:
            from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

            self._given += 1  # vLLM caches adapters by their number
            folder = self._folder / str(self._given)
            self._save(folder)
            self._adapters = version, LoRARequest(f"round-{self._given}", self._given, str(folder))
        return self._adapters[1]

    @staticmethod
    def _drawn(output: Any) -> Drawn:
        finish = "length" if output.finish_reason == "length" else "stop" if isinstance(output.stop_reason, str) else "end"
        if output.cumulative_logprob is not None and not math.isfinite(output.cumulative_logprob):
            finish = "failed"
        return Drawn(torch.tensor(list(output.token_ids), dtype=torch.int64), None, None, finish)
