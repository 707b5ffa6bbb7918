"""A sample function, and trees of functions with hidden answers."""

import ast
import textwrap

from gt.data.python.returns import ANSWER
from gt.data.python.syntax import FUNCTIONS, Tree, preorder, tree

SOURCE = """
def walk(self, first, *rest, last: int = limit, **named):
    '''Docstring.'''
    @first.check
    def inner(last, limit=-1):
        return last if limit else first
    table = {first: last, limit: rest, **named}
    while first < last <= 3 and not rest:
        first += (last or rest)[first:last]
        for limit, first in zip(rest, rest, strict=True):
            yield first, last
    with open('name') as first, last:
        print(f'{first} {limit!r}', *rest, sep='a rather long separator')
    return walk(first)
"""


def answer_tree(function: ast.AST) -> Tree:
    """The tree of a function whose answers are hidden."""
    return tree(preorder(function), unjoined={ANSWER})


def parse(source: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """The function that the source defines."""
    node = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(node, FUNCTIONS)
    return node
