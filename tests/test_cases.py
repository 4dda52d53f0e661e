"What people of this field report of their files; inputs are made here, with the right values."

import json
import os
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import networkx as nx
import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import Transformer
from shapely.geometry import LineString, Polygon

from spacenet5_nb import graph, raster  # before rasterio: sets what GDAL may open
from spacenet5_nb.acquire.street_topology import count_places, read_streets, unshared
from spacenet5_nb.base.band_roles import roles_markdown
from spacenet5_nb.base.labels import read_rows
from spacenet5_nb.base.road_columns import columns_markdown, words_markdown
from spacenet5_nb.chips.chip_files import find_chips
from spacenet5_nb.chips.integrity import scan_chips
from spacenet5_nb.core import DataError, StageError, open_run, parse_chip
from spacenet5_nb.judge.chip_graphs import read_entry
from spacenet5_nb.roads import formats
from spacenet5_nb.roads.windowed_tracing import check_scale
from spacenet5_nb.speed_limits import MPH_TO_KPH, hear, is_bridge, level_of, speed_of

import rasterio  # isort: skip
from rasterio.enums import ColorInterp as C  # isort: skip

UTM = "EPSG:32636"
GRID = Affine(1, 0, 447000, 0, -1, 1725000)
LONLAT = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform


def town() -> nx.MultiGraph:
    "A graph with three speeds and an overpass."
    g = graph.empty(UTM)
    places = [(0, 0), (300, 0), (300, 300), (0, 300), (600, 0), (150, -50), (150, 50)]
    for n, (x, y) in enumerate(places):
        g.add_node(n, x=500000.0 + x, y=4e6 + y)
    roads = ((0, 1, 30.0, 0), (1, 2, 90.0, 0), (2, 3, 30.0, 0), (3, 0, 90.0, 0), (1, 4, 60.0, 0))
    for u, v, kph, level in (*roads, (5, 6, 50.0, 1)):
        line = LineString([(g.nodes[k]["x"], g.nodes[k]["y"]) for k in (u, v)])
        time = line.length / kph * 3.6
        g.add_edge(
            u,
            v,
            geometry=line,
            length=line.length,
            speed_kph=kph,
            travel_time=time,
            level=level,
        )
    return g


def facts(path: str | Path) -> list[tuple[float, int, float]]:
    "Speed, level and length of each road of a file, as the reader understands it."
    rows = read_rows(path)
    metres = gpd.GeoSeries(rows.lines, crs=4326).to_crs(UTM).length
    return sorted(
        (round(speed_of(t).mph * MPH_TO_KPH, 3), level_of(t), round(m, 1))
        for t, m in zip(rows.tags, metres, strict=True)
    )


RIGHT = [(30, 0, 300), (30, 0, 300), (50, 1, 100), (60, 0, 300), (90, 0, 300), (90, 0, 300)]


@pytest.mark.parametrize("kind", ["gpkg", "geojson", "graphml", "osm"])
def test_our_own_formats_keep_speeds_levels_and_lengths(tmp_path, kind):
    path = formats.save(town(), tmp_path / f"town.{kind}")
    assert facts(path) == RIGHT
    assert count_places(unshared(read_streets(path))) == 0, "the overpass is no crossroads"
    g = read_entry(path, "town", crs=UTM, infer=False)
    assert sorted(round(s) for *_, s in g.edges(data="speed_kph")) == [30, 30, 50, 60, 90, 90]


@pytest.mark.parametrize("ending", ["gpkg", "shp", "fgb", "parquet", "geojson"])
def test_tables_of_geopandas_keep_them_too(tmp_path, ending):
    edges, path = graph.to_gdf(town()).to_crs(4326), tmp_path / f"town.{ending}"
    edges.to_parquet(path) if ending == "parquet" else edges.to_file(path)
    assert facts(path) == RIGHT
    back = gpd.read_parquet(path) if ending == "parquet" else gpd.read_file(path)
    assert sorted(back["speed_kph"]) == [30, 30, 50, 60, 90, 90]


