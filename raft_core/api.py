"""The front door from Python: align, compare, generate and score, in a script or a notebook.

    import raft_core as raft

    run = raft.align("bundled:shapes", reward="Aesthetic", prompts=["a large red heart"], rounds=3, k=8)
    run.before_after()

Everything that a YAML file can say can be said as a keyword argument, and is checked by the same code with the same messages.
A model, a reward or a judge may also be an object of yours, and a reward a function ``(prompts, outputs) -> floats``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raft_core.errors import ConfigError
from raft_core.protocols import Policy, Reward

if TYPE_CHECKING:
    import pandas as pd

    from raft_core.evaluation.evaluate import Evaluation
    from raft_core.reporter import Reporter
    from raft_core.result import Comparison, Outputs, Run

RewardLike = str | Mapping[str, Any] | Reward | Callable[[list[str], list], Sequence[float]]
Prompts = str | Path | Sequence[str]


def align(
    model: str | Path | Policy | None = None,
    *,
    reward: RewardLike | None = None,
    prompts: Prompts | None = None,
    held_out: Prompts | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Align a model with a reward, and return the finished run.

    Args:
        model: a Hub id, a folder, a file, ``bundled:NAME``, or a policy of your own.
        reward: what selects: a name (``raft list rewards``), a mapping with class_path and init_args, an object, or a function
            ``(prompts, outputs) -> floats``.
        prompts: texts, all of which are trained on, or a file, ``bundled:…`` or ``hub:…`` of which a part is held out.
        held_out: prompts that are only evaluated on, given in the same ways.
        config: a recipe (``shapes/resolution``), a YAML file, or its mapping, to which the other arguments are added.
        progress: show bars and lines; in a notebook, too.
        settings: every other field of a configuration: ``rounds=3``, ``k=8``, ``trainer={"steps": 40}``, ``judges=[…]``,
            ``policy={"sampling": {"steps": 12}}`` …

    Raises:
        ConfigError: with every mistake that there is, before a weight is loaded.
        RaftError: whatever else a user can mend.
    """
    from raft_core.config.run_config import check
    from raft_core.result import Run
    from raft_core.workflows.align import align_run, output_folder

    raw, base, name = _read(config)
    raw = _with_model(raw, model, settings.pop("policy", None))
    if reward is not None:
        raw["reward"] = reward
    raw = _with_prompts(raw, prompts, held_out, settings.pop("prompts_settings", None)) | settings
    raw = _with_defaults(raw)
    checked = check(raw, base=base, name=name, begins=True)
    folder = output_folder(checked)
    return Run(align_run(checked, _reporter(progress), folder=folder), policy=checked.config.policy)


