"More of what people report of their files: dialects, formats, bands, pixels, grids and VRTs."

import json
import re
import sqlite3
import struct
import unicodedata
from pathlib import Path

import geopandas as gpd
import networkx as nx
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from pyproj import Transformer
from shapely.geometry import LineString, MultiLineString, Point, mapping

from spacenet5_nb import graph, raster  # before rasterio: sets what GDAL may open
from spacenet5_nb.base.labels import read_rows
from spacenet5_nb.chips.chip_files import find_chips
from spacenet5_nb.chips.integrity import scan_chips
from spacenet5_nb.core import DataError, parse_chip
from spacenet5_nb.inference.vrt_mosaic import open_mosaic
from spacenet5_nb.speed_limits import MPH_TO_KPH, hear, level_of, speed_of

import rasterio  # isort: skip
from rasterio.enums import ColorInterp as C  # isort: skip
from rasterio.rpc import RPC  # isort: skip
from rasterio.windows import Window  # isort: skip

MOTORWAY, PRIMARY, SECONDARY, RESIDENTIAL, LEAST = (
    mph * MPH_TO_KPH for mph in (55, 45, 35, 25, 20)
)
MOSCOW, BOSTON, PERTH, AUCKLAND = (37.6, 55.75), (-71.06, 42.36), (115.86, -31.95), (174.76, -36.85)
LINE = LineString([(37.6, 55.75), (37.61, 55.75)])


def collection(path: Path, *tags: dict, at: tuple[float, float] = MOSCOW, **more) -> Path:
    "Roads of 600 m with tags, as GeoJSON."
    x, y = at
    lines = [LineString([(x, y + k / 1000), (x + 0.01, y + k / 1000)]) for k in range(len(tags))]
    features = [
        {"type": "Feature", "properties": t, "geometry": mapping(line)}
        for t, line in zip(tags, lines, strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **more}))
    return path


def facts(path: str | Path) -> list[tuple[float, int]]:
    "Speed in km/h and level of each road of a file."
    return [(round(speed_of(t).mph * MPH_TO_KPH, 3), level_of(t)) for t in read_rows(path).tags]


def wrong(tmp_path: Path, cases, at: tuple[float, float] = MOSCOW) -> list:
    "Cases (tags, km/h, level) that are understood otherwise, each read from a file of its own."
    out = []
    for tags, kph, level in cases:
        ((found, over),) = facts(collection(tmp_path / "roads.geojson", tags, at=at))
        if abs(found - kph) > 0.05 or over != level:
            out.append((tags, (kph, level), (round(found, 1), over)))
    return out


# --- speeds and limits

LIMITS = {
    **{"30;50": 30, "50|30": 30, "['30', '50']": 30, "{30,50}": 30, "30, 50": 30, "50;": 50},
    **{"RO:urban": 50, "DE:urban": 50, "BE:urban": 50, "CZ:urban": 50, "DE:motorway": 130},
    **{"FR:zone30": 30, "DE:zone:30": 30, "zone:30": 30, "GB:nsl_single": 60 * MPH_TO_KPH},
    **{"25 mph": 25 * MPH_TO_KPH, "25mph": 25 * MPH_TO_KPH, "20 mi/h": 20 * MPH_TO_KPH},
    **{"20 miles/h": 20 * MPH_TO_KPH, "50 km/h;30 mph": 30 * MPH_TO_KPH, "walk": 7},
    **{"40 km/h": 40, "40 kmh": 40, "40 KPH": 40, "48,5": 48.5, "50,00": 50, "50.0": 50},
    **dict.fromkeys(["none", "signals", "variable", "national", "sign", "fixme", ""], PRIMARY),
    **dict.fromkeys(["0", "-1", "999", "99 mph", "30 @ (22:00-06:00)"], PRIMARY),
}


def test_values_of_maxspeed(tmp_path):
    cases = [({"highway": "primary", "maxspeed": text}, kph, 0) for text, kph in LIMITS.items()]
    cases += [({"highway": "primary", "maxspeed": v}, 30, 0) for v in (["30", "50"], 30, 30.0)]
    assert not wrong(tmp_path, cases)


AMERICAN = [
    *[(name, 40, 40) for name in ("SPD_LIMIT", "SPEEDLIM", "POSTED_SPEED", "Posted_Spe")],
    *[(name, 40, 40) for name in ("SPEED_LIM", "SPD_LMT", "PSTD_SPD", "SPDLIMIT", "LEGAL_SPEED")],
    *[(name, "40", 40) for name in ("PostedSpeedLimit", "MAX_SPEED_LIMIT", "SPEEDLIMIT_MPH")],
    *[(name, 41, 41) for name in ("SPEED_MPH", "spd_mph", "MPH", "Speed [mph]")],
    *[("SPEED_LIMIT", v, 35) for v in ("35 MPH", 35.0, 0, -1, 99, 999, None)],  # else by class
    *[("SPEED", v, 35) for v in (35, 0)],
]


def test_columns_of_american_agencies(tmp_path):
    cases = [({"F_SYSTEM": 4, name: v}, mph * MPH_TO_KPH, 0) for name, v, mph in AMERICAN]
    assert not wrong(tmp_path, cases) and not wrong(tmp_path, cases, at=BOSTON)


METRIC = [
    *[(n, 42) for n in ("avg_speed", "avg_speed_kph", "mean_speed_kmh", "speed_km_h", "KPH")],
    *[(n, 42) for n in ("SPEED_KMPH", "freeflow_speed_kph", "speed_kph_mean", "speed (km/h)")],
    *[(n, 42) for n in ("max_speed_kmh", "speedLimit_kph", "maxspeed_km", "tempolimit", "vmax")],
    *[(n, 42) for n in ("velocidad", "vitesse", "fartsgrense", "MAXSHD", "VIT_MOY_VL", "Speed")],
    *[(n, 10) for n in ("speed_mps", "speed_ms", "avg_speed_mps")],  # 36 km/h
    *[(n, 20) for n in ("avg_speed_mph", "maxspeed_mph")],
    *[(n, 42) for n in ("Speed Limit (km/h)", "geschwindigkeit_kmh", "vitesse_kmh", "free_speed")],
    ("Speed Limit (mph)", 20),
]


