"""The API's description, as what every answer in a test has to keep to."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from flask import Flask
from jsonschema_rs import Draft202012Validator
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from mailrelay.web import description

CHAIN = ("mailgun", "ses", "sendgrid")


@cache
def document() -> dict[str, Any]:
    """The description, read back from its JSON."""
    described: dict[str, Any] = json.loads(json.dumps(description.document(CHAIN)))
    return described


@cache
def validator(schema: str) -> Draft202012Validator:
    """For the JSON Schema `schema`, in JSON; what it does not name may not be there."""
    components = _strict(document()["components"])
    return Draft202012Validator(
        {"components": components, **json.loads(schema)}, validate_formats=True
    )


@cache
def operations() -> dict[str, dict[str, Any]]:
    """Operation Objects by their operationId."""
    paths = document()["paths"].values()
    return {operation["operationId"]: operation for path in paths for operation in path.values()}


def example_of_problem(operation: str, status: int, name: str) -> Any:
    """What the description shows as a problem's body."""
    content = operations()[operation]["responses"][str(status)]["content"]
    return content["application/problem+json"]["examples"][name]["value"]


def conforms(value: Any, schema: dict[str, Any]) -> None:
    """Fail with everything in `value` that is not as `schema` says."""
    # Halves of characters, which JSON can hold and the validator cannot.
    readable = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    errors = validator(json.dumps(schema)).iter_errors(readable)
    wrong = [f"{list(error.instance_path)}: {error.message}" for error in errors]
    assert not wrong, wrong


def is_described(app: Flask, response: TestResponse) -> None:
    """Fail where an answer of `app` has a status, a type, a field or a header that is described
    otherwise, or not at all."""
    operation = _operation(app, response)
    if operation is None or response.status_code == 405:  # another method, of no operation
        return
    assert response.status_code != 500  # It is described, and no test of a route shall see it.
    status = str(response.status_code)
    described = operation["responses"].get(status)
    assert described, f"{operation['operationId']} answers {status}, which is not described"
    for name, header in described["headers"].items():
        header = document()["components"]["headers"][header["$ref"].rpartition("/")[2]]
        if name in response.headers:
            given: Any = response.headers[name]
            typed = int(given) if header["schema"].get("type") == "integer" else given
            conforms(typed, header["schema"])
        else:
            assert not header.get("required"), f"{name} is not there"
    if response.request.method == "HEAD":
        return
    content = described["content"].get(response.mimetype)
    assert content, f"{response.mimetype} is not described"
    is_json = response.mimetype.endswith("json")
    conforms(json.loads(response.data) if is_json else response.text, content["schema"])


def _operation(app: Flask, response: TestResponse) -> dict[str, Any] | None:
    """The description of what was asked, if that is a route of the API."""
    method = response.request.method
    try:
        rule, _ = app.url_map.bind("localhost").match(
            response.request.path, method=method, return_rule=True
        )
    except HTTPException:  # no route, or another method
        return None
    path = rule.rule.replace("<id_>", "{id}")
    found: dict[str, Any] | None = (
        document()["paths"].get(path, {}).get("get" if method == "HEAD" else method.lower())
    )
    return found


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(inner) for name, inner in schema.items()}
    if isinstance(schema.get("properties"), dict):
        strict.setdefault("additionalProperties", False)
    return strict
