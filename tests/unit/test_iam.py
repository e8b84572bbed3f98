"""deploy/iam/ allows what the code calls, and its README says where."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from tests.support.iam import CHECKED_AS, FOR_ALL, POLICIES, actions
from tests.support.processes import ROOT

PARTS = sorted(path.stem for path in POLICIES.glob("*.json"))
SERVICES = {"dynamodb": "dynamodb", "s3": "s3", "sesv2": "ses", "sns": "sns", "sqs": "sqs"}
"""Each of boto3's services with what IAM calls it."""

ROWS = [
    (action, set(parts.split(", ")), re.findall(r"`([\w.]+:[\w.]+)`", callers))
    for action, parts, callers in re.findall(
        r"^\| `(\w+:\w+)` \| ([^|]+) \| ([^|]+) \|$",
        (POLICIES / "README.md").read_text(),
        re.MULTILINE,
    )
]


def operations() -> dict[str, str]:
    """Every operation of those services as ``sqs:SendMessage``, with what boto3 calls it."""
    session = botocore.session.get_session()
    return {
        f"{prefix}:{operation}": xform_name(operation)
        for service, prefix in SERVICES.items()
        for operation in session.get_service_model(service).operation_names
    }


OPERATIONS = operations()
METHODS = {
    action: {method for operation, method in OPERATIONS.items() if action in actions(operation)}
    for action, _, _ in ROWS
}
"""What boto3 calls the operations that need an action."""


def statements(part: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((POLICIES / f"{part}.json").read_text())["Statement"]
    return found


def test_the_table_is_read() -> None:
    assert len(ROWS) > 40


@pytest.mark.parametrize("part", PARTS)
def test_a_policy_has_what_the_table_says(part: str) -> None:
    """No action more and none less."""
    allowed = {action for statement in statements(part) for action in statement["Action"]}
    assert allowed == {action for action, parts, _ in ROWS if part in parts}


@pytest.mark.parametrize("part", PARTS)
def test_a_policy_names_its_resources(part: str) -> None:
    """No action is a pattern, and a resource is everything only where IAM has nothing narrower."""
    for statement in statements(part):
        assert statement["Effect"] == "Allow"
        for action in statement["Action"]:
            assert "*" not in action
            assert (statement["Resource"] == "*") == (action in FOR_ALL)


@pytest.mark.parametrize("action", sorted(METHODS))
def test_an_action_is_one(action: str) -> None:
    """An operation of AWS needs it, by botocore's account of them."""
    assert METHODS[action], action


def test_operations_are_some() -> None:
    assert set(CHECKED_AS) <= set(OPERATIONS)


@pytest.mark.parametrize(
    ("action", "caller"),
    sorted({(action, caller) for action, _, callers in ROWS for caller in callers}),
)
def test_a_caller_calls_it(action: str, caller: str) -> None:
    """The function is there, and the call is in it."""
    module, _, path = caller.partition(":")
    found = reduce(inspect.getattr_static, path.split("."), importlib.import_module(module))
    function = getattr(found, "func", found)
    # For a missing object S3's answer depends on another permission as well.
    methods = METHODS[action] | ({"get_object"} if action == "s3:ListBucket" else set())
    words = set(re.findall(r"\w+", inspect.getsource(function)))
    assert words & methods


CLIENT = re.compile(r"\b_?(dynamodb|s3|sns|sqs|client)(\([^()]*\))?$")
"""How an AWS client is written in our code."""


def calls() -> Iterator[tuple[str, str]]:
    """Each call of an AWS client: boto3's method, and the function that makes it."""
    methods = set(OPERATIONS.values())
    for path in sorted([*ROOT.glob("mailrelay/**/*.py"), *ROOT.glob("tasks/**/*.py")]):
        yield from _calls(ast.parse(path.read_text()), _module(path), [], methods)


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _calls(
    node: ast.AST, module: str, within: list[str], methods: set[str]
) -> Iterator[tuple[str, str]]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        within = [*within, node.name]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        method = node.func.attr
        if method == "get_paginator":
            method = ast.literal_eval(node.args[0])
        if method in methods and CLIENT.search(ast.unparse(node.func.value)):
            yield method, f"{module}:{'.'.join(within)}"
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, module, within, methods)


@pytest.mark.parametrize(("method", "caller"), sorted(set(calls())))
def test_a_call_is_in_the_table(method: str, caller: str) -> None:
    """Each call of boto3 in the code has its action and its function there."""
    rows = [callers for action, _, callers in ROWS if method in METHODS[action]]
    assert any(caller.startswith(named) for callers in rows for named in callers), caller


def test_calls_are_found() -> None:
    assert len(set(calls())) > 40