def test_columns_that_say_their_unit(tmp_path):
    factor = {10: 3.6, 20: MPH_TO_KPH}
    cases = [({"highway": "x", n: v}, v * factor.get(v, 1), 0) for n, v in METRIC]
    cases += [({"highway": "secondary", "speed_kph": v}, SECONDARY, 0) for v in (0, -1, 999, "NaN")]
    assert not wrong(tmp_path, [*cases, ({"speed_kph": "42,5"}, 42.5, 0)])


@pytest.mark.parametrize(
    ("column", "values", "at", "unit"),
    [
        ("SPEED_LIMIT", (50, 60), PERTH, "km/h"),
        ("speedLimit", (50, 80), AUCKLAND, "km/h"),
        ("SPEED_LIMIT", (50, 60, 110), MOSCOW, "km/h"),
        ("SPEED_LIMIT", (25, 50), BOSTON, "mph"),
        ("Speed", (30, 40), BOSTON, "mph"),
        ("Speed", (50, 90), (-75.7, 45.4), "km/h"),  # Ottawa
        ("speed_limi", (50, 60), (77.2, 28.6), "km/h"),  # Delhi: tens alone
        ("speed_limi", (35, 45), MOSCOW, "mph"),  # no limits of a metric country
    ],
)
def test_bare_numbers_are_in_the_unit_of_the_place_and_that_is_said(
    tmp_path, column, values, at, unit
):
    path = collection(tmp_path / "r.geojson", *({column: v, "x": 1} for v in values), at=at)
    factor = MPH_TO_KPH if unit == "mph" else 1
    assert [kph for kph, _ in facts(path)] == pytest.approx([v * factor for v in values], abs=0.01)
    n = len(values)
    assert hear(read_rows(path).tags).line() == (
        f"speeds: {n} of {n} read from {column} (taken as {unit})"
    )


@pytest.mark.parametrize(
    ("column", "unit"),
    [("length_km", "km/h"), ("Shape_KM", "km/h"), ("truck_kph", "km/h"), ("miles", "mph")],
)
def test_the_other_columns_of_a_file_say_the_unit_of_one_cut_short(tmp_path, column, unit):
    "A shapefile leaves `speed_limi` of speed_limit_kph and of speed_limit_mph."
    for at in (BOSTON, MOSCOW):
        path = collection(tmp_path / "r.geojson", *({"speed_limi": v, column: 1} for v in (50, 60)),
                          at=at)  # fmt: skip
        factor = MPH_TO_KPH if unit == "mph" else 1
        assert [kph for kph, _ in facts(path)] == pytest.approx(
            [50 * factor, 60 * factor], abs=0.01
        )


def test_travel_times(tmp_path):
    assert not wrong(
        tmp_path,
        [
            ({"MINUTES": 0.5, "METERS": 500, "FRC": 3}, 60, 0),
            ({"travel_time": "36,0", "length": "500,0"}, 50, 0),
            ({"travel_time": 36, "length_km": 0.5}, 50, 0),
            ({"travel_time_min": 0.6, "length_m": 500}, 50, 0),
            ({"freespeed": 12.5, "permlanes": 2, "length": 500}, 45, 0),  # MATSim: m/s
        ],
    )


# --- classes

CLASSES = [
    ({"fclass": "motorway_link"}, MOTORWAY),
    ({"FCLASS": "track_grade5"}, LEAST),
    ({"highway": "['residential', 'tertiary']"}, RESIDENTIAL),
    ({"HIGHWAY": "Residential"}, RESIDENTIAL),
    ({"CFCC": "A41"}, RESIDENTIAL),
    ({"FUNC_CLASS": 1, "SPEED_CAT": 2}, MOTORWAY),  # HERE
    ({"FUNC_CLASS": "5", "SPEED_CAT": "7", "PAVED": "Y"}, RESIDENTIAL),
    ({"FUNC_CLASS": "3", "SPEED_CAT": "4", "FR_SPD_LIM": 60, "TO_SPD_LIM": 50}, 50),
    ({"FUNC_CLASS": "3", "SPEED_CAT": "4", "FR_SPD_LIM": 998, "TO_SPD_LIM": 0}, SECONDARY),
    ({"FRC": 0}, MOTORWAY),  # TomTom
    ({"FRC": 7, "FOW": 3}, RESIDENTIAL),
    ({"roadClassification": "A Road"}, PRIMARY),  # OS Open Roads
    ({"class": "B Road", "formOfWay": "Single Carriageway"}, SECONDARY),
    ({"NATURE": "Type autoroutier", "IMPORTANCE": "1"}, MOTORWAY),  # BD TOPO
    ({"NATURE": "Route à 1 chaussée", "IMPORTANCE": "5", "VIT_MOY_VL": 0}, RESIDENTIAL),
    ({"Functional_Class": "Minor Arterial"}, SECONDARY),
    ({"FUNCTIONAL_CLASS": "4 - Minor Arterial"}, SECONDARY),
    ({"FC": "7 Local"}, RESIDENTIAL),
    ({"RoadType": "Motorway"}, MOTORWAY),
    ({"ROADCLASS": "Expressway / Highway", "SPEED": -1}, MOTORWAY),  # Canada
    ({"highway": "residential", "surface": "gravel"}, RESIDENTIAL * 0.75),
    ({"highway": "primary", "lanes": "['3', '4']"}, 55 * MPH_TO_KPH),
    ({"highway": "primary;secondary"}, PRIMARY),
    ({"RoadClass": "Motorway Link"}, MOTORWAY),
    ({"road_type": "Secondary Road"}, SECONDARY),
    ({"FUNC_CLASS": 14}, PRIMARY),  # a code before 2010
    ({"FUNCTIONAL_CLASS": "Rural Principal Arterial - Interstate"}, MOTORWAY),
    ({"FUNCTIONAL_CLASS": "Urban Minor Arterial"}, SECONDARY),
    ({"F_SYSTEM": 4, "SURFACE_TYPE": 2}, SECONDARY),  # HPMS: 2 is bituminous
    ({"FCC": "A41"}, RESIDENTIAL),
    ({"clazz": 15, "km": 0.6}, PRIMARY),  # osm2po
    ({"tag_id": 106}, PRIMARY),  # osm2pgrouting
    ({"WDM": "1305"}, SECONDARY),  # ATKIS
]


def test_classes_of_many_dialects(tmp_path):
    assert not wrong(tmp_path, [(tags, kph, 0) for tags, kph in CLASSES])


