"Bad images, labels and folders: a clear error that names file and cure, and nothing half-written."

import errno
import hashlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from spacenet5_nb import core, explore, graph, masks, raster  # isort: skip
import rasterio  # isort: skip
from affine import Affine
from rasterio.crs import CRS
from rasterio.io import MemoryFile

PIXEL_X, PIXEL_Y, SIDE = 3.2e-5, 1.8e-5, 64  # about 2 m in Moscow


def grid_at(column: int = 0, row: int = 0) -> raster.Grid:
    return raster.Grid(
        (SIDE, SIDE),
        Affine(
            PIXEL_X, 0, 37.6 + column * SIDE * PIXEL_X, 0, -PIXEL_Y, 55.7 - row * SIDE * PIXEL_Y
        ),
        CRS.from_epsg(4326),
    )


def image(
    path: Path,
    *,
    bands: int = 8,
    dtype: str = "uint16",
    grid: raster.Grid | None = None,
    change=None,
) -> Path:
    pixels = np.random.default_rng(3).integers(100, 900, (bands, SIDE, SIDE)).astype(dtype)
    if change:
        change(pixels)
    return raster.write(path, pixels, grid=grid or grid_at())


def line(x0: float = 37.6, y: float = 55.6995) -> dict:
    return {"type": "LineString", "coordinates": [[x0, y], [x0 + SIDE * PIXEL_X, y]]}


def label(path: Path, *geometries, text: str | None = None, **members) -> Path:
    features = [
        {"type": "Feature", "properties": {"highway": "primary", "lanes": "2"}, "geometry": g}
        for g in geometries
    ]
    path.write_text(
        text
        if text is not None
        else json.dumps({"type": "FeatureCollection", "features": features, **members})
    )
    return path


def scan(folder: Path, bands: int = 3) -> dict:
    "What stage 01 says about the only chip of a folder."
    return explore.scan_chips(explore.find_chips(folder), bands_wanted=[bands]).iloc[0].to_dict()


def fatal(folder: Path, *words: str, bands: int = 3) -> None:
    "The chip stops the stage with an error that says these words; `skip` lists and leaves it out."
    found = explore.scan_chips(explore.find_chips(folder), bands_wanted=[bands])
    with pytest.raises(core.DataError) as e:
        explore.usable(found)
    assert all(w in str(e.value) for w in words) and e.value.cure, str(e.value)
    with pytest.raises(core.DataError, match="none can be used"):
        explore.usable(found, on_problem="skip")


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 8, 100, 0.5, 0.95])
def test_truncated_image(tmp_path, keep):
    data = image(tmp_path / "chip.tif").read_bytes()
    (tmp_path / "chip.tif").write_bytes(
        data[: keep if isinstance(keep, int) else int(keep * len(data))]
    )
    fatal(tmp_path, "chip.tif", "truncated")


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(99)])
def test_not_a_tiff(tmp_path, data):
    (tmp_path / "chip.tif").write_bytes(data)
    fatal(tmp_path, "chip.tif", "no GeoTIFF")


def test_png_under_the_name_of_a_tiff(tmp_path):
    with MemoryFile() as memory:
        with memory.open(driver="PNG", height=8, width=8, count=1, dtype="uint8") as target:
            target.write(np.ones((1, 8, 8), "uint8"))
        (tmp_path / "chip.tif").write_bytes(memory.read())
    fatal(tmp_path, "chip.tif", "no GeoTIFF")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    "georeference", [{}, {"crs": "EPSG:4326"}, {"transform": grid_at().transform}]
)
def test_image_without_crs_or_place(tmp_path, georeference):
    with rasterio.open(
        tmp_path / "chip.tif",
        "w",
        driver="GTiff",
        height=8,
        width=8,
        count=3,
        dtype="uint8",
        **georeference,
    ) as target:
        target.write(np.ones((3, 8, 8), "uint8"))
    fatal(tmp_path, "chip.tif", "no coordinate reference system")


