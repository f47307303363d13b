"""Licences of clips, which publishers write as links, names or abbreviations, by one name each.

What is not read with certainty is `other`: a gate that lets in what it does not understand is none.
"""

from curation.catalog.store import sql_text
from curation.errors import UsageProblem

# `other` is a text that is none of these, `unknown` no text at all: YouTube's clips have none.
NAMES = (
    "cc0", "public-domain", "cc-by", "cc-by-sa", "cc-by-nd", "cc-by-nc", "cc-by-nc-sa", "cc-by-nc-nd",
    "sampling+", "other", "unknown",
)  # fmt: skip
# Words are joined by `-` first, so that blanks, underscores, slashes and any dash are alike; then each
# pattern must fit the whole text. A version or a country may follow.
_COUNTRY = "us|uk|ca|au|nz|de|at|ch|fr|be|nl|it|es|pt|br|pl|se|dk|fi|jp"  # nc, nd, sa are terms
_END = rf"(-[0-9]+)*(-({_COUNTRY}|intl|international|unported|generic|deed|en|legalcode|licen[cs]e))*"
_LINK = r"https?-(www-)?creativecommons-org-"
_WORDS = r"(the-)?(creative-commons|cc)-?"
_NO_DERIVATIVES = r"-no-?deriv(ative)?s?(-works)?"
_TERMS = (  # in our name, in an abbreviation, in words
    ("", "", ""),
    ("-nc", "-?nc", "-non-?commercial"),
    ("-sa", "-?sa", "-share-?alike"),
    ("-nd", "-?nd", _NO_DERIVATIVES),
    ("-nc-sa", "-?nc-?sa", "-non-?commercial-share-?alike"),
    ("-nc-nd", "-?nc-?nd", f"-non-?commercial{_NO_DERIVATIVES}"),
)


def _patterns() -> list[tuple[str, str]]:
    """Name and pattern of every licence that is known."""
    found = [
        ("cc0", rf"({_LINK}publicdomain-zero|{_WORDS}(0|zero)|cc0){_END}"),
        ("public-domain", rf"({_LINK}publicdomain-mark|public-?domain(-mark)?){_END}"),
        ("sampling+", rf"({_LINK}licenses-sampling\+|({_WORDS})?sampling(\+|-plus)){_END}"),
    ]
    for suffix, short, long in _TERMS:
        forms = rf"{_LINK}licenses-by{short}|{_WORDS}by{short}|({_WORDS})?attribution{long}"
        found.append((f"cc-by{suffix}", rf"({forms}){_END}"))
    return found


def licence_name(column: str) -> str:
    """SQL for the name of the licence in a column, one of NAMES."""
    text = f"trim(regexp_replace(lower({column}), '[^a-z0-9+]+', '-', 'g'), '-')"
    cases = " ".join(
        f"when regexp_full_match({text}, {sql_text(pattern)}) then '{name}'"
        for name, pattern in _patterns()
    )
    return f"case when coalesce(trim({column}), '') = '' then 'unknown' {cases} else 'other' end"


def known_licences(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, checked and in the order of NAMES.

    Raises:
        UsageProblem: one is none of NAMES.
    """
    for name in names:
        if name not in NAMES:
            raise UsageProblem(f"--licence {name!r}, expected some of: {', '.join(NAMES)}")
    return tuple(name for name in NAMES if name in names)