# --- levels

NOT_OVER = ["F", "N", 0, "no", "none", False, "False", 0.0, "NULL", "nein", "non", "No Bridge"]
NOT_OVER += ["unknown", "-", " ", "NaN", "<Null>", None]
LEVELS = [
    *[({"bridge": word}, 0) for word in NOT_OVER],
    *[({"bridge": w}, 1) for w in ("viaduct", True, "T", "Y", 1, 1.0, "1", "['yes', 'viaduct']")],
    *[({"tunnel": word}, 0) for word in ("culvert", "building_passage", "F", "0", False)],
    *[({"tunnel": word}, -1) for word in ("yes", "T", True, "1")],
    *[({"layer": v}, 1) for v in ("+1", 1.0, "1", "1;2", "['1', '2']")],
    *[({"layer": 0, "bridge": v}, 1) for v in ("yes", 1, "T")],  # programs write 0 for nothing
    *[({"layer": "0", "bridge": v, "tunnel": v}, 0) for v in ("no", "F", 0)],
    ({"layer": 0, "tunnel": 1}, -1),
    ({"layer": "-2", "tunnel": "yes"}, -2),
    ({"level": "1", "layer": "0"}, 0),
    ({"LEVEL": 1}, 1),
    ({"z_order": 13}, 0),
    ({"POS_SOL": "1"}, 1),
    ({"STUFE": -1}, -1),
    ({"KUNSTBAUTE": "Bruecke"}, 1),
    ({"KUNSTBAUTE": "Keine"}, 0),
    ({"STRUCTTYPE": "Tunnel"}, -1),
    ({"STRUCTTYPE": "Snowshed"}, 0),
    ({"structure": "bridge"}, 1),
    ({"brunnel": "ford"}, 0),
    ({"other_tags": '"layer"=>"1","name:en"=>"The \\"Old\\" => bridge"'}, 1),
    ({"other_tags": '{"bridge":"yes"}'}, 1),
    ({"other_tags": "{'bridge': 'yes'}"}, 1),
    ({"tags": {"bridge": "yes"}}, 1),
    ({"tags": "bridge=yes;layer=2"}, 2),
    ({"road_flags": [{"values": ["is_bridge"]}], "level_rules": [{"value": 1}]}, 1),
    *[({"bridge": w}, 0) for w in ("0.0", "0,0", "nie", "否", "不是", "нет", "hayır")],
    *[({name: "ja"}, 1) for name in ("Brücke", "pont", "PONTE", "puente", "мост", "桥")],
    ({"layer": "roads_north", "bridge": "yes"}, 1),  # QGIS's merge writes the layer's name
    ({"layer": "Bridges"}, 0),
]


def test_bridges_tunnels_and_layers(tmp_path):
    cases = [({"highway": "secondary", **t}, SECONDARY, level) for t, level in LEVELS]
    assert not wrong(tmp_path, cases)


def limit(value, unit="km/h", **more):
    return {"max_speed": {"value": value, "unit": unit}, **more}


def test_limits_of_overture(tmp_path):
    ways = [
        limit(k, when={"heading": w, "mode": None}) for k, w in ((50, "forward"), (30, "backward"))
    ]
    trucks = limit(20, when={"vehicle": [{"dimension": "weight"}]})
    cases = [
        ([limit(50, between=None, when=None)], 50),
        (ways, 30),
        ([limit(50), trucks], 50),
        ([limit(30, "mph", when={"heading": None, "during": None})], 30 * MPH_TO_KPH),
        (str([limit(50, between=None)]), 50),  # as pandas prints it
        (json.dumps([limit(50, between=None)]), 50),
    ]
    segment = {"class": "primary", "subtype": "road"}
    assert not wrong(tmp_path, [(segment | {"speed_limits": v}, kph, 0) for v, kph in cases])
    others = ({"class": "ferry", "subtype": "water"}, {"class": "light_rail", "subtype": "rail"})
    rows = read_rows(collection(tmp_path / "s.geojson", segment, *others))
    assert len(rows.lines) == 1 and "subtype rail" in " ".join(rows.problems)


def test_the_road_column_of_overture_in_2023(tmp_path):
    "Until 2024 one column held everything, with keys in another spelling."
    limits = [{"maxSpeed": {"value": 50, "unit": "km/h"}, "at": [0, 0.5]}]
    road = {"class": "secondary", "flags": ["isBridge"], "restrictions": {"speedLimits": limits}}
    path = collection(tmp_path / "s.geojson", {"subType": "road", "road": json.dumps(road)})
    assert facts(path) == [(50, 1), (pytest.approx(SECONDARY, abs=0.01), 1)]
    cases = [
        ({"class": "primary", "restrictions": {"speedLimits": {"maxSpeed": [30, "mph"]}}},
         30 * MPH_TO_KPH, 0),
        ({"class": "primary", "surface": "gravel", "level": 1}, PRIMARY * 0.75, 1),
        ({"class": "primary", "flags": [{"values": ["isTunnel"]}]}, PRIMARY, -1),
        ({"class": "primary", "restrictions": {"speedLimits": [
            {"maxSpeed": {"value": 20, "unit": "km/h"}, "during": "Mo-Fr"}]}}, PRIMARY, 0),
    ]  # fmt: skip
    assert not wrong(tmp_path, [({"subtype": "road", "road": r}, *rest) for r, *rest in cases])
    street = {"highway": "primary", "road": "Main Street"}
    assert not wrong(tmp_path, [(street, PRIMARY, 0)])


def test_areas_are_no_roads(tmp_path):
    "OpenStreetMap draws squares as closed ways with area=yes."
    tags = ({"highway": "pedestrian", "area": "yes"}, {"highway": "residential", "area": "no"})
    rows = read_rows(collection(tmp_path / "a.geojson", *tags))
    assert len(rows.lines) == 1 and rows.problems == ["1 lines that are no roads (area yes)"]


# --- formats

ONE = {"highway": "primary", "maxspeed": "50", "bridge": "yes"}


def table(*shapes, crs=4326, **tags) -> gpd.GeoDataFrame:
    columns = {k: [v] * len(shapes) for k, v in (tags or ONE).items()}
    return gpd.GeoDataFrame(columns, geometry=list(shapes), crs=crs)


def is_one(path: str | Path, n: int = 1) -> bool:
    return facts(path) == [(50, 1)] * n


