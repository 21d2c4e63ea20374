"""Conversations on pictures: records as messages, and their tokens once pictures stand among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from asym_lightning.core.messages import shown
from asym_lightning.core.tokens import IGNORED
from asym_lightning.data.language.prompts import Part, alpaca_parts, chat_parts, check_messages, rendered
from asym_lightning.data.tokens.learnt_tokens import learnt_tokens

PLACE = "<image>"
"""Where a picture stands in a message that is a text, as LLaVA's data has it."""
Messages = list[dict[str, Any]]


class PictureChat(NamedTuple):
    """A conversation in a model's chat template, with a place for each picture.

    Attributes:
        parts: Stretches of text that are given, and those that are learnt.
        prompt: What comes before the last answer.
        reference: The last answer; empty where there is none.
        images: Cells of the pictures, in the order of their places.
    """

    parts: Sequence[Part]
    prompt: str
    reference: str
    images: Sequence[Any]


def picture_chat(record: Mapping[str, Any], processor: Any, *, is_answered: bool) -> PictureChat:
    """Return a record as a conversation.

    Args:
        record: `images`, a list, or `image`; and `messages`, whose `content` is a text, in which `<image>` marks the
            places of pictures, or a list of `{"type": "image"}` and `{"type": "text", "text": ...}`. Pictures without a
            place come before the first question. A record may also be `instruction` and `output`.
        processor: Processor whose chat template is meant.
        is_answered: Whether the last answer is there to be learnt, and is not to be predicted.

    Raises:
        ValueError: If the record is no such, or has other pictures than places.
    """
    images = record.get("images") if record.get("images") is not None else record.get("image")
    images = list(images) if isinstance(images, (list, tuple)) else [images]
    if not images or images[0] is None:
        raise ValueError("there is no picture under `images` or `image`: `InstructionTuner` learns from text alone.")
    messages = _in_parts(_messages(record, is_answered), len(images))
    has_answer = messages[-1]["role"] == "assistant"
    answer = "".join(part.get("text", "") for part in messages[-1]["content"]) if has_answer else ""
    if is_answered and has_answer and not answer.strip():
        raise ValueError("the last answer is empty: there is nothing to learn.")
    if not is_answered:
        prompt = rendered(messages[:-1] if has_answer else messages, processor, True)
        return PictureChat([Part(prompt, False)], prompt, answer, images)
    parts = chat_parts({"messages": messages}, processor)
    return PictureChat(parts, "".join(part.text for part in parts[:-1]), answer, images)


def _messages(record: Mapping[str, Any], is_answered: bool) -> Messages:
    messages = record.get("messages")
    if messages is None:
        _, answer = alpaca_parts(record if is_answered else {"output": "", **record})
        text = "\n\n".join(filter(None, (record["instruction"], record.get("input"))))
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": answer.text}]
    check_messages(messages)
    if not any(message["role"] == "user" for message in messages):
        raise ValueError("`messages` hold none of the user's to answer.")
    return [dict(message) for message in messages]


def _in_parts(messages: Messages, num_images: int) -> Messages:
    """Return messages whose contents are lists of parts, with as many places as pictures."""
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            texts = [[{"type": "text", "text": text.strip("\n")}] if text else [] for text in content.split(PLACE)]
            message["content"] = [part for i, text in enumerate(texts) for part in (i > 0) * [{"type": "image"}] + text]
        elif not (isinstance(content, list) and all(_is_part(part) for part in content)):
            raise ValueError(f"a `content` must be a text, or a list of pictures and texts, not {shown(content)}.")
    places = sum(part["type"] == "image" for message in messages for part in message["content"])
    if not places:
        first = next(message for message in messages if message["role"] == "user")
        first["content"] = [{"type": "image"}] * num_images + first["content"]
    elif places != num_images:
        raise ValueError(f"there are {places} places for pictures, and {num_images} pictures.")
    return messages


def _is_part(part: Any) -> bool:
    kind = part.get("type") if isinstance(part, Mapping) else None
    return kind == "image" or (kind == "text" and isinstance(part.get("text"), str))


class ChatTokens(NamedTuple):
    """Tokens of a conversation among which pictures stand.

    Attributes:
        labels: The tokens that are learnt, -100 elsewhere (length,).
        prompt_length: Number of tokens before the last answer.
    """

    labels: npt.NDArray[np.int64]
    prompt_length: int


def label_tokens(chat: PictureChat, tokens: npt.NDArray[np.int64], processor: Any) -> ChatTokens:
    """Tell which tokens are learnt once the processor has put as many for each picture as it takes.

    The text between two pictures has the same tokens as without them. So its places are those of its tokens.

    Args:
        chat: The conversation.
        tokens: What the processor made of it (length,).
        processor: The processor.

    Raises:
        ValueError: If its tokens are not among those.
    """
    ((plain, learnt),) = learnt_tokens(processor.tokenizer, [chat.parts], has_ends=True)
    image = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    labels = np.full(len(tokens), IGNORED)
    ends = [i for i, token in enumerate(plain) if token == image]
    start, done = 0, 0
    for end in [*ends, len(plain)]:
        stretch = plain[start:end]
        is_last = end == len(plain)
        at = _find(tokens, stretch, len(tokens) - len(stretch) if is_last else done, -1 if is_last else 1, done)
        labels[at : at + len(stretch)] = learnt[start:end]
        start, done = end + 1, at + len(stretch)
    is_learnt = labels != IGNORED
    starts = np.flatnonzero(is_learnt & ~np.concatenate([[False], is_learnt[:-1]]))
    return ChatTokens(labels, int(starts[-1]) if len(starts) else len(tokens))


def _find(tokens: npt.NDArray[np.int64], stretch: Sequence[int], first: int, step: int, least: int) -> int:
    """First place of a stretch of tokens from a place on, forwards or backwards."""
    for at in range(first, len(tokens) - len(stretch) + 1 if step > 0 else least - 1, step):
        if (tokens[at : at + len(stretch)] == stretch).all():
            return at
    raise ValueError("the processor gives the text other tokens than the tokenizer does.")
