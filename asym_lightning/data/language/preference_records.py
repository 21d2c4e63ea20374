"""Records of a question and two answers of which one is preferred, as text in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from asym_lightning.core.messages import shown
from asym_lightning.data.language.prompts import (
    Message,
    Part,
    PromptTemplate,
    Record,
    check_messages,
    conversation,
    open_prompt,
    rendered,
)

SIDES = ("chosen", "rejected")


def preference_parts(record: Record, template: PromptTemplate, tokenizer: PreTrainedTokenizerBase) -> list[list[Part]]:
    """Return the prompt and the answer of both sides of a record, the preferred one first.

    Args:
        record: `chosen` and `rejected`, texts or lists of messages. What they answer is `prompt`, `instruction` and
            `input`, or `messages`; lists of messages may also begin with it, both in the same way.
        template: `chat`, `alpaca`, or `none` for the prompt as it is.
        tokenizer: The tokenizer whose chat template is meant.

    Raises:
        ValueError: If the record is no such, or the template has no form for it.

    Example:
        >>> record = {"prompt": "1 + 1 = ", "chosen": "2", "rejected": "3"}
        >>> [parts[1].text for parts in preference_parts(record, "none", None)]
        ['2', '3']
    """
    given = [record.get(side) for side in SIDES]
    for side, answer in zip(SIDES, given, strict=True):
        if not isinstance(answer, (str, list)):
            raise ValueError(f"`{side}` must be a text or a list of messages, not {shown(answer)}.")
    if all(isinstance(answer, str) for answer in given):
        answers: list[list[Message]] = [[{"role": "assistant", "content": str(answer)}] for answer in given]
    else:
        record, answers = _asked_and_answers(record, given)
    for side, answer in zip(SIDES, answers, strict=True):
        if not answer or answer[-1]["role"] != "assistant" or not str(answer[-1]["content"] or "").strip():
            raise ValueError(f"`{side}` must end with an answer of the assistant that is not empty.")
    return [_parts(record, answer, template, tokenizer) for answer in answers]


def _asked_and_answers(record: Record, given: Sequence[Any]) -> tuple[Record, list[list[Message]]]:
    """What is asked, and what each side answers, of lists of messages."""
    for answer in given:
        check_messages(answer)
    chosen, rejected = given
    prompt = record.get("prompt")
    if isinstance(prompt, list):
        check_messages(prompt)
        return {"messages": prompt}, [list(chosen), list(rejected)]
    shared = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if not _is_same(a, b)), None)
    if shared is None:  # one is the beginning of the other, or they are equal
        shared = max(min(len(chosen), len(rejected)) - 1, 0)
    while shared and chosen[shared - 1]["role"] == "assistant":
        shared -= 1
    asked: Record = {"messages": chosen[:shared]} if shared else record
    return asked, [list(chosen[shared:]), list(rejected[shared:])]


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one["role"] == other["role"] and one["content"] == other["content"]


def _parts(
    asked: Record, answer: Sequence[Message], template: PromptTemplate, tokenizer: PreTrainedTokenizerBase
) -> list[Part]:
    before = open_prompt(asked, template, tokenizer)
    if template != "chat":
        if len(answer) > 1:
            raise ValueError("an answer of several messages takes the template `chat`.")
        return [Part(before, False), Part(answer[0]["content"], True)]
    after = rendered([*conversation(asked), *answer], tokenizer, False)
    if not after.startswith(before):
        raise ValueError("the chat template does not continue its own prompt with the assistant's message.")
    return [Part(before, False), Part(after[len(before) :], True)]
