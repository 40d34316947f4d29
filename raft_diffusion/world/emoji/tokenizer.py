"""The emoji world's CLIP tokenizer: one token for every word of its captions, letters for all other text."""

from functools import cache

from raft_diffusion.world.emoji.captions import FORMS, caption
from raft_diffusion.world.emoji.scenes import ATTRIBUTES
from raft_diffusion.world.tokenizer import CONTEXT, END, START, tokenizer_of

__all__ = ["CONTEXT", "END", "START", "build_tokenizer", "token_ids"]

WORDS = (
    "a slightly very clean sharp picture of and two blurry smeared noisy cut eaten ragged melted muddled bled doubled mixed "
    "faded stained glaring empty blank broken messy background nothing "
    "perfect good fair poor bad terrible nice ugly photo image drawing the one against black gray "
    "red orange pink brown dark light"
)


@cache
def build_tokenizer():
    """A CLIPTokenizer that knows every word of this world; the same every time."""
    first = {key: values[-1] for key, values in ATTRIBUTES.items()}
    forms = [form(first) for form in FORMS]
    values = [caption(first | {key: value}) for key, values in ATTRIBUTES.items() for value in values]
    return tokenizer_of([*forms, *values, WORDS])


def token_ids(texts: list[str]):
    """[N, T] int64, padded."""
    found = build_tokenizer()(texts, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt")
    return found.input_ids
