"""What evidence does: which rules count, and which side of a pair gives way."""

from dataclasses import dataclass
from enum import StrEnum

from curation.catalog.licence import known_licences
from curation.errors import UsageProblem
from curation.matching.overlap import MATCH_RULES, RULES
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
    "published_list": Reason.PUBLISHED,
    "same_annotation": Reason.SAME_ANNOTATION,
    LICENCE: Reason.LICENCE,
}
# auto: acted on by default. review: somebody should look, acted on only when asked.
_REVIEW = ("published_list", "same_annotation")
TIERS = {rule: "review" if rule in _REVIEW else "auto" for rule in (*RULES, LICENCE)}


DEFAULT_TESTS = ("vggsound", "audiocaps")


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanConfig:
    """Everything that decides what `clean` keeps, apart from the manifests themselves."""

    tests: tuple[str, ...]
    train: tuple[str, ...] | None = None  # None: the train splits of all that is built
    policy: Policy = Policy.PREFER_TEST
    match: str = "id"  # "interval" and "start" weaken the rule of the paper
    margin_s: float = 0.0
    use_published: bool = False
    use_annotations: bool = False
    licences: tuple[str, ...] = ()  # that a kept clip may have; none: any

    def __post_init__(self) -> None:
        known_licences(self.licences)
        if self.match not in MATCH_RULES:
            raise UsageProblem(f"match {self.match!r}, expected one of: {', '.join(MATCH_RULES)}")

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that drop a row, in the order in which they give the reason."""
        asked = {"published_list": self.use_published, "same_annotation": self.use_annotations}
        review = (rule for rule in _REVIEW if asked[rule])
        return (MATCH_RULES[self.match], "known_reupload", *review)
