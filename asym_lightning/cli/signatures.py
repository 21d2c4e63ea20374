"""What classes take, read from their source.

To import them takes seconds, for torch and Lightning come along; a help text or a misspelt option is not worth that.
Names are followed through imports as far as asked: `asym_lightning.modules.ImageClassifier` to the file that it is in.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any, NamedTuple


class _Code(NamedTuple):
    """A piece of a module's source; the piece may be missing."""

    module: str
    node: ast.AST | None


@dataclass(frozen=True)
class Argument:
    """An argument of a class, as it is written."""

    _annotation: _Code
    _default: _Code

    @property
    def annotation(self) -> str:
        """Its type as text, with what its names stand for in their place, such as the choices of a literal."""
        module, node = self._annotation
        return " | ".join(ast.unparse(_meant(_Code(module, choice))) for choice in _choices(node))

    @property
    def default(self) -> str | None:
        """Its default as text; None if it is required."""
        node = self._default.node
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("field", "dataclasses.field"):
            values = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            return values.get("default") or f"{values['default_factory']}()"
        return None if node is None else ast.unparse(node)

    @property
    def class_path(self) -> str | None:
        """The class that the type names, whose arguments are options below this one; None if it names none, or more."""
        module, node = self._annotation
        choices = [choice for choice in _choices(node) if ast.unparse(choice) != "None"]
        return _class_path(_Code(module, choices[0])) if len(choices) == 1 else None

    @property
    def default_class(self) -> str | None:
        """The class that the default is, or None."""
        return _class_path(self._default)


@dataclass(frozen=True)
class Signature:
    """The arguments of a class by name, and whether it is a base for others alone."""

    arguments: Mapping[str, Argument]
    is_abstract: bool


@cache
def signature(class_path: str) -> Signature | None:
    """Return what a class takes; None if its source can't be found, or takes whatever it is given.

    Args:
        class_path: Dotted path of the class: where it is, or where a package offers it.

    Example:
        >>> found = signature("asym_lightning.modules.WarmupSchedule")
        >>> list(found.arguments), found.arguments["warmup"].default
        (['warmup', 'decay', 'final'], '0.0')
    """
    found = _find_class(class_path)
    arguments = None if found is None else _arguments(*found)
    if found is None or arguments is None:
        return None
    return Signature(arguments, is_abstract=any(ast.unparse(base) == "ABC" for base in found[1].bases))


def summary(class_path: str) -> str:
    """The first sentence of a class's docstring, or nothing.

    >>> summary("asym_lightning.data.GLUEDataModule")
    'A task of GLUE (Wang et al. 2019).'
    """
    found = _find_class(class_path)
    paragraph = ((found and ast.get_docstring(found[1])) or "").partition("\n\n")[0]
    return re.split(r"(?<=\.) (?=[A-Z`])", " ".join(paragraph.split()))[0]


def explanations(class_path: str) -> dict[str, str]:
    """What the docstrings of a class and of its constructor say of each argument.

    >>> explanations("asym_lightning.modules.WarmupSchedule")["final"]
    'Share of the learning rate, in [0, 1], that is left at the end.'
    """
    from docstring_parser import DocstringStyle, parse

    found = _find_class(class_path)
    nodes: list[Any] = [] if found is None else [found[1], *_constructors(found[1])]
    docs = [parse(ast.get_docstring(node) or "", DocstringStyle.GOOGLE) for node in nodes]
    return {entry.arg_name: " ".join((entry.description or "").split()) for doc in docs for entry in doc.params}