def test_osmnx_and_back(tmp_path):
    ox = pytest.importorskip("osmnx")
    g = nx.MultiDiGraph(crs="EPSG:4326", simplified=True)
    for n, x, y in ((0, 37.6, 55.75), (1, 37.602, 55.75), (2, 37.602, 55.751)):
        g.add_node(n, x=x, y=y, street_count=2)
    for k, (u, v) in enumerate([(0, 1), (1, 2)]):
        for a, b in ((u, v), (v, u)):
            limits = ["40", "20"] if k else "60"
            g.add_edge(
                a, b, osmid=k, highway="primary", maxspeed=limits, oneway=False, bridge="yes"
            )
    g = ox.add_edge_travel_times(ox.add_edge_speeds(ox.distance.add_edge_lengths(g)))
    ox.save_graphml(g, tmp_path / "a.graphml")
    ox.save_graph_geopackage(g, tmp_path / "a.gpkg", directed=True)
    want = sorted({round(s, 3) for *_, s in g.edges(data="speed_kph")})
    for name in ("a.graphml", "a.gpkg"):
        rows = read_rows(tmp_path / name)
        assert sorted({round(speed_of(t).mph * MPH_TO_KPH, 3) for t in rows.tags}) == want
        assert all(is_bridge(t) for t in rows.tags)
    formats.save(town(), tmp_path / "ours.graphml")
    back = ox.load_graphml(tmp_path / "ours.graphml")
    assert sorted(d["speed_kph"] for *_, d in back.edges(data=True)) == [30, 30, 50, 60, 90, 90]


GEOFABRIK = {"fclass": "primary", "oneway": "B", "maxspeed": 0, "layer": 0, "tunnel": "F"}
ROADS = [  # tags, mph, level
    ({**GEOFABRIK, "bridge": "F"}, 45, 0),
    ({**GEOFABRIK, "bridge": "T"}, 45, 1),
    ({**GEOFABRIK, "fclass": "motorway", "maxspeed": 110, "bridge": "F"}, 110 / MPH_TO_KPH, 0),
    ({"HIGHWAY": "motorway", "MAXSPEED": "50", "BRIDGE": "no"}, 50 / MPH_TO_KPH, 0),
    ({"highway": "primary", "other_tags": '"maxspeed"=>"30 mph","tunnel"=>"yes"'}, 30, -1),
    ({"highway": "residential", "maxspeed": "signals", "bridge": "none"}, 25, 0),
    ({"MTFCC": "S1100", "FULLNAME": "I- 5"}, 55, 0),
    ({"F_SYSTEM": 4, "SPEED_LIM": 40, "THROUGH_LA": 2}, 40, 0),
    ({"ROADCLASS": "residential", "SPEEDLIMIT_KMH": 30}, 30 / MPH_TO_KPH, 0),
    ({"speed_kph": "48.28032", "bridge": "N"}, 30, 0),
    ({"class": "motorway", "brunnel": "bridge"}, 55, 1),
    ({"type": "track", "bridge": 0, "maxspeed": 0}, 20, 0),
    ({"travel_time_s": 10, "length_m": 134.112}, 30, 0),
]


@pytest.mark.parametrize(("tags", "mph", "level"), ROADS, ids=lambda v: str(v)[:40])
def test_columns_of_many_dialects(tmp_path, tags, mph, level):
    road = {"type": "LineString", "coordinates": [[37.6, 55.75], [37.61, 55.75]]}
    feature = {"type": "Feature", "properties": tags, "geometry": road}
    path = tmp_path / "roads.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    (found,) = read_rows(path).tags
    assert speed_of(found).mph == pytest.approx(mph) and level_of(found) == level