@pytest.mark.parametrize("crs", [32637, 2263, 3857, 4979, "EPSG:4326+5773", "OGC:CRS84"])
def test_roads_in_any_crs(tmp_path, crs):
    is_lonlat = crs in (4979, "EPSG:4326+5773", "OGC:CRS84")
    moved = table(LINE).set_crs(crs, allow_override=True) if is_lonlat else table(LINE).to_crs(crs)
    moved.to_file(tmp_path / "a.gpkg")
    moved.to_parquet(tmp_path / "a.parquet")
    for name in ("a.gpkg", "a.parquet"):
        assert is_one(tmp_path / name)
        (line,) = read_rows(tmp_path / name).lines
        assert line.coords[0] == pytest.approx((37.6, 55.75), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "crs"),
    [
        ("EPSG:32637", 32637),
        ("urn:ogc:def:crs:EPSG:6.9:32637", 32637),
        ("http://www.opengis.net/def/crs/EPSG/0/32637", 32637),
        ("urn:ogc:def:crs:OGC:1.3:CRS84", 4326),
        ("urn:ogc:def:crs:ESRI::102100", 3857),
        ("ESRI:102100", 3857),
        ("EPSG:900913", 3857),
    ],
)
def test_crs_members_of_old_geojson(tmp_path, name, crs):
    to = Transformer.from_crs(4326, crs, always_xy=True).transform
    road = {
        "type": "Feature",
        "properties": ONE,
        "geometry": mapping(shapely.transform(LINE, to, interleaved=False)),
    }
    data = {"type": "FeatureCollection", "features": [road]}
    data["crs"] = {"type": "name", "properties": {"name": name}}
    (tmp_path / "a.geojson").write_text(json.dumps(data))
    (line,) = read_rows(tmp_path / "a.geojson").lines
    assert line.coords[1] == pytest.approx((37.61, 55.75), abs=1e-6)


def test_geojson_as_programs_write_it(tmp_path):
    feature = {"type": "Feature", "properties": ONE, "geometry": mapping(LINE)}
    text = json.dumps({"type": "FeatureCollection", "features": [feature]})
    lines = "\n".join([json.dumps(feature)] * 2)
    for name, data, n in [
        ("seq.geojson", lines.encode(), 2),
        ("seq.geojsonl", lines.encode(), 2),
        ("rs.ndjson", b"".join(b"\x1e" + line.encode() + b"\n" for line in lines.split("\n")), 2),
        ("bom.geojson", b"\xef\xbb\xbf" + text.encode(), 1),
        ("utf16.geojson", text.encode("utf-16"), 1),
        ("one.geojson", json.dumps(feature).encode(), 1),
    ]:
        (tmp_path / name).write_bytes(data)
        assert is_one(tmp_path / name, n), name
    (tmp_path / "old.geojson").write_bytes(text.replace("yes", "Stra\u00dfe").encode("latin-1"))
    with pytest.raises(DataError, match="not written in UTF-8"):
        read_rows(tmp_path / "old.geojson")


NODES = {1: (37.6, 55.75), 2: (37.61, 55.75)}
ROAD = "".join(f'<tag k="{k}" v="{v}"/>' for k, v in ONE.items())


def osm(path: Path, *ways: str, nodes: str = "first", more: str = "") -> Path:
    "OpenStreetMap's XML: nodes before the ways, after them, within them, or nowhere."
    places = {k: f'lat="{y}" lon="{x}"' for k, (x, y) in NODES.items()}
    at = "".join(f'<node id="{k}" {p}/>' for k, p in places.items())
    refs = "".join(f'<nd ref="{k}" {p if nodes == "within" else ""}/>' for k, p in places.items())
    body = "".join(f'<way id="{k}" {more}>{refs}{tags}</way>' for k, tags in enumerate(ways))
    path.write_text(f"<osm>{at * (nodes == 'first')}{body}{at * (nodes == 'after')}</osm>")
    return path


@pytest.mark.parametrize("nodes", ["first", "after", "within"])
def test_openstreetmap_as_programs_order_it(tmp_path, nodes):
    square = '<tag k="highway" v="pedestrian"/><tag k="area" v="yes"/>'
    assert is_one(osm(tmp_path / "a.osm", ROAD, square, nodes=nodes))


def test_ways_without_nodes_and_deleted_ones(tmp_path):
    with pytest.raises(DataError, match="none of the nodes") as e:
        read_rows(osm(tmp_path / "a.osm", ROAD, nodes="nowhere"))
    assert "(._;>;)" in e.value.cure
    deleted = osm(tmp_path / "d.osm", ROAD, more='action="delete"')
    assert not len(read_rows(deleted).lines)


@pytest.mark.parametrize("layer", ["osm_roads", "road_network", "Straßen", "City Streets"])
def test_the_one_layer_that_is_named_after_roads_is_taken(tmp_path, layer):
    for name in ("rivers", "railroads", layer):
        tags = ONE if name == layer else {"name": name}
        table(LINE, **tags).to_file(tmp_path / "a.gpkg", layer=name)
    assert is_one(tmp_path / "a.gpkg")


@pytest.mark.parametrize(
    ("data", "way"),
    [
        ({"elements": []}, "[out:xml]"),
        ({"type": "Topology", "arcs": []}, "ogr2ogr"),
        ({"geometryType": "esriGeometryPolyline", "features": []}, "ogr2ogr"),
    ],
)
def test_json_of_other_programs_names_the_way(tmp_path, data, way):
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(DataError) as e:
        read_rows(tmp_path / "a.json")
    assert way in e.value.cure


def test_parquet_without_geo_metadata(tmp_path):
    for name, shape in (("geometry", shapely.to_wkb(LINE)), ("geom", LINE.wkt)):
        pd.DataFrame({k: [v] for k, v in ONE.items()} | {name: [shape]}).to_parquet(
            tmp_path / f"{name}.parquet"
        )
        assert is_one(tmp_path / f"{name}.parquet")


def test_mixed_missing_and_nested_geometries(tmp_path):
    parts = MultiLineString([LINE, shapely.transform(LINE, lambda xy: xy + (0, 0.01))])
    mixed = [LINE, Point(37.6, 55.75), parts, None, shapely.GeometryCollection([LINE])]
    table(*mixed[:3]).to_file(tmp_path / "a.fgb")
    table(*mixed).to_file(tmp_path / "a.gpkg")
    assert is_one(tmp_path / "a.fgb", 3) and is_one(tmp_path / "a.gpkg", 4)


