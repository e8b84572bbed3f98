"""The API's description: ``/openapi.json`` (OpenAPI 3.1), and ``/docs``, which shows it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Blueprint, Response, render_template
from marshmallow import Schema, fields

import mailrelay
from mailrelay import answers
from mailrelay.web.description import operations
from mailrelay.web.schemas import TEXTS

_SUMMARY = """\
Sends email through several providers, fails over between them and does not lose any.

Every route under `/emails`, and `/providers`, takes an API key: `Authorization: Bearer <key>`.
Bodies are JSON in UTF-8, names are in camelCase, times are RFC 3339 in UTC. A first call:

    curl -X POST localhost:8000/emails/send \\
      -H "Authorization: Bearer $MAILRELAY_API_KEY" -H "Content-Type: application/json" \\
      -d '{"from": {"email": "facundo@example.com"},
           "destinations": [{"email": "pedro@example.org"}],
           "subject": "test", "plainContent": "test"}'

Every error is a problem (RFC 9457, `application/problem+json`); its `detail` says what is wrong,
and with a `422` its `errors` names each bad field. Any other method than those that are described
is answered `405` with `Allow`, and any other path `404`.
"""

_POLICY = (
    # Swagger UI sets styles on its elements, and its style has its pictures within.
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_ANSWERS = (
    answers.Accepted,
    answers.Email,
    answers.Batch,
    answers.Providers,
    answers.Health,
    answers.Problem,
)


def document(chain: Sequence[str]) -> dict[str, Any]:
    """The description, where the providers of `chain` are configured."""
    marshmallow = MarshmallowPlugin(schema_name_resolver=_name)
    spec = APISpec(
        "mailrelay",
        mailrelay.__version__,
        "3.1.1",
        plugins=[marshmallow],
        info={"description": _SUMMARY, "license": {"name": "MIT", "identifier": "MIT"}},
        security=[{"apiKey": []}],
        tags=[
            {"name": "Emails", "description": "Send, see what happened, decide."},
            {"name": "Providers", "description": "How each one does."},
            {"name": "Watching", "description": "For load balancers, monitors and tools."},
        ],
    )
    marshmallow.converter.add_attribute_function(_names_of_a_dict)  # type: ignore[union-attr]
    spec.components.security_scheme(
        "apiKey",
        {"type": "http", "scheme": "bearer", "description": "One of `MAILRELAY_API_KEYS`."},
    )
    for name, schema in _answer_schemas().items():
        spec.components.schema(name, schema)
    for name, header in operations.HEADERS.items():
        spec.components.header(name, header)
    for path, methods in operations.operations(chain).items():
        spec.path(path, operations=methods)
    described: dict[str, Any] = spec.to_dict()
    described["components"]["schemas"]["Submission"]["anyOf"] = [
        {"required": [name]} for name in TEXTS
    ]
    return described


def blueprint(chain: Sequence[str]) -> Blueprint:
    """The routes, where the providers of `chain` are configured."""
    description = Blueprint("description", __name__, template_folder="templates")
    body = json.dumps(document(chain), ensure_ascii=False)

    @description.get("/openapi.json")
    def openapi() -> Response:
        return Response(body, content_type="application/json")

    @description.get("/docs")
    def docs() -> Response:
        page = Response(render_template("description/docs.html"), mimetype="text/html")
        page.headers["Content-Security-Policy"] = _POLICY
        return page

    return description


def _name(schema: type[Schema] | Schema | str) -> str:
    cls = schema if isinstance(schema, type) else type(schema)
    return cls.__name__.removesuffix("Schema")


def _names_of_a_dict(_: object, field: fields.Field[Any], **__: Any) -> dict[str, Any]:
    """What apispec leaves out: how the names of a `Dict` have to look."""
    if not isinstance(field, fields.Dict) or not isinstance(field.key_field, fields.String):
        return {}
    [pattern] = field.key_field.validators
    return {"propertyNames": {"pattern": pattern.regex.pattern}}  # type: ignore[attr-defined]


def _answer_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas by name, of the answers and of what they are made of."""
    _, found = msgspec.json.schema_components(_ANSWERS, ref_template="#/components/schemas/{name}")
    for name, schema in found.items():
        # msgspec sorts them by name; people read them in their order.
        order = getattr(answers, name).__annotations__
        schema["properties"] = {field: schema["properties"][field] for field in order}
    return found
