"""Records of instructions as text, in parts that are given and parts that are learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from asym_lightning.core.messages import first_line

Template = Literal["alpaca", "chat"]
PromptTemplate = Literal["alpaca", "chat", "none"]
Record = Mapping[str, Any]
Message = Mapping[str, str]

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
ALPACA_NEXT = "\n\n### Instruction:\n{instruction}\n\n### Response:"
"""What stands between an answer and the next one, for which Stanford Alpaca has no form."""


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


def open_prompt(record: Record, template: PromptTemplate, tokenizer: PreTrainedTokenizerBase) -> str:
    r"""Return what a record asks, up to where the answer begins.

    What a record that was made to learn from has beside, such as `output` or a last message of the assistant's, is left
    out.

    Args:
        record: `prompt`, or `instruction` and `input` (which may be empty or missing), or a list `messages`.
        template: `alpaca`, `chat`, or `none` for the text as it is.
        tokenizer: The tokenizer whose chat template is meant.

    Raises:
        ValueError: If the record is none of these, or the template has no form for it.

    Example:
        >>> open_prompt({"instruction": "Add.", "input": "1, 2"}, "none", None)
        'Add.\n\n1, 2'
    """
    kind = asked_by(record)
    if template == "chat":
        if not tokenizer.chat_template:
            raise ValueError(
                f"the tokenizer {tokenizer.name_or_path!r} has no chat template: use the template `alpaca`."
            )
        return rendered(conversation(record), tokenizer, True)
    if kind == "messages":
        if template == "none":
            raise ValueError("`messages` take a template, `chat` or `alpaca`.")
        return _alpaca_conversation(conversation(record))
    if template == "alpaca":
        return alpaca_prompt(record[kind], (record.get("input") or "") if kind == "instruction" else "")
    return _question(record)


def asked_by(record: Record) -> Literal["prompt", "instruction", "messages"]:
    """Return the field by which a record asks.

    Raises:
        ValueError: If there is none, or it holds something else than texts.
    """
    for kind in ("prompt", "instruction"):
        if record.get(kind) is not None:
            for name in (kind, "input") if kind == "instruction" else (kind,):
                if not isinstance(record.get(name) or "", str):
                    raise ValueError(f"`{name}` is not a text.")
            return kind  # type: ignore[return-value]
    if record.get("messages") is None:
        raise ValueError(
            "there is none of `prompt`, `instruction` and `messages`, but "
            f"{', '.join(f'`{name}`' for name in list(record)[:6]) or 'nothing'}."
        )
    check_messages(record["messages"])
    if not all(isinstance(message["content"], str) for message in record["messages"]):
        raise ValueError("a `content` of `messages` is not a text.")
    if not any(message["role"] == "user" for message in record["messages"]):
        raise ValueError("`messages` hold none of the user's to answer.")
    return "messages"


def _question(record: Record) -> str:
    return "\n\n".join(filter(None, (record.get("prompt") or record.get("instruction"), record.get("input"))))


def conversation(record: Record) -> list[Message]:
    """Return what a record asks as messages; an answer at its end is left out."""
    if asked_by(record) != "messages":
        return [{"role": "user", "content": _question(record)}]
    messages = list(record["messages"])
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages


def _alpaca_conversation(messages: Sequence[Message]) -> str:
    r"""A conversation in the form of the prompts of Stanford Alpaca: the first question as there, the others below.

    >>> turns = [("user", "Hi."), ("assistant", "Hello."), ("user", "Bye.")]
    >>> text = _alpaca_conversation([{"role": role, "content": content} for role, content in turns])
    >>> text.removeprefix(alpaca_prompt("Hi."))
    'Hello.\n\n### Instruction:\nBye.\n\n### Response:'
    """
    if [message["role"] for message in messages] != [("user", "assistant")[i % 2] for i in range(len(messages))]:
        raise ValueError("in the Alpaca prompt user and assistant take turns, the user first: use `chat` for others.")
    text = alpaca_prompt(messages[0]["content"])
    for answer, question in zip(messages[1::2], messages[2::2], strict=True):
        text += answer["content"] + ALPACA_NEXT.replace("{instruction}", question["content"])
    return text


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
    check_messages(messages)
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError("`messages` must end with a message of the assistant, from which to learn.")
    parts: list[Part] = []
    done = ""
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = rendered(messages[:number], tokenizer, True)
        after = rendered(messages[: number + 1], tokenizer, False)
        if not before.startswith(done) or not after.startswith(before):
            # Templates that drop earlier thoughts rewrite what came before: only the last answer is what is shown.
            before, after = (rendered(messages[:-1], tokenizer, True), rendered(messages, tokenizer, False))
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


def check_messages(messages: Any) -> None:
    """Check that something is a list of messages.

    Raises:
        ValueError: If it is not.
    """
    is_list = isinstance(messages, Sequence) and not isinstance(messages, str)
    if not is_list or not all(isinstance(m, Mapping) and {"role", "content"} <= m.keys() for m in messages):
        raise ValueError("`messages` must be a list of objects with `role` and `content`.")


def rendered(messages: Sequence[Mapping[str, str]], tokenizer: PreTrainedTokenizerBase, is_open: bool) -> str:
    """Return messages in the tokenizer's chat template, up to where an answer begins if it is open.

    Raises:
        ValueError: If the template does not take them.
    """
    conversation = [dict(message) for message in messages]
    try:
        return str(tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=is_open))
    except Exception as error:  # of any kind: a template is a program
        raise ValueError(f"the chat template does not take the conversation: {first_line(error)[:120]}") from error