@pytest.mark.parametrize("bands,wanted", [(3, 8), (1, 3), (5, 8), (2, 3)])
def test_band_count_other_than_the_preset_wants(tmp_path, bands, wanted):
    image(tmp_path / "chip.tif", bands=bands)
    fatal(tmp_path, "chip.tif", f"has {bands} bands", f"wants {wanted}", bands=wanted)
    with pytest.raises(core.DataError, match="chip.tif"):
        raster.read_chip(tmp_path / "chip.tif", wanted)


@pytest.mark.parametrize("nodata", [0, np.nan, np.inf])
def test_image_without_any_data(tmp_path, nodata):
    image(tmp_path / "chip.tif", dtype="float32", change=lambda p: p.fill(nodata))
    fatal(tmp_path, "chip.tif", "no data in any pixel")
    with pytest.raises(core.DataError, match="no data"):
        raster.read_chip(tmp_path / "chip.tif", 3)


def test_declared_nodata_counts(tmp_path):
    grid = grid_at()
    raster.write(
        tmp_path / "chip.tif", np.full((3, *grid.shape), 77, "uint16"), grid=grid, nodata=77
    )
    fatal(tmp_path, "chip.tif", "no data in any pixel")


def test_nan_and_infinite_pixels_are_reported_and_count_as_no_data(tmp_path):
    def spoil(p):
        p[:, :4] = np.nan
        p[2, 10, :7] = np.inf
        p[1, 11, :7] = -np.inf

    image(tmp_path / "chip.tif", dtype="float32", change=spoil)
    label(tmp_path / "chip.geojson", line())
    found = scan(tmp_path)
    assert (
        found["fatal"] == "" and f"{4 * SIDE + 14} pixels are NaN or infinite" in found["problems"]
    )
    pixels, _, valid = raster.read_chip(tmp_path / "chip.tif", 3)
    assert (
        pixels.dtype == np.uint8
        and not valid[:4].any()
        and not pixels[:, :4].any()
        and pixels[:, 20:].std() > 50
    ), "the rest keeps its contrast"


def test_a_grid_that_the_preset_would_make_enormous(tmp_path):
    "64 pixels of a hundredth of a degree are 40 km: at 1 m they would fill the memory."
    image(
        tmp_path / "chip.tif",
        bands=3,
        grid=grid_at()._replace(transform=Affine(0.01, 0, 37.6, 0, -0.01, 55.7)),
    )
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        core.DataError, match="chip.tif.*would become 7.* pixels.*largest_read_gb"
    ) as e:
        raster.read_chip(tmp_path / "chip.tif", 3, gsd_m=1.0)
    assert "georeference" in e.value.cure and "data.gsd_m" in e.value.cure
    chips = explore.scan_chips(explore.find_chips(tmp_path), gsd_m=1.0)
    assert (
        "would become" in chips["fatal"][0]
        and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 100_000
    )
    assert explore.scan_chips(explore.find_chips(tmp_path))["fatal"][0] == "" and raster.read_chip(
        tmp_path / "chip.tif", 3
    )[0].shape == (3, SIDE, SIDE)


def test_an_image_off_the_earth(tmp_path):
    image(
        tmp_path / "chip.tif",
        grid=grid_at()._replace(transform=Affine(0.01, 0, 37.6, 0, -0.01, 200)),
    )
    fatal(tmp_path, "chip.tif", "outside the area of its CRS", "georeference")
    with pytest.raises(core.DataError, match="chip.tif"):
        raster.read_chip(tmp_path / "chip.tif", 3, gsd_m=1.0)


def test_a_crs_without_a_place_on_the_earth(tmp_path):
    image(
        tmp_path / "chip.tif",
        grid=grid_at()._replace(crs=CRS.from_wkt('LOCAL_CS["site plan",UNIT["metre",1]]')),
    )
    fatal(tmp_path, "chip.tif", "without a place on the Earth", "rio edit-info --crs")
    with pytest.raises(core.DataError, match="chip.tif"):
        raster.grid_of(tmp_path / "chip.tif")


