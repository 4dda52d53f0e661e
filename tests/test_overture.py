"""Overture's transportation schema: what its reference of v1.18.0 says of the fields that we write.

The published schema is not copied here: SHAPE says in our own words what
docs.overturemaps.org/schema/v1.18.0/reference/transportation says of these fields (names, types,
ranges, what must be there, that nothing else may be)."""

import json

import pytest
from test_attributes import HOSTILE, described

from spacenet5_nb import graph
from spacenet5_nb.roads.overture import write_overture

jsonschema = pytest.importorskip("jsonschema")
ID = {"type": "string", "pattern": r"^\S+$"}
CLASSES = (
    "motorway primary secondary tertiary residential living_street trunk unclassified service "
    "pedestrian footway steps path track cycleway bridleway unknown"
).split()


def closed(required: list[str], **properties) -> dict:
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


def rules(**value) -> dict:
    item = closed(list(value), **value)
    return {"type": "array", "items": item, "minItems": 1, "uniqueItems": True}


SHARE = {"type": "number", "minimum": 0, "maximum": 1}
SOURCES = {
    "type": "array",
    "minItems": 1,
    "uniqueItems": True,
    "items": closed(
        ["property", "dataset"],
        property={"type": "string", "pattern": "^(/[^/]+)*$"},
        dataset={"type": "string", "minLength": 1},
        record_id={"type": "string", "minLength": 1},
        confidence=SHARE,
    ),
}
COMMON = dict(
    theme={"const": "transportation"}, version={"type": "integer", "minimum": 0}, sources=SOURCES
)
SPEED = closed(
    ["value", "unit"],
    value={"type": "integer", "minimum": 1, "maximum": 350},
    unit={"enum": ["km/h", "mph"]},
)
CONNECTORS = {"minItems": 2} | rules(connector_id=ID, at=SHARE)
SEGMENT = closed(
    ["theme", "type", "version", "subtype", "class"],
    **COMMON,
    type={"const": "segment"},
    subtype={"const": "road"},
    **{"class": {"enum": CLASSES}},
    connectors=CONNECTORS | {"minItems": 2},
    speed_limits=rules(max_speed=SPEED),
    level_rules=rules(value={"type": "integer"}),
    width_rules=rules(value={"type": "number", "exclusiveMinimum": 0}),
    road_flags=rules(
        values={
            "type": "array",
            "items": {"enum": ["is_bridge", "is_tunnel"]},
            "minItems": 1,
            "uniqueItems": True,
        }
    ),
)
CONNECTOR = closed(["theme", "type", "version"], **COMMON, type={"const": "connector"})


def feature(properties: dict, kind: str) -> dict:
    geometry = closed(["type", "coordinates"], type={"const": kind}, coordinates={"type": "array"})
    return closed(
        ["type", "id", "geometry", "properties"],
        type={"const": "Feature"},
        id=ID,
        geometry=geometry,
        properties=properties,
    )


SHAPE = {"segment": feature(SEGMENT, "LineString"), "connector": feature(CONNECTOR, "Point")}


def checked(path) -> dict[str, list[dict]]:
    "The features of a file by type, each of the right shape."
    found: dict[str, list[dict]] = {"segment": [], "connector": []}
    for f in json.loads(path.read_text())["features"]:
        kind = f["properties"]["type"]
        jsonschema.validate(f, SHAPE[kind])
        found[kind].append(f)
    return found


@pytest.mark.parametrize("bare", [False, True])
def test_segments_and_connectors_have_the_shape_of_the_schema(tmp_path, bare):
    g = graph.without_speeds(described()) if bare else described()
    if bare:
        for *_, d in g.edges(data=True):
            for name in [n for n in d if n not in ("geometry", "length", "level")]:
                del d[name]
    found = checked(write_overture(g, tmp_path / "roads.geojson", speeds=not bare))
    assert len(found["segment"]) == g.number_of_edges() and len(found["connector"]) == len(g)
    assert len({f["id"] for kind in found.values() for f in kind}) == len(g) + g.number_of_edges()
    at = {f["id"]: f["geometry"]["coordinates"] for f in found["connector"]}
    for f in found["segment"]:
        line = f["geometry"]["coordinates"]
        for c in f["properties"]["connectors"]:
            assert at[c["connector_id"]] == pytest.approx(line[-int(c["at"])], abs=1e-7)
    said = [f["properties"] for f in found["segment"]]
    above = sum(d["level"] for *_, d in g.edges(data=True))
    assert above and sum("level_rules" in p for p in said) == above
    assert all(("speed_limits" in p) != bare for p in said)


def test_a_wrong_shape_would_be_seen(tmp_path):
    found = checked(write_overture(described(), tmp_path / "roads.geojson"))["segment"][0]
    for change in (
        {"class": "road"},
        {"speed_limits": []},
        {"speed_limits": [{"max_speed": {"value": 50.5, "unit": "km/h"}}]},
        {"level": 1},
        {"connectors": found["properties"]["connectors"][:1]},
    ):
        wrong = found | {"properties": found["properties"] | change}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SHAPE["segment"])


def test_speeds_levels_and_meetings_come_back_through_our_own_reader(tmp_path):
    g = described()
    again = graph.from_labels(write_overture(g, tmp_path / "roads.geojson"))
    total = sum(d["length"] for *_, d in g.edges(data=True))
    assert sum(d["length"] for *_, d in again.edges(data=True)) == pytest.approx(total, rel=0.01)
    seen = {round(d["speed_kph"]) for *_, d in again.edges(data=True)}
    assert seen <= {round(d["speed_kph"]) for *_, d in g.edges(data=True)}
    text = (tmp_path / "roads.geojson").read_text()
    assert json.dumps(HOSTILE) in text, "a name is a string of JSON and nothing else"
