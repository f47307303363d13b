"""Token ids of captions: the golden file, open_clip's and transformers' tokenizers, and odd captions."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from features.encoders import tokens
from features.encoders.tokens import tokenize

START, END = 49406, 49407
CAPTIONS = [
    "A man is speaking while water runs from a tap",
    "Rain; thunder, and (far away) a dog's bark!",
    "it's 3:45, they're here — she'd've gone",
    "CAPITALS and MiXeD",
    "naïve café, Straße, ŒUVRE",
    "犬が吠えている",
    "Собака лает",
    "semi-automatic_weapon #42 @ 100%",
    "a" * 300,
    "many words " * 60,
]
ODD = {
    "emoji": "a 🐕‍🦺 barks 😀😀",
    "control": "a\x01b\x1fc\x7f",
    "NUL": "dog\x00cat",
    "only NUL": "\x00",
    "long": "".join(random.Random(0).choices("abcdefghij klmnop", k=10_000)),
    "long emoji": "😀" * 10_000,
    "Arabic": "كلب ينبح",
    "joined": "\u0065\u0301\u0301\u0301" * 50,
    "newlines": "first\nsecond\r\n\r\nthird\u2028fourth",
    "spaces": " \t\n \u3000",
    "lone surrogate": "dog \ud800 cat",
    "noncharacter": "\uffff\ufffe\U0010ffff",
    "entities": "&amp;amp;lt;b&amp;gt; &#0; &#xD800; &nosuch;",
    "tokens": "<start_of_text> dog <end_of_text> <|endoftext|>",
    "right to left": "\u202edog\u202c",
}


@pytest.mark.shared
def test_ids_are_those_of_the_golden_file(shared_golden: Path) -> None:
    golden = json.loads((shared_golden / "clip_tokens.json").read_text(encoding="utf-8"))
    assert tokenize(golden["texts"]).tolist() == golden["ids"]


def test_open_clip_gives_the_same_ids() -> None:
    import open_clip

    texts = [*CAPTIONS, *ODD.values()]
    assert torch.equal(tokenize(texts), open_clip.tokenize(texts))


def test_transformers_gives_the_same_ids_for_clean_captions() -> None:
    from open_clip.tokenizer import bytes_to_unicode, default_bpe
    from transformers import CLIPTokenizer

    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().split("\n")[1 : 49152 - 256 - 2 + 1]]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    names = [*words, "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(names)}, merges=merges)
    found = tokenize(CAPTIONS)
    for text, ids in zip(CAPTIONS, found.tolist(), strict=True):
        expected = tokenizer(text)["input_ids"]
        if len(expected) > 77:
            expected = [*expected[:76], END]
        assert ids == expected + [0] * (77 - len(expected)), text


@pytest.mark.parametrize("name", ODD)
def test_odd_captions_give_ids(name: str) -> None:
    (ids,) = tokenize([ODD[name]]).tolist()
    assert len(ids) == 77
    assert ids[0] == START
    assert all(0 <= i <= END for i in ids)
    end = 76 if ids[76] else max(place for place in range(77) if ids[place])
    assert ids[end] == END
    assert not any(ids[end + 1 :])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A  Dog\n barks ", "a dog barks"),
        ("cats &amp; dogs", "cats & dogs"),
        ("cats &amp;amp; dogs", "cats & dogs"),
        ("voilÃ\xa0", "voilà"),
        ("", " \n"),
    ],
)
def test_what_is_only_written_otherwise_gives_the_same_ids(one: str, other: str) -> None:
    assert torch.equal(tokenize([one]), tokenize([other]))


def test_ids_are_int64_and_a_text_may_be_given_alone() -> None:
    assert tokenize(["dog", "cat"]).dtype == torch.int64
    assert torch.equal(tokenize("dog"), tokenize(["dog"]))
    assert tokenize([]).shape == (0, 77)


@pytest.mark.parametrize("text", [
    lambda rng: "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=2500)),
    lambda rng: " ".join("".join(rng.choices("abcdefgh", k=rng.randrange(1, 400))) for _ in range(20)),
    lambda rng: "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(2500)),
], ids=["letters", "words", "Chinese"])  # fmt: skip
def test_what_is_cut_off_a_long_text_has_no_part_in_its_ids(
    text: Callable[[random.Random], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    monkeypatch.setattr(tokens, "_MOST_CHARACTERS", 1500)
    long = text(random.Random(0))
    assert torch.equal(tokenize([long]), open_clip.tokenize([long]))


def test_words_that_were_seen_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tokenize(CAPTIONS)
    monkeypatch.setattr(tokens, "_MOST_WORDS", 50)
    for start in range(0, 1000, 100):
        tokenize([f"word{number}" for number in range(start, start + 100)])
    assert torch.equal(tokenize(CAPTIONS), expected)
    assert len(tokens._tokenizer().cache) < 200
