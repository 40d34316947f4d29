"""Python lines that complete a prompt as a run has completed it, with transformers (and peft) alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raft_core.models.public_name import is_local, public_name
from raft_text.model.places import BUNDLED
from raft_text.options import PLACE

FOLDER = "path/to"  # in which whoever runs the lines keeps the model that was trained


def snippet(policy: Mapping[str, Any], place: str, prompt: str) -> str:
    """The lines.

    Args:
        policy: what a policy says of itself: model, lora, prompting, sampling.
        place: of what was trained: a folder, or OWNER/NAME on the Hub.
        prompt: to complete.
    """
    lora, base = policy.get("lora"), _base(str(policy.get("model", "unknown")))
    imports = ["from peft import PeftModel"] if lora else []
    imports.append("from transformers import AutoModelForCausalLM, AutoTokenizer")
    if lora and base.startswith("bundled("):
        imports.append("from raft_text.model.places import bundled")
    source = base if lora else repr(place)
    lines = [f"tokenizer = AutoTokenizer.from_pretrained({source})", f"model = AutoModelForCausalLM.from_pretrained({source})"]
    lines += [f"model = PeftModel.from_pretrained(model, {place!r})"] if lora else []
    lines += _inputs(policy.get("prompting") or {}, prompt)
    lines += ["tokens = model.generate(", "    **inputs,", *(f"    {each}," for each in _drawing(policy.get("sampling") or {}))]
    lines += [")[0, inputs['input_ids'].shape[1] :]", "print(tokenizer.decode(tokens, skip_special_tokens=True))"]
    return "\n".join([*sorted(imports), "", *lines])


def _base(model: str) -> str:
    """Python that names the model that adapters belong to."""
    if model.startswith(BUNDLED):
        return f"bundled({model.removeprefix(BUNDLED)!r})"
    return repr(f"{FOLDER}/{public_name(model)}" if is_local(model) else model)


def _inputs(prompting: Mapping[str, Any], prompt: str) -> list[str]:
    text = str(prompting.get("template") or PLACE).replace(PLACE, prompt)
    if not prompting.get("chat"):
        return [f"inputs = tokenizer({text!r}, return_tensors='pt')"]
    system = [{"role": "system", "content": prompting["system"]}] if prompting.get("system") else []
    messages = [*system, {"role": "user", "content": text}]
    return [
        f"messages = {messages!r}",
        "inputs = tokenizer.apply_chat_template(",
        "    messages, add_generation_prompt=True, return_dict=True, return_tensors='pt'",
        ")",
    ]


def _drawing(sampling: Mapping[str, Any]) -> list[str]:
    """Arguments of ``generate`` under which it draws from the same distribution."""
    found = [f"max_new_tokens={sampling['max_new_tokens']}"] if sampling.get("max_new_tokens") else []
    if sampling.get("temperature", 1.0) == 0:
        return [*found, "do_sample=False"]
    found += ["do_sample=True", f"temperature={sampling.get('temperature', 1.0)!r}"]
    found += [f"top_k={sampling.get('top_k') or 0}", f"top_p={sampling.get('top_p', 1.0)!r}"]
    penalty = sampling.get("repetition_penalty", 1.0)
    return [*found, f"repetition_penalty={penalty!r}"] if penalty != 1 else found
