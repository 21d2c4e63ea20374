"""What a small model of transformers is called with, found by the names of its arguments."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.coverage.input_values import BATCH, made_to_fit, values_of
from benchmarks.coverage.subject import Call

_TOWERS = ("get_text_features", "get_image_features", "get_audio_features", "get_video_features")


def calls_of(model: nn.Module, widths: Sequence[int] = (), *, as_documented: bool = False) -> Iterator[list[Call]]:
    """Calls to try, the more likely first.

    Args:
        model: The model, with its configuration.
        widths: Numbers of features that an earlier call was told are wanted.
        as_documented: Begin with values of as many dimensions as the documentation says.
    """
    forward = _arguments(model, model.forward, widths)
    if as_documented:
        dimensions = _documented_dimensions(model.forward)
        for name in forward.keys() & dimensions:
            forward[name].sort(key=lambda value: value.dim() != dimensions[name])
    first = {n: values[0] for n, values in forward.items()}
    seen: list[set[str]] = []
    for extra in (_with_images(model, first), {}):
        for names in _sets_of_names(model, forward):
            given = {n: v for n, v in {**first, **extra}.items() if n in names or n in extra}
            if (key := {*given, *(f"{n} of an image" for n in extra)}) in seen:
                continue
            seen.append(key)
            others = {n: values for n, values in forward.items() if n not in extra}
            yield from ([call] for call in _varied(model, "forward", given, others))


def tower_calls(model: nn.Module, works: Callable[[Call], bool]) -> list[Call]:
    """Calls of the towers of a model of several kinds of input, of each the first that works."""
    tried = (_calls_of_tower(model, method) for method in _TOWERS if callable(getattr(model, method, None)))
    return [call for calls in tried if (call := next(filter(works, calls), None))]


def _calls_of_tower(model: nn.Module, method: str) -> Iterator[Call]:
    function = getattr(model, method)
    found = _arguments(model, function)
    first = {n: values[0] for n, values in found.items()}
    yield from _varied(model, method, first, found)
    bare = {n: v for n, v in first.items() if n in _names_without_default(function)}
    if bare != first:
        yield from _varied(model, method, bare, found)


def _varied(model: nn.Module, method: str, given: Mapping[str, Any], values: Mapping[str, list[Any]]) -> Iterator[Call]:
    """The call with ``given`` and then, of one argument after another, with its other values."""
    others = ({**given, name: value} for name in given for value in values.get(name, ())[1:])
    for arguments in (dict(given), *others):
        yield Call(method, made_to_fit(arguments, model))


# What goes with text and with images, beside what has no default.
_WITH_TEXT = ("input_ids", "attention_mask", "decoder_input_ids", "bbox", "visual_feats", "visual_pos")
_WITH_IMAGES = ("spatial_shapes", "pixel_attention_mask", "image_embeds_position_mask")
_OF_TOWERS = ("pixel_values", "input_features", "input_values")


def _sets_of_names(model: nn.Module, found: Collection[str]) -> Iterator[set[str]]:
    """Which arguments to give, the more likely first."""
    needed, bare = _names(model, found), _names_without_default(model.forward)
    yield from (needed, needed - {"attention_mask"}, needed - {*_WITH_TEXT, *_WITH_IMAGES} | bare)
    yield from (needed | {name, f"{name}_mask"} & set(found) for name in _OF_TOWERS if name in found)
    yield from (needed | {name, "image_attention_mask"} & set(found) for name in ("pixel_values",) if name in found)
    yield needed - set(_OF_TOWERS)
    yield set(found) - ({"inputs_embeds"} if "input_ids" in found else set())


def _names(model: nn.Module, found: Collection[str]) -> set[str]:
    """The arguments to give: those without a default, the main input, and what goes with it."""
    parameters = inspect.signature(model.forward).parameters
    main = model.main_input_name
    required = _names_without_default(model.forward) | set(main if isinstance(main, list) else [main])
    required |= {*_WITH_TEXT, *_WITH_IMAGES}
    # Both towers of a model that compares two; of one that writes about images, the tower is called apart.
    is_dual = not callable(getattr(model, "generate", None)) or not getattr(model, "can_generate", bool)()
    if is_dual and main == "input_ids":
        required |= set(_OF_TOWERS)
    return {n for n in found if n in parameters and n in required}


def _names_without_default(function: Any) -> set[str]:
    return {n for n, p in inspect.signature(function).parameters.items() if p.default is p.empty}


_IMAGE_TOKENS = ("image_token_id", "image_token_index", "image_patch_id")


def _with_images(model: nn.Module, first: Mapping[str, Any]) -> dict[str, Any]:
    """Text with an image in it, where the model says with how many tokens."""
    # A model for retrieval has it of the model within, with its configuration.
    holder = next((m for m in model.modules() if callable(getattr(m, "get_image_features", None))), None)
    tokens = [getattr(holder.config, name, None) for name in _IMAGE_TOKENS] if holder is not None else []
    token = next((token for token in tokens if isinstance(token, int)), None)
    if holder is None or token is None:
        return {}
    for call in itertools.islice(_calls_of_tower(holder, "get_image_features"), 12):  # more take long and none works
        try:
            number = _number_of_features(holder, call.arguments)
            break
        except Exception:  # models differ in what they take, which is found by trying
            continue
    else:
        return {}
    if number % BATCH:
        return {}
    text = first.get("input_ids")
    if text is None:
        return {}
    images = torch.full((BATCH, number // BATCH), token)
    ids = torch.cat([text[:, :2], images, text[:, 2:]], 1)
    extra = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **call.arguments}
    names = inspect.signature(model.forward).parameters
    if "token_type_ids" in names:
        extra["token_type_ids"] = (ids == token).long()
    if "mm_token_type_ids" in names:
        extra["mm_token_type_ids"] = (ids == token).int()
    return {n: v for n, v in extra.items() if n in names}


def _number_of_features(model: Any, arguments: Mapping[str, Any]) -> int:
    torch.manual_seed(0)
    with torch.no_grad():
        found = model.eval().get_image_features(**arguments)
    features = getattr(found, "pooler_output", found)
    features = torch.cat(list(features)) if isinstance(features, (list, tuple)) else features
    return features.numel() // features.shape[-1]


_SHAPE = re.compile(r"^ *(\w+) \(`[^`]*` of shape\s+`?\(([^)`]*)\)", re.MULTILINE)


def _documented_dimensions(function: Any) -> dict[str, int]:
    """How many dimensions arguments have, as the docstring says."""
    return {name: len(shape.strip(", ").split(",")) for name, shape in _SHAPE.findall(function.__doc__ or "")}


def _arguments(model: nn.Module, function: Any, widths: Sequence[int] = ()) -> dict[str, list[Any]]:
    """What the arguments of a function may be, by their names, the more likely first."""
    torch.manual_seed(0)
    found = {name: values_of(name, model, widths) for name in inspect.signature(function).parameters}
    return {name: values for name, values in found.items() if values}
