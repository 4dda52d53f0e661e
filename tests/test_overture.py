"""Overture's transportation schema: the published models read what we write, and refuse it where it
is broken (overture-schema-theme-transportation of PyPI, MIT)."""

import json

import networkx as nx
import numpy as np
import pytest
import shapely
from test_attributes import HOSTILE, described

from spacenet5_nb import graph
from spacenet5_nb.cities.noding import make_network
from spacenet5_nb.demo import CITIES
from spacenet5_nb.roads import overture
from spacenet5_nb.roads.overture import write_overture
from spacenet5_nb.roads.road_attributes import add_classes

pytest.importorskip("overture.schema.transportation")
from overture.schema.transportation.connector import Connector  # noqa: E402
from overture.schema.transportation.segment import RoadClass, Segment  # noqa: E402
from pydantic import TypeAdapter, ValidationError  # noqa: E402

MODELS = {"segment": TypeAdapter(Segment), "connector": TypeAdapter(Connector)}


def checked(path) -> dict[str, list[dict]]:
    "The features of a file by type, each taken by the published schema."
    found: dict[str, list[dict]] = {"segment": [], "connector": []}
    for f in json.loads(path.read_text())["features"]:
        MODELS[f["properties"]["type"]].validate_json(json.dumps(f))
        found[f["properties"]["type"]].append(f)
    return found


def generated() -> nx.MultiGraph:
    "A city with a motorway over its streets, ramps, and what a prediction says of them."
    streets = make_network(CITIES[0].plan, 400, np.random.default_rng(3)).streets
    levels = [s.level for s in streets]
    kph = np.random.default_rng(4).uniform(20, 110, len(streets))
    moved = [shapely.transform(s.line, lambda xy: xy + (4e5, 6.17e6)) for s in streets]
    g = add_classes(graph.from_lines(moved, kph, crs="EPSG:32637", level=levels))
    for k, (*_, d) in enumerate(g.edges(data=True)):
        d |= {"width_m": 3.5 + k % 9, "source": "town.tif", "speed_confidence": (k % 11) / 10}
        if k % 5 == 0:
            d |= {"highway": "motorway_link", "connection_confidence": 0.35}
        d["bridge"] = "yes" if d["level"] else "no"
    return g


@pytest.mark.parametrize("make", [described, generated])
@pytest.mark.parametrize("bare", [False, True])
def test_the_published_schema_takes_segments_and_connectors(tmp_path, make, bare):
    g = graph.without_speeds(make()) if bare else make()
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
    assert sum("road_flags" in p for p in said) == above
    assert all(("speed_limits" in p) != bare for p in said)
    ramps = sum(d.get("highway") == "motorway_link" for *_, d in g.edges(data=True))
    assert sum(p.get("subclass") == "link" for p in said) == ramps
    assert bare or make is described or ramps
    sure = [p["sources"][0].get("confidence") for p in said]
    assert sure == [d.get("connection_confidence") for *_, d in g.edges(data=True)]


def test_classes_are_those_of_the_schema():
    assert {c.value for c in RoadClass} == overture.CLASSES


def test_a_wrong_shape_would_be_seen(tmp_path):
    found = checked(write_overture(described(), tmp_path / "roads.geojson"))["segment"][0]
    for change in (
        {"class": "road"},
        {"speed_limits": []},
        {"speed_limits": [{"max_speed": {"value": 50.5, "unit": "km/h"}}]},
        {"level_rules": [{"value": 1, "is": "above"}]},
        {"road_flags": [{"values": ["bridge"]}]},
        {"width_rules": [{"value": 0}]},
        {"sources": [{"property": "class", "dataset": "a"}]},
        {"level": 1},
        {"connectors": found["properties"]["connectors"][:1]},
    ):
        wrong = found | {"properties": found["properties"] | change}
        with pytest.raises(ValidationError):
            MODELS["segment"].validate_json(json.dumps(wrong))


def test_speeds_levels_and_meetings_come_back_through_our_own_reader(tmp_path):
    g = described()
    again = graph.from_labels(write_overture(g, tmp_path / "roads.geojson"))
    total = sum(d["length"] for *_, d in g.edges(data=True))
    assert sum(d["length"] for *_, d in again.edges(data=True)) == pytest.approx(total, rel=0.01)
    seen = {round(d["speed_kph"]) for *_, d in again.edges(data=True)}
    assert seen <= {round(d["speed_kph"]) for *_, d in g.edges(data=True)}
    text = (tmp_path / "roads.geojson").read_text()
    assert json.dumps(HOSTILE) in text, "a name is a string of JSON and nothing else"
