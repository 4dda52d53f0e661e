"""Edits of a file, as Hypothesis draws and shrinks them."""

import re
import struct

from hypothesis import strategies as st

NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]
PACKED = [struct.pack(f"<{k}", n) for n in NUMBERS for k in "BHIQ" if n < 256 ** struct.calcsize(k)]
WORDS = (
    ["", "0", "-1", "1e400", "-1e-400", "nan", "Infinity", "null", "true", "[]", "{}", '""', "'"]
    + ["9" * 400, "9" * 5000, "x" * 5000, "[" * 200, "{" * 200, "(" * 500, "&", "<", "\0", "\n"]
    + ["\x1b[31mred", "\u202egro", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")]
    + ["../../etc/passwd", "hf-hub:a/b", "/vsicurl/http://127.0.0.1:9/a", "EPSG:4326", "EPSG:3857"]
    + ["2019-06-31", "!!python/name:os.system", "*a", "<!DOCTYPE a [<!ENTITY b 'c'>]>", "&b;"]
    + ["POINT EMPTY", "LINESTRING EMPTY", "LINESTRING (0 0, nan 1)", "POLYGON ((0 0,1 1,1 0,0 0))"]
)
TOKEN = re.compile(rb'-?\d+(?:\.\d+)?(?:e-?\d+)?|"[^"]{0,80}"|[A-Za-z_:.]+|[\[\]{}<>(),;=]')

byte_edit = st.tuples(
    st.sampled_from(["flip", "put", "drop", "twice", "cut"]),
    st.integers(0, 2**31),
    st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(PACKED)),
    st.integers(1, 64),
)
word_edit = st.tuples(
    st.sampled_from(["replace", "remove", "insert", "repeat"]),
    st.integers(0, 2**31),
    st.sampled_from(WORDS),
    st.integers(1, 3),
)


def with_bytes(data: bytes, edits: list) -> bytes:
    "Edits at places of a file."
    for what, at, piece, n in edits:
        at = at % (len(data) + 1)
        if what == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ piece[0]]) + data[at + 1 :]
        elif what == "put":
            data = data[:at] + piece + data[at + len(piece) :]
        elif what == "drop":
            data = data[:at] + data[at + n :]
        elif what == "twice":
            data = data[:at] + data[at : at + n] + data[at:]
        elif what == "cut":
            data = data[:at]
    return data


def with_words(data: bytes, edits: list) -> bytes:
    "Edits of the numbers, names and brackets of a text."
    for what, at, word, n in edits:
        tokens = list(TOKEN.finditer(data))
        if not tokens:
            return data
        start, end = tokens[at % len(tokens)].span()
        new = word.encode("utf-8", "surrogatepass")
        if what == "replace" and data[start : start + 1] == b'"' and at % 2:
            new = b'"' + new + b'"'
        changed = {"replace": new, "remove": b"", "insert": new + data[start:end]}
        data = data[:start] + changed.get(what, data[start:end] * (n + 1)) + data[end:]
    return data


def with_header(data: bytes, edits: list) -> bytes:
    "Edits of a safetensors file's header, whose length is kept right."
    (size,) = struct.unpack("<Q", data[:8])
    text = with_words(data[8 : 8 + size].replace(b'\\"', b"\x01"), edits).replace(b"\x01", b'\\"')
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def edited(data: bytes, kind: str, is_text: bool) -> st.SearchStrategy[bytes]:
    "Files near a valid one."
    some = st.lists(byte_edit, min_size=1, max_size=4).map(lambda e: with_bytes(data, e))
    words = st.lists(word_edit, min_size=1, max_size=3)
    if kind == "member":
        return st.one_of(words.map(lambda e: with_header(data, e)), some)
    encodings = st.sampled_from(["utf-16", "utf-8-sig", "utf-32", "utf-16-le"])
    if is_text:
        other = encodings.map(lambda name: data.decode().encode(name))
        return st.one_of(words.map(lambda e: with_words(data, e)), some, other)
    return some
