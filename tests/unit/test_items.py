"""Items as DynamoDB has them, beside boto3's own notation."""

from __future__ import annotations

from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.items import from_item, to_item

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**37), 10**37) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), plain))
def test_items_are_written_as_boto3_writes_them(values: dict[str, Any]) -> None:
    there = {name: value for name, value in values.items() if value is not None}
    assert to_item(values) == {name: TypeSerializer().serialize(there[name]) for name in there}


@given(st.dictionaries(st.text(), plain))
def test_items_are_read_as_they_were_written(values: dict[str, Any]) -> None:
    written = to_item(values)
    read = from_item(written)
    assert read == {name: value for name, value in values.items() if value is not None}
    assert read == {name: TypeDeserializer().deserialize(written[name]) for name in written}


def test_a_value_that_is_no_item_is_refused() -> None:
    with pytest.raises(TypeError, match="items do not hold float"):
        to_item({"due_at": 1.5})
    with pytest.raises(TypeError, match="items do not hold SS"):
        from_item({"names": {"SS": ["a"]}})
