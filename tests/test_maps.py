"Maps: nothing loaded from elsewhere, nothing from data run as script, and every road drawn."

import json
import re
from html.parser import HTMLParser

import geopandas as gpd
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from rasterio.transform import from_origin
from shapely.geometry import LineString

from spacenet5_nb import core, maps, raster
from spacenet5_nb.mapping import image_overlays, road_table
from spacenet5_nb.mapping.html_page import page_data

PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(1)</script>",
    "javascript:alert(1)",
    "{{ 7*7 }}{% raw %}",
    "${alert(1)}`",
    "\u2028<!--<script>",
)


def street(n=6, *, crs="EPSG:32637", x=411000.0, y=6178000.0, **edge):
    "A street of n edges of 100 m, 36 km/h, that bends; the last edge goes over."
    g = nx.MultiGraph(crs=crs)
    at = lambda i: (x + 100 * i, y + 10 * (i % 2))
    for i in range(n + 1):
        g.add_node(i, x=at(i)[0], y=at(i)[1])
    for i in range(n):
        line = LineString([at(i), at(i + 1)])
        g.add_edge(
            i,
            i + 1,
            geometry=line,
            length=line.length,
            speed_kph=36.0,
            travel_time=line.length / 10,
            speed_confidence=0.5,
            level=int(i == n - 1),
            **edge,
        )
    return g


def html_of(m):
    return m.get_root().render()


class Loads(HTMLParser):
    "Collects what a browser would fetch or run from markup."

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.urls, self.handlers, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "srcset", "data", "poster", "action", "background"):
                self.urls.append(value or "")
            if key.startswith("on"):
                self.handlers.append((tag, key))


def parsed(html):
    p = Loads()
    p.feed(html)
    p.close()
    return p


@pytest.fixture(scope="module")
def full():
    "A map with every layer."
    chips = {
        "AOI_7_Moscow_chip1": street(),
        "AOI_2_Vegas_chip2": street(4, crs="EPSG:32611", x=662000.0, y=4002000.0),
    }
    truth = {
        c: street(7, crs=g.graph["crs"], x=g.nodes[0]["x"], y=g.nodes[0]["y"])
        for c, g in chips.items()
    }
    frame = maps.road_frame(chips)
    boxes = frame.dissolve("chip").bounds
    image = np.full((4, 20, 30), 200, np.uint8)
    pictures = {c: maps.Overlay(image, tuple(boxes.loc[c])) for c in chips}
    scores = boxes.reset_index().assign(apls_length=[0.5, np.nan], apls_time=0.4)
    return maps.speed_map(
        chips, truth=truth, imagery=pictures, probabilities=pictures, scores=scores, unit="mph"
    )


def test_every_road_is_in_the_page(full):
    data = page_data(html_of(full))
    predicted, truth = data["roads"]
    assert len(predicted["line"]) == 10 and len(truth["line"]) == 14
    assert sum(predicted["length"]) == pytest.approx(
        sum(d["length"] for *_, d in street(10).edges(data=True)), rel=1e-3
    )
    assert (
        predicted["time"][0] == pytest.approx(10.05, abs=0.01) and predicted["level"].count(1) == 2
    )
    assert (
        [d["key"] for d in data["differences"]] == ["missed", "extra"]
        and data["differences"][0]["line"]
        and not data["differences"][1]["line"]
    )
    assert {p["name"] for p in data["places"]} == {"Moscow", "Vegas"}
    assert [v for _, v in data["scores"][1]["values"]] == [None, 0.4], (
        "an unknown score is not a zero"
    )


def test_a_page_has_the_layers_that_there_is_data_for(full):
    data = page_data(html_of(full))
    assert [(layer["name"], layer["show"], len(layer["pictures"])) for layer in data["images"]] == [
        ("Imagery", True, 2),
        ("Road probability", False, 2),
    ]
    assert page_data(html_of(maps.speed_map(street())))["images"] == []


def test_a_page_knows_both_units(full):
    data = page_data(html_of(full))
    assert data["unit"] == "mph" and set(data["units"]) == {"km/h", "mph"}
    assert all(
        len(u["labels"]) == len(data["colors"]) == len(u["breaks_kph"]) + 1
        for u in data["units"].values()
    )


