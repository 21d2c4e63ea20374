"""Several models of one shape over one set of frozen weights, each with adapters and heads of its own that train."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from asym_lightning.adapters.kernels.by_group import FactorsByGroup
from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.lookup import adapter_layers, factors_by_name
from asym_lightning.adapters.layers.token_rows import TokenRows
from asym_lightning.adapters.stack.heads import heads_by_row, widened
from asym_lightning.adapters.targets.heads import find_heads
from asym_lightning.adapters.targets.patterns import is_within
from asym_lightning.core.messages import listed
from asym_lightning.core.names import plain_name, plain_state, submodule
from asym_lightning.core.private_names import has_hooks
from asym_lightning.core.random_state import GeneratorStates


@dataclass(eq=False)
class Member:
    """One of the models.

    Args:
        model: With adapters, heads, or both.
        forward: What it computes by itself.
        heads: What each of its heads holds, by the head's name.
        trained: Parameters that may train.
    """

    model: nn.Module
    forward: Callable[..., Any]
    heads: Mapping[str, Mapping[str, Tensor]]
    trained: Sequence[nn.Parameter]

    @property
    def is_watched(self) -> bool:
        """Whether somebody watches its adapted layers, who would see no pass that is made in another model's."""
        return any(has_hooks(layer.holder()) for layer in adapter_layers(self.model).values())


@dataclass
class Call:
    """What a model is called with.

    >>> Call((torch.zeros(2, 3),), {"return_dict": True}).form == Call((torch.ones(2, 3),), {"return_dict": True}).form
    True
    >>> Call((torch.zeros(2, 3), object()), {}).form is None
    True
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    form: Hashable = field(init=False)
    """Equal for calls that can be made as one; ``None`` where this one can't be, having something else than rows."""

    def __post_init__(self) -> None:
        try:
            self.form = _form((self.args, self.kwargs))
        except TypeError:
            self.form = None
        if self.form is not None and len({len(tensor) for tensor in _tensors((self.args, self.kwargs))}) != 1:
            self.form = None

    @property
    def device(self) -> str:
        """The kind of device that its first tensor is on."""
        return next(_tensors((self.args, self.kwargs))).device.type


class SharedBackbone:
    """Models that differ in adapters and heads alone, and hold their frozen weights once.

    Heads may be those of different tasks, with a number of outputs each.

    One pass for several models multiplies each frozen weight once with the rows of all; adapters and heads compute for
    each model's rows with its own factors, whatever the scheme. That rows do not depend on one another is checked,
    against each model by itself, in the first pass of a kind and every time that the number of passes has doubled.

    Example:
        >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
        >>> models = [nn.Sequential(nn.Linear(4, 4)) for _ in range(2)]
        >>> _ = models[1].load_state_dict(models[0].state_dict())
        >>> for seed, model in enumerate(models):
        ...     _ = inject_adapters(model, AdapterConfig(rank=2, targets=["0"], seed=seed))
        >>> shared = SharedBackbone()
        >>> members = [shared.join(model) for model in models]
        >>> models[0][0].weight.data_ptr() == models[1][0].weight.data_ptr()
        True
        >>> once = shared.call(members, [Call((torch.ones(1, 4),), {}), Call((torch.zeros(1, 4),), {})])
        >>> torch.allclose(once.outputs[1], models[1](torch.zeros(1, 4)))
        True
    """

    def __init__(self) -> None:
        self._config: Any = None
        self._frozen: dict[str, Tensor] = {}
        self._num_passes: dict[bool, int] = {}

    def join(self, model: nn.Module) -> Member:
        """Let a model have the frozen weights of those that joined before; those that it has are given up.

        Raises:
            ValueError: It differs in more than seeds from the first model, or has parts in which rows can't differ, or
                which draw random numbers.
        """
        config = _config_of(model)
        heads = _heads_of(model, config)
        parameters = {plain_name(name): parameter for name, parameter in model.named_parameters()}
        trained = factors_by_name(model) | {n: p for n, p in parameters.items() if is_within(n, heads)}
        _check_fits(model, parameters, trained)
        frozen = {n: p for n, p in parameters.items() if n not in trained}
        if not self._frozen:
            self._config, self._frozen = config, {name: parameter.detach() for name, parameter in frozen.items()}
        if config != self._config:
            raise ValueError(
                f"Models of one backbone are adapted alike but for the seed; these are by {self._config} and {config}."
            )
        if odd := sorted(frozen.keys() ^ self._frozen.keys()):
            raise ValueError(f"Models of one backbone are of one shape; `{odd[0]}` is in one of these alone.")
        for name, parameter in frozen.items():
            self._share(name, parameter)
        state = {**parameters, **{plain_name(name): buffer for name, buffer in model.named_buffers()}}
        of_heads = {
            head: {name: state[f"{head}.{name}"] for name in plain_state(submodule(model, head))} for head in heads
        }
        return Member(model, model.forward, of_heads, list(dict.fromkeys(trained.values())))

    def _share(self, name: str, parameter: nn.Parameter) -> None:
        first = self._frozen[name]
        if first.device != parameter.device:  # moved since
            first = self._frozen[name] = parameter.detach()
        if first.shape != parameter.shape or first.dtype != parameter.dtype or not torch.equal(first, parameter):
            raise ValueError(f"`{name}`, which is frozen, is not the same in models that are to share one backbone.")
        parameter.data = first

    def call(self, members: Sequence[Member], calls: Sequence[Call]) -> Pass:
        """Make one pass for models that are called alike.

        Args:
            members: The models.
            calls: What each is called with, all of one form.

        Raises:
            ValueError: The rows of a batch are not apart in these models, or computing draws random numbers.
        """
        if len(members) == 1:
            return Pass(members, [members[0].forward(*calls[0].args, **calls[0].kwargs)], None)
        args, kwargs = _joined([(call.args, call.kwargs) for call in calls])
        before = GeneratorStates.now()
        with _each_with_its_own(members):
            joint = members[0].forward(*args, **kwargs)
        is_training = members[0].model.training
        now = GeneratorStates.now()
        if not all(map(torch.equal, [before.torch, *before.cuda], [now.torch, *now.cuda])):
            raise ValueError(
                f"The backbone draws random numbers{_droppers(members[0].model)}, which in one pass for several models "
                "can't be those of each: set what drops to 0."
            )
        num_rows = len(next(_tensors((args, kwargs))))
        widths = _widths(members)
        parts = [
            _narrowed(_part(joint, number, len(members), num_rows), max(widths), width)
            for number, width in enumerate(widths)
        ]
        self._num_passes[is_training] = count = self._num_passes.get(is_training, 0) + 1
        if count & (count - 1) == 0:
            _check_rows_are_apart(members, calls, parts)
        return Pass(members, parts, joint)


