"""How near a text is in meaning to another, by any encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from raft_core.errors import ConfigError, ModelError
from raft_core.protocols import RewardInfo
from raft_core.reading.files import Unreadable, read_text
from raft_core.rewards.scoring import told
from raft_core.types import Sample
from raft_text.rewards.models import Dtype, Loaded, Source, by_length, inputs_of, load, read_json
from raft_text.rewards.texts import completions, encodable

if TYPE_CHECKING:
    import torch

Pooling = Literal["mean", "cls"]


class EmbeddingSimilarity:
    """Cosine between the embeddings of the completion and of a text that comes with its prompt.

    Args:
        model: an encoder as a folder in transformers' layout (sentence-transformers' is one), or a name on the Hub. Weights are
            read from safetensors alone.
        to: what the completion is compared with: ``prompt``, or the name of a field of the prompt file (``reference``,
            ``answer``). A prompt without that field is not scored.
        pooling: ``mean`` over the tokens, or the first one (``cls``), as the model was trained.
        prefix: put before both texts, as E5's ``"query: "``.
        name: column in the store and label in the report.
        batch_size: texts per forward pass.
        dtype: ``auto`` = float32, on a GPU bfloat16 where it is native.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; the model sleeps on the CPU.

    Source: Sentence-BERT (1908.10084), mean pooling.
    """

    def __init__(
        self,
        model: str,
        to: str = "reference",
        pooling: Pooling = "mean",
        prefix: str = "",
        *,
        name: str = "embedding_similarity",
        batch_size: int = 64,
        dtype: Dtype = "auto",
        device: str = "auto",
    ):
        mistakes = []
        if not to:
            mistakes.append("to is empty, but must be 'prompt' or the name of a field of the prompt file")
        if pooling not in ("mean", "cls"):
            mistakes.append(f"pooling is {pooling!r}, but must be 'mean' or 'cls'")
        if batch_size < 1:
            mistakes.append(f"batch_size is {batch_size}, but must be at least 1")
        if mistakes:
            raise ConfigError(mistakes)
        self.info = RewardInfo(name=name, scale=f"cosine with the {to}, −1…1", batch_size=16 * batch_size, gpu=device != "cpu")
        self.source = Source(model, "Encoder", dtype, device)
        self.to = to
        self.pooling: Pooling = pooling
        self.prefix = prefix
        self.batch_size = batch_size
        self._loaded: Loaded | None = None

    def check(self) -> list[str]:
        if mistakes := self.source.check():
            return mistakes
        return _pooling_mistakes(self.source.folder, self.pooling) if self.source.folder else []

    def load(self) -> None:
        """Load the encoder, or take the one that another reward has loaded.

        Raises:
            ModelError: it cannot be loaded.
        """
        self._loaded = self._loaded or load(self.source)

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        if self._loaded is not None:
            self._loaded.sleep()

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N] cosines.

        Raises:
            PartlyScored: some prompts lack the field, or some texts have not a single token.
        """
        self.load()
        return told(self._cosines(samples), f"the prompt has no field {self.to!r}, or a text holds not a single token")

    def _cosines(self, samples: Sequence[Sample]) -> np.ndarray:
        targets = [self._target(sample) for sample in samples]
        scores = np.full(len(samples), np.nan)
        chosen = [i for i, target in enumerate(targets) if target is not None]
        if not chosen:
            return scores
        texts = completions([samples[i] for i in chosen])
        wanted = [str(targets[i]) for i in chosen]
        distinct = list(dict.fromkeys([*texts, *wanted]))  # the K samples of a prompt share their target
        row = dict(zip(distinct, self.embed(distinct), strict=True))
        scores[chosen] = [float(row[a] @ row[b]) for a, b in zip(texts, wanted, strict=True)]
        return scores

    def _target(self, sample: Sample) -> str | None:
        if self.to == "prompt":
            return sample.prompt.text
        value = sample.prompt.meta.get(self.to)
        return str(value) if value is not None else None

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[N, D] float64 unit-length embeddings; NaN where there is not a single token."""
        import torch

        self.load()
        loaded = self._loaded
        assert loaded is not None
        with loaded.lock, torch.inference_mode():
            cut = {"truncation": loaded.max_tokens is not None, "max_length": loaded.max_tokens}
            rows = [loaded.tokenizer(self.prefix + encodable(text), **cut) for text in texts]
            readable = [i for i, row in enumerate(rows) if row["input_ids"]]
            model = loaded.wake()
            vectors = np.full((len(texts), model.config.get_text_config().hidden_size), np.nan)
            for batch in by_length([rows[i]["input_ids"] for i in readable], self.batch_size):
                chosen = [readable[i] for i in batch]
                inputs = inputs_of([rows[i] for i in chosen], loaded)
                pooled = pool(model(**inputs).last_hidden_state, inputs["attention_mask"], self.pooling)
                vectors[chosen] = torch.nn.functional.normalize(pooled, dim=1).cpu().double().numpy()
        return vectors


def pool(states: torch.Tensor, mask: torch.Tensor, how: Pooling) -> torch.Tensor:
    """[B, D] float32 from states [B, T, D]: the mean over the tokens that mask [B, T] marks, or the first state."""
    if how == "cls":
        return states[:, 0].float()
    weight = mask[..., None].float()  # [B, T, 1]
    return (states.float() * weight).sum(dim=1) / weight.sum(dim=1)


def _pooling_mistakes(folder: Path, pooling: Pooling) -> list[str]:
    """Whether sentence-transformers' own files ask for what is not done here."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return []
    try:
        text = read_text(modules)
    except (OSError, Unreadable) as error:
        return [f"{modules} cannot be read: {error}"]
    if "models.Dense" in text:
        return [f"{folder} ends in a dense layer (see modules.json), which is not applied here: choose another encoder"]
    file = folder / "1_Pooling" / "config.json"
    try:
        stated = read_json(file) if file.is_file() else {}
    except ModelError as error:
        return [str(error)]
    own = next((how for how, key in (("cls", "cls_token"), ("mean", "mean_tokens")) if stated.get(f"pooling_mode_{key}")), None)
    if stated and own != pooling:
        remedy = f"set pooling to {own!r}" if own else "choose another encoder"
        return [f"pooling is {pooling!r}, but {file} states {own or 'another'}: {remedy}"]
    return []
