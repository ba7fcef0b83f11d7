"""Mutants of a module: one small change each to a rule that its source states. Owns the changes; runs nothing.

The changes are those of the classic catalogues (comparison boundaries and negations, arithmetic, logical connectors, constants,
statements left out), kept to what can change a decision: messages, annotations, subscripts, assertions and fitted constants stay.
A mutant is named by its function and by the text of the change, so that its name survives edits elsewhere in the file.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Change = Callable[[ast.AST], ast.AST | None]

#: comparison → what may stand in its place: the boundary moved, the sense turned round
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
#: function or method → another that takes the same arguments
NAMES = {
    "min": "max", "max": "min", "any": "all", "all": "any", "appendleft": "append", "popleft": "pop", "ceil": "floor",
    "floor": "ceil", "nlargest": "nsmallest", "nsmallest": "nlargest",
}  # fmt: skip
#: calls without arguments beside their first that may be left out: f(x) → x
DROPPED = ("reversed", "sorted", "abs", "frozenset", "set")
#: keywords whose values describe and do not decide
TOLD = ("doc", "source", "fitted", "help", "name", "value")


@dataclass(frozen=True, slots=True)
class _Site:
    """Where a change goes: the node by its place in the walk, and what is put there."""

    place: int
    function: str
    line: int
    text: str
    change: Change


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed module. ``name``: function, change and, where the same text occurs several times in it, which of them."""

    name: str
    line: int
    source: str
    site: _Site

    def tree(self) -> ast.Module:
        """The changed module."""
        return _apply(ast.parse(self.source), self.site)


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module's source, in the order of its lines."""
    seen: Counter[tuple[str, str]] = Counter()
    for site in sorted(_sites(ast.parse(source)), key=lambda s: (s.line, s.place)):
        seen[site.function, site.text] += 1
        which = seen[site.function, site.text]
        name = f"{site.function}: {site.text}" + (f" #{which}" if which > 1 else "")
        yield Mutant(name, site.line, source, site)


def _apply(tree: ast.Module, site: _Site) -> ast.Module:
    target = next(node for place, node in enumerate(ast.walk(tree)) if place == site.place)

    class Put(ast.NodeTransformer):
        """Puts the changed node in the place of the one that the site names."""

        def visit(self, node: ast.AST) -> ast.AST:
            if node is target:
                return ast.copy_location(site.change(node) or ast.Pass(), node)
            return self.generic_visit(node)

    changed = Put().visit(tree)
    return ast.fix_missing_locations(changed)


def _sites(tree: ast.Module) -> Iterator[_Site]:
    functions, left_out = _functions(tree), _left_out(tree)
    for place, node in enumerate(ast.walk(tree)):
        if id(node) in left_out:
            continue
        for text, change in _changes(node):
            yield _Site(place, functions.get(id(node), "module"), node.lineno, text, change)  # type: ignore[attr-defined]


def _functions(tree: ast.Module) -> dict[int, str]:
    """Node → the qualified name of the function around it."""
    names: dict[int, str] = {}

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = f"{name}.{child.name}" if name else child.name
            names[id(child)] = inner or "module"
            visit(child, inner)

    visit(tree, "")
    return names


def _left_out(tree: ast.Module) -> set[int]:
    """Nodes that decide nothing: annotations, messages, assertions, indices, values of fitted constants."""
    roots: list[ast.AST] = []
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign():
                roots.append(node.annotation)
            case ast.arg(annotation=ast.AST() as annotation):
                roots.append(annotation)
            case ast.FunctionDef():
                roots += [*node.decorator_list, *([node.returns] if node.returns else [])]
            case ast.Assert():
                roots.append(node)
            case ast.Raise(exc=ast.AST() as exc):
                roots.append(exc)
            case ast.JoinedStr():
                roots.append(node)
            case ast.Subscript():
                roots.append(node.slice)
            case ast.Call(func=ast.Name(id="Constant" | "Traits")):
                roots += [k.value for k in node.keywords if k.arg in TOLD]
            case ast.Call(func=ast.Name(id="Option")):
                roots += [k.value for k in node.keywords if k.arg != "default"]
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                roots.append(node)
            case ast.Assign(targets=[ast.Name(id="__slots__" | "__all__")]):
                roots.append(node)
    return {id(n) for root in roots for n in ast.walk(root)}


