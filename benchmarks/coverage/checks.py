"""One library on one model: is what it computes, and what it leaves behind, what the formulas say?

Every B is made random. The reference is the model itself with dense ``W + s B A`` in the place of each adapted weight,
of that layer alone where several layers hold one weight; its gradients are those of full fine-tuning.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asym_lightning.adapters.files.misread import layers_misread_by_peft
from asym_lightning.adapters.targets.patterns import is_within
from asym_lightning.core.names import without_numbers
from benchmarks.coverage.arms import ARMS, Arm, Matrix, unplayed
from benchmarks.coverage.attention import Killed, killed_attention, traced_attention
from benchmarks.coverage.subject import Call, Subject, difference, loss_of, outputs

TOLERANCE, GRADIENT_TOLERANCE, FILE_TOLERANCE = 2e-3, 2e-2, 1e-5
RIGHT, REFUSED, WRONG, ABSENT = "right", "refused", "wrong", "absent"
IN_PART, PARTIAL, NOT_RUN = "in part", "partial", "not run"


@dataclass
class Result:
    """What came of one library, one model and one choice of targets.

    Attributes:
        model: Name of the model.
        arm: Name of the library, or two for files that one wrote and the other read.
        targets: What was adapted.
        verdict: ``right``, ``refused``, ``wrong``, ``absent`` where a role was refused and the model has no attention,
            ``in part`` where it was found in some attention only and the report names the other, ``partial`` where the
            report does not, ``not run`` where it takes more memory than a model may.
        reason: Of a verdict that is not ``right``.
        errors: Relative error by check.
        num_matrices: Adapted matrices.
        num_tested: Those whose gradient is not zero with the calls that were made.
        reach: Share of the weights in matrices, embeddings and output layers aside, that were adapted.
        seconds: Time it took.
    """

    model: str
    arm: str
    targets: str
    verdict: str = RIGHT
    reason: str = ""
    errors: dict[str, float] = field(default_factory=dict)
    num_matrices: int = 0
    num_tested: int = 0
    reach: float = 0.0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        plain = asdict(self)
        plain["errors"] = {check: float(f"{error:.2g}") for check, error in self.errors.items()}
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in plain.items()}

    def fail(self, check: str, error: float = float("inf"), why: str = "") -> None:
        self.verdict = WRONG
        self.reason += f"{'; ' if self.reason else ''}{check}{f' off by {error:.2g}' if error < 1e9 else ''}{why}"


def examine(subject: Subject, arm_name: str, targets: str) -> list[Result]:
    """All checks of one library; a second result says whether the other library reads the file."""
    start = time.monotonic()
    results = _attempt(subject, arm_name, targets)
    if any(_may_lack_digits(result) for result in results):
        with contextlib.suppress(Exception):  # not every model computes in float64
            results = min(results, _attempt(_in_float64(subject), arm_name, targets), key=_num_wrong)
    results[0].seconds = time.monotonic() - start
    return results


def _attempt(subject: Subject, arm_name: str, targets: str) -> list[Result]:
    result = Result(subject.name, arm_name, targets)
    results = [result]
    try:
        results += _examine(subject, ARMS[arm_name], result)
    except _Refused as refusal:
        is_absent = targets != "all-linear" and not traced_attention(copy.deepcopy(subject.model), subject.calls)
        result.verdict, result.reason = ABSENT if is_absent else REFUSED, _one_line(refusal.__cause__)
    except Exception as error:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # the limit of the process
            result.verdict, result.reason = NOT_RUN, _one_line(error)
        else:
            result.fail("crash", why=f": {_one_line(error)}")
    return results


def _may_lack_digits(result: Result) -> bool:
    """Whether what is wrong may be rounding, as behind a batch normalisation of few numbers."""
    is_of_a_file = " reads " in result.arm
    return result.verdict == WRONG and (not is_of_a_file or max(result.errors.values(), default=1.0) < 1e-2)


def _num_wrong(results: list[Result]) -> int:
    return sum(result.verdict == WRONG for result in results)


def _in_float64(subject: Subject) -> Subject:
    calls = [Call(call.method, _doubled(call.arguments)) for call in subject.calls]
    return Subject(subject.name, copy.deepcopy(subject.model).double(), calls)


class _Refused(Exception):
    """The library did not adapt the model."""


def _examine(subject: Subject, arm: Arm, result: Result) -> list[Result]:
    pristine, calls = subject.model, subject.calls
    model = copy.deepcopy(pristine)
    try:
        model = arm.adapt(model, result.targets)
    except (ValueError, RuntimeError, TypeError, NotImplementedError, AttributeError, KeyError, IndexError) as error:
        raise _Refused from error
    matrices = arm.matrices(model)
    result.num_matrices = len(matrices)
    result.reach = _reach(pristine, matrices)
    _randomise(pristine, matrices)
    reference = _dense(pristine, matrices)

    with torch.no_grad():
        base, wanted, adapted = (outputs(m.eval(), calls) for m in (pristine, reference, model))
        # Zero but for models whose own output changes from call to call.
        noise = difference(base, outputs(copy.deepcopy(pristine), calls))
    effect = max(difference(base, wanted), 1e-12)
    _compare(result, "output", difference(adapted, wanted) / effect)
    restored = copy.deepcopy(model)  # before training leaves states in it
    _check_gradients(result, model, reference, matrices, calls)

    with torch.no_grad(), tempfile.TemporaryDirectory() as directory:
        model.eval()
        arm.save(model, Path(directory))
        read = _read(result, "file", arm, pristine, Path(directory))
        if read is not None:
            _compare(result, "file", difference(outputs(read.eval(), calls), adapted) / effect, FILE_TOLERANCE)
        others = [_read_by_other(subject, result, name, other, Path(directory), adapted, effect)
                  for name, other in ARMS.items() if other is not arm]  # fmt: skip
        if result.arm == "ours" and layers_misread_by_peft(model):
            for other in (other for other in others if other.verdict != RIGHT):
                other.reason += ", as `export` says"

        model = arm.merge(model)
        _compare(result, "merged", difference(outputs(model.eval(), calls), adapted) / effect)
        _check_export(result, pristine, model, calls, adapted, effect)
        if hasattr(arm, "unmerge") and result.arm == "ours":
            model = arm.unmerge(model)
            _check_unchanged(result, "unmerge", pristine, model, strict=False)
            if difference(outputs(model.eval(), calls), adapted) > 2 * noise:
                result.fail("unmerge", why=" changes the output")
        restored = arm.remove(restored)
        for parameter in restored.parameters():  # torch takes other kernels where nothing needs a gradient
            parameter.requires_grad_(parameter.is_floating_point())
        _check_unchanged(result, "remove", pristine, restored, strict=True)
        if difference(outputs(restored.eval(), calls), base) > 2 * noise:
            result.fail("remove", why=" changes the output")
    if result.targets != "all-linear" and result.arm == "ours" and result.verdict == RIGHT:
        _check_roles(result, subject, arm)
    return others


def _randomise(pristine: nn.Module, matrices: list[Matrix]) -> None:
    """Draw each B so that the update is a third of its weight."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for matrix in matrices:
            for factor in matrix.factors:
                factor.copy_(torch.randn(factor.shape, generator=generator))
            weight = pristine.get_submodule(matrix.owner).get_parameter(matrix.parameter)
            scale = weight.norm() / matrix.delta().norm().clamp_min(1e-12) / 3
            for factor in matrix.factors:
                factor.mul_(scale if scale > 0 else 0.01)