def test_probabilities_are_drawn_where_they_are(tmp_path):
    """A road band of one bright row: its picture is opaque there, transparent elsewhere; another
    band is not taken for it."""
    grid = raster.Grid((40, 60), from_origin(411000, 6178000, 2, 2), "EPSG:32637")
    probs = np.zeros((2, 40, 60), np.uint8)
    probs[0] = 200
    probs[1, 20] = 255
    path = raster.write(tmp_path / "probs.tif", probs, grid=grid, descriptions=("fast", "road"))
    picture = image_overlays.probability_overlay(path)
    assert (
        picture.rgba[3, 19:22].max(axis=0)[5:-5].min() > 120
        and picture.rgba[3, :15].max() == 0 == picture.rgba[3, 26:].max()
    )
    west, south, east, north = (
        gpd.GeoSeries.from_xy([411000, 411120], [6177920, 6178000], crs="EPSG:32637")
        .to_crs(4326)
        .total_bounds
    )
    assert picture.bounds == pytest.approx((west, south, east, north), abs=5e-5)
    with pytest.raises(core.DataError, match="no band named 'rail'"):
        image_overlays.probability_overlay(path, band="rail")


def test_coordinates_survive_to_a_decimetre():
    g = street()
    frame = maps.road_frame(g)
    for line, numbers in zip(
        frame.geometry, page_data(html_of(maps.speed_map(g)))["roads"][0]["line"], strict=True
    ):
        assert np.abs(road_table.decode_line(numbers) - np.asarray(line.coords)).max() < 6e-7


def test_the_page_loads_nothing(full):
    html = html_of(full)
    loads = parsed(html)
    assert all(u.startswith("data:") for u in loads.urls), loads.urls
    assert (
        "@import" not in html
        and not re.search(r"url\(\s*[\"']?(?!data:|#)", html)
        and "sourceMappingURL" not in html
    )
    assert re.search(r"default-src 'none'; img-src data:", html)
    assert not {"iframe", "object", "embed", "form", "base"} & set(loads.tags)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_from_data_stays_text(payload):
    edge = dict(name=payload, highway=payload, kind=[payload], street=payload)
    chip = f"AOI_7_Moscow_chip1{payload}"
    scores = pd.DataFrame(
        [(chip, 0.5, 0.5, 37.58, 55.73, 37.6, 55.75)],
        columns=["chip", "apls_length", "apls_time", "minx", "miny", "maxx", "maxy"],
    )
    roads = maps.road_frame({chip: street(**edge)}).assign(city=payload)
    html = html_of(
        maps.speed_map(roads, truth=roads, scores=scores, title=payload, attribution=payload)
    )
    clean = html_of(maps.speed_map(street(), truth=street(), scores=scores.assign(chip="c")))
    ours, theirs = parsed(html), parsed(clean)
    assert (
        ours.tags == theirs.tags
        and ours.handlers == []
        and all(u.startswith("data:") for u in ours.urls)
    )
    layer = page_data(html)["roads"][0]
    assert layer["name_of_layer"] == payload and layer["name"]["values"] == layer["kind"][
        "values"
    ] == layer["city"]["values"] == [payload]
    if "<" in payload:
        markup = re.sub(r"<script[ >].*?</script>|<style>.*?</style>", "", html, flags=re.DOTALL)
        assert payload not in markup


def test_no_roads_is_a_map_too():
    for nothing in (
        nx.MultiGraph(crs="EPSG:32637"),
        {},
        {"AOI_7_Moscow_chip1": nx.MultiGraph(crs="EPSG:32637")},
        gpd.GeoDataFrame(geometry=[], crs="EPSG:4326"),
    ):
        data = page_data(html_of(maps.speed_map(nothing)))
        assert data["roads"][0]["line"] == [] and data["places"] == []
    box = maps.Overlay(np.zeros((4, 2, 2), np.uint8), (37.58, 55.73, 37.6, 55.75))
    only_image = page_data(html_of(maps.speed_map({}, imagery={"AOI_7_Moscow_chip1": box})))
    assert [p["name"] for p in only_image["places"]] == ["Moscow"]
    assert maps.plot_speeds({}).axes


def test_same_roads_same_bytes(full):
    g = street()
    assert html_of(maps.speed_map(g)) == html_of(maps.speed_map(g))


def test_geojson_gives_the_same_roads_as_the_graph(tmp_path):
    frame = maps.road_frame({"AOI_7_Moscow_chip1": street()})
    path = core.write_text(tmp_path / "roads.geojson", frame.drop(columns=["u", "v"]).to_json())
    again = maps.road_frame(path)
    assert np.allclose(again["length"], frame["length"]) and set(again.chip) == {
        "AOI_7_Moscow_chip1"
    }
    assert len(set(again.u) | set(again.v)) == len(set(frame.u) | set(frame.v)) == 7


def test_graphml_keeps_names_and_classes(tmp_path):
    """Ours is read with every attribute; osmnx's, directed and without a line where a street is
    straight, is drawn once."""
    from spacenet5_nb import graph

    g = street(name="Арбат", highway="primary")
    graph.write(g, tmp_path / "ours.graphml")
    ours = maps.road_frame(tmp_path / "ours.graphml")
    assert set(ours.kind) == {"primary"} and set(ours["name"]) == {"Арбат"}
    assert (
        np.allclose(sorted(ours.travel_time), sorted(maps.road_frame(g).travel_time))
        and ours.level.sum() == 1
    )


