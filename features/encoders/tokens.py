"""Captions as the token ids CLIP was trained on.

The tokenizer is open_clip's: broken text repaired (ftfy), HTML entities resolved twice, white space
joined, lower case, byte pairs. Start is 49406, end 49407; shorter texts are padded with 0, and as CLIP's
text features include those of the padding, the 0 is part of the result. A text that is too long keeps
the first 76 ids and the end.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from features.spec import TEXT_TOKENS

# A token has at most a few dozen characters, so that the 75 that are kept lie in the first three
# thousand. The tokenizer takes quadratic time for a word of a million letters.
_MOST_CHARACTERS = 10_000
_MOST_WORDS = 200_000  # that it remembers


def tokenize(texts: Sequence[str]) -> Tensor:
    """(B, 77) int64. One `str` is one text."""
    tokenizer = _tokenizer()
    if len(tokenizer.cache) > _MOST_WORDS:
        _tokenizer.cache_clear()
        tokenizer = _tokenizer()
    ids: Tensor = tokenizer([texts] if isinstance(texts, str) else list(texts), TEXT_TOKENS)
    return ids


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer  # it imports torchvision and timm: seconds

    tokenizer = SimpleTokenizer(context_length=TEXT_TOKENS)
    clean = tokenizer.clean_fn
    tokenizer.clean_fn = lambda text: clean(text)[:_MOST_CHARACTERS]
    return tokenizer