def test_overture_holds_for_parts_of_a_road(tmp_path):
    table = gpd.GeoDataFrame(
        {
            "class": ["secondary"],
            "subtype": ["road"],
            "speed_limits": [[{"max_speed": {"value": 50, "unit": "km/h"}, "between": [0.0, 0.5]}]],
            "road_flags": [[{"values": ["is_bridge"], "between": [0.5, 1.0]}]],
        },
        geometry=[LineString([(37.6, 55.75), (37.61, 55.75)])],
        crs=4326,
    )
    table.to_parquet(tmp_path / "segment.parquet")
    rows = read_rows(tmp_path / "segment.parquet")
    assert [round(speed_of(t).mph * MPH_TO_KPH, 1) for t in rows.tags] == [
        50,
        round(35 * MPH_TO_KPH, 1),
    ]
    assert [level_of(t) for t in rows.tags] == [0, 1]


def test_what_was_understood_is_one_line(tmp_path):
    tags = [{"maxspeed": "50"}] * 812 + [{"highway": "primary", "maxspeed": None}] * 88
    assert hear(tags).line() == "speeds: 812 of 900 read from maxspeed, 88 by class"


def _picture(path: Path, image: np.ndarray, **more) -> Path:
    colours, mask, names = (more.pop(k, None) for k in ("colours", "mask", "names"))
    size = dict(count=len(image), height=image.shape[1], width=image.shape[2], dtype=image.dtype)
    place = {"crs": UTM, "transform": GRID} | more
    path.parent.mkdir(exist_ok=True, parents=True)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(path, "w", driver="GTiff", **size, **place) as d:
            d.write(image)
            if colours:
                d.colorinterp = colours
            if mask is not None:
                d.write_mask(mask)
            for i, name in enumerate(names or (), 1):
                d.set_band_description(i, name)
    return path


def _noise(bands: int = 3, n: int = 256, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(60, 120, (bands, n, n)).astype(dtype)


@pytest.mark.parametrize("kind", ["nodata", "alpha", "mask", "collar", "nan"])
def test_where_there_is_no_data(tmp_path, kind):
    image, cut = _noise(dtype="float32" if kind == "nan" else "uint8"), 102
    image[:, :, :cut] = np.nan if kind == "nan" else 255
    there = np.full((256, 256), 255, "uint8")
    there[:, :cut] = 0
    more = {"nodata": {"nodata": 255}, "mask": {"mask": there}, "nan": {"nodata": np.nan}}.get(
        kind, {}
    )
    if kind == "alpha":
        image, more = np.r_[image, there[None]], {"colours": [C.red, C.green, C.blue, C.alpha]}
    path = _picture(tmp_path / "c.tif", image, **more)
    valid = raster.read_valid(path)[1]
    assert not valid[:, :cut].any() and valid[:, cut:].all()
    assert not raster.read_chip(path, 3)[0][:, :, :cut].any()


def test_infrared_is_no_alpha_and_a_collar_can_be_kept(tmp_path):
    "Writers call the fourth band of eight bits alpha."
    four = _picture(tmp_path / "four.tif", _noise(4), colours=[C.red, C.green, C.blue, C.alpha])
    assert raster.read_valid(four)[1].all()
    image = _noise()
    image[:, :40] = 255
    collar = _picture(tmp_path / "collar.tif", image)
    assert (
        raster.read_valid(collar)[1].mean() < 0.9
        and raster.read_valid(f"{collar}#nodata=none")[1].all()
    )
    roof = _noise()
    roof[:, 100:130, 100:130] = 255
    assert raster.read_valid(_picture(tmp_path / "roof.tif", roof))[1].all()


SUPERDOVE = ["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"]


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["red", "green", "blue", "nir"], (1, 2, 3)),
        (["blue", "green", "red", "nir"], (3, 2, 1)),
        (SUPERDOVE, (6, 4, 2)),
        (["B2", "B3", "B4", "B8"], (3, 2, 1)),
        (["492 nm", "560 nm", "665 nm"], (3, 2, 1)),
        (["Nir", "Rot", "Gruen", "Blau"], (2, 3, 4)),
    ],
)
def test_red_green_and_blue_by_name(tmp_path, names, order):
    image = _noise(len(names), dtype="uint16")
    path = _picture(tmp_path / "scene.tif", image, names=names)
    with raster.open_raster(path) as source:
        assert raster.bands_of(source, 3).order == order