def test_curves_of_a_geopackage(tmp_path):
    table(LINE).to_file(tmp_path / "a.gpkg", layer="roads")
    arc = struct.pack("<BII6d", 1, 8, 3, 37.605, 55.75, 37.607, 55.7505, 37.61, 55.75)
    curve = (
        struct.pack("<BII", 1, 9, 2)
        + shapely.to_wkb(LineString([(37.6, 55.75), (37.605, 55.75)]))
        + arc
    )
    for kind, wkb in (
        ("COMPOUNDCURVE", curve),
        ("MULTICURVE", struct.pack("<BII", 1, 11, 1) + curve),
    ):
        with sqlite3.connect(tmp_path / "a.gpkg") as db:
            for (name,) in db.execute(
                "select name from sqlite_master where type='trigger'"
            ).fetchall():
                db.execute(f'drop trigger "{name}"')
            db.execute("update roads set geom=?", (b"GP\0\x01" + struct.pack("<i", 4326) + wkb,))
            db.execute("update gpkg_geometry_columns set geometry_type_name=?", (kind,))
        (line,) = read_rows(tmp_path / "a.gpkg").lines
        assert len(line.coords) > 8 and is_one(tmp_path / "a.gpkg")


def test_the_layer_with_roads_is_found_and_else_asked_for(tmp_path):
    water = table(LINE, waterway="river")
    for name, roads in (("a", "Roads"), ("b", "gis_osm_roads_free_1"), ("c", "edges")):
        water.to_file(tmp_path / f"{name}.gpkg", layer="hydro")
        table(LINE).to_file(tmp_path / f"{name}.gpkg", layer=roads)
        assert is_one(tmp_path / f"{name}.gpkg"), roads
    for name in ("main", "minor"):
        table(LINE).to_file(tmp_path / "two.gpkg", layer=name)
    with pytest.raises(DataError, match="2 tables of lines") as e:
        read_rows(tmp_path / "two.gpkg")
    assert is_one(re.search(r"Say which: (\S+)\.$", e.value.cure)[1]), "the cure cures"


@pytest.mark.parametrize("version", [1, 2])
def test_graphml_of_both_osmnx(tmp_path, version):
    g = nx.MultiDiGraph(crs="epsg:4326", simplified="True")
    g.add_node(1, y=55.75, x=37.6)
    g.add_node(2, y=55.75, x=37.61)
    more = (
        {"maxspeed": "['50', '60']"}
        if version == 1
        else {"speed_kph": "50.0", "geometry": LINE.wkt}
    )
    for u, v in ((1, 2), (2, 1)):
        g.add_edge(u, v, osmid="[1, 2]", highway="['primary', 'tertiary']", bridge="yes", **more)
    nx.write_graphml(g, tmp_path / "a.graphml")
    assert is_one(tmp_path / "a.graphml")


def test_shapefiles_cut_names(tmp_path):
    for k, (tags, fact) in enumerate(
        [
            ({"inferred_speed_mph": 30.0, "bridge_type": "1"}, (30 * MPH_TO_KPH, 1)),
            ({"posted_speed_limit": 40, "f_system": 4}, (40 * MPH_TO_KPH, 0)),
            ({"travel_time_s": 45.0, "length_m": 625.0}, (50, 0)),
            ({"maxspeed_forward": "50", "maxspeed_backward": "30"}, (30, 0)),
            ({"roadClassification": "A Road"}, (PRIMARY, 0)),
        ]
    ):
        table(LINE, **tags).to_file(tmp_path / f"{k}.shp")
        ((kph, level),) = facts(tmp_path / f"{k}.shp")
        assert kph == pytest.approx(fact[0], abs=0.01) and level == fact[1], tags


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *[(f"roads.{e}", "ogr2ogr roads.gpkg roads") for e in ("kml", "gml", "csv", "dxf", "gdb")],
        ("roads.zip", "Unpack it first"),
        ("roads.dbf", "the .shp beside it"),
    ],
)
def test_other_formats_are_refused_with_a_way(tmp_path, name, way):
    path = tmp_path / name
    path.mkdir() if name.endswith("gdb") else path.write_text("x")
    with pytest.raises(DataError) as e:
        read_rows(path)
    assert way in e.value.cure


@pytest.mark.parametrize("ends", [(179.999, 180.002), (179.999, -179.998), (-179.999, -180.002)])
def test_roads_across_the_180th_meridian_are_cut_there(tmp_path, ends):
    road = {"type": "LineString", "coordinates": [[x, -16.85] for x in ends]}
    feature = {"type": "Feature", "properties": ONE, "geometry": road}
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    rows = read_rows(path)
    assert is_one(path, 2) and "180th meridian" in rows.problems[0]
    assert sum(line.length for line in rows.lines) == pytest.approx(0.003, abs=1e-9)
    g = graph.from_labels(path)
    assert nx.number_connected_components(g) == 1 and len(g.edges) <= 2


def test_a_crs_that_leads_nowhere_is_named(tmp_path):
    table(LINE).to_file(tmp_path / "a.shp")
    (tmp_path / "a.prj").write_text('LOCAL_CS["x",UNIT["metre",1]]')
    with pytest.raises(DataError, match="CRS"):
        read_rows(tmp_path / "a.shp")


# --- bands

UTM, GRID, N = "EPSG:32636", Affine(1, 0, 447000, 0, -1, 1725000), 128
X, Y = np.meshgrid(np.arange(N), np.arange(N))
PLANES = {"red": 500 + 5 * X, "green": 500 + 5 * Y, "blue": 500 + 2.5 * (2 * N - X - Y)}
U = C.undefined
BGRN = ["blue", "green", "red", "nir"]


def picture(path: Path, image: np.ndarray, names=(), colours=None, mask=None, **more) -> Path:
    size = dict(count=len(image), height=image.shape[1], width=image.shape[2], dtype=image.dtype)
    inside = more.pop("inside", True)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
        place = {"crs": UTM, "transform": GRID} | more
        with rasterio.open(path, "w", driver="GTiff", **size, **place) as d:
            if colours:
                d.colorinterp = colours
            d.write(image)
            if mask is not None:
                d.write_mask(mask)
            for i, name in enumerate(names, 1):
                d.set_band_description(i, name or "")
    return path


