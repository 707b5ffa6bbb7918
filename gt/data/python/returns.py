"""What kind of thing does a function return? Its class, and the function without what gives it away."""

import ast
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from gt.data.python.syntax import (
    DOCUMENTED,
    FUNCTIONS,
    SCOPES,
    SKIPPED,
    Function,
    Sample,
    children,
    inner,
    preorder,
    tokens,
    tree,
    written,
)

CLASSES = ("generator", "nothing", "boolean", "call", "reference", "expression", "mixed")

ANSWER, OWN_NAME = "HIDDEN_VALUE", "HIDDEN_NAME"  # what stands where something was hidden

Answer = ast.Return | ast.Yield | ast.YieldFrom
ANSWERS = (ast.Return, ast.Yield, ast.YieldFrom)


def samples(module: ast.Module) -> list[Sample]:
    """Every function of a file, with its class as the label."""
    return [one for function in inner(module) if (one := sample(function)) is not None]


def sample(function: Function) -> Sample | None:
    """A function with its answers hidden, in both views; None where it has no canonical source."""
    shown, ends = hidden(function), answers(function)
    sources = [source for node in (shown, *ends) if (source := written(node)) is not None]
    if len(sources) <= len(ends):
        return None
    # duplicates have equal answers too: many short functions show the same and return different things
    digest = hashlib.sha256("\n".join(sources).encode()).digest()
    return Sample(tree(preorder(shown), alone={ANSWER}), tokens(sources[0]), digest, function.lineno, label(ends))


def answers(function: Function) -> list[Answer]:
    """Every return and yield in a function's body that is its own and not of a function, lambda or class inside it."""
    ends: list[Answer] = []
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ANSWERS):
            ends.append(node)
        if not isinstance(node, SCOPES):
            todo.extend(children(node))
    return ends


def is_boolean(value: ast.expr) -> bool:
    """Whether an expression is true or false by its form alone."""
    if isinstance(value, ast.BoolOp):
        return all(map(is_boolean, value.values))
    if isinstance(value, ast.UnaryOp):
        return isinstance(value.op, ast.Not)
    return isinstance(value, ast.Compare) or (isinstance(value, ast.Constant) and isinstance(value.value, bool))


def kind_of(value: ast.expr | None) -> str:
    """The class of one returned value; that of ``await x`` is the class of ``x``."""
    if isinstance(value, ast.Await):
        value = value.value
    if value is None or (isinstance(value, ast.Constant) and value.value is None):
        return "nothing"
    if is_boolean(value):
        return "boolean"
    if isinstance(value, ast.Call):
        return "call"
    if isinstance(value, ast.Name | ast.Attribute | ast.Subscript):
        return "reference"
    return "expression"


def label(ends: Sequence[Answer]) -> int:
    """What a function with these `answers` returns, as a number into `CLASSES`; falling off its end does not count."""
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ends):
        return CLASSES.index("generator")
    kinds = {kind_of(node.value) for node in ends} or {"nothing"}
    return CLASSES.index(kinds.pop() if len(kinds) == 1 else "mixed")


def hidden(function: Function) -> ast.AST:
    """A copy of a function without what gives its class away.

    Each ``return`` (bare or not), ``yield`` and ``yield from`` of its own scope becomes one and the same bare name, so
    that a generator looks like any other function. Its own name goes wherever it stands, also in recursive calls and
    in string constants. Return annotations and docstrings go, and so do its decorators: ``contextmanager`` tells a
    generator. What functions inside it return is not its answer and stays.
    """
    name = function.name

    def identifier(text: str) -> str:
        return ".".join(OWN_NAME if part == name else part for part in text.split(".")) if name in text else text

    def literal(value: Any) -> Any:
        named = isinstance(value, str) and name in value and re.search(rf"\b{re.escape(name)}\b", value)
        return OWN_NAME if named else value

    def field(value: Any, own: bool) -> Any:
        if isinstance(value, list):
            return [field(item, own) for item in value]
        if isinstance(value, str):
            return identifier(value)
        return copied(value, own) if isinstance(value, ast.AST) and not isinstance(value, SKIPPED) else value

    def copied(node: Any, own: bool) -> Any:
        if own and isinstance(node, ANSWERS):
            hole = ast.copy_location(ast.Name(ANSWER, ast.Load()), node)
            return ast.copy_location(ast.Expr(hole), node) if isinstance(node, ast.Return) else hole
        if isinstance(node, ast.Constant):
            return ast.copy_location(ast.Constant(literal(node.value), node.kind), node)
        own = own and (node is function or not isinstance(node, SCOPES))
        fields = {key: field(getattr(node, key, None), own) for key in node._fields}
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            fields["body"] = fields["body"][1:] or [ast.copy_location(ast.Pass(), node.body[0])]
        if isinstance(node, FUNCTIONS):
            fields["returns"] = None
        if node is function:
            fields["decorator_list"] = []
        return ast.copy_location(type(node)(**fields), node)

    return copied(function, own=True)