class Pass:
    """What a pass gave, and its backward pass, once for all models whose outputs have gradients by then.

    Args:
        members: The models.
        outputs: Of each, still with the pass's graph.
        joint: What the pass returned; ``None`` where it was of one model.

    Attributes:
        outputs: Of each model, without the graph: gradients end at them.
        needs_backward: Whether there is a graph.
    """

    def __init__(self, members: Sequence[Member], outputs: Sequence[Any], joint: Any) -> None:
        self._members = members
        self._joint = list(_with_graph(outputs[0] if joint is None else joint))
        self.needs_backward = bool(self._joint)
        self.outputs = [_mapped(output, _leaf) for output in outputs] if self._joint else list(outputs)
        self._leaves = [list(_with_graph(output)) for output in self.outputs]
        self._left = set(range(len(members)))

    def backward(self, numbers: Iterable[int]) -> None:
        """Let the parameters of some models have their gradients, from those that their outputs have.

        Args:
            numbers: Of the models, each once.
        """
        numbers = set(numbers)
        self._left -= numbers
        tensors, gradients = [], []
        for place, tensor in enumerate(self._joint):
            of_models = [leaves[place].grad if k in numbers else None for k, leaves in enumerate(self._leaves)]
            if any(gradient is not None for gradient in of_models):
                rows = zip(of_models, self._leaves, strict=True)
                filled = [
                    widened(torch.zeros_like(leaves[place]) if g is None else g, tensor.shape[-1]) for g, leaves in rows
                ]
                tensors.append(tensor)
                gradients.append(torch.cat(filled) if len(filled) > 1 else filled[0])
        inputs = [p for number in sorted(numbers) for p in self._members[number].trained if p.requires_grad]
        if tensors and inputs:
            torch.autograd.backward(tensors, gradients, inputs=inputs, retain_graph=bool(self._left))
        if not self._left:
            self._joint = []


@contextmanager
def _each_with_its_own(members: Sequence[Member]) -> Iterator[None]:
    """Let the first model compute with the factors and heads of all, each for an equal part of the rows."""
    layers = [adapter_layers(member.model) for member in members]
    names = [str(number) for number in range(len(members))]
    try:
        for name, layer in layers[0].items():
            own = [of_model[name].adapters for of_model in layers]
            layer.adapters.by_row = FactorsByGroup(name, [a.As for a in own], [a.Bs for a in own])
        heads = {number: member.heads for number, member in zip(names, members, strict=True)}
        with heads_by_row(members[0].model, heads, names, are_filled=True):
            yield
    finally:
        for layer in layers[0].values():
            layer.adapters.by_row = None


def _config_of(model: nn.Module) -> Any:
    """The configuration of its adapters but for the seed; ``None`` without adapters."""
    layer = next(iter(adapter_layers(model).values()), None)
    return None if layer is None else replace(layer.adapters.config, seed=0)


def _heads_of(model: nn.Module, config: Any) -> list[str]:
    """The outermost modules that train in full."""
    found = find_heads(model, None if config is None else config.heads)
    return [name for name in found if not any(name != other and is_within(name, [other]) for other in found)]