def stack(roles: list[str], dtype: str = "uint16") -> np.ndarray:
    flat = np.random.default_rng(0).integers(400, 420, (N, N))
    scale = 10 if dtype == "uint8" else 1
    return np.stack([PLANES.get(r, flat) / scale for r in roles]).astype(dtype)


def shows_colours(path: str | Path) -> bool:
    "Whether red rises to the right, green downwards and blue along the diagonal."
    image = raster.read_chip(path, 3)[0]
    true = np.stack([X, Y, -X - Y])
    return all(
        np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99 for a, b in zip(image, true, strict=True)
    )


NAMES = [
    ["Blue", "Green", "Red", "NIR"],
    ["B02", "B03", "B04", "B08"],
    [f"B{b}, central wavelength {nm} nm" for b, nm in ((2, 490), (3, 560), (4, 665), (8, 842))],
    ["Blue (B02)", "Green (B03)", "Red (B04)", "NIR (B08)"],
    ["B02_10m", "B03_10m", "B04_10m", "B08_10m"],
    ["T36UXA_20200101_B02", "T36UXA_20200101_B03", "T36UXA_20200101_B04", "T36UXA_20200101_B08"],
    ["Band 1 - Blue", "Band 2 - Green", "Band 3 - Red", "Band 4 - NIR"],
    ["1: Blue", "2: Green", "3: Red", "4: Near-infrared"],
    ["blue_reflectance", "green_reflectance", "red_reflectance", "nir_reflectance"],
    ["BAND_B", "BAND_G", "BAND_R", "BAND_N"],
    ["B", "G", "R", "NIR"],
    ["B0", "B1", "B2", "B3"],
    ["Bleu", "Vert", "Rouge", "PIR"],
    ["Azul", "Verde", "Rojo", "Infrarrojo"],
    ["Синий", "Зеленый", "Красный", "БИК"],
    ["蓝", "绿", "红", "近红外"],
    ["0.490", "0.560", "0.665", "0.842"],
    ["490.0 Nanometers", "560.0 Nanometers", "665.0 Nanometers", "842.0 Nanometers"],
    ["Blue-475-32nm", "Green-560-27nm", "Red-668-14nm", "NIR-842-57nm"],
    ["TOA_B", "TOA_G", "TOA_R", "TOA_N"],
    ["BLU", "GRN", "RED", "NIR"],
    ["Band_2", "Band_3", "Band_4", "Band_8"],  # of Sentinel-2, for nobody counts so
    ["2", "3", "4", "8"],
    *[[*w.split(), "NIR"] for w in ("blå grøn rød", "kék zöld piros", "mavi yeşil kırmızı")],
    *[
        [*w.split(), "NIR"]
        for w in ("파랑 초록 빨강", "أزرق أخضر أحمر", "蓝色 绿色 红色", "biru hijau merah")
    ],
]


def test_names_of_bands_in_many_words(tmp_path):
    image, path = stack(BGRN), tmp_path / "a.tif"
    missed = [names for names in NAMES if not shows_colours(picture(path, image, names))]
    assert not missed


def test_stacks_of_sensors(tmp_path):
    x = "x"
    eight = [x, "blue", "green", x, "red", x, x, x]
    for k, (roles, names, colours) in enumerate(
        [
            (["blue", "green", "red", *[x] * 7], "B2 B3 B4 B5 B6 B7 B8 B8A B11 B12".split(), None),
            (["blue", "green", "red"], ["B2", "B3", "B4"], None),
            (["red", "green", "blue"], ["B4", "B3", "B2"], None),
            (["blue", "green", "red"], ["SR_B2", "SR_B3", "SR_B4"], None),
            ([x, "blue", "green", "red", x, x], [f"SR_B{k}" for k in range(1, 7)], None),
            (["blue", "green", "red", x, x], ["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B7"], None),
            (eight, ["C", "B", "G", "Y", "R", "RE", "N", "N2"], None),
            (eight, [f"BAND_{b}" for b in "C B G Y R RE N N2".split()], None),
            (eight, (), None),  # WorldView's order where nothing is said
            (eight, [f"B{k}" for k in range(1, 9)], None),  # or where they are counted
            ([x, "blue", x, "green", x, "red", x, x], (), [U, C.blue, U, C.green, U, C.red, U, U]),
            (["blue", "green", "red", x, x], ["Blue", "Green", "Red", "Red edge", "NIR"], None),
            (["red", "green", "blue", x], ["Red", "Green", "Blue", "DSM"], None),
            (BGRN, (), [C.blue, C.green, C.red, U]),
        ]
    ):
        path = picture(tmp_path / f"{k}.tif", stack(roles), names, colours)
        assert shows_colours(path), (names, colours)


def test_bands_of_which_nothing_is_known_are_said_or_refused(tmp_path):
    three = picture(tmp_path / "i.tif", stack(["red", "green", "blue"]), ["NDVI", "NDWI", "NDBI"])
    assert "NDVI" in raster.picture_notes(three)[0]
    twice = [f"{c}_{y}" for y in (2019, 2020) for c in ("red", "green", "blue")]
    both = picture(tmp_path / "d.tif", stack(["red", "green", "blue"] * 2), twice)
    with pytest.raises(DataError, match="has 6 bands"):
        raster.read_chip(both, 3)
    assert shows_colours(f"{both}#bands=1,2,3"), "the cure cures"


# --- pixels without data

CUT = 48  # whole blocks of JPEG
RGBA = [C.red, C.green, C.blue, C.alpha]


