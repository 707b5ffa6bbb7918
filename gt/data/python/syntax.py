"""Two views of a Python function: its syntax tree as a graph, and its tokens."""

import ast
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*FUNCTIONS, ast.Lambda, ast.ClassDef)
DOCUMENTED = (*FUNCTIONS, ast.ClassDef)
NAMES = (ast.Name, ast.arg)

SMALLEST, LARGEST = 10, 500  # nodes of Python's tree at least and at most
SHORT = 16  # characters of a string constant that is a word of its own

# operators and contexts are not nodes of the graph: an operator is the word of its expression
SKIPPED = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop)
NODE_TYPES = sorted(
    name
    for name, kind in vars(ast).items()
    if isinstance(kind, type) and issubclass(kind, ast.AST) and not issubclass(kind, SKIPPED)
)
TYPE_NUMBER = {name: number for number, name in enumerate(NODE_TYPES)}

EDGE_KINDS = ("child", "parent", "next leaf", "previous leaf", "next use", "previous use")
CHILD, PARENT, NEXT_LEAF, PREVIOUS_LEAF, NEXT_USE, PREVIOUS_USE = range(6)


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below a node that are nodes of the graph, in the order of the fields of its type."""
    children: list[ast.AST] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            children += [item for item in value if isinstance(item, ast.AST) and not isinstance(item, SKIPPED)]
        elif isinstance(value, ast.AST) and not isinstance(value, SKIPPED):
            children.append(value)
    return children


def attribute(node: Any) -> str:
    """The word that a tree node carries: an identifier, operators, a constant; empty where it carries none."""
    if isinstance(node, ast.Constant):
        value = node.value
        plain = isinstance(value, bool | int | None) or (isinstance(value, str) and len(value) <= SHORT)
        return f"{type(value).__name__}:{value!r}" if plain else type(value).__name__
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.UnaryOp | ast.BoolOp):
        return type(node.op).__name__
    if isinstance(node, ast.Compare):
        return " ".join(type(op).__name__ for op in node.ops)
    for name in ("id", "attr", "name", "arg", "module"):
        value = getattr(node, name, None)
        if isinstance(value, str):
            return value
    return ""


@dataclass
class Tree:
    """A syntax tree as a graph; nodes depth first, parents first, and otherwise in the order of the source.

    Attributes:
        types: numbers into `NODE_TYPES`; words: see `attribute`; depths: 0 at the root.
        edges: (source, target, number into `EDGE_KINDS`).
    """

    types: list[int]
    words: list[str]
    depths: list[int]
    edges: list[tuple[int, int, int]]


@dataclass
class Sample:
    """One function, in both views: its tree and its tokens.

    Attributes:
        digest: equal for equal functions.
        line: of its file, where it begins.
        label: its class, where it has one.
        variables: of each view, for each node 1 + the number of the local variable that it mentions, or 0.
        slots: of each view, the nodes at which a variable may be hidden, in one order.
    """

    tree: Tree
    tokens: list[str]
    digest: bytes
    line: int
    label: int = 0
    variables: tuple[list[int], list[int]] = ([], [])
    slots: tuple[list[int], list[int]] = ([], [])


def inner(module: ast.AST) -> list[Function]:
    """The functions of a file that are neither too small nor too large, those inside others too."""
    functions = (node for node in ast.walk(module) if isinstance(node, FUNCTIONS))
    return [function for function in functions if SMALLEST <= sum(1 for _ in ast.walk(function)) <= LARGEST]


def written(node: ast.AST) -> str | None:
    """The canonical source of a node; None where Python reads more than it can write."""
    try:
        return ast.unparse(node)
    except ValueError:  # a number of too many digits; before Python 3.12 an f-string that would need a backslash
        return None


def place(node: Any, parent: tuple[int, int]) -> tuple[int, int]:
    """Line and column where a node begins; one without a place of its own begins with its first descendant."""
    if hasattr(node, "lineno"):
        return node.lineno, node.col_offset
    return min((place(child, parent) for child in children(node)), default=parent)


def preorder(function: ast.AST) -> list[tuple[Any, int, int]]:
    """The nodes of the graph in their order, each with the number of its parent (-1: none) and its depth."""
    order: list[tuple[Any, int, int]] = []
    todo: list[tuple[Any, int, int, tuple[int, int]]] = [(function, -1, 0, (0, 0))]
    while todo:
        node, parent, depth, above = todo.pop()
        here, number = place(node, above), len(order)
        order.append((node, parent, depth))
        # fields are not in the order of the source: a dict lists its keys before its values, `a if b else c` its test
        below = sorted(children(node), key=partial(place, parent=here))
        todo.extend((child, number, depth + 1, here) for child in reversed(below))
    return order


def tree(order: Sequence[tuple[Any, int, int]], alone: Container[str] = ()) -> Tree:
    """The graph of a function: parents and children, neighbouring leaves, and uses of the same variable in turn.

    Args:
        order: its nodes, see `preorder`.
        alone: names whose uses are not joined.
    """
    out = Tree([], [], [], [])
    last_leaf: int | None = None
    last_use: dict[str, int] = {}
    parents = {parent for _, parent, _ in order}
    for number, (node, parent, depth) in enumerate(order):
        out.types.append(TYPE_NUMBER[type(node).__name__])
        out.words.append(attribute(node))
        out.depths.append(depth)
        if parent >= 0:
            out.edges += [(parent, number, CHILD), (number, parent, PARENT)]
        variable = out.words[-1]
        if isinstance(node, NAMES) and variable not in alone:
            if variable in last_use:
                out.edges += [(last_use[variable], number, NEXT_USE), (number, last_use[variable], PREVIOUS_USE)]
            last_use[variable] = number
        if number not in parents:
            if last_leaf is not None:
                out.edges += [(last_leaf, number, NEXT_LEAF), (number, last_leaf, PREVIOUS_LEAF)]
            last_leaf = number
    return out


TOKEN = re.compile(
    r"""(?P<string>[rbfuRBFU]{0,2}(?:'''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"))"""
    r"""|(?P<word>\w+)|(?P<line>(?:\n[ ]*)+)|(?P<sign>\*\*=?|//=?|>>=?|<<=?|->|:=|[!=<>+\-*/%&|^@]=|\.\.\.|[^\w\s])""",
    re.DOTALL,
)


def lexed(source: str) -> list[tuple[str, int]]:
    """The tokens of canonical source (``ast.unparse``), words, signs, lines with their indentation, and their places.

    Long strings are all one token ``str``, as they are one attribute in the tree.
    """
    tokens = []
    for match in TOKEN.finditer(source):
        text = match.group()
        if match.lastgroup == "line":
            text = f"line:{len(text.rpartition(chr(10))[2]) // 4}"
        elif match.lastgroup == "string" and len(text) > SHORT + 2:
            text = "str"
        tokens.append((text, match.start()))
    return tokens


def tokens(source: str) -> list[str]:
    """The tokens of canonical source, see `lexed`."""
    return [text for text, _ in lexed(source)]