def _check_fits(model: nn.Module, parameters: Mapping[str, nn.Parameter], trained: Mapping[str, nn.Parameter]) -> None:
    unfit = [f"`{n}` ({type(layer).__name__})" for n, layer in adapter_layers(model).items() if not _fits(layer)]
    unfit += [f"`{n}` ({type(m).__name__})" for n, m in model.named_modules() if isinstance(m, TokenRows)]
    if unfit:
        raise ValueError(f"Models can't share a pass through {listed(unfit, 3)}: adapt linear layers alone.")
    others = [f"`{name}`" for name, p in parameters.items() if p.requires_grad and name not in trained]
    if others:
        raise ValueError(
            f"What trains beside adapters and heads can't be shared: {listed(others, 3)}; freeze it, or name it in "
            "`heads`."
        )


def _widths(members: Sequence[Member]) -> list[int]:
    """Outputs of each model's head; zeros where heads are all alike."""
    for head, state in members[0].heads.items():
        for name, tensor in state.items():
            of_members = [member.heads[head][name] for member in members]
            if any(other.shape != tensor.shape for other in of_members):
                return [len(other) for other in of_members]
    return [0] * len(members)


def _narrowed(value: Any, widest: int, width: int) -> Any:
    """What one model gave, without what its outputs were filled up with to be as wide as the widest."""
    return _mapped(value, lambda t: t[..., :width] if t.dim() > 1 and t.shape[-1] == widest else t)


def _fits(layer: AdaptedLayer) -> bool:
    return layer.calls_adapters and not layer.adapters.is_read


def _check_rows_are_apart(members: Sequence[Member], calls: Sequence[Call], parts: Sequence[Any]) -> None:
    for member, call, part in zip(members, calls, parts, strict=True):
        with torch.no_grad():
            alone = member.forward(*call.args, **call.kwargs)
        for found, expected in zip(_tensors(part), _tensors(alone), strict=True):
            if found.shape != expected.shape:
                raise ValueError(
                    f"{type(member.model).__name__} gives outputs of shape {tuple(expected.shape)} by itself, and of "
                    f"{tuple(found.shape)} beside others: heads of different tasks differ in their last layer alone."
                )
            distance = (found.detach().float() - expected.float()).norm()
            if not distance <= _precision(found) ** 0.5 * expected.float().norm():
                raise ValueError(
                    f"{type(member.model).__name__} gives rows of a batch other outputs beside others' rows than by "
                    "themselves, as batch normalisation in training does: models can't share its pass."
                )


def _precision(tensor: Tensor) -> float:
    """The relative error of one operation where a tensor was computed."""
    device = tensor.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype
    return torch.finfo(dtype).eps if dtype.is_floating_point else 0.0


def _droppers(model: nn.Module) -> str:
    """The modules that drop something now, to follow what they do in a sentence."""
    found = [
        f"`{name}`"
        for name, module in model.named_modules()
        if "Drop" in type(module).__name__
        and module.training
        and (getattr(module, "p", 0) or getattr(module, "drop_prob", 0))
    ]
    return f" in {listed(found, 3)}" if found else ", as dropout does"


# Values that are made of tensors, mappings, lists and tuples


def _mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        changed: Any = copy.copy(value)  # of a class of its own, as outputs of transformers are
        for key, item in value.items():
            changed[key] = _mapped(item, function)
        return changed
    if isinstance(value, (list, tuple)):
        items = [_mapped(item, function) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    found: list[Tensor] = []
    _mapped(value, found.append)
    yield from found


def _with_graph(value: Any) -> Iterator[Tensor]:
    return (tensor for tensor in _tensors(value) if tensor.requires_grad)


def _form(value: Any) -> Hashable:
    """What has to be equal in values that are joined.

    Raises:
        TypeError: The value can't be joined with others.
    """
    if isinstance(value, Tensor):
        if value.requires_grad or not value.dim():
            raise TypeError("its gradient would not reach it, or it is not of rows")
        return "tensor", tuple(value.shape), value.dtype, value.device
    if isinstance(value, Mapping):
        return type(value), tuple((key, _form(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(_form, value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return type(value), value
    raise TypeError(f"{type(value).__name__} has no rows")


def _joined(values: Sequence[Any]) -> Any:
    """One value of several of one form, in which tensors have the rows of all."""
    tensors = zip(*map(_tensors, values), strict=True)
    joined = iter([torch.cat(of_place) for of_place in tensors])
    return _mapped(values[0], lambda _: next(joined))


def _part(value: Any, number: int, count: int, num_rows: int) -> Any:
    """One model's rows of what a pass gave.

    Raises:
        ValueError: It is not made of rows.
    """

    def rows(tensor: Tensor) -> Tensor:
        if not tensor.dim() or len(tensor) != num_rows:
            raise ValueError(
                f"A backbone that returns a tensor of shape {tuple(tensor.shape)} for {num_rows} rows can't be shared: "
                "it is not one for each row."
            )
        return tensor.chunk(count)[number]

    part = _mapped(value, rows)
    try:
        _form(_mapped(part, Tensor.detach))
    except TypeError as error:
        raise ValueError(f"A backbone's output can't be shared: {error}.") from error
    return part


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_() if tensor.requires_grad else tensor
