"""Repairs of text: exactly what is wrong changes, and no byte moves."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.trace.mending import mended

value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.text(), value, max_size=4), max_size=5), st.booleans(), st.sampled_from([None, 1]))
@settings(deadline=None, max_examples=60)
def test_json_is_left_alone_and_its_rows_are_found(rows: list[dict[str, Any]], ascii: bool, indent: int | None) -> None:
    parts = [json.dumps(row, ensure_ascii=ascii, indent=indent).encode(errors="replace") for row in rows]
    text = b",".join(parts) + b"]"
    found = mended(text)
    assert found.text == text or b"\\ud" in text  # halves of surrogate pairs, which Python writes
    ends = [sum(map(len, parts[: i + 1])) + i for i in range(len(parts))] or [0]
    assert found.ends.tolist() == ends
    assert set(found.gaps.tolist()) >= {end for end in ends[:-1] if parts[ends.index(end) + 1][:3].startswith(b'{"k"')}


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (b'{"a": NaN}', b'{"a": "" }'),
        (b'{"a": -Infinity, "b": [nan, -nan, inf, -nan(ind)]}', None),
        (b'{"NaN": "x, nan, -inf"}', b'{"NaN": "x, nan, -inf"}'),
        (b'{"a": true, "b": 1E5, "c": null, "nan": NaN}', b'{"a": true, "b": 1E5, "c": null, "nan": "" }'),
        (rb'{"a": "C:\users\n\\"}', b'{"a": "C:\xffusers\\n\\\\"}'),
        (rb'{"a": "\ud83d x \ud83d\ude00 \ude00"}', rb'{"a": "\ufffd x \ud83d\ude00 \ufffd"}'),
        (b'{"a": "x\x02y"}\n', b'{"a": "x\xffy"}\n'),
        (b'{"a": [1,],}', b'{"a": [1 ] }'),
        (b'{"a": "b}, {"b": 1}', None),
        (b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", b'{"a":' + b"[" * 199 + b"0" + b" " * 201 + b"]" * 199 + b"}"),
        (b'"\\', b'"\xff'),
        (b'"\\u', b'"\xffu'),
        (b"", b""),
    ],
)
def test_repairs(text: bytes, right: bytes | None) -> None:
    found = mended(text).text
    assert len(found) == len(text)
    if right is not None:
        assert found == right
    elif b"Infinity" in text:
        assert json.loads(found) == {"a": "", "b": ["", "", "", ""]}


def test_a_lost_quote_ends_at_the_next_row() -> None:
    text = b'{"ph": "X, "args": {}}, {"name": "a\x01", "ts": NaN}, {"ts": 1}]'
    found = mended(text)
    assert found.text.endswith(b', {"name": "a\xff", "ts": "" }, {"ts": 1}]')
    assert [text[at : at + 4] for at in found.gaps] == [b', {"', b', {"']
