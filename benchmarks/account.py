"""What DynamoDB itself says a client has used: requests, items read, and capacity units."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class Account:
    """Keeps account of a client's requests from now on."""

    def __init__(self, dynamodb: DynamoDBClient) -> None:
        self.requests: Counter[str] = Counter()
        """By operation."""
        self.items_read = 0
        """Those that were looked at, whether or not they were returned (`ScannedCount`)."""
        self.units: Counter[str] = Counter()
        """Capacity units (`ConsumedCapacity`), index and table together, by operation."""
        events = dynamodb.meta.events
        events.register("before-parameter-build.dynamodb", self._ask)
        events.register("after-call.dynamodb", self._note)

    def _ask(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        if "ReturnConsumedCapacity" in model.input_shape.members:
            params["ReturnConsumedCapacity"] = "INDEXES"

    def _note(self, model: Any, parsed: dict[str, Any], **_: Any) -> None:
        self.requests[model.name] += 1
        self.items_read += parsed.get("ScannedCount", 0)
        responses = parsed.get("Responses", {})
        if isinstance(responses, dict):  # BatchGetItem's, by table
            self.items_read += sum(map(len, responses.values()))
        used = parsed.get("ConsumedCapacity", [])
        for table in used if isinstance(used, list) else [used]:
            self.units[model.name] += table["CapacityUnits"]