def test_bands_that_are_none_are_refused_by_name(tmp_path):
    path = _picture(tmp_path / "cir.tif", _noise(3, dtype="uint16"), names=["nir", "red", "green"])
    with pytest.raises(DataError, match="nir, red, green") as e:
        raster.read_chip(path, 3)
    assert "#bands=" in e.value.cure
    assert raster.read_chip(f"{path}#bands=1,2,3", 3)[0].shape == (3, 256, 256), "the cure cures"


def _labels(path: Path, *shapes, **tags) -> Path:
    gpd.GeoDataFrame(
        {k: [v] * len(shapes) for k, v in tags.items()}, geometry=list(shapes), crs=UTM
    ).to_crs(4326).to_file(path)
    return path


STREET = LineString([GRID * (0, 123), GRID * (256, 123)])
SURFACE = Polygon([GRID * p for p in ((0, 120), (256, 120), (256, 126), (0, 126))])


@pytest.mark.parametrize("ending", ["geojson", "gpkg", "shp", "fgb"])
def test_labels_of_any_kind_beside_an_image(tmp_path, ending):
    _picture(tmp_path / "c0.tif", _noise())
    _labels(tmp_path / f"c0.{ending}", STREET, highway="residential")
    scanned = scan_chips(find_chips(tmp_path), workers=1)
    assert scanned["fatal"].tolist() == [""] and scanned["road_km"][0] == pytest.approx(0.256, 0.01)


def test_surfaces_are_no_labels(tmp_path):
    _picture(tmp_path / "c0.tif", _noise())
    _labels(tmp_path / "c0.geojson", SURFACE, highway="residential")
    scanned = scan_chips(find_chips(tmp_path), workers=1)
    assert "holds no line (1 Polygon)" in scanned["fatal"][0]


def test_catalogue_items_are_no_labels(tmp_path):
    _picture(tmp_path / "c0.tif", _noise())
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "geometry": shapely.geometry.mapping(SURFACE),
    }
    (tmp_path / "c0.json").write_text(json.dumps(item))
    assert find_chips(tmp_path)["label"].tolist() == [""]
    _labels(tmp_path / "c0.geojson", STREET, highway="residential")
    assert find_chips(tmp_path)["label"].tolist() == [str(tmp_path / "c0.geojson")]


@pytest.mark.parametrize("degrees", [30, 45, 135, -20])
def test_windows_of_a_turned_image_have_all_four_corners(tmp_path, degrees):
    turned = Affine.translation(447000, 1725000) * Affine.rotation(degrees) * Affine.scale(1, -1)
    path = _picture(tmp_path / "a.tif", _noise(), transform=turned)
    with raster.open_raster(f"{path}#window=0,0,100,100") as part:
        xs, ys = zip(*(turned * p for p in ((0, 0), (100, 0), (0, 100), (100, 100))), strict=True)
        assert part.bounds == (min(xs), min(ys), max(xs), max(ys))


def test_names_in_any_script_stay_apart(tmp_path):
    names = ["東京", "大阪", "area 1", "area_1", "Москва", "x" * 90 + "_R1C1", "x" * 90 + "_R1C2"]
    assert len({parse_chip(f"{n}.tif").id for n in names}) == len(names)
    for name in names[:2]:
        _picture(tmp_path / f"{name}.tif", _noise(n=64))
    assert sorted(find_chips(tmp_path)["chip"]) == sorted(names[:2])


def test_numbers_of_papermill():
    assert open_run(2019, "small").name == "2019"
    with pytest.raises(StageError, match="-r run"):
        open_run(20.5, "small")