def noise(n: int = 3, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(60, 120, (n, N, N)).astype(dtype)


def cut(image: np.ndarray, value: float) -> np.ndarray:
    image[:, :, :CUT] = value
    return image


THERE = np.where(X < CUT, 0, 255).astype("uint8")
SOFT = np.where(X < CUT, 0, np.minimum(255, (X - CUT + 1) * 60)).astype("uint8")
JPEG = dict(compress="jpeg", photometric="ycbcr", tiled=True, blockxsize=128, blockysize=128)
EMPTY = {
    "65535": lambda p: picture(p, cut(noise(dtype="uint16"), 65535), nodata=65535),
    "-32768": lambda p: picture(p, cut(noise(dtype="int16"), -32768), nodata=-32768),
    "NaN, undeclared": lambda p: picture(p, cut(noise(dtype="float32"), np.nan)),
    "infinite": lambda p: picture(p, cut(noise(dtype="float32"), np.inf)),
    "-9999, undeclared": lambda p: picture(p, cut(noise(dtype="float32"), -9999)),
    "16-bit alpha": lambda p: picture(
        p, np.r_[cut(noise(dtype="uint16"), 9999), THERE[None].astype("uint16") * 257], colours=RGBA
    ),
    "soft alpha": lambda p: picture(p, np.r_[noise(), SOFT[None]], colours=RGBA),
    "fifth band alpha": lambda p: picture(
        p, np.r_[noise(4), THERE[None]], [*BGRN, "alpha"], [C.blue, C.green, C.red, U, C.alpha]
    ),
    "alpha without a name": lambda p: picture(
        p, np.r_[noise(), THERE[None]], colours=[C.red, C.green, C.blue, U]
    ),
    "band named mask": lambda p: picture(
        p, np.r_[noise(), THERE[None]], ["red", "green", "blue", "mask"]
    ),
    "mask within": lambda p: picture(p, noise(), mask=THERE),
    "mask beside": lambda p: picture(p, noise(), mask=THERE, inside=False),
    "white collar": lambda p: picture(p, cut(noise(), 255)),
    "white collar in JPEG": lambda p: picture(p, cut(noise(), 255), **JPEG, jpeg_quality=50),
    "black collar in JPEG": lambda p: picture(p, cut(noise(), 0), **JPEG),
    "noisy black collar": lambda p: picture(
        p, np.where(X < CUT, noise() % 4, noise()).astype("uint8"), **JPEG, jpeg_quality=90
    ),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_pixels_without_data_are_found(tmp_path, kind):
    path = EMPTY[kind](tmp_path / "a.tif")
    valid, image = raster.read_valid(path)[1], raster.read_chip(path, 3)[0]
    assert not valid[:, :CUT].any() and not image[:, :, :CUT].any()
    assert valid[:, CUT + 8 :].mean() > 0.99


@pytest.mark.parametrize("width", [3, 10, 20])
def test_thin_collars_are_found_along_a_whole_side(tmp_path, width):
    for dtype, white in (("uint8", 255), ("uint16", 65535)):
        image = noise(dtype=dtype)
        image[:, -width:] = white
        valid = raster.read_valid(picture(tmp_path / f"{dtype}.tif", image))[1]
        assert not valid[-width:].any() and valid[:-width].all()
    half = noise()
    half[:, :8, : N // 2] = 255  # a roof along half a side
    assert raster.read_valid(picture(tmp_path / "roof.tif", half))[1].all()


def test_pixels_with_data_are_kept(tmp_path):
    roof, dark = noise(), noise()
    roof[:, 30:60, :30] = 255  # touches the edge, not a corner
    dark[:, :40, :40] = noise()[:, :40, :40] // 8 + 6  # water in a corner
    four = np.r_[noise(), (noise(1) % 3) * 100]
    for k, (image, more) in enumerate(
        [(noise(), {}), (roof, {}), (dark, JPEG), (four, {}), (noise(4), {"colours": RGBA})]
    ):
        path = picture(tmp_path / f"{k}.tif", image, **more)
        assert raster.read_valid(path)[1].all(), k


# --- grids

AT = Affine.translation(447000, 1725000)
PLACES = {
    "south up": (UTM, AT * Affine.scale(1, 1)),
    "mirrored": (UTM, AT * Affine.scale(-1, -1)),
    "turned": (UTM, AT * Affine.rotation(45) * Affine.scale(1, -1)),
    "turned by 180": (UTM, AT * Affine.rotation(180) * Affine.scale(1, -1)),
    "oblong pixels": (UTM, AT * Affine.scale(1, -0.7)),
    "degrees": ("EPSG:4326", Affine(1e-5, 0, 37.6, 0, -1e-5, 55.75)),
    "feet": ("EPSG:2263", Affine(3, 0, 990000, 0, -3, 200000)),
    "south": ("EPSG:32736", Affine(1, 0, 447000, 0, -1, 9725000)),
    "Mercator": ("EPSG:3857", Affine(1, 0, 4180000, 0, -1, 7500000)),
    "with heights": ("EPSG:32636+5773", GRID),
    "three dimensions": ("EPSG:4979", Affine(1e-5, 0, 37.6, 0, -1e-5, 55.75)),
    "polar": ("EPSG:3413", Affine(1, 0, 1e5, 0, -1, -1.5e6)),
}


@pytest.mark.parametrize("kind", PLACES)
def test_labels_lie_on_their_image_on_any_grid(tmp_path, kind):
    crs, place = PLACES[kind]
    path = picture(tmp_path / "c.tif", noise(), crs=crs, transform=place)
    to = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform
    road = LineString([to(*(place * p))[:2] for p in ((2, 64), (N - 2, 64))])
    table(road, highway="residential").to_file(tmp_path / "c.geojson")
    (chip,) = scan_chips(find_chips(tmp_path), workers=1).itertuples()
    metres = raster.ground_size(raster.grid_of(path))[1] * (N - 4)
    assert chip.fatal == "" and chip.road_km * 1000 == pytest.approx(metres, rel=0.01)


def test_a_picture_placed_by_coefficients_says_so(tmp_path):
    one, zero = [1.0] + [0.0] * 19, [0.0] * 20
    rpc = RPC(100, 500, 16, 0.1, one, zero, 64, 64, 33, 0.1, one, zero, 64, 64, None, None)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=3, height=N, width=N, dtype="uint8", rpcs=rpc
    ) as d:
        d.write(noise())
    with pytest.raises(DataError, match="gdalwarp -rpc"):
        raster.read(tmp_path / "a.tif")


# --- lists of tiles


def source(
    file: str, band: int, x: int, width: int, tag: str = "SimpleSource", more: str = ""
) -> str:
    return (
        f'<{tag}><SourceFilename relativeToVRT="1">{file}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand>"
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{N}"/>'
        f'<DstRect xOff="{x}" yOff="0" xSize="{width}" ySize="{N}"/>{more}</{tag}>'
    )


def vrt(path: Path, bands: list[str]) -> Path:
    "A VRT as gdalbuildvrt writes it."
    wkt = rasterio.crs.CRS.from_string(UTM).to_wkt().replace('"', "&quot;")
    text = "".join(f'<VRTRasterBand dataType="UInt16" band="{k}">{b}</VRTRasterBand>'
                   for k, b in enumerate(bands, 1))  # fmt: skip
    place = "447000, 1, 0, 1725000, 0, -1"
    path.write_text(
        f'<VRTDataset rasterXSize="{N}" rasterYSize="{N}"><SRS>{wkt}</SRS>'
        f"<GeoTransform>{place}</GeoTransform>{text}</VRTDataset>"
    )
    return path


def halves(folder: Path) -> list[str]:
    "Two tiles in the order blue, green, red, infrared, with names; each band's sources."
    image, half = stack(BGRN), N // 2
    picture(folder / "a.tif", image[:, :, :half], BGRN)
    picture(
        folder / "b.tif", image[:, :, half:], BGRN, transform=GRID * Affine.translation(half, 0)
    )
    return [source("a.tif", b, 0, half) + source("b.tif", b, half, half) for b in (1, 2, 3, 4)]


def test_bands_of_a_vrt_are_named_by_its_tiles(tmp_path):
    mosaic = open_mosaic(vrt(tmp_path / "town.vrt", halves(tmp_path)))
    order = raster.bands_of(mosaic, 3).order
    assert order == (3, 2, 1)
    assert (mosaic.read(order, Window(0, 0, N, N)) == stack(["red", "green", "blue"])).all()


def test_the_alpha_of_addalpha_is_no_band(tmp_path):
    made = "<ScaleOffset>255</ScaleOffset><ScaleRatio>0</ScaleRatio>"
    alpha = "<ColorInterp>Alpha</ColorInterp>" + source(
        "a.tif", 1, 0, N // 2, "ComplexSource", made
    )
    mosaic = open_mosaic(vrt(tmp_path / "town.vrt", [*halves(tmp_path), alpha]))
    assert mosaic.count == 4 and raster.bands_of(mosaic, 3).order == (3, 2, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<VRTRasterBand ", '<VRTRasterBand subClass="VRTSourcedRasterBand" '),
        ("<VRTRasterBand ", '<VRTRasterBand blockXSize="128" blockYSize="64" '),
        ("<VRTDataset", '<?xml version="1.0"?><!-- made by hand --><VRTDataset'),
        ('relativeToVRT="1"', 'relativeToVRT="1" shared="0"'),
        ("<SimpleSource>", '<SimpleSource resampling="bilinear">'),
        ("</GeoTransform>", "</GeoTransform><OverviewList>2 4</OverviewList><Metadata/>"),
        ('xOff="64"', 'xOff="64.0000000001"'),
        ("<SRS>", '<SRS dataAxisToSRSAxisMapping="1,2">'),
    ],
)
def test_vrts_of_other_writers(tmp_path, old, new):
    path = vrt(tmp_path / "town.vrt", halves(tmp_path))
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    mosaic = open_mosaic(path)
    assert raster.bands_of(mosaic, 3).order == (3, 2, 1)
    assert (mosaic.read((3, 2, 1), Window(0, 0, N, N)) == stack(["red", "green", "blue"])).all()


@pytest.mark.parametrize("kind", ["nested", "network", "scaled", "other band", "pixel function"])
def test_other_vrts_are_refused_and_a_copy_is_the_cure(tmp_path, kind):
    bands = halves(tmp_path)
    if kind == "nested":
        vrt(tmp_path / "half.vrt", bands)
        bands = [source("half.vrt", b, 0, N) for b in (1, 2, 3, 4)]
    if kind == "network":
        bands = [b.replace('relativeToVRT="1">', ">/vsicurl/https://example.org/") for b in bands]
    if kind == "scaled":
        bands = [
            b.replace("</SimpleSource>", "<ScaleRatio>2</ScaleRatio></SimpleSource>") for b in bands
        ]
    if kind == "other band":
        bands = bands[::-1]
    path = vrt(tmp_path / "town.vrt", bands)
    if kind == "pixel function":
        path.write_text(
            path.read_text().replace('band="1"', 'band="1" subClass="VRTDerivedRasterBand"')
        )
    with pytest.raises(DataError) as e:
        open_mosaic(path)
    assert "`rio convert town.vrt town.tif`" in e.value.cure


# --- names

TOGETHER = [
    ["東京", "大阪", "القاهرة", "الرياض", "🏙️", "🌆"],
    ["a b", "a_b", "a  b", "a-b", "a%20b", "a%b", "a.b", "a\nb", "a\tb"],
    ["-a", "--help", "a", "a..", "CON", "nul", "COM1"],
    ["a#1", "a&b", "a;b", "a'b", 'a"b', "a$b", "a(1)", "a[1]", "a,b", "a=b", "a@b", "a+b", "a~"],
    ["x" * 240 + "1", "x" * 240 + "2", "京" * 80 + "1", "京" * 80 + "2"],
    ["Town", "town", "TOWN"],
]


@pytest.mark.parametrize("names", TOGETHER, ids=lambda n: ascii(n[0])[:20])
def test_names_of_one_folder_stay_apart(tmp_path, names):
    for k, name in enumerate(names):
        place = GRID * Affine.translation(20 * k, 0)
        picture(tmp_path / f"{name}.tif", noise()[:, :8, :8], transform=place)
    chips = find_chips(tmp_path)["chip"]
    assert len(set(chips)) == len(names)
    assert all(len(f"{c}.graphml.tmp".encode()) < 200 and "/" not in c for c in chips)


def test_the_same_stem_twice_is_refused_and_endings_do_not_matter(tmp_path):
    for name in ("a.tif", "b.TIF", "c.tiff", "d.TIFF"):
        picture(tmp_path / name, noise()[:, :8, :8])
    assert sorted(find_chips(tmp_path)["chip"]) == ["a", "b", "c", "d"]
    picture(tmp_path / "a.TIF", noise()[:, :8, :8])
    with pytest.raises(DataError, match="has the same chip id"):
        find_chips(tmp_path)


def test_accents_of_macos_are_the_same_name():
    whole, apart = (unicodedata.normalize(form, "Orléans") for form in ("NFC", "NFD"))
    assert whole != apart and parse_chip(f"{whole}.tif").id == parse_chip(f"{apart}.tif").id
