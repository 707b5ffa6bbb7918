"""Trees of functions against Python's own syntax trees, tokens against tokenize."""

import ast
import io
import itertools
import tokenize

from gt.data.python.returns import hidden
from gt.data.python.syntax import EDGE_KINDS, NODE_TYPES, tokens
from tests.data.python.parsing import SOURCE, answer_tree, parse


def names_in_order(source: str) -> list[str]:
    """Every name and argument, in source order."""
    nodes = [node for node in ast.walk(parse(source)) if isinstance(node, ast.Name | ast.arg)]
    nodes.sort(key=lambda node: (node.lineno, node.col_offset))
    return [node.id if isinstance(node, ast.Name) else node.arg for node in nodes]


def test_tree_has_the_nodes_of_the_syntax_tree():
    function = hidden(parse(SOURCE))
    graph = answer_tree(function)
    expected = [
        type(node).__name__
        for node in ast.walk(function)
        if not isinstance(node, ast.expr_context | ast.operator | ast.unaryop | ast.boolop | ast.cmpop)
    ]
    assert sorted(NODE_TYPES[number] for number in graph.types) == sorted(expected)


def test_nodes_are_in_source_order():
    source = SOURCE.replace("yield first, last", "pass").replace("return walk(first)", "pass")
    graph = answer_tree(hidden(parse(source)))
    variables = [w for t, w in zip(graph.types, graph.words, strict=True) if NODE_TYPES[t] in ("Name", "arg")]
    assert variables == names_in_order(source)


def test_parents_and_depths_are_depth_first():
    graph = answer_tree(hidden(parse(SOURCE)))
    parents = {target: source for source, target, kind in graph.edges if EDGE_KINDS[kind] == "child"}
    assert sorted(parents) == list(range(1, len(graph.types)))
    for node, parent in parents.items():
        assert parent < node  # parents first
        assert graph.depths[node] == graph.depths[parent] + 1
        # depth first: only descendants of the parent lie between it and its child
        assert all(graph.depths[between] > graph.depths[parent] for between in range(parent + 1, node))
    assert graph.depths[0] == 0


def test_leaves_form_a_path():
    graph = answer_tree(hidden(parse(SOURCE)))
    parents = {source for source, _, kind in graph.edges if EDGE_KINDS[kind] == "child"}
    leaves = [node for node in range(len(graph.types)) if node not in parents]
    edges = [(source, target) for source, target, kind in graph.edges if EDGE_KINDS[kind] == "next leaf"]
    assert edges == list(itertools.pairwise(leaves))


def test_next_use_edges_match_loop():
    graph = answer_tree(hidden(parse(SOURCE)))
    named = [NODE_TYPES[number] in ("Name", "arg") for number in graph.types]
    expected = []
    for second in range(len(named)):
        for first in reversed(range(second)):
            if named[first] and named[second] and graph.words[first] == graph.words[second] != "HIDDEN_VALUE":
                expected.append((first, second))
                break
    edges = [(source, target) for source, target, kind in graph.edges if EDGE_KINDS[kind] == "next use"]
    assert len(edges) > 20
    assert sorted(edges) == sorted(expected)


def test_every_edge_has_its_reverse():
    graph = answer_tree(hidden(parse(SOURCE)))
    assert len(set(graph.edges)) == len(graph.edges)
    assert {(target, source, kind ^ 1) for source, target, kind in graph.edges} == set(graph.edges)


def test_hidden_values_are_not_joined():
    graph = answer_tree(hidden(parse("def f(a):\n if a: return 1\n return 2")))
    assert [EDGE_KINDS[kind] for _, _, kind in graph.edges if kind >= 4] == ["next use", "previous use"]


def test_tokens_match_tokenize():
    source = ast.unparse(hidden(parse(SOURCE.replace("f'{first} {limit!r}'", "b'x'").replace("a rather long ", ""))))
    expected: list[str] = []
    level = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            level += 1 if token.type == tokenize.INDENT else -1
        elif token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING):
            if expected and expected[-1] == "line":
                expected[-1] = f"line:{level}"
            expected.append(token.string)
        elif token.type == tokenize.NEWLINE:
            expected.append("line")
    assert tokens(source) == expected[:-1]


def test_long_strings_are_one_token():
    actual = tokens("f('''a\nb''', 'a long string, \\'quoted\\'', r\"a\\b\")\n\n    g(f'{a} and {b} and {c}')")
    assert actual == ["f", "(", "'''a\nb'''", ",", "str", ",", 'r"a\\b"', ")", "line:1", "g", "(", "str", ")"]
