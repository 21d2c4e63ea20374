"""The prompts of MMLU: the original's, and the other one that the paper's code holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

LETTERS = ("A", "B", "C", "D")
PromptFormat = Literal["hendrycks", "paper_code"]


class Question(NamedTuple):
    """A question with its four choices and the letter of the right one."""

    text: str
    choices: tuple[str, str, str, str]
    answer: str


class MMLUPrompt(Protocol):
    """A way to write questions."""

    def __call__(self, subject: str, shots: Sequence[Question], question: Question) -> str:
        """Return the text whose next token is the answer."""

    def without_a_shot(self, shots: Sequence[Question]) -> Sequence[Question]:
        """Return the shots that are left when a prompt is too long."""


class HendrycksPrompt:
    """The prompt of the original evaluation, byte for byte.

    Two spaces stand before the subject: the original's `format_subject` leaves one. Too long prompts lose their
    last shot.

    Source: hendrycks/test, evaluate.py.

    >>> two = Question("1 + 1?", ("1", "2", "3", "4"), "B")
    >>> print(HendrycksPrompt()("abstract_algebra", [], two))
    The following are multiple choice questions (with answers) about  abstract algebra.
    <BLANKLINE>
    1 + 1?
    A. 1
    B. 2
    C. 3
    D. 4
    Answer:
    """

    def __call__(self, subject: str, shots: Sequence[Question], question: Question) -> str:
        """Return the prompt."""
        words = "".join(f" {word}" for word in subject.split("_"))
        header = f"The following are multiple choice questions (with answers) about {words}.\n\n"
        return header + "".join(f"{_asked(shot)} {shot.answer}\n\n" for shot in shots) + _asked(question)

    def without_a_shot(self, shots: Sequence[Question]) -> Sequence[Question]:
        """Drop the last."""
        return shots[:-1]


class PaperCodePrompt:
    """The prompt of the helper in the paper's released code.

    No header, `Question: ` before each, no space before the letters of the shots, and an empty line too many
    after them. Too long prompts lose their second shot. Which of the two prompts gave the paper's table is not known.

    Source: AsymmetryLoRA, GPT_experiments/utils.py, `measure_accuracy_fewshot`; there a question is never left out, and
    a text with empty lines inside would lose them one by one.
    """

    def __call__(self, subject: str, shots: Sequence[Question], question: Question) -> str:
        """Return the prompt."""
        given = "".join(f"Question: {_asked(shot)}{shot.answer}\n\n" for shot in shots)
        return (f"{given}\n\n" if given else "") + f"Question: {_asked(question)}"

    def without_a_shot(self, shots: Sequence[Question]) -> Sequence[Question]:
        """Drop the second, and the first when it is the only one."""
        return [*shots[:1], *shots[2:]] if len(shots) > 1 else shots[:0]


PROMPTS: dict[PromptFormat, Callable[[], MMLUPrompt]] = {"hendrycks": HendrycksPrompt, "paper_code": PaperCodePrompt}


def _asked(question: Question) -> str:
    choices = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, question.choices, strict=True))
    return f"{question.text}{choices}\nAnswer:"
