"""The compiler makes lists of generator expressions: what stops early must not be fed by one.

Nothing else tells: the compiled engine decides the same, and looks at every node where Python looks at a few.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import heddle.engine

_STOP_EARLY = {"islice", "takewhile", "next"}
_NEXT_OF_ONE = "next"
"""Of a generator expression written into its call the compiler makes a loop."""


def fed_by_lists(tree: ast.AST) -> Iterator[int]:
    """Lines of calls that stop early and take from a generator expression."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        assigned = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.GeneratorExp)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in ast.walk(function):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _STOP_EARLY):
                continue
            (source, *_) = call.args if call.func.id != "takewhile" else call.args[1:]
            named = {node.id for node in ast.walk(source) if isinstance(node, ast.Name)} & assigned
            if named or (isinstance(source, ast.GeneratorExp) and call.func.id != _NEXT_OF_ONE):
                yield call.lineno


def test_it_is_found() -> None:
    said = "def f(rows):\n    some = (r for r in rows)\n    a = next(some)\n    return a, islice((r for r in rows), 3)"
    assert list(fed_by_lists(ast.parse(said))) == [3, 4]
    fine = "def f(rows):\n    return next((r for r in rows if r), None), islice(filter(None, rows), 3)"
    assert list(fed_by_lists(ast.parse(fine))) == []


def test_nothing_that_stops_early_takes_from_a_generator_expression() -> None:
    folder = Path(heddle.engine.__file__).parent
    found = [
        f"{path.relative_to(folder)}:{line}"
        for path in sorted(folder.rglob("*.py"))
        for line in fed_by_lists(ast.parse(path.read_text()))
    ]
    assert not found, f"write a generator function, filter() or a loop: {found}"
