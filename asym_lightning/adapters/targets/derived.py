"""Roles where no family names them: by what layers are called and by the class of the module that they lie in.

Of a fused projection the rows are read in the code that takes it apart; where that code is not understood they are not
known. A test shows for every model that can be built that the rows found so are those that attention reads.
"""

from __future__ import annotations

import ast
import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from asym_lightning.adapters.rows import Rows
from asym_lightning.adapters.targets.families.layouts import by_head, in_order
from asym_lightning.core.names import plain_modules, submodule
from asym_lightning.core.sources import Method, methods_naming

ATTENTION = re.compile(r"Attention|Attn|SelfAtt|SelfOutput|[A-Z]SA$|SHMA$|XCA|MLA")
MLP = re.compile(r"MLP|Mlp|FeedForward|FFN|Ffn|Dense\w*Act|Intermediate|Experts|(?<!Self)(?<!Attention)Output$")
# State spaces, linear attention and recurrences, by what their classes are called: Mamba's mixers, delta networks,
# lightning attention, RWKV's time mixing. `KimiLinearAttention` is the full attention of a model of that name.
MIXER = re.compile(
    r"(amba\d?|H\d)Mixer$|MambaLayer$|^Mamba\d?$|Delta(Net|Attention)$|(?<!Kimi)LinearAttention$|LightningAttention$|"
    r"Retention$|ShortConv$|RecurrentBlock$|LSTMLayer$|^RwkvSelfAttention$"
)
# From what a tower gives to what a language model takes.
PROJECTOR = re.compile(
    r"Projector|Connector|Aligner|Resampler|Merger(?![a-z])|Multi[Mm]odal(Embedder|Projection)|VisionAdapter"
)
# What reads pictures or sound for the model around it.
TOWER = re.compile(r"(Vision|Audio)(Tower|Model|Transformer|Encoder)")
PLACES = {"mixer": MIXER, "projector": PROJECTOR, "towers": TOWER}
_PROJECTORS = {"multi_modal_projector", "mm_projector", "language_projection"}  # plain layers, too
_NAMES = {
    "q": (
        "q_proj", "query", "q", "q_lin", "query_proj", "linear_q", "to_q", "wq", "Wq", "w_q", "q_linear",
        "projection_query", "project_q", "q_head", "to_query", "q_a_proj", "q_b_proj", "query_layer", "query_global",
        "layout_query", "vision_proj", "q_content_proj", "q_pos_proj", "q_pos_sine_proj",
        "self_attn_query_content_proj", "self_attn_query_pos_proj", "cross_attn_query_content_proj",
        "cross_attn_query_pos_proj", "cross_attn_query_pos_sine_proj",
    ),
    "k": (
        "k_proj", "key", "k", "k_lin", "key_proj", "linear_k", "to_k", "wk", "Wk", "w_k", "k_linear",
        "projection_key", "project_k", "k_head", "to_key", "key_layer", "key_global", "layout_key", "text_proj",
        "k_content_proj", "k_pos_proj", "self_attn_key_content_proj", "self_attn_key_pos_proj",
        "cross_attn_key_content_proj", "cross_attn_key_pos_proj",
    ),
    "v": (
        "v_proj", "value", "v", "v_lin", "value_proj", "linear_v", "to_v", "wv", "Wv", "w_v", "v_linear",
        "projection_value", "project_v", "v_head", "to_value", "value_layer", "value_global", "layout_value",
        "values_vision_proj", "values_text_proj", "v_proj_current", "v_proj_delayed",
        "self_attn_value_proj", "cross_attn_value_proj",
    ),
    "o": (
        "o_proj", "out_proj", "o", "out_lin", "output_proj", "linear_out", "to_out", "wo", "Wo", "w_o",
        "attention_out", "post_proj", "proj", "projection", "dense", "c_proj", "output", "attn_proj", "proj_out",
        "out_vision_proj", "out_text_proj",
    ),
}  # fmt: skip
_MLP_NAMES = {
    "fc1", "fc2", "fc3", "gate_proj", "up_proj", "down_proj", "gate_up_proj", "dense", "intermediate", "output",
    "intermediate_dense", "output_dense", "lin1", "lin2", "linear1", "linear2", "linear_1", "linear_2", "linear_fc1",
    "linear_fc2", "wi", "wi_0", "wi_1", "wo", "Wi", "Wo", "w1", "w2", "w3", "w12", "w_0", "w_1", "w_in", "w_out",
    "c_fc", "c_proj", "fc_in", "fc_out", "dense1", "dense2", "dense_h_to_4h", "dense_4h_to_h", "input_linear",
    "output_linear", "linear_in", "linear_out", "in_proj", "out_proj", "proj_in", "proj_out", "ffn_output",
    "ffw_layer_1", "ffw_layer_2", "layer1", "layer2", "layer3", "conv1", "conv2", "fc1_g", "fc1_x", "gate_linear",
    "up_linear",
}  # fmt: skip
_ROLE_OF = {name: role for role, names in _NAMES.items() for name in names}
_FUSED_NAMES = {
    "qkv": ("qkv", "qkv_proj", "Wqkv", "query_key_value", "c_attn", "att_proj", "qkv_linear", "to_qkv"),
    "kv": ("kv", "to_kv", "kv_proj", "key_value", "linear_kv", "kv_b_proj"),
    "qk": ("qk", "query_key"),
}
_FUSED = {name: slices for slices, names in _FUSED_NAMES.items() for name in names}
# A layer with a normalisation behind it is one step further down.
_WRAPPED = ("c", "conv", "linear", "ln", "fc", "proj", "dense")