def test_duplicate_chip_ids_name_both_files(tmp_path):
    for folder in ("a", "b"):
        image(tmp_path / folder / "SN5_roads_train_AOI_7_Moscow_PS-MS_chip1.tif")
    with pytest.raises(core.DataError) as e:
        explore.find_chips(tmp_path)
    assert (
        f"{tmp_path}/a/" in str(e.value)
        and f"{tmp_path}/b/" in str(e.value)
        and "Rename or remove" in e.value.cure
    )


def test_missing_label_makes_a_test_chip(tmp_path):
    for i in range(4):
        image(tmp_path / f"chip{i}.tif", grid=grid_at(i))
        label(tmp_path / f"chip{i}.geojson", line(37.6 + i * SIDE * PIXEL_X))
    (tmp_path / "chip2.geojson").unlink()
    chips = explore.split_test(
        explore.usable(explore.scan_chips(explore.find_chips(tmp_path))), 0.25, 1, seed=0
    ).set_index("chip")
    assert (
        chips.loc["chip2", "problems"] == "no label"
        and chips.loc["chip2", "split"] == "test"
        and (chips["split"] == "train").sum() == 2
    )


def test_empty_and_missing_folders(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(core.DataError, match=str(folder)):
            explore.find_chips(folder)


# --- labels --------------------------------------------------------------------------------------


def test_image_and_label_that_do_not_overlap(tmp_path):
    image(tmp_path / "chip.tif")
    label(tmp_path / "chip.geojson", line(10.0, 5.0))
    fatal(tmp_path, "chip.geojson", "does not overlap its image")


@pytest.mark.parametrize("text", ["", " \n", '{"type": "FeatureCollection", "features": []}'])
def test_empty_label_is_a_chip_without_roads(tmp_path, text):
    image(tmp_path / "chip.tif")
    path = label(tmp_path / "chip.geojson", text=text)
    found = scan(tmp_path)
    assert (found["fatal"], found["problems"], found["road_km"]) == ("", "", 0)
    assert (
        not masks.make_masks(path, tmp_path / "chip.tif").any()
        and graph.from_labels(path).number_of_edges() == 0
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "FeatureCollection", "fea',
        "[]",
        "null",
        '{"type": "Topology"}',
        "\x00\x01",
        '{"features": 3, "type": "FeatureCollection"}',
        "[" * 200_000,
        '{"type": "FeatureCollection", "features": [], "crs": {"type": "name", '
        '"properties": {"name": "+init=file:canary"}}}',
    ],
)
def test_invalid_label(tmp_path, text):
    image(tmp_path / "chip.tif")
    label(tmp_path / "chip.geojson", text=text)
    fatal(tmp_path, "chip.geojson")


def test_null_geometry_points_and_polygons_are_reported(tmp_path):
    point = {"type": "Point", "coordinates": [37.601, 55.6995]}
    ring = {
        "type": "Polygon",
        "coordinates": [[[37.6, 55.699], [37.601, 55.699], [37.601, 55.6995], [37.6, 55.699]]],
    }
    broken = {"type": "LineString", "coordinates": [[37.6, None], ["x", 1]]}
    image(tmp_path / "chip.tif")
    path = label(
        tmp_path / "chip.geojson",
        None,
        point,
        line(),
        ring,
        broken,
        {"type": "LineString", "coordinates": []},
    )
    found = scan(tmp_path)
    assert found["fatal"] == "" and 0.1 < found["road_km"] < 0.2
    for words in (
        "1 null geometries",
        "(Point)",
        "(Polygon)",
        "broken coordinates",
        "without length",
    ):
        assert words in found["problems"]
    assert masks.make_masks(path, tmp_path / "chip.tif").any()