# -- the changes of one node --------------------------------------------------------------------------------------------


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    match node:
        case ast.Compare():
            yield from _comparisons(node)
        case ast.BoolOp():
            yield from _connectors(node)
        case ast.UnaryOp(op=ast.Not()):
            yield f"{_text(node)} → {_text(node.operand)}", lambda n: n.operand  # type: ignore[attr-defined]
        case ast.BinOp() if type(node.op) in ARITHMETIC and not _is_text(node):
            other = ARITHMETIC[type(node.op)]
            yield _told(node, lambda n: setattr(n, "op", other()))
        case ast.AugAssign():
            yield f"without {_text(node)}", lambda n: None
            if type(node.op) in ARITHMETIC and not isinstance(node.value, (ast.List, ast.Tuple, ast.JoinedStr)):
                other = ARITHMETIC[type(node.op)]
                yield _told(node, lambda n: setattr(n, "op", other()))
        case ast.Constant():
            yield from _constants(node)
        case ast.If() | ast.IfExp() | ast.While() if not isinstance(node.test, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
            yield from _turned(node)
        case ast.Call():
            yield from _calls(node)
        case ast.Expr(value=ast.Call()) if "super()" not in _text(node):
            yield f"without {_text(node)}", lambda n: None
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()], value=ast.Constant()):  # something set back
            yield f"without {_text(node)}", lambda n: None
        case ast.Raise():
            yield f"without {_text(node)}", lambda n: None
        case ast.Continue():
            yield "continue → break", lambda n: ast.Break()
        case ast.Break():
            yield "break → continue", lambda n: ast.Continue()
        case ast.Delete():
            yield f"without {_text(node)}", lambda n: None


def _comparisons(node: ast.Compare) -> Iterator[tuple[str, Change]]:
    for position, op in enumerate(node.ops):
        for other in COMPARISONS[type(op)]:
            yield _told(node, lambda n, position=position, other=other: n.ops.__setitem__(position, other()))


def _connectors(node: ast.BoolOp) -> Iterator[tuple[str, Change]]:
    """and ↔ or, and each condition left out."""
    other = ast.Or if isinstance(node.op, ast.And) else ast.And
    yield _told(node, lambda n: setattr(n, "op", other()))
    for position in range(len(node.values)):

        def without(n: ast.AST, position: int = position) -> ast.AST:
            left = [v for i, v in enumerate(n.values) if i != position]  # type: ignore[attr-defined]
            return left[0] if len(left) == 1 else ast.BoolOp(op=n.op, values=left)  # type: ignore[attr-defined]

        yield f"{_text(node)} → {_text(without(copy.deepcopy(node)))}", without


def _constants(node: ast.Constant) -> Iterator[tuple[str, Change]]:
    value = node.value
    if isinstance(value, bool):
        others: tuple[object, ...] = (not value,)
    elif isinstance(value, int):
        others = (value + 1,) if value == 0 else (value + 1, value - 1)
    elif isinstance(value, float):
        others = (value * 2 or 1.0,) if abs(value) > 1e-6 or not value else ()  # smaller ones only mend rounding
    else:
        return
    for other in others:
        yield f"{value!r} → {other!r}", lambda n, other=other: ast.Constant(other)


def _turned(node: ast.If | ast.IfExp | ast.While) -> Iterator[tuple[str, Change]]:
    if isinstance(node.test, ast.Constant):
        return
    yield (
        f"if {_text(node.test)} → if not",
        lambda n: _with(n, "test", ast.UnaryOp(op=ast.Not(), operand=n.test)),  # type: ignore[attr-defined]
    )


def _calls(node: ast.Call) -> Iterator[tuple[str, Change]]:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in NAMES:
            which = "id" if isinstance(node.func, ast.Name) else "attr"
            yield _told(node, lambda n: setattr(n.func, which, NAMES[name]))
            if name in ("min", "max") and len(node.args) == 2 and not node.keywords:  # a limit left out
                for position in (0, 1):
                    yield f"{_text(node)} → {_text(node.args[position])}", lambda n, position=position: n.args[position]
        case ast.Name(id=name) if name in DROPPED and len(node.args) == 1:
            yield f"{_text(node)} → {_text(node.args[0])}", lambda n: n.args[0]  # type: ignore[attr-defined]


def _with(node: ast.AST, field: str, value: ast.AST) -> ast.AST:
    setattr(node, field, value)
    return node


def _told(node: ast.AST, edit: Callable[[ast.AST], object]) -> tuple[str, Change]:
    """A change in place, and its text before and after."""
    changed = copy.deepcopy(node)
    edit(changed)

    def change(n: ast.AST) -> ast.AST:
        edit(n)
        return n

    return f"{_text(node)} → {_text(changed)}", change


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:60]} … {text[-25:]}"


def _is_text(node: ast.BinOp) -> bool:
    """Whether it joins or formats strings or lists, where the other operator would only raise."""
    parts = (node.left, node.right)
    return any(
        isinstance(p, (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp))
        or (isinstance(p, ast.Constant) and isinstance(p.value, str))
        for p in parts
    )