def derived_role(name: str, model: nn.Module) -> str:
    """The role of a layer by its name and the nearest module around it that is an attention or an MLP, or ``""``."""
    return _role(_own_name(name), _kind_of_holder(name, model))


def places_of(name: str, model: nn.Module) -> set[str]:
    """The words for a part of a model that a layer lies in, whatever role it plays there.

    >>> class LlavaMultiModalProjector(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear_1 = nn.Linear(2, 2)
    >>> places_of("0.linear_1", nn.Sequential(LlavaMultiModalProjector()))
    {'projector'}
    """
    parts = name.split(".")
    classes = [type(submodule(model, ".".join(parts[:i]))).__name__ for i in range(len(parts))]
    places = {place for place, pattern in PLACES.items() if any(map(pattern.search, classes))}
    places |= {"projector"} if _PROJECTORS.intersection(parts) else set()
    # A tower by itself is the whole model, and what leads out of one is a projector.
    is_in_tower = any(map(TOWER.search, classes[1:])) and "projector" not in places
    return places if is_in_tower else places - {"towers"}


def derived_slices(name: str, model: nn.Module, d_out: int) -> Mapping[str, Rows] | None:
    """Rows of a fused projection's slices: ``None`` where it is none, empty where it is one and they are not known."""
    own = _own_name(name)
    if own not in _FUSED or _kind_of_holder(name, model) != "attention":
        return None
    parts = name.split(".")
    depth = max(i for i, part in enumerate(parts) if part == own)
    holder = submodule(model, ".".join(parts[:depth]))
    if own == "kv_b_proj":
        return _latent(d_out, holder)
    cls: Any = type(holder)
    return _rows(order_in_code(cls, own, _FUSED[own]), d_out, holder)


def held_roles(model: nn.Module, role: str) -> Iterator[str]:
    """Parameters of attention itself that are called like a layer that plays a role, as XLNet's ``q``."""
    for holder, module in plain_modules(model):
        if ATTENTION.search(type(module).__name__):
            names = (n for n, p in module._parameters.items() if p is not None and p.dim() > 1)
            yield from (f"{holder}.{name}".removeprefix(".") for name in names if _ROLE_OF.get(name) == role)


def _latent(d_out: int, holder: Any) -> Mapping[str, Rows]:
    """Keys and values from a latent of both (DeepSeek and those after it); what is rotated of the keys is not here."""
    heads, k, v = (getattr(holder, name, 0) for name in ("num_heads", "qk_nope_head_dim", "v_head_dim"))
    return by_head(heads, k=k, v=v) if heads * (k + v) == d_out else {}


def _own_name(name: str) -> str:
    parts = [part for part in name.split(".") if not part.isdigit()] or [""]
    outer = next((part for part in reversed(parts) if part not in _WRAPPED), "")
    return outer if outer in _ROLE_OF or outer in _FUSED else parts[-1]


def _kind_of_holder(name: str, model: nn.Module) -> str:
    parts = name.split(".")
    for i in range(len(parts) - 1, -1, -1):
        holder = type(submodule(model, ".".join(parts[:i]))).__name__
        if ATTENTION.search(holder):
            return "attention"
        if MLP.search(holder):
            return "mlp"
    return ""


def _role(own: str, holder: str) -> str:
    if holder == "attention":
        return _ROLE_OF.get(own, "")
    return "mlp" if holder == "mlp" and own in _MLP_NAMES else ""


