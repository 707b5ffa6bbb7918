"""One Python function as a sample: what kind of thing it returns, and two views of it with the answer hidden."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

CLASSES = ("generator", "nothing", "boolean", "call", "reference", "expression", "mixed")

ANSWER, OWN_NAME = "HIDDEN_VALUE", "HIDDEN_NAME"  # what stands where something was hidden

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*FUNCTIONS, ast.Lambda, ast.ClassDef)
DOCUMENTED = (*FUNCTIONS, ast.ClassDef)
Answer = ast.Return | ast.Yield | ast.YieldFrom
ANSWERS = (ast.Return, ast.Yield, ast.YieldFrom)

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


def place(node: Any, parent: tuple[int, int]) -> tuple[int, int]:
    """Line and column where a node begins; one without a place of its own begins with its first descendant."""
    if hasattr(node, "lineno"):
        return node.lineno, node.col_offset
    return min((place(child, parent) for child in children(node)), default=parent)


def tree(function: ast.AST) -> Tree:
    """The graph of a function: parents and children, neighbouring leaves, and uses of the same variable in turn."""
    out = Tree([], [], [], [])
    last_leaf: int | None = None
    last_use: dict[str, int] = {}
    todo: list[tuple[Any, int, int, tuple[int, int]]] = [(function, -1, 0, (0, 0))]
    while todo:
        node, parent, depth, above = todo.pop()
        number = len(out.types)
        out.types.append(TYPE_NUMBER[type(node).__name__])
        out.words.append(attribute(node))
        out.depths.append(depth)
        if parent >= 0:
            out.edges += [(parent, number, 0), (number, parent, 1)]
        variable = out.words[-1]
        if isinstance(node, ast.Name | ast.arg) and variable != ANSWER:
            if variable in last_use:
                out.edges += [(last_use[variable], number, 4), (number, last_use[variable], 5)]
            last_use[variable] = number
        here = place(node, above)
        # fields are not in the order of the source: a dict lists its keys before its values, `a if b else c` its test
        below = sorted(children(node), key=partial(place, parent=here))
        todo.extend((child, number, depth + 1, here) for child in reversed(below))
        if not below:
            if last_leaf is not None:
                out.edges += [(last_leaf, number, 2), (number, last_leaf, 3)]
            last_leaf = number
    return out


TOKEN = re.compile(
    r"""(?P<string>[rbfuRBFU]{0,2}(?:'''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"))"""
    r"""|(?P<word>\w+)|(?P<line>(?:\n[ ]*)+)|(?P<sign>\*\*=?|//=?|>>=?|<<=?|->|:=|[!=<>+\-*/%&|^@]=|\.\.\.|[^\w\s])""",
    re.DOTALL,
)


def tokens(source: str) -> list[str]:
    """The tokens of canonical source (``ast.unparse``): words, signs, lines with their indentation.

    Long strings are all one token ``str``, as they are one attribute in the tree.
    """
    tokens = []
    for match in TOKEN.finditer(source):
        text = match.group()
        if match.lastgroup == "line":
            text = f"line:{len(text.rpartition(chr(10))[2]) // 4}"
        elif match.lastgroup == "string" and len(text) > SHORT + 2:
            text = "str"
        tokens.append(text)
    return tokens