def _nested(depth: int) -> dict:
    geometry = line()
    for _ in range(depth):
        geometry = {"type": "GeometryCollection", "geometries": [geometry]}
    return geometry


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "MultiLineString", "coordinates": 5},
        {"type": "GeometryCollection", "geometries": 5},
        {"type": "LineString", "coordinates": [[10**400, 55.7], [37.6, 55.7]]},
        {"type": "MultiLineString", "coordinates": [[[37.6, 55.7], [37.6, -(10**400)]]]},
    ],
)
def test_a_geometry_that_is_nonsense(tmp_path, geometry):
    image(tmp_path / "chip.tif")
    label(tmp_path / "chip.geojson", line(), geometry)
    fatal(tmp_path, "chip.geojson", "not GeoJSON")


def test_collections_nested_without_end(tmp_path):
    text = json.dumps(
        {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": "here"}]}
    )
    deep = (
        '{"type": "GeometryCollection", "geometries": [' * 5000 + json.dumps(line()) + "]}" * 5000
    )
    image(tmp_path / "chip.tif")
    label(tmp_path / "chip.geojson", text=text.replace('"here"', deep))
    fatal(tmp_path, "chip.geojson", "GeoJSON")
    assert len(graph.read_labels(label(tmp_path / "a.geojson", _nested(20)))) == 1


def test_multilinestring_is_fine(tmp_path):
    whole, parts = (
        label(tmp_path / "a.geojson", line(), line(y=55.6998)),
        label(
            tmp_path / "b.geojson",
            {
                "type": "MultiLineString",
                "coordinates": [line()["coordinates"], line(y=55.6998)["coordinates"]],
            },
        ),
    )
    assert (
        masks.make_masks(whole, grid_at()) == masks.make_masks(parts, grid_at())
    ).all() and not graph.read_labels(parts).attrs["problems"]


def test_label_in_a_projected_crs(tmp_path):
    image(tmp_path / "chip.tif")
    path = label(tmp_path / "chip.geojson", line())
    expected = masks.make_masks(path, tmp_path / "chip.tif")
    metres = graph.read_labels(path).to_crs(32637).geometry[0]
    moved = {"type": "LineString", "coordinates": [list(c) for c in metres.coords]}
    label(path, moved, crs={"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32637"}})
    assert (masks.make_masks(path, tmp_path / "chip.tif") == expected).all() and scan(tmp_path)[
        "fatal"
    ] == ""
    label(path, moved)
    fatal(tmp_path, "chip.geojson", "outside longitude and latitude")


# --- files that are not what they are called -----------------------------------------------------


