"""What was trained, for others: merged into the whole model, or put on the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from raft_core.capabilities import Exports, Merges
from raft_core.config.run_config import Override
from raft_core.errors import ConfigError, StoreError
from raft_core.machine.files import SUMS
from raft_core.models.offline import reason
from raft_core.protocols import Policy
from raft_core.reporter import Reporter
from raft_core.store.manifest import read_run
from raft_core.workflows.trained import Source, open_source

PRECISIONS = ("float32", "float16", "bfloat16")
EXPORT = "export"  # folder of a run


def merge(
    target: str,
    path: Path,
    overrides: Sequence[Override],
    reporter: Reporter,
    *,
    checkpoint: str | None = None,
    strength: float = 1.0,
    dtype: str = "float32",
) -> list[Path]:
    """Write the whole model with what was trained in it; returns what was written.

    Args:
        target: a run, or weights that were trained.
        path: where; each modality says of which kind.
        checkpoint: of a run: best, last or a round; None = what it has exported.
        strength: of what was trained.
        dtype: one of ``PRECISIONS``, of the weights in the file.

    Raises:
        ConfigError: a policy that cannot be merged, a place where it cannot be written, a strength below 0.
        ModelError: the weights do not fit, or the layout does not.
        StoreError: a full disk, a folder that cannot be written to.
    """
    if not strength >= 0:
        raise ConfigError(f"--strength is {strength:g}, but must not be negative")
    source = open_source(target, overrides)
    policy, _ = source.build(rewards=False)
    if not isinstance(policy, Merges):
        raise ConfigError(f"{type(policy).__name__} cannot be merged into a whole model: it has no merge()")
    if mistakes := policy.merge_mistakes(path):
        raise ConfigError(mistakes)
    policy = _loadable(target, overrides, policy, dtype)
    reporter.line(f"{source.load(policy, checkpoint)}, merged at strength {strength:g}")
    return policy.merge(path, strength=strength, dtype=dtype)


def _loadable(target: str, overrides: Sequence[Override], policy: Merges, dtype: str) -> Any:
    """The policy again, set up to be merged; what the command line says itself stays."""
    own = {override.path for override in overrides}
    settings = {f"policy.{name}": value for name, value in policy.merge_settings(dtype).items()}
    more = [Override(path, "null" if value is None else str(value)) for path, value in settings.items() if path not in own]
    return open_source(target, [*overrides, *more]).build(rewards=False)[0]


def push(run: Path, repository: str, reporter: Reporter, *, private: bool = False) -> str:
    """Put the export of a run on the Hub, with a card that says how it is loaded from there; returns the address.

    Raises:
        ConfigError: no name of a repository, or a policy without a card.
        StoreError: no finished run is there, or the Hub does not take it.
    """
    from huggingface_hub import HfApi

    check_repository(repository)
    files = exported_files(run)
    source = open_source(str(run), [])
    with tempfile.TemporaryDirectory() as folder:
        card = write_hub_card(source, Path(folder), run, repository)
        size = sum(file.stat().st_size for file in files.values())
        reporter.line(f"uploading {len(files)} files, {size / 1e6:.1f} MB, to {repository}")
        api = HfApi()

        def upload() -> str:
            address = api.create_repo(repository, private=private, exist_ok=True)
            operations = [_addition(name, file) for name, file in {**files, **card}.items()]
            message = f"RAFT: {', '.join(sorted(name for name in files if name.endswith('.safetensors')))}"
            api.create_commit(repository, operations, commit_message=message)
            return str(address)

        return _on_hub(upload, repository)


def check_repository(repository: str) -> None:
    """Compare with the Hub's rules for names.

    Raises:
        ConfigError: it is none, or names no owner.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"--push {repository!r} is no name of a repository: {' '.join(str(error).split())}") from error
    if repository.count("/") != 1:
        raise ConfigError(f"--push {repository!r} names no owner: give OWNER/NAME")


def exported_files(run: Path) -> dict[str, Path]:
    """Name in the repository → file, of all that a run has exported.

    Raises:
        StoreError: no run is there, or it has exported nothing yet.
    """
    status = read_run(run).get("status")
    folder = run / EXPORT
    files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if _is_public(file, folder)}
    if not any(name.endswith(".safetensors") for name in files):
        raise StoreError(f"{run} has exported nothing yet (it is {status}): let it come to its end, raft resume {run}")
    return files


def _is_public(file: Path, folder: Path) -> bool:
    """Whether a file is part of the export, not a killed process's leftover."""
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not hidden and file.name != SUMS


def write_hub_card(source: Source, folder: Path, run: Path, repository: str) -> dict[str, Path]:
    """The card and its pictures as they are to stand on the Hub: name → file.

    Raises:
        ConfigError: a policy that writes no card.
    """
    policy: Policy = source.build(rewards=False)[0]
    if not isinstance(policy, Exports):
        raise ConfigError(f"{type(policy).__name__} writes no model card, and nothing is published without one")
    policy.write_card(run, folder, repository)
    return {file.name: file for file in sorted(folder.iterdir())}


def _addition(name: str, file: Path) -> Any:
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path_in_repo=name, path_or_fileobj=file)


def _on_hub(action: Callable[[], str], repository: str) -> str:
    """What an action on the Hub gives.

    Raises:
        StoreError: why the Hub did not do it, in words.
    """
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        return action()
    except LocalTokenNotFoundError as error:
        raise StoreError(f"{repository} could not be written: you are not logged in on the Hub; run: hf auth login") from error
    except HfHubHTTPError as error:
        status = int(getattr(error.response, "status_code", 0))
        owner = repository.partition("/")[0]
        hint = {401: "log in with: hf auth login", 403: f"your token may not write to {owner}"}.get(status)
        told = " ".join(str(error).split())
        raise StoreError(f"the Hub did not take {repository}: {told}{f'; {hint}' if hint else ''}") from error
    except (OSError, httpx.HTTPError) as error:
        raise StoreError(f"{repository} could not be reached: {reason(error, repository)}") from error
