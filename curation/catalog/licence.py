"""Licences of clips, which publishers write as links, names or abbreviations, by one name each."""

from curation.catalog.store import sql_text
from curation.errors import UsageProblem

# `other` is a text that is none of these, `unknown` no text at all: YouTube's clips have none.
NAMES = (
    "cc0", "public-domain", "cc-by", "cc-by-sa", "cc-by-nd", "cc-by-nc", "cc-by-nc-sa", "cc-by-nc-nd",
    "sampling+", "other", "unknown",
)  # fmt: skip
_CC0 = r"\bcc[ -]?0|publicdomain/zero|creative commons (0|zero)"
_BY = r"creativecommons\.org/licenses/by|\bcc[ _-]?by|\battribution"
_NC = r"[ -]nc\b|non-? ?commercial"
_SA = r"[ -]sa\b|share-? ?alike"
_ND = r"[ -]nd\b|no-? ?deriv"


def licence_name(column: str) -> str:
    """SQL for the name of the licence in a column, one of NAMES."""

    def says(pattern: str) -> str:
        return f"regexp_matches(lower({column}), {sql_text(pattern)})"

    return f"""case
        when coalesce(trim({column}), '') = '' then 'unknown'
        when {says(_CC0)} then 'cc0'
        when {says("public ?domain")} then 'public-domain'
        when {says("sampling")} then 'sampling+'
        when {says(_BY)} then 'cc-by' || if({says(_NC)}, '-nc', '')
            || case when {says(_SA)} then '-sa' when {says(_ND)} then '-nd' else '' end
        else 'other' end"""


def known_licences(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, checked and in the order of NAMES.

    Raises:
        UsageProblem: one is none of NAMES.
    """
    for name in names:
        if name not in NAMES:
            raise UsageProblem(f"--licence {name!r}, expected some of: {', '.join(NAMES)}")
    return tuple(name for name in NAMES if name in names)