@pytest.mark.shared
def test_osmnx_graph_of_a_suburb(shared):
    "824 streets of a Paris suburb as osmnx saved them, each once, with class and name."
    roads = maps.road_frame(shared / "data/osm/paris_suburb_osmnx.graphml")
    assert (
        roads.kind.ne("").all()
        and roads["name"].str.contains("Rue").any()
        and not roads["name"].str.contains("[", regex=False).any()
    )
    ways = pd.Series([frozenset((u, v)) for u, v in zip(roads.u, roads.v, strict=True)])
    assert len(roads) == 824 and ways.nunique() > 800


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"type": "FeatureCollection", "features": 3}',
        "<OGRVRTDataSource></OGRVRTDataSource>",
    ],
)
def test_what_is_not_geojson_is_refused_by_name(tmp_path, text):
    path = tmp_path / "roads.geojson"
    path.write_text(text)
    with pytest.raises(core.DataError, match="roads.geojson"):
        maps.road_frame(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(core.DataError, match="none.geojson"):
        maps.road_frame(tmp_path / "none.geojson")


def test_unknown_values_stay_unknown():
    g = street(2)
    for *_, d in g.edges(data=True):
        for key in ("speed_kph", "travel_time", "speed_confidence", "level"):
            del d[key]
    layer = page_data(html_of(maps.speed_map(g)))["roads"][0]
    assert layer["speed"] == layer["time"] == layer["confidence"] == [None, None] and layer[
        "level"
    ] == [0, 0]


def test_save_leaves_nothing_half_written(tmp_path, monkeypatch):
    m = maps.speed_map(street())
    assert maps.save(m, tmp_path / "map.html").read_text() == html_of(m)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(core.WriteError, match="disk is full"):
        maps.save(m, tmp_path / "other.html")
    assert [p.name for p in tmp_path.iterdir()] == ["map.html"]


def test_twenty_thousand_roads_stay_small():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 0.2, (20_000, 2)) + [37.5, 55.7]
    lines = [LineString(a + np.cumsum(rng.normal(0, 2e-4, (5, 2)), axis=0)) for a in start]
    roads = gpd.GeoDataFrame(
        {"speed_kph": rng.uniform(20, 100, 20_000), "chip": "AOI_7_Moscow_chip1"},
        geometry=lines,
        crs="EPSG:4326",
    )
    html = html_of(maps.speed_map(roads))
    assert len(html) < 5e6 and len(page_data(html)["roads"][0]["line"]) == 20_000


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
BLIND = {
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
    "grey": [[0.2126, 0.7152, 0.0722]] * 3,
}


@pytest.mark.parametrize("eye", BLIND)
def test_speeds_are_told_apart_by_every_eye(eye):
    """In CIELAB as a colour-blind reader sees them, neighbours differ well beyond the eye's
    threshold (about 2), and lightness rises with speed."""
    from skimage.color import rgb2lab

    rgb = np.array(
        [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in maps.speed_scale().colors]
    )
    linear = (
        np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        @ np.array(BLIND[eye]).T
    )
    seen = np.where(
        linear.clip(0, 1) <= 0.0031308,
        12.92 * linear.clip(0, 1),
        1.055 * linear.clip(0, 1) ** (1 / 2.4) - 0.055,
    )
    lab = rgb2lab(seen)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)[~np.eye(len(lab), dtype=bool)]
    assert apart.min() > 6 and (np.diff(lab[:, 0]) > 4).all(), (apart.min(), np.diff(lab[:, 0]))


def test_an_unknown_speed_is_not_a_slow_one():
    scale = maps.speed_scale()
    assert maps.class_of([np.nan, 0, 5], scale).tolist() == [-1, 0, 0]
    assert road_table.UNKNOWN not in scale.colors


def test_speeds_of_a_class_are_told_apart():
    for unit in ("km/h", "mph"):
        scale = maps.speed_scale(unit)
        assert len(set(scale.colors)) == len(scale.labels) == len(scale.breaks_kph) + 1
        assert list(maps.class_of(scale.breaks_kph, scale)) == list(range(1, len(scale.labels))), (
            "a break opens its class"
        )
    with pytest.raises(KeyError):
        maps.speed_scale("knots")


def test_static_map_is_written(tmp_path):
    path = maps.save_png(maps.plot_speeds({"AOI_7_Moscow_chip1": street()}), tmp_path / "map.png")
    assert (
        path.read_bytes()[:4] == b"\x89PNG"
        and len(json.dumps(str(path)))
        and path.stat().st_size < 300_000
    )