def compare(
    target: str | Path | Run,
    prompts: Prompts,
    *,
    k: int = 4,
    seed: int = 0,
    strength: float = 1.0,
    checkpoint: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> Comparison:
    """Compare a trained model with its start on prompts of yours: same prompts, same seeds, same noise on both sides.

    Args:
        target: a run, its folder, or a file or folder of trained weights.
        prompts: texts, a file, ``bundled:…`` or ``hub:…``.
        k: samples per prompt and side.
        seed: fixes the samples.
        strength: how strongly the training acts: 0 = the start, 1 = as trained.
        checkpoint: of a run: ``best``, ``last`` or a round; by default what it has exported.
        settings: fields of the configuration that change, such as ``reward="ClipScore"``.
    """
    from raft_core.evaluation.evaluate import evaluate
    from raft_core.result import Comparison

    source = _source(target, settings, models=False)
    policy, scorer = source.build(rewards=True)
    assert scorer is not None  # asked for
    read = _prompts(prompts)
    source.load(policy, checkpoint)
    scorer.load()
    scorer.attach(policy)
    reporter = _reporter(progress)
    found: Evaluation = evaluate(policy, read, scorer, k=k, seed=seed, split="prompts", strength=strength, reporter=reporter)
    return Comparison((found,))


def generate(
    target: str | Path | Run | Policy,
    prompts: Prompts,
    *,
    k: int = 1,
    seed: int = 0,
    strength: float = 1.0,
    checkpoint: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> Outputs:
    """Generate from a run, from trained weights, or from a model as it is.

    Args:
        target: a run, its folder, weights, a model, or a policy that is loaded.
        prompts: texts, a file, ``bundled:…`` or ``hub:…``.
        k: samples per prompt.
        seed: fixes the samples.
        strength: how strongly the training acts: 0 = the start, 1 = as trained.
        settings: fields of the configuration that change, such as ``policy={"sampling": {"steps": 50}}``.
    """
    from raft_core.result import Outputs, Run
    from raft_core.workflows.generate import generate as draw

    read = _prompts(prompts)
    if isinstance(target, Run) and target.loaded is not None and checkpoint is None and not settings:
        policy = target.policy
    elif isinstance(target, Policy):
        policy = target
    else:
        source = _source(target, settings, models=True)
        policy, _ = source.build(rewards=False)
        source.load(policy, checkpoint)
    return Outputs(draw(policy, read, k=k, seed=seed, strength=strength, reporter=_reporter(progress)))


def score(reward: RewardLike, outputs: Sequence[Any], prompts: str | Sequence[str] = "") -> pd.DataFrame:
    """Score pictures or texts of yours.

    Args:
        reward: as in ``align``.
        outputs: PIL pictures or texts.
        prompts: of each output, or one for all; "" where the reward needs none.

    Returns:
        A data frame with a row per output: prompt, the reward and its parts; NaN = not scored.

    Raises:
        ConfigError: the reward cannot be built, or prompts and outputs are not of one number.
        RewardError: nothing could be scored.
    """
    import pandas as pd

    from raft_core.config.components import build
    from raft_core.rewards.scoring import Scorer
    from raft_core.rollout import require_scored
    from raft_core.types import Prompt, Request, Sample

    texts = [prompts] * len(outputs) if isinstance(prompts, str) else list(prompts)
    if len(texts) != len(outputs):
        raise ConfigError(f"there are {len(texts)} prompts for {len(outputs)} outputs: give one of each, or one prompt for all")
    scorer = Scorer(build("reward", reward))
    scorer.load()
    samples = [Sample(Request(Prompt(text), 0, i), output) for i, (text, output) in enumerate(zip(texts, outputs, strict=True))]
    scores = scorer(samples)
    require_scored(scores, "scoring")
    return pd.DataFrame({"prompt": texts, **scores.columns})


# ---------------------------------------------------------------------- arguments → configuration


def _read(config: str | Path | Mapping[str, Any] | None) -> tuple[dict[str, Any], Path | None, str]:
    """(the raw configuration, folder of its file, name)."""
    from raft_core.config.recipes import find_config
    from raft_core.config.run_config import read_yaml

    if config is None or isinstance(config, Mapping):
        return dict(config or {}), None, "run"
    path = find_config(str(config))
    return read_yaml(path), path.parent, path.stem


def _with_model(raw: dict[str, Any], model: Any, policy: Any) -> dict[str, Any]:
    """The configuration with this model, and with arguments for its policy."""
    from raft_core.workflows.trained import usual_policy

    result = dict(raw)
    if isinstance(policy, str) or (isinstance(policy, Mapping) and "class_path" in policy) or isinstance(policy, Policy):
        result["policy"], policy = policy, None
    if isinstance(model, Policy):
        result["policy"], model = model, None
    if model is not None:
        given = result.get("policy")
        known: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"class_path": given or usual_policy(str(model))}
        result["policy"] = {**known, "init_args": {**known.get("init_args", {}), "model": str(model)}}
    if policy:
        known = {"class_path": usual_policy(""), **(result.get("policy") or {})}
        result["policy"] = {**known, "init_args": _merged(known.get("init_args", {}), policy)}
    return result


def _with_prompts(raw: dict[str, Any], prompts: Any, held_out: Any, more: Any) -> dict[str, Any]:
    """The configuration with these prompts; a list is trained on whole."""
    result = dict(raw)
    if isinstance(prompts, Mapping):
        result["prompts"], prompts = dict(prompts), None
    given = {name: _texts(value) for name, value in (("train", prompts), ("held_out", held_out)) if value is not None}
    if isinstance(given.get("train"), list) and held_out is None:
        given |= {"held_out_fraction": 0.0, "held_out": None}
    if given or more:
        result["prompts"] = {**(result.get("prompts") or {}), **given, **(more or {})}
    return result


def _texts(prompts: Any) -> Any:
    return str(prompts) if isinstance(prompts, (str, Path)) else list(prompts)


def _with_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """What a bundled model brings with it where nothing is said: settings, and the weights that rewards take by name."""
    from raft_core.bundled import model_defaults

    policy = raw.get("policy")
    arguments = policy.get("init_args") or {} if isinstance(policy, Mapping) else {}
    defaults = model_defaults(str(arguments.get("model", "")))
    if not defaults or not isinstance(policy, Mapping):
        return raw
    result = {**raw, "policy": {**policy, "init_args": _merged(defaults.get("policy", {}), arguments)}}
    for name, value in defaults.get("settings", {}).items():
        result.setdefault(name, value)
    weights = defaults.get("rewards", {})
    if "reward" in result:
        result["reward"] = _reward_with_weights(result["reward"], weights)
    if isinstance(result.get("judges"), Sequence) and not isinstance(result["judges"], str):
        result["judges"] = [_reward_with_weights(judge, weights) for judge in result["judges"]]
    return result


def _reward_with_weights(reward: Any, weights: Mapping[str, Any]) -> Any:
    """A reward that is given by its name alone, with the weights that this model's world has for it."""
    name = reward.get("class_path") if isinstance(reward, Mapping) else reward
    if not isinstance(name, str) or name not in weights:
        return reward
    given = reward.get("init_args") or {} if isinstance(reward, Mapping) else {}
    return {"class_path": name, "init_args": {**weights[name], **given}}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings in one; ``above`` wins."""
    result = dict(below)
    for name, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = _merged(result[name], value) if both else value
    return result


def _prompts(prompts: Prompts) -> list[Any]:
    from raft_core.prompts import distinct, read_prompts
    from raft_core.types import Prompt

    read = read_prompts(str(prompts)) if isinstance(prompts, (str, Path)) else [Prompt(text) for text in prompts]
    return distinct(read)[0]


def _source(target: Any, settings: Mapping[str, Any], *, models: bool) -> Any:
    """The run, the weights or the model, with the settings put in."""
    from dataclasses import replace

    from raft_core.result import Run
    from raft_core.workflows.trained import open_source

    source = open_source(str(target.folder if isinstance(target, Run) else target), [], models=models)
    raw = dict(source.raw)
    policy = settings.get("policy")
    raw = _with_model(raw, None, policy) | {name: value for name, value in settings.items() if name != "policy"}
    return replace(source, raw=_with_defaults(raw))


def _reporter(progress: bool) -> Reporter:
    if not progress:
        from raft_core.reporter import Silent

        return Silent()
    from raft_core.terminal.progress import reporter

    return reporter()