def offered_names(module: str, *, at_home: bool = False) -> list[str]:
    """Names of the classes that a module lists in its `__all__`, or else has.

    Args:
        module: Name of the module.
        at_home: Leave out those that a package offers but has not in itself.

    Example:
        >>> offered_names("asym_lightning.modules.schedule")
        ['WarmupSchedule', 'TorchSchedule']
    """
    _, statements = _source(module)
    for node in statements:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = [name for name in ast.literal_eval(node.value) if name[0].isupper()]
            return [name for name in names if not at_home or _home(module, name).startswith(module)]
    return [node.name for node in statements if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def _arguments(module: str, node: ast.ClassDef) -> dict[str, Argument] | None:
    """Arguments of a class: of its own constructor, else of a dataclass its fields, else those of its first base."""
    for init in _constructors(node):
        arguments = init.args
        if arguments.vararg or arguments.kwarg:
            return None
        named = arguments.args[1:]
        defaults = [*[None] * (len(named) - len(arguments.defaults)), *arguments.defaults, *arguments.kw_defaults]
        return {
            argument.arg: Argument(_Code(module, argument.annotation), _Code(module, default))
            for argument, default in zip([*named, *arguments.kwonlyargs], defaults, strict=True)
        }
    base = _class_path(_Code(module, node.bases[0])) if node.bases else None
    above = signature(base) if base else None
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return dict(above.arguments) if above else None
    fields = {
        field.target.id: Argument(_Code(module, field.annotation), _Code(module, field.value))
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id != "_"
    }
    return {**(above.arguments if above else {}), **fields}


def _constructors(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    return (item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__")


def _choices(annotation: ast.AST | None) -> list[ast.AST]:
    """What a union is of; of anything else, itself."""
    if isinstance(annotation, ast.BinOp):
        return [*_choices(annotation.left), *_choices(annotation.right)]
    return [] if annotation is None else [annotation]


def _meant(code: _Code) -> ast.expr:
    found = _resolved(code)
    meant = found.node if found and isinstance(found.node, ast.expr) else code.node
    assert isinstance(meant, ast.expr)
    plain = _without_range(meant)
    if isinstance(plain, ast.Subscript) and isinstance(plain.slice, ast.Tuple):  # as of `Mapping[str, Count]`
        parts = [_meant(_Code(found.module if found else code.module, part)) for part in plain.slice.elts]
        return ast.Subscript(plain.value, ast.Tuple(parts, ast.Load()), ast.Load())
    return plain


def _without_range(annotation: ast.expr) -> ast.expr:
    """The kind of a number that has to be in a range: `int` of `Annotated[int, Range(1)]`."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        assert isinstance(annotation.slice, ast.Tuple)
        return annotation.slice.elts[0]
    return annotation


def _class_path(code: _Code) -> str | None:
    found = _resolved(code)
    return f"{found.module}.{found.node.name}" if found and isinstance(found.node, ast.ClassDef) else None


def _resolved(code: _Code) -> _Code | None:
    """The class or the type that a name, dotted or not, stands for in its module."""
    if isinstance(code.node, ast.Name):
        return _find(code.module, code.node.id)
    if isinstance(code.node, ast.Attribute):
        module, _, name = ast.unparse(code.node).rpartition(".")
        return _find(module, name)
    return None


def _find_class(class_path: str) -> tuple[str, ast.ClassDef] | None:
    module, _, name = class_path.rpartition(".")
    found = _find(module, name)
    return (found.module, found.node) if found and isinstance(found.node, ast.ClassDef) else None


def _home(module: str, name: str) -> str:
    found = _find(module, name)
    return found.module if found else ""


def _find(module: str, name: str) -> _Code | None:
    """Where a module has the definition of a class or type: in itself, or where it imports it from."""
    is_package, statements = _source(module)
    for node in statements:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _Code(module, node)
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            return _Code(module, node.value)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    package = module if is_package else module.rpartition(".")[0]
                    return _find(resolve_name("." * node.level + (node.module or ""), package), alias.name)
    return None


@cache
def _source(module: str) -> tuple[bool, tuple[ast.stmt, ...]]:
    """Whether a module is a package, and its statements, those under an `if` or `try` too; none if it is not found."""
    root, *rest = module.split(".")
    spec = find_spec(root) if root else None  # of a name without a dot this imports nothing
    places = (spec.submodule_search_locations or [str(Path(spec.origin or "").with_suffix(""))]) if spec else []
    for place in places:
        path = Path(place, *rest)
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file.name == "__init__.py", tuple(_statements(ast.parse(file.read_text("utf-8")).body))
    return False, ()


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            yield from _statements(node.body)
