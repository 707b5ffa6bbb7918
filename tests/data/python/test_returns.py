"""What functions return: classes of return values by example, and what hiding the answers changes."""

import ast

import pytest

from gt.data.python.returns import CLASSES, answers, hidden, label
from gt.data.python.syntax import Tree, tokens
from tests.data.python.parsing import SOURCE, answer_tree, parse

BODIES = {
    "pass": "nothing",
    "return": "nothing",
    "return None": "nothing",
    "raise NotImplementedError": "nothing",
    "if a: return\n return None": "nothing",
    "return True": "boolean",
    "return a < b": "boolean",
    "return a in b and not a": "boolean",
    "if a: return False\n return a is b": "boolean",
    "return not (a + b)": "boolean",
    "return a or b": "expression",
    "return a < b or a": "expression",
    "return f(a)": "call",
    "return a.b()(c)": "call",
    "return a": "reference",
    "return a.b": "reference",
    "return a[0]": "reference",
    "return a[b].c": "reference",
    "return a + b": "expression",
    "return -a": "expression",
    "return 1": "expression",
    "return 'text'": "expression",
    "return a, b": "expression",
    "return lambda: True": "expression",
    "return [x for x in a]": "expression",
    "return a if b else c": "expression",
    "if a: return 1\n else: return f(a)": "mixed",
    "if a: return None\n return a": "mixed",
    "if a: return\n return a < b": "mixed",
    "while a:\n  try: return a.b\n  except E: return a[1]\n  finally: pass": "reference",
    "with a:\n  for b in c: return True\n return None": "mixed",
    "yield": "generator",
    "yield a": "generator",
    "yield from a": "generator",
    "b = yield a\n return b": "generator",
    "return (yield a)": "generator",
    "f([(yield a)])": "generator",
    "def g(): return 1": "nothing",
    "def g(): yield 1\n return g": "reference",
    "async def g(): yield 1\n return g()": "call",
    "class C:\n  def g(self): return 1": "nothing",
    "h = lambda: (yield)\n return a < b": "boolean",
}


@pytest.mark.parametrize(("body", "expected"), BODIES.items(), ids=BODIES)
def test_class_of_return_values(body, expected):
    for start in ("def f(a, b, c):\n ", "async def f(a, b, c):\n "):
        if "yield from" in body or ("yield" in body and "return " in body):
            start = "def f(a, b, c):\n "  # not allowed in an async function
        assert CLASSES[label(answers(parse(start + body)))] == expected


def test_class_of_awaited_value():
    assert CLASSES[label(answers(parse("async def f(a): return await a.b()")))] == "call"
    assert CLASSES[label(answers(parse("async def f(a): return await a")))] == "reference"


def views(source: str) -> tuple[Tree, list[str]]:
    function = hidden(parse(source))
    return answer_tree(function), tokens(ast.unparse(function))


EQUAL = {
    "value": ("def f(a): return a + 1", "def f(a): return g(a)[3]"),
    "no value": ("def f(a): return", "def f(a): return a"),
    "none": ("def f(a): return None", "def f(a): return not a"),
    "lambda": ("def f(a): return lambda b: a", "def f(a): return a"),
    "generator": ("def f(a):\n for b in a: yield b", "def f(a):\n for b in a: return b == a"),
    "generators": ("def f(a): yield from a", "def f(a): yield"),
    "value of a yield": ("def f(a): b = yield a", "def f(a): b = yield from g(a)"),
    "yield in a return": ("def f(a): return (yield a)", "def f(a): return 3"),
    "yield in an expression": ("def f(a): g((yield a), 1)", "def f(a): g((yield), 1)"),
    "await": ("async def f(a): return await a", "async def f(a): return a"),
    "name": ("def is_fine(a): return a", "def frobnicate(a): return a"),
    "recursion": ("def f(a): f(f, a.f, f=a)", "def long_name(a): long_name(long_name, a.long_name, long_name=a)"),
    "super": ("def f(self): super().f()", "def get(self): super().get()"),
    "statements": ("def f():\n global f, g\n import f.b as f", "def h():\n global h, g\n import h.b as h"),
    "handler": ("def f():\n try: g()\n except E as f: pass", "def h():\n try: g()\n except E as h: pass"),
    "pattern": ("def f(a):\n match a:\n  case C(f=1) as f: pass", "def h(a):\n match a:\n  case C(h=1) as h: pass"),
    "name in a string": ("def keys(a): getattr(a, 'keys')", "def values(a): getattr(a, 'values')"),
    "name within a string": ("def keys(a): log('keys: no')", "def values(a): log('no values')"),
    "name in a nested string": ("def f(a): log(f'{a} for f')", "def g(a): log(f'{a} for g')"),
    "name inside": ("def f(a):\n def g(): return f(a)", "def h(a):\n def g(): return h(a)"),
    "annotation": ("def f(a) -> bool: return a", "def f(a): return a"),
    "annotation inside": ("def f(a):\n def g() -> int: pass", "def f(a):\n def g(): pass"),
    "docstring": ("def f(a):\n 'Yields all.'\n return a", "def f(a): return a"),
    "only a docstring": ("def f(a): 'Returns a bool.'", "def f(a): pass"),
    "empty docstring": ("def f(a):\n ''\n return a", "def f(a): return a"),
    "docstring inside": ("def f(a):\n class C:\n  'Of f.'\n  b = 1", "def f(a):\n class C: b = 1"),
    "decorator": ("@contextmanager\ndef f(a): yield a", "def f(a): yield a"),
    "property": ("@property\n@g(1)\ndef f(a): return a.b", "def f(a): return a.b"),
    "comment": ("def f(a):\n # true\n return a", "def f(a): return a"),
}


@pytest.mark.parametrize(("first", "second"), EQUAL.values(), ids=EQUAL)
def test_hidden_details_do_not_change_views(first, second):
    assert views(first) == views(second)


DIFFERENT = {
    "no return at all": ("def f(a): return", "def f(a): pass"),
    "value of a function inside": (
        "def f(a):\n def g(): return 1\n return g",
        "def f(a):\n def g(): return a\n return g",
    ),
    "yield of a function inside": ("def f(a):\n def g(): return 1", "def f(a):\n def g(): yield 1"),
    "value of a lambda inside": ("def f(a): b = lambda: 1", "def f(a): b = lambda: a"),
    "decorator inside": ("def f(a):\n @b\n def g(): pass", "def f(a):\n def g(): pass"),
    "async": ("async def f(a): return a", "def f(a): return a"),
    "other names": ("def f(a): g(ff)", "def f(a): g(f)"),
    "annotation of an argument": ("def f(a: int): return a", "def f(a): return a"),
    "operator": ("def f(a): g(a + 1)", "def f(a): g(a - 1)"),
    "comparison": ("def f(a, b): g(a < b < 1)", "def f(a, b): g(a < b > 1)"),
    "constant": ("def f(a): g(1)", "def f(a): g('1')"),
}


@pytest.mark.parametrize(("first", "second"), DIFFERENT.values(), ids=DIFFERENT)
def test_other_details_change_both_views(first, second):
    for a, b in zip(views(first), views(second), strict=True):
        assert a != b


def test_hiding_does_not_modify_the_function():
    function = parse(SOURCE)
    before = ast.dump(function, include_attributes=True)
    hidden(function)
    assert ast.dump(function, include_attributes=True) == before
