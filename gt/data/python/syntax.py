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

MIN_NODES, MAX_NODES = 10, 500  # of a function's syntax tree in Python
MAX_LITERAL = 16  # characters of a string constant that is kept as a word

# operators and contexts are not nodes of the graph; an operator is the word of its expression
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
    """The children of a node in the graph, in the order of the fields of its type."""
    children: list[ast.AST] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            children += [item for item in value if isinstance(item, ast.AST) and not isinstance(item, SKIPPED)]
        elif isinstance(value, ast.AST) and not isinstance(value, SKIPPED):
            children.append(value)
    return children


def attribute(node: Any) -> str:
    """The word of a tree node: an identifier, operators or a constant; empty if it has none."""
    if isinstance(node, ast.Constant):
        value = node.value
        is_short = isinstance(value, bool | int | None) or (isinstance(value, str) and len(value) <= MAX_LITERAL)
        return f"{type(value).__name__}:{value!r}" if is_short else type(value).__name__
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
    """A syntax tree as a graph, with nodes in depth-first preorder that follows the source.

    Attributes:
        types: indices into `NODE_TYPES`.
        words: see `attribute`.
        depths: 0 at the root.
        edges: (source, target, index into `EDGE_KINDS`).
    """

    types: list[int]
    words: list[str]
    depths: list[int]
    edges: list[tuple[int, int, int]]


@dataclass
class Sample:
    """A function in both views, its tree and its tokens.

    Attributes:
        digest: equal for equal functions.
        line: the line of the file where it begins.
        label: its class, if it has one.
        variables: for each view and node, 1 + the index of the local variable that it mentions, or 0.
        slots: for each view, the nodes at which a variable may be hidden, in the same order.
    """

    tree: Tree
    tokens: list[str]
    digest: bytes
    line: int
    label: int = 0
    variables: tuple[list[int], list[int]] = ([], [])
    slots: tuple[list[int], list[int]] = ([], [])


def functions_of(module: ast.AST) -> list[Function]:
    """The functions of a module with `MIN_NODES` to `MAX_NODES` nodes, including nested ones."""
    functions = (node for node in ast.walk(module) if isinstance(node, FUNCTIONS))
    return [function for function in functions if MIN_NODES <= sum(1 for _ in ast.walk(function)) <= MAX_NODES]


def canonical_source(node: ast.AST) -> str | None:
    """The source of a node as written by ``ast.unparse``; None if Python can parse but not unparse it."""
    try:
        return ast.unparse(node)
    except ValueError:  # a number with too many digits; before Python 3.12, an f-string that would need a backslash
        return None


def position(node: Any, parent: tuple[int, int]) -> tuple[int, int]:
    """Line and column where a node begins; a node without a position begins with its first descendant."""
    if hasattr(node, "lineno"):
        return node.lineno, node.col_offset
    return min((position(child, parent) for child in children(node)), default=parent)


def preorder(function: ast.AST) -> list[tuple[Any, int, int]]:
    """The nodes of the graph in order, each with the index of its parent (-1 if none) and its depth."""
    order: list[tuple[Any, int, int]] = []
    stack: list[tuple[Any, int, int, tuple[int, int]]] = [(function, -1, 0, (0, 0))]
    while stack:
        node, parent, depth, parent_position = stack.pop()
        own_position, number = position(node, parent_position), len(order)
        order.append((node, parent, depth))
        # fields may not follow the source: a dict lists its keys before its values, `a if b else c` its test first
        ordered = sorted(children(node), key=partial(position, parent=own_position))
        stack.extend((child, number, depth + 1, own_position) for child in reversed(ordered))
    return order


def tree(order: Sequence[tuple[Any, int, int]], unjoined: Container[str] = ()) -> Tree:
    """The graph of a function, with edges between parents and children, consecutive leaves, and consecutive uses.

    Args:
        order: its nodes, see `preorder`.
        unjoined: names whose uses are not joined.
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
        if isinstance(node, NAMES) and variable not in unjoined:
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


def lex(source: str) -> list[tuple[str, int]]:
    """The tokens of canonical source with their offsets: words, signs, and line breaks with their indentation.

    All long strings become the token ``str``, as they have the same attribute in the tree.
    """
    tokens = []
    for match in TOKEN.finditer(source):
        text = match.group()
        if match.lastgroup == "line":
            text = f"line:{len(text.rpartition(chr(10))[2]) // 4}"
        elif match.lastgroup == "string" and len(text) > MAX_LITERAL + 2:
            text = "str"
        tokens.append((text, match.start()))
    return tokens


def tokens(source: str) -> list[str]:
    """The tokens of canonical source, see `lex`."""
    return [text for text, _ in lex(source)]
