"""What evidence does: which rules count, and which side of a pair gives way."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from curation.catalog.licence import known_licences
from curation.catalog.store import sql_text
from curation.errors import UsageProblem
from curation.matching.near import RULES as NEAR_RULES
from curation.matching.overlap import MATCH_RULES, REVIEW_RULES, RULES
from curation.verdict import Reason

LICENCE = "licence"  # the rule by which a clip goes for itself, whatever it overlaps


class Policy(StrEnum):
    """Which side of an overlapping pair is dropped."""

    PREFER_TEST = "prefer-test"  # the training clip goes: test sets stay comparable with papers
    PREFER_TRAIN = "prefer-train"  # the test item goes: the test set visibly shrinks
    DROP_BOTH = "drop-both"
    REPORT = "report"  # nothing goes; the evidence is written


REASONS = {
    "same_id": Reason.SAME_RECORDING,
    "same_interval": Reason.SAME_RECORDING,
    "same_start": Reason.SAME_RECORDING,
    "known_reupload": Reason.REUPLOAD,
    **dict.fromkeys(NEAR_RULES, Reason.NEAR_DUPLICATE),
    "published_list": Reason.PUBLISHED,
    "same_annotation": Reason.SAME_ANNOTATION,
    LICENCE: Reason.LICENCE,
}
# auto: acted on by default. review: somebody should look, acted on only when asked. A pair by a near
# rule has a tier of its own.
TIERS = {rule: "review" if rule in REVIEW_RULES else "auto" for rule in (*RULES, LICENCE)}
# --match-content: the tiers of near rules that are acted on
CONTENT_TIERS = {"auto": ("auto",), "review": ("auto", "review"), "none": ()}


DEFAULT_TESTS = ("vggsound", "audiocaps")


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanConfig:
    """Everything that decides what `clean` keeps, apart from the manifests themselves."""

    tests: tuple[str, ...]
    train: tuple[str, ...] | None = None  # None: the train splits of all that is built
    policy: Policy = Policy.PREFER_TEST
    match: str = "id"  # "interval" and "start" weaken the rule of the paper
    margin_s: float = 0.0
    match_content: str = "auto"  # of CONTENT_TIERS; says nothing where media were not compared
    dedup: bool = False  # of training clips that are one, keep one
    use_published: bool = False
    use_annotations: bool = False
    licences: tuple[str, ...] = ()  # that a kept clip may have; none: any

    def __post_init__(self) -> None:
        known_licences(self.licences)
        for name, value, known in (
            ("match", self.match, MATCH_RULES), ("match_content", self.match_content, CONTENT_TIERS),
        ):  # fmt: skip
            if value not in known:
                raise UsageProblem(f"{name} {value!r}, expected one of: {', '.join(known)}")

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that drop a row whatever its media, in the order in which they give the reason."""
        asked = {"published_list": self.use_published, "same_annotation": self.use_annotations}
        review = (rule for rule in REVIEW_RULES if asked[rule])
        return (MATCH_RULES[self.match], "known_reupload", *review)


Acting = Mapping[str, str]  # by rule the tiers that drop a row: "auto", "review" or "auto+review"


def acting(config: CleanConfig, *, compared: bool) -> dict[str, str]:
    """The rules that drop a row, with their tiers, as a certificate records them.

    Args:
        compared: whether there are duplicates that were looked for in the media.
    """
    tiers = CONTENT_TIERS[config.match_content] if compared else ()
    return {rule: TIERS[rule] for rule in config.rules} | {
        rule: "+".join(tiers) for rule in NEAR_RULES if tiers
    }


def acts(rules: Acting, rule: str, tier: str) -> bool:
    """Whether evidence of this rule and tier drops a row."""
    return tier in rules.get(rule, "").split("+")


def acts_sql(rules: Acting) -> str:
    """The condition, on columns rule and tier, that evidence drops a row."""
    pairs = [
        f"({sql_text(rule)}, {sql_text(tier)})"
        for rule, tiers in rules.items()
        for tier in tiers.split("+")
    ]
    return f"((rule, tier) in ({', '.join(pairs)}))"
