"""Results of MMLU by subject, by category and overall."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "stem": (
        "abstract_algebra", "astronomy", "college_biology", "college_chemistry", "college_computer_science",
        "college_mathematics", "college_physics", "computer_security", "conceptual_physics", "electrical_engineering",
        "elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
        "high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning",
    ),
    "humanities": (
        "formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history",
        "international_law", "jurisprudence", "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy",
        "prehistory", "professional_law", "world_religions",
    ),
    "social_sciences": (
        "econometrics", "high_school_geography", "high_school_government_and_politics", "high_school_macroeconomics",
        "high_school_microeconomics", "high_school_psychology", "human_sexuality", "professional_psychology",
        "public_relations", "security_studies", "sociology", "us_foreign_policy",
    ),
    "other": (
        "anatomy", "business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging",
        "management", "marketing", "medical_genetics", "miscellaneous", "nutrition", "professional_accounting",
        "professional_medicine", "virology",
    ),
}  # fmt: skip
"""The 57 subjects by category, as in hendrycks/test, categories.py."""

UNKNOWN = "uncategorised"
CATEGORY_OF = {subject: category for category, subjects in CATEGORIES.items() for subject in subjects}


@dataclass(frozen=True)
class Tally:
    """Questions asked, and answered right."""

    num_right: int = 0
    num_questions: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.num_right + other.num_right, self.num_questions + other.num_questions)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.num_right / self.num_questions if self.num_questions else 0.0


@dataclass(frozen=True)
class MMLUReport:
    """Tallies by subject; categories and the whole are micro-averages: every question counts the same.

    Args:
        subjects: Tally of each subject.
        num_dropped: Number of questions of each subject that did not fit into the window and were not asked.

    Example:
        >>> report = MMLUReport({"astronomy": Tally(3, 4), "virology": Tally(0, 2)}, {"virology": 1})
        >>> report.overall.accuracy, report.categories()["stem"].accuracy
        (0.5, 0.75)
        >>> print(report)
        subject                                   right   of  accuracy
        astronomy                                     3    4    0.7500
        virology                                      0    2    0.0000  (1 too long)
        stem                                          3    4    0.7500
        other                                         0    2    0.0000
        all                                           3    6    0.5000
    """

    subjects: Mapping[str, Tally]
    num_dropped: Mapping[str, int]

    @classmethod
    def of(cls, answers: Iterable[tuple[str, bool]], num_dropped: Mapping[str, int]) -> MMLUReport:
        """Count answers, each a subject and whether it is right."""
        tallies: dict[str, Tally] = {}
        for subject, is_right in answers:
            tallies[subject] = tallies.get(subject, Tally()) + Tally(int(is_right), 1)
        return cls(dict(sorted(tallies.items())), {name: number for name, number in num_dropped.items() if number})

    @property
    def overall(self) -> Tally:
        """All questions."""
        return sum(self.subjects.values(), Tally())

    def categories(self) -> dict[str, Tally]:
        """Tallies of the categories that there are questions of."""
        found: dict[str, Tally] = {}
        for category in (*CATEGORIES, UNKNOWN):
            members = [tally for name, tally in self.subjects.items() if CATEGORY_OF.get(name, UNKNOWN) == category]
            if members:
                found[category] = sum(members, Tally())
        return found

    def to_dict(self) -> dict[str, object]:
        """Return what the json file holds."""

        def plain(tally: Tally) -> dict[str, float]:
            return {"right": tally.num_right, "questions": tally.num_questions, "accuracy": tally.accuracy}

        return {
            "overall": plain(self.overall),
            "categories": {name: plain(tally) for name, tally in self.categories().items()},
            "subjects": {name: plain(tally) for name, tally in self.subjects.items()},
            "questions_left_out_as_too_long": dict(self.num_dropped),
        }

    def __str__(self) -> str:
        lines = [f"{'subject':<40}{'right':>7}{'of':>5}{'accuracy':>10}"]
        for name, tally in {**self.subjects, **self.categories(), "all": self.overall}.items():
            dropped = f"  ({self.num_dropped[name]} too long)" if name in self.num_dropped else ""
            lines.append(f"{name:<40}{tally.num_right:>7}{tally.num_questions:>5}{tally.accuracy:>10.4f}{dropped}")
        return "\n".join(lines)
