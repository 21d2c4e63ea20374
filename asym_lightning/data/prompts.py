"""Records of instructions as text, in parts that are given and parts that are learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

Template = Literal["alpaca", "chat"]
Record = Mapping[str, Any]

# Word for word those of Stanford Alpaca (train.py), which models tuned on it expect.
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)


class Part(NamedTuple):
    """A stretch of text.

    Attributes:
        text: The text.
        is_learnt: Whether its tokens count in the loss.
    """

    text: str
    is_learnt: bool


def alpaca_prompt(instruction: str, given: str = "") -> str:
    """Return the prompt of Stanford Alpaca, with or without an input.

    >>> alpaca_prompt("Name a colour.").splitlines()[-1]
    '### Response:'
    """
    if given:
        return ALPACA_WITH_INPUT.replace("{instruction}", instruction).replace("{input}", given)
    return ALPACA_WITHOUT_INPUT.replace("{instruction}", instruction)


def alpaca_parts(record: Record) -> list[Part]:
    """Return prompt and response of a record `instruction`, `input` (may be empty or missing) and `output`.

    Raises:
        ValueError: If `instruction` or `output` is missing or no text.
    """
    for name in ("instruction", "output"):
        if not isinstance(record.get(name), str):
            raise ValueError(f"the record has no text under `{name}`.")
    given = record.get("input")
    if given is not None and not isinstance(given, str):
        raise ValueError("`input` is not a text.")
    return [Part(alpaca_prompt(record["instruction"], given or ""), False), Part(record["output"], True)]


def chat_parts(record: Record, tokenizer: PreTrainedTokenizerBase) -> list[Part]:
    """Return a conversation in the tokenizer's chat template; what the assistant says is learnt, its end included.

    Args:
        record: `messages`, a list of `{"role": ..., "content": ...}` that ends with the assistant's, or a record in
            the Alpaca format, which becomes one question and its answer.
        tokenizer: The tokenizer whose chat template is meant.

    Raises:
        ValueError: If the record is neither, or the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise ValueError(f"the tokenizer {tokenizer.name_or_path!r} has no chat template: use `template: alpaca`.")
    messages = record["messages"] if record.get("messages") is not None else _as_messages(record)
    _check_messages(messages)
    parts: list[Part] = []
    done = ""
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _rendered(messages[:number], tokenizer, True)
        after = _rendered(messages[: number + 1], tokenizer, False)
        if not before.startswith(done) or not after.startswith(before):
            # Templates that drop earlier thoughts rewrite what came before: only the last answer is what is shown.
            before, after = (_rendered(messages[:-1], tokenizer, True), _rendered(messages, tokenizer, False))
            if not after.startswith(before):
                raise ValueError("the chat template does not continue its own prompt with the assistant's message.")
            return [Part(before, False), Part(after[len(before) :], True)]
        parts += [Part(before[len(done) :], False), Part(after[len(before) :], True)]
        done = after
    return parts


def _as_messages(record: Record) -> list[dict[str, str]]:
    (_, response) = alpaca_parts(record)
    question = "\n\n".join(filter(None, (record["instruction"], record.get("input"))))
    return [{"role": "user", "content": question}, {"role": "assistant", "content": response.text}]


def _check_messages(messages: Any) -> None:
    is_list = isinstance(messages, Sequence) and not isinstance(messages, str)
    if not is_list or not all(isinstance(m, Mapping) and {"role", "content"} <= m.keys() for m in messages):
        raise ValueError("`messages` must be a list of objects with `role` and `content`.")
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError("`messages` must end with a message of the assistant, from which to learn.")


def _rendered(messages: Sequence[Mapping[str, str]], tokenizer: PreTrainedTokenizerBase, is_open: bool) -> str:
    conversation = [dict(message) for message in messages]
    return str(tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=is_open))