def test_across_the_180th_meridian(tmp_path):
    to = Transformer.from_crs("EPSG:32760", "EPSG:4326", always_xy=True).transform
    back = Transformer.from_crs("EPSG:4326", "EPSG:32760", always_xy=True).transform
    x, y = back(180.0, -16.85)
    place = Affine(1, 0, round(x) - 128, 0, -1, round(y) + 128)
    _picture(tmp_path / "c.tif", _noise(), crs="EPSG:32760", transform=place)
    lines = [
        LineString([to(*(place * p)) for p in pair])
        for pair in (((0, 128), (120, 128)), ((136, 128), (256, 128)))
    ]
    table = gpd.GeoDataFrame({"highway": ["primary"] * 2}, geometry=lines, crs=4326)
    table.to_file(tmp_path / "c.geojson")
    scanned = scan_chips(find_chips(tmp_path), workers=1)
    assert scanned["fatal"].tolist() == [""] and 0 < scanned["maxx"][0] - scanned["minx"][0] < 0.01
    assert graph.from_labels(tmp_path / "c.geojson").graph["crs"] in ("EPSG:32760", "EPSG:32701")


def _rio(*arguments: str, folder: Path) -> None:
    "rasterio's own command, as a reader of a message would run it."
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GDAL_", "OGR_"))}
    code = "from rasterio.rio.main import main_group as g; g()"
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=folder, env=env)


def test_the_cure_for_a_world_file_cures(tmp_path):
    path = tmp_path / "dop.tif"
    with rasterio.open(path, "w", driver="GTiff", count=3, height=64, width=64, dtype="uint8") as d:
        d.write(_noise(n=64))
    path.with_suffix(".tfw").write_text("1\n0\n0\n-1\n447000.5\n1724999.5\n")
    path.with_suffix(".prj").write_text(rasterio.crs.CRS.from_epsg(32636).to_wkt())
    with pytest.raises(DataError, match=r"dop\.tfw lies beside it") as e:
        raster.read(path)
    transform = e.value.cure.split("--transform '")[1].split("'")[0]
    assert "--crs EPSG:32636" in e.value.cure
    _rio("edit-info", "dop.tif", "--crs", "EPSG:32636", "--transform", transform, folder=tmp_path)
    assert raster.grid_of(path).transform == GRID


def test_control_points_place_an_image_or_a_warp_does(tmp_path):
    from rasterio.control import GroundControlPoint as Point

    def placed(name: str, bend: float) -> Path:
        points = [Point(r, c, *(GRID * (c, r))) for r in (0, 64) for c in (0, 64)]
        points[0] = Point(0, 0, *(GRID * (bend, bend)))
        size = dict(count=3, height=64, width=64, dtype="uint8", crs=UTM, gcps=points)
        with rasterio.open(tmp_path / name, "w", driver="GTiff", **size) as d:
            d.write(_noise(n=64))
        return tmp_path / name

    assert raster.grid_of(placed("even.tif", 0)).transform.almost_equals(GRID, 1e-6)
    bent = placed("bent.tif", 9)
    with pytest.raises(DataError, match="rio warp bent.tif placed.tif --dst-crs EPSG:32636"):
        raster.grid_of(bent)
    _rio("warp", "bent.tif", "placed.tif", "--dst-crs", "EPSG:32636", folder=tmp_path)
    assert raster.read(tmp_path / "placed.tif").shape[0] == 3


def test_masks_of_0_and_1_are_asked_about_and_the_cure_cures(tmp_path):
    image = np.zeros((1, 64, 64), "uint8")
    image[:, 30:34] = 1
    _picture(tmp_path / "mask.tif", image)
    with pytest.raises(DataError, match="0 and 1") as e:
        check_scale(int(image.max()), str(tmp_path / "mask.tif"))
    scale = e.value.cure.split("--scale-ratio ")[1].rstrip("`.")
    _rio("convert", "mask.tif", "scaled.tif", "--scale-ratio", scale, folder=tmp_path)
    assert raster.read(tmp_path / "scaled.tif").max() == 255


def test_the_document_is_made_from_the_tables():
    text = (Path(__file__).parents[1] / "docs/road-files.md").read_text()
    for table in (columns_markdown(), words_markdown(), roles_markdown()):
        assert table in text