def _dense(pristine: nn.Module, matrices: list[Matrix]) -> nn.Module:
    reference = copy.deepcopy(pristine)
    with torch.no_grad():
        for matrix in matrices:
            owner = reference.get_submodule(matrix.owner)
            weight = getattr(owner, matrix.parameter) + matrix.delta()
            setattr(owner, matrix.parameter, nn.Parameter(weight))
    return reference


def _check_gradients(
    result: Result, model: nn.Module, reference: nn.Module, matrices: list[Matrix], calls: Any
) -> None:
    """In training mode where the calls are enough for it, with the same random numbers on both sides."""
    error, where, result.num_tested = _worst_gradient(model, reference, matrices, calls)
    _compare(result, "gradient", error, GRADIENT_TOLERANCE, f" at {where}")


def _worst_gradient(
    model: nn.Module, reference: nn.Module, matrices: list[Matrix], calls: Any
) -> tuple[float, str, int]:
    """The largest relative error, the matrix where it is, and how many matrices have a gradient."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.zero_grad(set_to_none=True)
    reference.zero_grad(set_to_none=True)
    try:
        loss_of(outputs(reference.train(), calls)).backward()
    except ValueError:  # some models want labels of all kinds in training mode
        loss_of(outputs(reference.eval(), calls)).backward()
    loss = loss_of(outputs(model.train(reference.training), calls))
    if loss.requires_grad:  # not where all that is adapted is a part that the model runs without gradients
        loss.backward()
    pairs: list[tuple[Matrix, list[Tensor], list[Tensor]]] = []
    for matrix in matrices:
        G = getattr(reference.get_submodule(matrix.owner), matrix.parameter).grad
        delta = matrix.delta()
        wanted = torch.autograd.grad(delta, matrix.factors, torch.zeros_like(delta) if G is None else G)
        got = [torch.zeros_like(f) if f.grad is None else f.grad for f in matrix.factors]
        pairs.append((matrix, list(wanted), got))
    largest = max((w.norm().item() for _, wanted, _ in pairs for w in wanted), default=0.0)
    worst, num_tested = (0.0, ""), 0
    for matrix, wanted, got in pairs:
        size = sum(w.square().sum().item() for w in wanted) ** 0.5
        num_tested += size > 1e-7 * largest
        worst = max(worst, (difference(got, wanted) / max(size, 1e-4 * largest, 1e-12), str(matrix)))
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])
    return *worst, num_tested


def _doubled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _doubled(inner) for name, inner in value.items()}
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _read(result: Result, check: str, arm: Arm, pristine: nn.Module, directory: Path) -> nn.Module | None:
    try:
        return arm.load(copy.deepcopy(pristine), directory)
    except Exception as error:
        result.fail(check, why=f" not read: {_one_line(error)}")
        return None


def _read_by_other(
    subject: Subject, written: Result, name: str, arm: Arm, directory: Path, adapted: list[Tensor], effect: float
) -> Result:
    result = Result(subject.name, f"{name} reads {written.arm}", written.targets, num_matrices=written.num_matrices)
    read = _read(result, "file", arm, subject.model, directory)
    if read is None:
        result.verdict = REFUSED
        return result
    try:
        found = outputs(read.eval(), subject.calls)
    except Exception as error:
        result.fail("crash", why=f": {_one_line(error)}")
        return result
    _compare(result, "output", difference(found, adapted) / effect, FILE_TOLERANCE)
    return result


def _check_export(
    result: Result, pristine: nn.Module, merged: nn.Module, calls: Any, adapted: Any, effect: float
) -> None:
    """The merged weights in a model that was built anew, where what was tied is tied unless merging has untied it."""
    state = merged.state_dict()
    if list(state) != list(pristine.state_dict()):
        result.fail("merged", why=" has other keys")
        return
    fresh = copy.deepcopy(pristine)
    is_untied = len(list(merged.parameters())) != len(list(pristine.parameters()))
    fresh.load_state_dict(state, assign=is_untied)
    _compare(result, "merged, loaded anew", difference(outputs(fresh.eval(), calls), adapted) / effect)


def _check_unchanged(result: Result, check: str, pristine: nn.Module, model: nn.Module, *, strict: bool) -> None:
    """Weights to the bit and, where ``strict``, classes, keys and which parameters are one."""
    was, now = pristine.state_dict(), model.state_dict()
    changed = [name for name, tensor in was.items() if name not in now or not _same(tensor, now[name])]
    if changed:
        result.fail(check, why=f" changes `{changed[0]}`")
    if strict:
        if list(was) != list(now):
            result.fail(check, why=" leaves other keys")
        if [type(m) for m in pristine.modules()] != [type(m) for m in model.modules()]:
            result.fail(check, why=" leaves other classes")
        if [n for n, _ in pristine.named_parameters()] != [n for n, _ in model.named_parameters()]:
            result.fail(check, why=" leaves other parameters tied")


def _check_roles(result: Result, subject: Subject, arm: Arm) -> None:
    for role in set(result.targets.split()) & set("qkv"):
        model = copy.deepcopy(subject.model)
        layers = arm.adapt(copy.deepcopy(subject.model), role)
        rows = _rows_of(layers)
        verdict = killed_attention(model, subject.calls, role, rows)
        if verdict.missed and verdict.missed == verdict.mixed and role in "qk":
            both = arm.adapt(copy.deepcopy(subject.model), "q k")
            if killed_attention(model, subject.calls, role, _rows_of(both), at_once=True).share == 1:
                verdict = Killed(1.0)  # queries and keys are mixed before they meet
        if role == "v" and verdict.missed == verdict.mixed and all(_has_own(rows, name) for name in verdict.missed):
            verdict = Killed(1.0, wrong=verdict.wrong)  # something is added to the values, as embeddings of tokens are
        result.errors[f"{role} found"] = verdict.share
        if verdict.wrong:
            result.fail(f"{role} rows", why=f" are others: {verdict.wrong}")
        elif verdict.missed:
            said = unplayed(layers, role)
            unsaid = [name for name in verdict.missed if not is_within(without_numbers([name])[0], said)]
            if result.verdict != PARTIAL:
                result.verdict = PARTIAL if unsaid else IN_PART
            missed = (unsaid or verdict.missed)[0]
            result.reason += f"{role} in {verdict.share:.0%} of attention calls, not in {missed}; "


def _has_own(rows: Mapping[tuple[str, str], Any], attention: str) -> bool:
    """Whether an adapted layer lies within what attends."""
    return any(layer.startswith(f"{attention}.") for layer, _ in rows)


def _rows_of(model: nn.Module) -> dict[tuple[str, str], Any]:
    return {(name, next(iter(layer.updates()))): layer.adapters.rows for name, layer in _adapted(model).items()}


def _adapted(model: nn.Module) -> dict[str, Any]:
    from asym_lightning.adapters import adapter_layers

    return adapter_layers(model)


def _reach(pristine: nn.Module, matrices: list[Matrix]) -> float:
    adapted = {id(getattr(pristine.get_submodule(m.owner), m.parameter)) for m in matrices}
    left_out = {id(m.weight) for m in pristine.modules() if isinstance(m, nn.Embedding)}
    get_output = getattr(pristine, "get_output_embeddings", lambda: None)
    with contextlib.suppress(NotImplementedError, AttributeError):
        left_out.add(id(getattr(get_output(), "weight", None)))
    sizes = {id(p): p.numel() for p in pristine.parameters() if p.dim() > 1 and id(p) not in left_out}
    return sum(size for key, size in sizes.items() if key in adapted) / max(sum(sizes.values()), 1)


def _compare(result: Result, check: str, error: float, tolerance: float = TOLERANCE, where: str = "") -> None:
    result.errors[check] = max(error, result.errors.get(check, 0.0))
    if not error <= tolerance:
        result.fail(check, error, where)


def _same(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and left.dtype == right.dtype and torch.equal(left, right)


def _one_line(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
