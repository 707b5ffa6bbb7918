"""What kind of value does a function return? Its class, and the function without what reveals it."""

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
    canonical_source,
    children,
    functions_of,
    preorder,
    tokens,
    tree,
)

CLASSES = ("generator", "nothing", "boolean", "call", "reference", "expression", "mixed")

ANSWER, OWN_NAME = "HIDDEN_VALUE", "HIDDEN_NAME"  # placeholders for hidden code

Answer = ast.Return | ast.Yield | ast.YieldFrom
ANSWERS = (ast.Return, ast.Yield, ast.YieldFrom)


def samples(module: ast.Module) -> list[Sample]:
    """Every function of a file, with its class as the label."""
    return [one for function in functions_of(module) if (one := sample(function)) is not None]


def sample(function: Function) -> Sample | None:
    """A function with its answers hidden, in both views; None if it has no canonical source."""
    shown, exits = hidden(function), answers(function)
    sources = [source for node in (shown, *exits) if (source := canonical_source(node)) is not None]
    if len(sources) <= len(exits):
        return None
    # the answers are hashed too: many short functions look equal, but return different values
    digest = hashlib.sha256("\n".join(sources).encode()).digest()
    return Sample(tree(preorder(shown), unjoined={ANSWER}), tokens(sources[0]), digest, function.lineno, label(exits))


def answers(function: Function) -> list[Answer]:
    """Every return and yield of a function itself, excluding those of nested functions, lambdas and classes."""
    exits: list[Answer] = []
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        if isinstance(node, ANSWERS):
            exits.append(node)
        if not isinstance(node, SCOPES):
            stack.extend(children(node))
    return exits


def is_boolean(value: ast.expr) -> bool:
    """Whether an expression is boolean by its syntax alone."""
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


def label(exits: Sequence[Answer]) -> int:
    """The index in `CLASSES` of a function with these `answers`; an implicit return at its end does not count."""
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in exits):
        return CLASSES.index("generator")
    kinds = {kind_of(node.value) for node in exits} or {"nothing"}
    return CLASSES.index(kinds.pop() if len(kinds) == 1 else "mixed")


def hidden(function: Function) -> ast.AST:
    """A copy of a function without what reveals its class.

    Each ``return`` (bare or not), ``yield`` and ``yield from`` in its own scope becomes the same bare name, so that a
    generator looks like any other function. Its own name is replaced everywhere, including recursive calls and string
    constants. Return annotations, docstrings and its decorators are removed, as ``contextmanager`` reveals a generator.
    What nested functions return is not its answer and stays.
    """
    name = function.name

    def identifier(text: str) -> str:
        return ".".join(OWN_NAME if part == name else part for part in text.split(".")) if name in text else text

    def literal(value: Any) -> Any:
        has_name = isinstance(value, str) and name in value and re.search(rf"\b{re.escape(name)}\b", value)
        return OWN_NAME if has_name else value

    def field(value: Any, in_scope: bool) -> Any:
        if isinstance(value, list):
            return [field(item, in_scope) for item in value]
        if isinstance(value, str):
            return identifier(value)
        return copy(value, in_scope) if isinstance(value, ast.AST) and not isinstance(value, SKIPPED) else value

    def copy(node: Any, in_scope: bool) -> Any:
        if in_scope and isinstance(node, ANSWERS):
            hole = ast.copy_location(ast.Name(ANSWER, ast.Load()), node)
            return ast.copy_location(ast.Expr(hole), node) if isinstance(node, ast.Return) else hole
        if isinstance(node, ast.Constant):
            return ast.copy_location(ast.Constant(literal(node.value), node.kind), node)
        in_scope = in_scope and (node is function or not isinstance(node, SCOPES))
        fields = {key: field(getattr(node, key, None), in_scope) for key in node._fields}
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            fields["body"] = fields["body"][1:] or [ast.copy_location(ast.Pass(), node.body[0])]
        if isinstance(node, FUNCTIONS):
            fields["returns"] = None
        if node is function:
            fields["decorator_list"] = []
        return ast.copy_location(type(node)(**fields), node)

    return copy(function, in_scope=True)