def _rows(order: tuple[str, str, str] | None, d_out: int, holder: nn.Module) -> Mapping[str, Rows]:
    if order is None:
        return {}
    names, layout, expression = order
    if layout == "in order":
        return in_order(**dict.fromkeys(names, d_out // len(names))) if d_out % len(names) == 0 else {}
    if layout == "of sizes":
        sizes = [_number(text, holder) for text in expression.split(", ")]
        known = [size for size in sizes if size is not None]
        fills = len(known) == len(names) and sum(known) == d_out
        return in_order(**dict(zip(names, known, strict=True))) if fills else {}
    heads = _number(expression, holder)
    if heads is None or d_out % (heads * len(names)):
        return {}
    return by_head(heads, **dict.fromkeys(names, d_out // heads // len(names)))


def _number(expression: str, holder: Any) -> int | None:
    """What an attribute of ``self`` is, or a product of several; ``None`` where it is none or no whole number."""
    if not re.fullmatch(r"self(\.\w+)+( \* self(\.\w+)+)*", expression):
        return None
    paths = [factor.removeprefix("self.").split(".") for factor in expression.split(" * ")]
    factors = [functools.reduce(lambda value, name: getattr(value, name, None), path, holder) for path in paths]
    return math.prod(factors) if all(isinstance(factor, int) for factor in factors) else None


# --- the code that takes a projection apart -------------------------------------------------------------------------


@functools.cache
def order_in_code(cls: Any, attribute: str, slices: str = "qkv") -> tuple[str, str, str] | None:
    """How a class takes the output of ``self.attribute`` apart, if its code does it in one of the usual ways.

    >>> class Attention(nn.Module):
    ...     def forward(self, x):
    ...         q, k, v = self.qkv(x).reshape(2, 5, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    >>> order_in_code(Attention, "qkv")
    ('qkv', 'in order', '')

    Args:
        cls: The class.
        attribute: The projection in it.
        slices: The slices that it has, in any order.

    Returns:
        The slices in their order, such as ``"qkv"``; whether they lie ``"in order"``, in order but ``"of sizes"`` of
        their own, or ``"by head"``; and the attributes that hold the sizes or the number of heads.
    """
    found: set[tuple[str, str, str] | None] = set()
    for method in methods_naming(cls, attribute):
        found.update(_orders_in(method, attribute, slices))
    return found.pop() if len(found) == 1 else None


def _orders_in(method: Method, attribute: str, slices: str) -> Iterator[tuple[str, str, str] | None]:
    parents = {id(child): node for node in ast.walk(method) for child in ast.iter_child_nodes(node)}
    calls = [n for n in ast.walk(method) if isinstance(n, ast.Call) and ast.unparse(n.func) == f"self.{attribute}"]
    orders = {order for order in _orders_of_names(method) if sorted(order) == sorted(slices)}
    for call in calls:
        steps = _steps(call, parents, method)
        layout = next((found for step in steps if (found := _layout(step))), None)
        order = next(iter(orders)) if len(orders) == 1 else None
        yield (order, *layout) if layout and order else None


def _steps(call: ast.AST, parents: Mapping[int, ast.AST], method: Method) -> Iterator[ast.Call]:
    """The calls of methods on a value, through the variables that it is assigned to."""
    seen: set[str] = set()
    waiting = [call]
    while waiting:
        node = waiting.pop(0)
        parent = parents.get(id(node))
        if isinstance(parent, ast.Attribute) and isinstance(parents.get(id(parent)), ast.Call):
            step = parents[id(parent)]
            assert isinstance(step, ast.Call)
            yield step
            waiting.append(step)
        elif isinstance(parent, ast.Call) and ast.unparse(parent.func) in ("torch.chunk", "torch.split"):
            yield parent
        elif isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Name):
            variable = parent.targets[0].id
            if variable not in seen:
                seen.add(variable)
                waiting += [n for n in ast.walk(method) if isinstance(n, ast.Name) and n.id == variable
                            and isinstance(n.ctx, ast.Load) and n.lineno > parent.lineno]  # fmt: skip


def _layout(step: ast.Call) -> tuple[str, str] | None:
    """What one call says of the layout: a reshape to heads and parts, or a cut of the last dimension."""
    name = ast.unparse(step.func).rpartition(".")[2]
    arguments = step.args
    if name in ("reshape", "view", "unflatten"):
        if len(arguments) == 1 and isinstance(arguments[0], (ast.Tuple, ast.List)):
            arguments = arguments[0].elts
        texts = [ast.unparse(a) for a in arguments]
        parts = next((i for i, text in enumerate(texts) if re.search(r"(^|\W)[23]($|\W)", text)), None)
        heads = next((i for i, text in enumerate(texts) if re.fullmatch(r"self\.\w*heads?\w*", text)), None)
        if parts is None:
            return None
        # Heads and their width behind the parts.
        if texts[parts].isdigit() and (parts < heads if heads is not None else parts == len(texts) - 3):
            return "in order", ""
        return None if heads is None else ("by head", texts[heads])
    if name == "chunk":
        given = [*arguments, *(keyword.value for keyword in step.keywords)]
        texts = [ast.unparse(value) for value in given if isinstance(value, (ast.Constant, ast.UnaryOp))]
        if texts and texts[0] in ("2", "3") and texts[1:] in (["-1"], ["2"]):
            return "in order", ""
    if name == "split":
        given = arguments[1:] if ast.unparse(step.func) == "torch.split" else arguments
        last = [*given[1:], *(keyword.value for keyword in step.keywords)]
        if given and isinstance(given[0], (ast.List, ast.Tuple)) and [ast.unparse(d) for d in last] in (["-1"], ["2"]):
            return "of sizes", ", ".join(map(ast.unparse, given[0].elts))
    return None


def _orders_of_names(method: Method) -> set[str]:
    """The orders in which queries, keys and values stand on the left of an assignment, by their first letters."""
    orders = set()
    for node in ast.walk(method):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            names = [ast.unparse(n).split(".")[-1] for n in node.targets[0].elts]
            letters = "".join(name[:1] for name in names)
            if sorted(letters) in (sorted("qkv"), sorted("kv"), sorted("qk")) and all(map(_is_role_name, names)):
                orders.add(letters)
    return orders


def _is_role_name(name: str) -> bool:
    return re.fullmatch(r"(q|k|v|query|queries|key|value)s?(_\w+)?", name) is not None