class _Counter(BaseHTTPRequestHandler):
    hits = 0

    def do_GET(self):
        type(self).hits += 1
        self.send_error(404)

    do_HEAD = do_POST = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    "A server on this machine that counts what it is asked."
    _Counter.hits = 0
    httpd = HTTPServer(("127.0.0.1", 0), _Counter)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def digest(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def disguises(secret: Path, out: Path, url: str) -> dict[str, str]:
    "Descriptions that make GDAL read, fetch or write something else."
    size = 'rasterXSize="64" rasterYSize="64"'
    source = "<SimpleSource><SourceFilename>{}</SourceFilename></SimpleSource>"
    band = f'<VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand>'
    over_network = f"/vsicurl/{url}/a.tif"
    return {
        "vrt to a file": f"<VRTDataset {size}>{band.format(secret)}</VRTDataset>",
        "vrt to the network": f"<VRTDataset {size}>{band.format(over_network)}</VRTDataset>",
        "wms": '<GDAL_WMS><Service name="TMS">'
        f"<ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>"
        "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>1</UpperLeftY>"
        "<LowerRightX>1</LowerRightX><LowerRightY>0</LowerRightY><TileLevel>"
        "1</TileLevel></DataWindow>"
        "<Projection>EPSG:4326</Projection><BandsCount>3</BandsCount></GDAL_WMS>",
        "mrf": '<MRF_META><Raster><Size x="64" y="64" c="1"/>'
        f"<DataFile>{out}</DataFile><IndexFile>{out}.idx</IndexFile></Raster>"
        f"<CachedSource><Source>{secret}</Source></CachedSource></MRF_META>",
    }


@pytest.mark.parametrize("kind", ["vrt to a file", "vrt to the network", "wms", "mrf"])
def test_disguised_raster_reads_writes_and_fetches_nothing(tmp_path, server, kind):
    secret = image(tmp_path / "elsewhere" / "secret.tif", bands=1, dtype="uint8")
    data = tmp_path / "data"
    data.mkdir()
    (data / "scene.tif").write_text(disguises(secret, tmp_path / "written.bin", server)[kind])
    before = digest(tmp_path)
    fatal(data, "scene.tif", "no GeoTIFF")
    for call in (
        raster.read,
        raster.grid_of,
        raster.read_named,
        lambda p: raster.read_chip(p, 3),
        lambda p: masks.make_masks(tmp_path / "no.geojson", p),
    ):
        with pytest.raises(core.DataError, match="scene.tif"):
            call(data / "scene.tif")
    assert digest(tmp_path) == before and _Counter.hits == 0


def test_disguised_labels_read_and_fetch_nothing(tmp_path, server):
    (tmp_path / "secret.csv").write_text(
        "WKT,canary\nLINESTRING (37.6 55.6995;37.602 55.6995),CANARY\n".replace(";", ",")
    )
    image(tmp_path / "data/roads.tif")
    for source in (f"{tmp_path}/secret.csv", f"/vsicurl/{server}/roads.csv"):
        (tmp_path / "data/roads.geojson").write_text(
            '<OGRVRTDataSource><OGRVRTLayer name="secret">'
            f"<SrcDataSource>{source}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
        )
        before = digest(tmp_path)
        with pytest.raises(core.DataError) as e:
            graph.read_labels(tmp_path / "data/roads.geojson")
        assert "CANARY" not in str(e.value)
        fatal(tmp_path / "data", "roads.geojson", "not valid GeoJSON")
        assert digest(tmp_path) == before and _Counter.hits == 0
    (tmp_path / "graph.gpkg").write_text("<OGRVRTDataSource/>")
    with pytest.raises(core.GraphError, match="graph.gpkg"):
        graph.read(tmp_path / "graph.gpkg")


def test_street_maps_that_are_none(tmp_path):
    """A GeoPackage without lines, with two tables of them, cut short, of another kind; each names
    the file and what to do."""
    import geopandas as gpd
    from shapely.geometry import LineString, Point

    from spacenet5_nb.acquire.street_topology import read_streets

    lines, points = (
        gpd.GeoDataFrame(geometry=[LineString([(0, 0), (9, 9)])], crs=32637),
        gpd.GeoDataFrame(geometry=[Point(0, 0)], crs=32637),
    )
    lines.to_file(tmp_path / "good.gpkg", layer="a", driver="GPKG")
    assert len(read_streets(tmp_path / "good.gpkg").lines) == 1
    points.to_file(tmp_path / "points.gpkg", driver="GPKG")
    for layer in "ab":
        lines.to_file(tmp_path / "two.gpkg", layer=layer, driver="GPKG")
    (tmp_path / "short.gpkg").write_bytes((tmp_path / "good.gpkg").read_bytes()[:20_000])
    with closing(sqlite3.connect(tmp_path / "other.gpkg")) as db:
        db.execute("CREATE TABLE t (x)")
        db.commit()
    for name, words in (
        ("points", "0 tables of lines"),
        ("two", "2 tables of lines"),
        ("short", "not a readable GeoPackage"),
        ("other", "not a readable GeoPackage"),
        ("nowhere", "no such"),
    ):
        with pytest.raises(core.DataError, match=f"{name}.gpkg.*{words}") as e:
            read_streets(tmp_path / f"{name}.gpkg")
        assert e.value.cure


def test_foreign_geopackages(tmp_path):
    "A database, another program's layer, and layers of our names with other columns."
    with closing(sqlite3.connect(tmp_path / "plain.gpkg")) as db:
        db.execute("CREATE TABLE roads (id INTEGER)")
        db.commit()
    frame = graph.read_labels(label(tmp_path / "a.geojson", line()))
    (
        frame.to_file(tmp_path / "roads.gpkg", layer="roads"),
        frame.to_file(tmp_path / "edges.gpkg", layer="edges"),
    )
    for layer in ("nodes", "edges"):
        frame.to_file(tmp_path / "both.gpkg", layer=layer)
    for name in ("plain.gpkg", "roads.gpkg", "edges.gpkg", "both.gpkg"):
        with pytest.raises(core.GraphError, match=name) as e:
            graph.read(tmp_path / name)
        assert "06_vectorize" in e.value.cure and (
            "lacks the tables" in e.value.problem or name == "both.gpkg"
        ), str(e.value)


@pytest.mark.parametrize(
    "name", ["/vsicurl/{url}/a.tif", "{url}/a.tif", "GTIFF_DIR:1:{tif}", "/vsizip/{tif}/a.tif"]
)
def test_names_that_are_no_files_are_not_handed_to_gdal(tmp_path, server, name):
    path = name.format(url=server, tif=image(tmp_path / "chip.tif"))
    with pytest.raises(core.DataError, match="no such file"):
        raster.read(path)
    assert _Counter.hits == 0


def test_side_cars_are_ignored(tmp_path):
    image(tmp_path / "chip.tif")
    before = raster.read(tmp_path / "chip.tif"), raster.grid_of(tmp_path / "chip.tif")
    (tmp_path / "chip.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    (tmp_path / "chip.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:3857</SRS><GeoTransform>0,1,0,0,0,1</GeoTransform></PAMDataset>"
    )
    (tmp_path / "chip.tif.ovr").write_bytes(b"x")
    assert (raster.read(tmp_path / "chip.tif") == before[0]).all() and raster.grid_of(
        tmp_path / "chip.tif"
    ) == before[1]


@pytest.mark.parametrize("tiled", [True, False])
def test_small_file_that_claims_a_huge_image(tmp_path, tiled):
    grid = grid_at()
    layout = dict(tiled=True, blockxsize=2048, blockysize=2048) if tiled else dict(blockysize=60000)
    with rasterio.open(
        tmp_path / "chip.tif",
        "w",
        driver="GTiff",
        height=60000,
        width=60000,
        count=3,
        dtype="uint8",
        sparse_ok=True,
        compress="deflate",
        crs=grid.crs,
        transform=grid.transform,
        **layout,
    ):
        pass
    assert (tmp_path / "chip.tif").stat().st_size < 200_000
    fatal(tmp_path, "chip.tif", "largest_read_gb", "60000")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for call in (raster.read, lambda p: raster.read_chip(p, 3), raster.read_named):
        with pytest.raises(core.DataError, match="largest_read_gb"):
            call(tmp_path / "chip.tif")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 300_000, "KB"


# --- writing -------------------------------------------------------------------------------------


def _write_mask(path: Path) -> None:
    raster.write(
        path,
        np.random.default_rng(0).integers(0, 255, (3, SIDE, SIDE)).astype("uint8"),
        grid=grid_at(),
    )


def _write_graph(path: Path) -> None:
    g = graph.empty("EPSG:32637")
    g.add_node(0, x=0.0, y=0.0)
    g.add_node(1, x=9.0, y=0.0)
    from shapely.geometry import LineString

    g.add_edge(
        0, 1, geometry=LineString([(0, 0), (9, 0)]), length=9.0, speed_kph=36.0, travel_time=0.9
    )
    graph.write(g, path)


WRITERS = [
    ("mask.tif", _write_mask),
    ("roads.gpkg", _write_graph),
    ("roads.graphml", _write_graph),
    ("a.json", lambda p: core.write_json(p, {"a": 1})),
]


@pytest.mark.parametrize("name,writer", WRITERS)
def test_full_disk(tmp_path, monkeypatch, name, writer):
    target = tmp_path / "out" / name
    monkeypatch.setattr(
        "spacenet5_nb.base.files._fsync",
        lambda path: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")),
    )
    with pytest.raises(core.WriteError) as e:
        writer(target)
    assert (
        str(target) in str(e.value)
        and "disk is full" in str(e.value)
        and not list(target.parent.iterdir())
    )


def test_full_disk_for_real_keeps_the_old_file(tmp_path):
    "A child process may write 4 KB a file: the raster does not fit, the older one stays."
    _write_mask(tmp_path / "mask.tif")
    before = digest(tmp_path)
    code = (
        "import resource, signal, numpy as np, sys; sys.path.insert(0, 'tests'); "
        "import test_bad_input_data as t;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        f"t._write_mask(t.Path({str(tmp_path / 'mask.tif')!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (
        done.returncode != 0
        and "WriteError" in done.stderr
        and str(tmp_path / "mask.tif") in done.stderr
    )
    assert digest(tmp_path) == before


@pytest.mark.parametrize("name,writer", WRITERS)
def test_output_folder_that_is_a_file(tmp_path, name, writer):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(core.WriteError, match=name):
        writer(tmp_path / "out" / name)
    assert digest(tmp_path) == {"out": hashlib.sha256(b"in the way").hexdigest()}


def test_output_folder_not_writable(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(core.WriteError) as e:
        _write_mask(tmp_path / "mask.tif")
    assert "outputs_root" in e.value.cure and not list(tmp_path.iterdir())


# --- folds ---------------------------------------------------------------------------------------


def test_edited_folds_are_checked(tmp_path):
    from dataclasses import replace

    for i in range(6):
        image(tmp_path / f"data/chip{i}.tif", grid=grid_at(i))
        label(tmp_path / f"data/chip{i}.geojson", line(37.6 + i * SIDE * PIXEL_X))
    r = replace(
        core.open_run("x", "", str(tmp_path / "data")),
        folder=tmp_path / "out",
        preset=core.load_preset({"name": "t", "folds": [{"encoder": "e"}] * 2}),
    )
    chips = explore.split_test(
        explore.usable(explore.scan_chips(explore.find_chips(r.data_root))), 0.3, 2, seed=0
    )
    folds = explore.make_folds(chips, 2, seed=0)
    explore.write_tables(r, chips, folds, {})
    assert sorted(explore.load_chips(r)["fold"]) == [-1, -1, 0, 0, 1, 1]
    good = r.folds.read_text()
    test_chip = chips.loc[chips["split"] == "test", "chip"].iloc[0]
    for bad, words in [
        (good.replace(",0", ",7"), "out of range"),
        (good.replace(",0", ",zero"), "out of range"),
        (good.replace(",0", ",-1"), "out of range"),
        ("\n".join(good.splitlines()[:-1]), "lacks"),
        (good + "chipX,0\n", "not in chips"),
        (good + f"{test_chip},0\n", "test chip"),
        (good + good.splitlines()[1] + "\n", "twice"),
        (good.replace("fold", "group"), "columns"),
        (good.replace(",0", ",1"), "no chip"),
        ("", "CSV"),
    ]:
        r.folds.write_text(bad)
        with pytest.raises(core.DataError) as e:
            explore.load_chips(r)
        assert words in str(e.value) and "folds.csv" in str(e.value), (words, str(e.value))
    r.folds.unlink()
    with pytest.raises(core.StageError, match="01_explore"):
        explore.load_chips(r)
