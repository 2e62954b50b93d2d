"""Repairs text that is almost JSON, and finds the ends of its rows, with operations on whole arrays.

Every repair keeps the length of the text, so that positions stay the same.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# A comma between two objects. A string cannot hold this: its first quote would end it, and no letter can follow that.
GAP = re.compile(rb'\}\s*(,)\s*\{\s*"\w')
_DEEP = 200  # levels of nesting; what is deeper is in arguments, and more than a parser can stand
_BAD = 0xFF  # no UTF-8: decoding makes U+FFFD of it
# What C and Python write for numbers that JSON has no word for, as empty strings: no number, and no error either.
_WORDS = {b"infinity": b'""      ', b"inf": b'"" ', b"nan": b'"" ', b"ind)": b"    ", b"snan)": b"     "}
_SPACE, _COMMA, _ARRAY_END = b" ,]"
_ESCAPED = np.isin(np.arange(256), [*b'"\\/bfnrtu'])
_HEX = np.full(256, 255, np.uint8)
_HEX[[*b"0123456789abcdef"]], _HEX[[*b"ABCDEF"]] = range(16), range(10, 16)

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Codes = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class Mended(NamedTuple):
    """A text, repaired, and its structure: its brackets and commas outside of strings."""

    text: bytes
    gaps: Int64  # where the commas between two objects stand, shape (k,)
    gap_depth: Int32  # how many brackets are open around each of them; off by as many as are lost before it
    ends: (
        Int64  # where a row ends, if nothing is damaged: at commas, the last maybe at the bracket that closes the array
    )
    marks: int  # how many brackets and commas there are
    closing: dict[int, int]  # of the parts between gaps that hold it: where the bracket stands that closes the array


def mended(text: bytes) -> Mended:
    """Read a text that begins between two rows.

    Outside strings it repairs NaN and infinities, commas before a closing bracket, and too deep nesting; inside strings
    it repairs bad escapes, halves of surrogate pairs and control characters.
    """
    code = np.frombuffer(text + b"        ", np.uint8).copy()  # escapes and words need no test for the end
    gaps = np.array([gap.start(1) for gap in GAP.finditer(text)], np.int64)
    escape = _escapes(code)
    inside = _inside(code, escape, gaps)
    folded = code | np.uint8(32)  # makes one of { and [, one of } and ], and one of large and small letters
    opens, closes = (folded == ord("{")) & ~inside, (folded == ord("}")) & ~inside
    at = np.flatnonzero(opens | closes | ((code == _COMMA) & ~inside))
    level = np.cumsum(opens[at].view(np.int8) - closes[at].view(np.int8), dtype=np.int32)
    inner = level + closes[at]  # a bracket is inside of itself
    gap = np.searchsorted(at, gaps)
    gap_depth = level[gap]
    part = np.cumsum(np.bincount(gap + 1, minlength=len(at))[: len(at)])
    base = np.append(np.int32(0), gap_depth)[part]
    _mend_strings(code, inside, escape[inside[escape]])
    comma = at[code[at] == _COMMA]
    code[comma[closes[comma + 1]]] = _SPACE
    letters: Int64 = np.flatnonzero((folded >= ord("a")) & (folded <= ord("z")) & ~inside)
    _mend_words(code, folded, letters[np.diff(letters, prepend=-2) > 1])
    deep = inner - base > _DEEP
    if deep.any():
        first, after = at[deep & ~np.append(False, deep[:-1])], at[~deep & np.append(False, deep[:-1])]
        mask = np.zeros(len(code), np.int8)
        mask[first], mask[after] = 1, -1
        code[np.cumsum(mask, dtype=np.int8) > 0] = _SPACE
        code[first[opens[first]]] = ord("0")  # a value stays where one has to be
    last = (code[at] == _ARRAY_END) & (inner == base)
    closing = dict(zip(part[last][::-1].tolist(), at[last][::-1].tolist(), strict=True))  # of several, the first
    ends = at[(inner == 0) & ((code[at] == _COMMA) | (code[at] == _ARRAY_END))]
    ends = ends[: 1 + int(np.argmax(code[ends] == _ARRAY_END))] if np.any(code[ends] == _ARRAY_END) else ends
    return Mended(code[: len(text)].tobytes(), gaps, gap_depth, ends, len(at), closing)


def _escapes(code: Codes) -> Int64:
    """The backslashes that begin an escape: the first of a row of them, the third, and so on."""
    slash = np.flatnonzero(code == ord("\\"))
    first = np.maximum.accumulate(np.where(np.diff(slash, prepend=-2) != 1, slash, 0))
    begins: Int64 = slash[(slash - first) % 2 == 0]
    return begins


def _inside(code: Codes, escape: Int64, gaps: Int64) -> Mask:
    """Which positions are inside a string, including its opening quote."""
    quote = code == ord('"')
    quote[escape + 1] = False
    inside = _odd(quote)
    if inside[gaps].any():  # a quote is missing or too many: the string ends at the next gap
        quote[gaps] = np.diff(inside[gaps], prepend=False)
        inside = _odd(quote)
    return inside


def _odd(mask: Mask) -> Mask:
    """Whether the number of trues up to each place is odd: 64 places at a time, ten times as fast as a sum."""
    packed = np.packbits(mask, bitorder="little")
    word = np.append(packed, np.zeros(-len(packed) % 8, np.uint8)).view("<u8")
    for shift in (1, 2, 4, 8, 16, 32):
        word ^= word << np.uint64(shift)
    before = np.bitwise_xor.accumulate(word >> np.uint64(63))[:-1]
    word[1:] ^= np.uint64(0) - before
    return np.unpackbits(word.view(np.uint8), bitorder="little", count=len(mask)).view(np.bool_)


def _mend_words(code: Codes, folded: Codes, begin: Int64) -> None:
    """Replace, in place, words such as NaN that are used as numbers; each begins at one of ``begin``."""
    for word, instead in _WORDS.items():
        places = begin[:, None] + np.arange(len(word))
        found = (folded[places] == [*word]).all(axis=1)
        code[places[found]] = [*instead]
        before = begin[found] - 1
        code[before[np.isin(code[before], [*b"+-("])]] = _SPACE
        begin = begin[~found]


def _mend_strings(code: Codes, inside: Mask, escape: Int64) -> None:
    """Replace, in place, everything that a JSON string may not contain."""
    bad = escape[~_ESCAPED[code[escape + 1]]]
    unicode = escape[code[escape + 1] == ord("u")]
    digits = _HEX[code[unicode[:, None] + [2, 3, 4, 5]]]
    broken = (digits == 255).any(axis=1)
    block = digits[:, 0].astype(np.int32) * 4 + digits[:, 1] // 4
    high, low = (block == 0xD8 // 4) & ~broken, (block == 0xDC // 4) & ~broken
    pair = high[:-1] & low[1:] & (np.diff(unicode) == 6)
    alone = (high | low) & ~(np.append(pair, False) | np.append(False, pair))
    code[unicode[alone, None] + [2, 3, 4, 5]] = [*b"fffd"]
    code[bad] = code[unicode[broken]] = _BAD
    code[(code < _SPACE) & inside] = _BAD
