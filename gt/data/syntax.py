"""A Python function as a sample: what kind of thing it returns, and its source with the answer hidden."""

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

CLASSES = ("generator", "nothing", "boolean", "call", "reference", "expression", "mixed")

ANSWER, OWN_NAME = "HIDDEN_VALUE", "HIDDEN_NAME"  # what stands where something was hidden

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (*FUNCTIONS, ast.ClassDef)
SCOPES = (*DOCUMENTED, ast.Lambda)

# the kinds of tree nodes, in an order of this project's own; operators and contexts are not nodes of the graph
SKIPPED = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop)
NODE_TYPES = sorted(
    name
    for name, kind in vars(ast).items()
    if isinstance(kind, type) and issubclass(kind, ast.AST) and not issubclass(kind, SKIPPED)
)
TYPE_NUMBER = {name: number for number, name in enumerate(NODE_TYPES)}

EDGE_KINDS = ("child", "parent", "next leaf", "previous leaf", "next use", "previous use")


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function's body that belong to it and not to a function, lambda or class inside it."""
    todo = list(getattr(function, "body", []))
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, SCOPES):
            todo.extend(ast.iter_child_nodes(node))


def is_boolean(value: ast.expr) -> bool:
    """Whether an expression is true or false by its form alone."""
    if isinstance(value, ast.BoolOp):
        return all(map(is_boolean, value.values))
    if isinstance(value, ast.UnaryOp):
        return isinstance(value.op, ast.Not)
    return isinstance(value, ast.Compare) or (isinstance(value, ast.Constant) and isinstance(value.value, bool))


def kind_of(value: ast.expr | None) -> str:
    """The class of one returned value."""
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


def label(function: ast.AST) -> int:
    """What a function returns, as a number into `CLASSES`; its own scope alone counts."""
    nodes = list(own_nodes(function))
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in nodes):
        return CLASSES.index("generator")
    kinds = {kind_of(node.value) for node in nodes if isinstance(node, ast.Return)} or {"nothing"}
    return CLASSES.index(kinds.pop() if len(kinds) == 1 else "mixed")


@contextmanager
def hidden(function: Function) -> Iterator[Function]:
    """The same function without the answer, for the time of a ``with``: no returned or yielded value, no name of its
    own, no return type, no docstring. (Changing it back is ten times as fast as a deep copy.)
    """
    before: list[tuple[ast.AST, str, Any]] = []

    def put(node: ast.AST, name: str, value: Any) -> None:
        before.append((node, name, getattr(node, name)))
        setattr(node, name, value)

    name, answer = function.name, ast.Name(ANSWER, ast.Load())
    for node in own_nodes(function):
        if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom):
            put(node, "value", answer)
    for node in ast.walk(function):
        for attribute in ("id", "attr", "name", "asname", "arg", "module", "rest", "value"):  # a string may name it too
            if getattr(node, attribute, None) == name:
                put(node, attribute, OWN_NAME)
        if isinstance(node, ast.Global | ast.Nonlocal) and name in node.names:
            put(node, "names", [OWN_NAME if each == name else each for each in node.names])
        if isinstance(node, FUNCTIONS):
            put(node, "returns", None)
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            put(node, "body", node.body[1:] or [ast.Pass()])
    try:
        yield function
    finally:
        for node, changed, value in reversed(before):
            setattr(node, changed, value)


def attribute(node: ast.AST) -> str:
    """The word that a tree node carries: an identifier, an operator, a constant; empty where it carries none."""
    if isinstance(node, ast.Constant):
        value = node.value
        plain = isinstance(value, bool | int | type(None)) or (isinstance(value, str) and len(value) <= 16)
        return f"{type(value).__name__}:{value!r}" if plain else type(value).__name__
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.UnaryOp | ast.BoolOp):
        return type(node.op).__name__
    if isinstance(node, ast.Compare):
        return type(node.ops[0]).__name__
    for name in ("id", "attr", "name", "arg", "module"):
        value = getattr(node, name, None)
        if isinstance(value, str):
            return value
    return ""


@dataclass
class Tree:
    """A syntax tree as a graph; nodes in depth-first order, parents first.

    Attributes:
        types: numbers into `NODE_TYPES`; words: see `attribute`; depths: 0 at the root.
        edges: (source, target, number into `EDGE_KINDS`).
    """

    types: list[int]
    words: list[str]
    depths: list[int]
    edges: list[tuple[int, int, int]]


def tree(function: ast.AST) -> Tree:
    """The graph of a function: parents and children, neighbouring leaves, and uses of the same variable in turn."""
    out = Tree([], [], [], [])
    leaves: list[int] = []
    last_use: dict[str, int] = {}
    todo: list[tuple[ast.AST, int, int]] = [(function, -1, 0)]
    while todo:
        node, parent, depth = todo.pop()
        number = len(out.types)
        out.types.append(TYPE_NUMBER[type(node).__name__])
        out.words.append(attribute(node))
        out.depths.append(depth)
        if parent >= 0:
            out.edges += [(parent, number, 0), (number, parent, 1)]
        if isinstance(node, ast.Name | ast.arg):
            variable = out.words[-1]
            if variable in last_use:
                out.edges += [(last_use[variable], number, 4), (number, last_use[variable], 5)]
            last_use[variable] = number
        children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, SKIPPED)]
        if children:
            todo.extend((child, number, depth + 1) for child in reversed(children))
        else:
            if leaves:
                out.edges += [(leaves[-1], number, 2), (number, leaves[-1], 3)]
            leaves.append(number)
    return out


TOKEN = re.compile(
    r"""(?P<string>[rbfuRBFU]{0,2}(?:'''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"))"""
    r"""|(?P<word>\w+)|(?P<line>\n[ ]*)|(?P<sign>\*\*=?|//=?|>>=?|<<=?|->|:=|[!=<>+\-*/%&|^@]=|\.\.\.|[^\w\s])""",
    re.DOTALL,
)


def tokens(source: str) -> list[str]:
    """The tokens of canonical source (``ast.unparse``): words, signs, lines with their indentation.

    Long strings are all one token ``str``, as they are one attribute in the tree.
    """
    found = []
    for match in TOKEN.finditer(source):
        text = match.group()
        if match.lastgroup == "line":
            text = f"line:{(len(text) - 1) // 4}"
        elif match.lastgroup == "string" and len(text) > 18:
            text = "str"
        found.append(text)
    return found
