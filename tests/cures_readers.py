"Cures of the readers of files: each is followed, and the same thing works."

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import networkx as nx
import numpy as np
import pytest
import shapely
from affine import Affine
from cures import row
from shapely.geometry import LineString, Point, mapping

from spacenet5_nb import (
    raster,  # before rasterio: sets what GDAL may open
    speed_limits,
)
from spacenet5_nb.base import path_options
from spacenet5_nb.base.labels import read_rows, rows_of
from spacenet5_nb.chips.chip_files import find_chips
from spacenet5_nb.chips.integrity import scan_chips, scan_label
from spacenet5_nb.core import Channels
from spacenet5_nb.inference.vrt_mosaic import open_mosaic
from spacenet5_nb.roads import skeleton, windowed_tracing

import rasterio  # isort: skip
from rasterio.control import GroundControlPoint as Point2  # isort: skip

UTM, GRID, N = "EPSG:32636", Affine(1, 0, 447000, 0, -1, 1725000), 64
LINE = LineString([(33.0, 15.6), (33.01, 15.6)])
ONE = {"highway": "primary"}


def picture(path: Path, image: np.ndarray | None = None, **more) -> Path:
    image = (
        np.random.default_rng(0).integers(60, 120, (3, N, N), "uint8") if image is None else image
    )
    size = dict(count=len(image), height=image.shape[1], width=image.shape[2], dtype=image.dtype)
    place = {"crs": UTM, "transform": GRID} | more
    with rasterio.open(path, "w", driver=place.pop("driver", "GTiff"), **size, **place) as d:
        d.write(image)
    return path


def roads(path: Path, *shapes, crs=4326, **tags) -> Path:
    columns = {k: [v] * len(shapes) for k, v in (tags or ONE).items()}
    table = gpd.GeoDataFrame(columns, geometry=list(shapes), crs=crs)
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_file(path)
    return path


def geojson(path: Path, *geometries: dict, **more) -> Path:
    features = [{"type": "Feature", "properties": ONE, "geometry": g} for g in geometries]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **more}))
    return path


def command(cure: str, word: str) -> list[str]:
    "The arguments of the command in a cure that begins with a word, without the word."
    import shlex

    return shlex.split(re.search(rf"`{word} ([^`]*)`", cure)[1])


def rio(folder: Path, *arguments: str) -> None:
    "rasterio's own command, as a reader of a message would run it."
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GDAL_", "OGR_"))}
    code = "from rasterio.rio.main import main_group as g; g()"
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=folder, env=env)


def chip(path: Path | str) -> np.ndarray:
    return raster.read_chip(path, 3)[0]


# --- road files


@row("base/road_files", "is no kind of road file that is read", "is not a readable")
def _(folder, fails):
    for name in ("roads.kml", "roads.dbf", "roads.xyz", "roads.gpkg", "roads.fgb", "roads.parquet"):
        (folder / name).write_text("x")
        cure = fails(lambda name=name: read_rows(folder / name))
        assert re.search(r"ogr2ogr roads\.gpkg|\.shp|\.geojson|GeoPackage", cure)
    (folder / "roads.gpkg").unlink()
    for name in ("roads.gpkg", "roads.shp", "roads.geojson"):
        assert len(read_rows(roads(folder / name, LINE)).lines) == 1


@row("base/road_files", "tables of lines, not one", "has no layer")
def _(folder, fails):
    for layer in ("main", "minor"):
        roads(folder / "a.gpkg", LINE) if layer == "x" else gpd.GeoDataFrame(
            ONE, geometry=[LINE], crs=4326, index=[0]
        ).to_file(folder / "a.gpkg", layer=layer)
    cure = fails(lambda: read_rows(folder / "a.gpkg"))
    assert len(read_rows(re.search(r"Say which: (\S+)\.$", cure)[1]).lines) == 1
    cure = fails(lambda: read_rows(f"{folder / 'a.gpkg'}#layer=streets"))
    assert "main" in cure and len(read_rows(f"{folder / 'a.gpkg'}#layer=minor").lines) == 1
    points = roads(folder / "points.gpkg", Point(33, 15.6))
    assert fails(lambda: read_rows(points)) == "Export the streets as lines."


@row("base/road_files", "and none of the nodes that they run over")
def _(folder, fails):
    way = '<way id="1"><nd ref="1"/><nd ref="2"/><tag k="highway" v="primary"/></way>'
    path = folder / "a.osm"
    path.write_text(f"<osm>{way}</osm>")
    assert "Download the nodes" in fails(lambda: read_rows(path))
    nodes = "".join(f'<node id="{k}" lon="33.0{k}" lat="15.6"/>' for k in (1, 2))
    path.write_text(f"<osm>{nodes}{way}</osm>")
    assert len(read_rows(path).lines) == 1


@row("base/road_files", "has a view where roads are looked for")
def _(folder, fails):
    path = roads(folder / "a.gpkg", LINE)
    with sqlite3.connect(path) as db:
        db.execute("CREATE VIEW town AS SELECT * FROM a")
        db.execute("INSERT INTO gpkg_contents SELECT 'town', data_type, 'town', '', last_change,"
                   " min_x, min_y, max_x, max_y, srs_id FROM gpkg_contents")  # fmt: skip
        db.execute("INSERT INTO gpkg_geometry_columns SELECT 'town', column_name, "
                   "geometry_type_name, srs_id, z, m FROM gpkg_geometry_columns")  # fmt: skip
    db.close()
    cure = fails(lambda: read_rows(f"{path}#layer=town"))
    assert "a table of their own" in cure and len(read_rows(roads(path, LINE)).lines) == 1


@row("base/geopackage", "has changes that are not in it yet")
def _(folder, fails):
    path = roads(folder / "a.gpkg", LINE)
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE notes (text)")
    db.commit()
    assert "Close the program" in fails(lambda: read_rows(path))
    db.close()
    assert len(read_rows(path).lines) == 1


@row("base/road_files", "is too large to be one file of roads")
@row("base/labels", "is too large to be one label file")
def _(folder, fails, monkeypatch):
    for name in ("a.gpkg", "a.geojson"):
        path = roads(folder / name, LINE)
        monkeypatch.setenv("SPACENET5_LARGEST_READ_GB", "1e-9")
        assert "raise largest_read_gb" in fails(lambda path=path: read_rows(path))
        monkeypatch.setenv("SPACENET5_LARGEST_READ_GB", "4")
        assert len(read_rows(path).lines) == 1


@row("base/road_files", "does not say which CRS its coordinates have")
def _(folder, fails):
    path = roads(folder / "a.shp", shapely.transform(LINE, lambda xy: xy * 1000), crs=32636)
    projection = path.with_suffix(".prj").read_text()
    path.with_suffix(".prj").unlink()
    assert "put its .prj beside it" in fails(lambda: read_rows(path))
    path.with_suffix(".prj").write_text(projection)
    assert len(read_rows(path).lines) == 1


@row("base/road_files", "names no CRS that is known")
def _(folder, fails):
    def write(**graph):
        g = nx.MultiDiGraph(**graph)
        g.add_node(1, x=33.0, y=15.6)
        g.add_node(2, x=33.01, y=15.6)
        g.add_edge(1, 2, **ONE)
        nx.write_graphml(g, folder / "a.graphml")

    write()
    assert "with its crs" in fails(lambda: read_rows(folder / "a.graphml"))
    write(crs="epsg:4326")
    assert len(read_rows(folder / "a.graphml").lines) == 1


@row("base/labels", "holds no line")
def _(folder, fails):
    path = geojson(folder / "surface.geojson", mapping(LINE.buffer(0.00003)))
    cure = fails(lambda: read_rows(path))
    rio(folder, *command(cure, "rio"))
    with rasterio.open(folder / "mask.tif") as mask:  # one band of 0 and 255, as `vectorize` wants
        assert mask.count == 1 and set(np.unique(mask.read())) == {0, 255}
    assert command(cure, "spacenet5")[:2] == ["vectorize", "mask.tif"]


@row("base/labels", "has a crs member that is not understood", "has coordinates outside longitude")
@row("base/labels", "has a geometry that is not GeoJSON")
def _(folder, fails):
    far = mapping(LineString([(500000, 1.7e6), (501000, 1.7e6)]))
    name = {"type": "name", "properties": {"name": "my town's grid"}}
    path = geojson(folder / "a.geojson", far, crs=name)
    cure = fails(lambda: read_rows(path))
    name["properties"]["name"] = re.search(r"'(.*)'", cure)[1].replace("<code>", "32636")
    geojson(path, far)
    assert "`crs` member" in fails(lambda: read_rows(path))
    assert len(read_rows(geojson(path, far, crs=name)).lines) == 1
    geojson(path, {"type": "MultiLineString", "coordinates": 7})
    assert "Export the labels again" in fails(lambda: read_rows(path))
    assert len(read_rows(roads(path, LINE)).lines) == 1


@row("base/labels", "no such label file", "is a STAC item", "is JSON but not", "has no list of")
@row("base/labels", "is not written in UTF-8", "is not valid GeoJSON")
def _(folder, fails):
    path = folder / "a.geojson"
    texts = [None, b'{"type": "Feature", "stac_version": "1.0.0"}', b'{"a": 1}']
    texts += [b'{"type": "FeatureCollection", "features": 7}', "Straße".encode("latin-1"), b"{"]
    for text in texts:
        if text is not None:
            path.write_bytes(text)
        assert fails(lambda: read_rows(path))
    assert len(read_rows(geojson(path, mapping(LINE))).lines) == 1


@row("base/labels", "have no CRS", "has a CRS that leads nowhere")
def _(folder, fails):
    table = gpd.GeoDataFrame(ONE, geometry=[LINE], index=[0])
    assert "set_crs" in fails(lambda: rows_of(table))
    assert len(rows_of(table.set_crs(4326)).lines) == 1
    path = roads(folder / "a.shp", LINE)
    path.with_suffix(".prj").write_text('LOCAL_CS["x",UNIT["metre",1]]')
    assert "export it again" in fails(lambda: read_rows(path))
    assert len(read_rows(roads(path, LINE)).lines) == 1


@row("base/path_options", "says '", "has a ring '", "has columns '")
def _(folder, fails):
    path = geojson(folder / "a.geojson", mapping(LINE))
    key = re.search(r"come (.*)\.", fails(lambda: read_rows(f"{path}#layer=x&taste=sweet")))[1]
    assert set(key.split(", ")) == set(path_options.KEYS)
    fails(lambda: read_rows(f"{path}#within=33 15"))
    corners = "33.005 15,34 15,34 16,33.005 16"
    assert len(read_rows(f"{path}#within={corners}").lines) == 1
    assert "name:COLUMN" in fails(lambda: read_rows(f"{path}#columns=highway"))
    assert read_rows(f"{path}#columns=road_type:highway").tags == [{"road_type": "primary"}]
    assert read_rows(f"{path}#columns=none").tags == [{}]


@row("speed_limits", "says neither class nor speed")
def _(folder, fails):
    path = roads(folder / "a.geojson", LINE, STRKL="primary", KM=3)

    def heard(source):
        return speed_limits.check_heard(speed_limits.hear(read_rows(source).tags), source)

    cure = fails(lambda: heard(str(path)))
    named, none = re.findall(r"'([^']*)'", cure)
    assert heard(named).by_class == 1 and heard(none).unknown == 1


@row("speed_limits", "no such file of legal speeds", "is not valid JSON", "is no table of legal")
@row("speed_limits", "is not in the table of legal speeds", "is no text", "is unknown")
def _(folder, fails):
    table, path = gpd.GeoDataFrame(ONE, geometry=[LINE], crs=4326, index=[0]), folder / "legal.json"
    for text in (None, "{", "7"):
        if text:
            path.write_text(text)
        assert fails(lambda: speed_limits.legal_limits(path))
    assert "XX" not in fails(lambda: speed_limits.add_speeds(table, country="XX"))
    fails(lambda: speed_limits.add_speeds(table, country=7))
    assert "urban or rural" in fails(lambda: speed_limits.add_speeds(table, zone="moon"))
    path.write_text('{"XX": {"urban": "60"}}')
    found = speed_limits.add_speeds(table, country="XX", legal_speeds=path, zone="urban")
    assert found["inferred_speed_mph"][0] == pytest.approx(60 / speed_limits.MPH_TO_KPH)


@row("speed_limits", "cannot be divided into", "edges ", "holds no whole mph")
def _(folder, fails):
    assert "one road" in fails(lambda: speed_limits.equal_frequency_edges([], 2))
    assert speed_limits.equal_frequency_edges([20, 30], 2) == (20, 30)
    path = folder / "bins.csv"
    assert "Sort them" in fails(lambda: speed_limits.write_bin_csv(path, (30, 20)))
    assert "1 mph apart" in fails(lambda: speed_limits.write_bin_csv(path, (20.2, 20.4, 30)))
    assert speed_limits.read_bin_csv(speed_limits.write_bin_csv(path, (20, 30)))


# --- pictures


@row("base/band_roles", "; the preset wants", "does not choose among them", "is read by its bands")
@row("base/band_roles", "a grey picture", "is a mask by its name")
def _(folder, fails):
    five = picture(folder / "a.tif", np.full((5, N, N), 7, "uint8"))
    chosen = re.search(r"'(#bands=[\d,]+)'", fails(lambda: chip(five)))[1]
    assert len(chip(f"{five}{chosen}")) == 3
    assert "3,2,1" in fails(lambda: chip(f"{five}#bands=9,8,7"))
    fails(lambda: raster.read_chip(f"{five}#bands=3,2,1", 8))
    eight = picture(folder / "e.tif", np.full((9, N, N), 7, "uint8"))
    assert len(raster.read_chip(f"{eight}#bands=1,2,3,4,5,6,7,8", 8)[0]) == 8
    assert "`bands: 3`" in fails(lambda: raster.read_chip(five, 8))
    grey = picture(folder / "g.tif", np.full((1, N, N), 7, "uint8"))
    bands = re.search(r"--bands ([\d,]+)", fails(lambda: chip(grey)))[1]
    assert len(chip(f"{grey}#bands={bands}")) == 3
    mask = picture(folder / "town_mask.tif", np.full((1, N, N), 7, "uint8"))
    assert "from-masks" in fails(lambda: chip(mask)), "tests/test_mask_labels.py follows it"


@row("base/known_pixels", "has nodata=")
@row("chips/integrity", "has no data in any pixel")
@row("raster", "has no data in any pixel")
def _(folder, fails):
    path = picture(folder / "a.tif")
    value = re.search(r"'(#nodata=\d+)'", fails(lambda: chip(f"{path}#nodata=white")))[1]
    assert chip(f"{path}{value}").any() and chip(f"{path}#nodata=none").any()
    empty = picture(folder / "b.tif", np.zeros((3, N, N), "uint8"))
    fails(lambda: chip(empty))
    fails(lambda: raster.read_valid(empty))
    assert "Remove the chip" in scan_chips(find_chips(folder), workers=1).fatal.iloc[1]
    empty.unlink()
    assert scan_chips(find_chips(folder), workers=1).fatal.tolist() == [""]


@row("raster", "no such file", "is truncated or no GeoTIFF", "is truncated or damaged")
def _(folder, fails):
    path = folder / "a.tif"
    assert "data_root" in fails(lambda: chip(path))
    picture(folder / "in.img", driver="HFA")
    (folder / "in.img").rename(path)
    cure = fails(lambda: chip(path))
    path.rename(folder / "in.img")
    rio(folder, *command(cure, "rio"))
    assert len(chip(folder / "out.tif")) == 3
    whole = picture(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "copy it again" in fails(lambda: chip(path))
    path.write_bytes(whole)
    assert len(chip(path)) == 3


@row("raster", "<problem>", "; {} lies beside it", "has a CRS without a place on the Earth")
@row("raster", "has ground control points that are no regular grid", slow=True)
def _(folder, fails):
    path = picture(folder / "a.tif", crs=None, transform=None)
    assert "rio edit-info" in fails(lambda: chip(path))
    path.with_suffix(".tfw").write_text("1\n0\n0\n-1\n447000.5\n1724999.5\n")
    path.with_suffix(".prj").write_text(rasterio.crs.CRS.from_string(UTM).to_wkt())
    rio(folder, *command(fails(lambda: chip(path)), "rio"))
    assert raster.grid_of(path).transform == GRID
    local = picture(folder / "l.tif", crs='LOCAL_CS["x",UNIT["metre",1]]')
    cure = fails(lambda: chip(local)).replace("EPSG:...", UTM)
    rio(folder, *command(cure, "rio"), str(local))
    assert len(chip(local)) == 3
    points = [Point2(r, c, *(GRID * (c, r))) for r in (0, N) for c in (0, N)]
    points[0] = Point2(0, 0, *(GRID * (9, 9)))
    bent = picture(folder / "bent.tif", crs=UTM, transform=None, gcps=points)
    rio(folder, *command(fails(lambda: chip(bent)), "rio"))
    assert len(chip(folder / "placed.tif")) == 3


@row("raster", "has a geotransform without an area", "lies outside the area of its CRS")
def _(folder, fails):
    path = picture(folder / "a.tif", transform=Affine(1, 1, 447000, 1, 1, 1725000))
    assert "Export it again" in fails(lambda: chip(path))
    picture(path, transform=Affine(1, 0, 4e9, 0, -1, 4e9))
    cure = fails(lambda: chip(path)).replace("FILE", "a.tif").replace("EPSG:...", UTM)
    rio(folder, *command(cure.replace("[...]", str(list(GRID[:6]))), "rio"))
    assert len(chip(path)) == 3


@row("raster", "would take", "has {} bands, not {}", "pixels; the window")
@row("base/path_options", "has a window '")
def _(folder, fails, monkeypatch):
    path = picture(folder / "a.tif")
    monkeypatch.setenv("SPACENET5_LARGEST_READ_GB", "1e-6")
    assert "raise largest_read_gb" in fails(lambda: raster.read(path))
    monkeypatch.setenv("SPACENET5_LARGEST_READ_GB", "4")
    assert "bands that it has" in fails(lambda: raster.read(path, bands=[4]))
    assert raster.read(path, bands=[3]).shape == (1, N, N)
    assert "whole pixels" in fails(lambda: chip(f"{path}#window=1,2"))
    fails(lambda: chip(f"{path}#window=0,0,999,999"))
    assert chip(f"{path}#window=0,0,9,9").shape == (3, 9, 9)


@row("raster", "bands, but {} are given limits", "has a stretch '", "holds 8-bit values")
@row("raster", "bands; its stretch has {} ranges")
def _(folder, fails):
    path = picture(folder / "a.tif")
    assert "one pair a band" in fails(lambda: raster.to_8bit(raster.read(path), limits=[(0, 9)]))
    assert raster.to_8bit(raster.read(path), limits=[(0, 9)] * 3).shape == (3, N, N)
    for words in ("wide", "fixed", "0:9"):
        cure = fails(lambda words=words: raster.read_chip(path, 3, stretch=words))
        assert "chip" in cure and "fixed" in cure or "`stretch: chip`" in cure
    assert raster.read_chip(path, 3, stretch="chip")[0].any()
    assert raster.read_chip(path, 3, stretch="0:99,0:99,0:99")[0].any()


@row("raster", "has {} bands, not one", "has another CRS than")
def _(folder, fails):
    colour, grey = picture(folder / "a.tif"), np.full((1, 4 * N, 4 * N), 7, "uint8")
    fine = GRID * Affine.scale(0.25)
    assert "leave it out" in fails(lambda: chip(f"{colour}#pan={colour}"))
    pan = picture(folder / "p.tif", grey, transform=fine, crs="EPSG:32637")
    cure = fails(lambda: chip(f"{colour}#pan={pan}"))
    assert "`rio warp`" in cure
    rio(folder, "warp", "p.tif", "warped.tif", "--dst-crs", UTM, "--res", "0.25")
    with raster.open_raster(f"{colour}#pan={folder / 'warped.tif'}") as source:
        assert source.crs == rasterio.crs.CRS.from_string(UTM)
    assert chip(f"{colour}#pan={picture(pan, grey, transform=fine)}").shape == (3, 4 * N, 4 * N)


@row("chips/chip_files", "no such folder", "holds no GeoTIFF images", "has the same chip id")
@row("chips/image_windows", "belongs to no image by its name")
def _(folder, fails):
    root = folder / "chips"
    assert "data_root" in fails(lambda: find_chips(root))
    root.mkdir()
    assert "from-masks" in fails(lambda: find_chips(root))
    image = picture(root / "c.tif")
    (root / "b").mkdir()
    twin = picture(root / "b" / "c.TIF")
    assert "Rename or remove" in fails(lambda: find_chips(root))
    twin.rename(root / "b" / "d.TIF")
    assert len(find_chips(root)) == 2
    for name in ("x", "y"):
        roads(root / f"{name}.geojson", LINE)
    assert "like its image" in fails(lambda: find_chips(root))
    for name, image in (("x", "c"), ("y", "d")):
        (root / f"{name}.geojson").rename(root / f"{image}.geojson")
    assert all(find_chips(root)["label"])


@row("chips/integrity", "does not overlap its image", "has latitude before longitude")
def _(folder, fails):
    picture(folder / "c.tif")
    road = gpd.GeoSeries([LineString([GRID * (0, 32), GRID * (N, 32)])], crs=UTM).to_crs(4326)[0]
    turned = shapely.transform(road, lambda xy: xy[:, ::-1])
    bounds = raster.lonlat_bounds(raster.grid_of(folder / "c.tif"))
    for line, word in ((LINE, "same chip"), (turned, "Exchange them")):
        path = roads(folder / "c.geojson", line)
        assert word in fails(lambda path=path: scan_label(str(path), bounds))
    roads(folder / "c.geojson", road)
    assert scan_chips(find_chips(folder), workers=1).fatal[0] == ""


# --- lists of tiles, probabilities


def tiles(path: Path, *names: str, bands: int = 3, more: str = "") -> Path:
    "A VRT of tiles side by side."
    sources = [
        f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>%d'
        f'</SourceBand><SrcRect xOff="0" yOff="0" xSize="{N}" ySize="{N}"/><DstRect xOff="{k * N}" '
        f'yOff="0" xSize="{N}" ySize="{N}"/>{more}</SimpleSource>'
        for k, name in enumerate(names)
    ]
    text = "".join(
        f'<VRTRasterBand dataType="Byte" band="{b}">{"".join(sources) % ((b,) * len(names))}'
        "</VRTRasterBand>"
        for b in range(1, bands + 1)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{N * len(names)}" rasterYSize="{N}"><SRS>{UTM}</SRS>'
        f"<GeoTransform>447000, 1, 0, 1725000, 0, -1</GeoTransform>{text}</VRTDataset>"
    )
    return path


@row("inference/vrt_mosaic", "<problem>", "no such file", "is not XML")
def _(folder, fails):
    path = folder / "town.vrt"
    assert "Check the path" in fails(lambda: open_mosaic(path))
    path.write_text("<VRT")
    assert "gdalbuildvrt" in fails(lambda: open_mosaic(path))
    picture(folder / "a.tif")
    tiles(path, "a.tif", more="<ScaleOffset>0</ScaleOffset><ScaleRatio>1</ScaleRatio>")
    path.write_text(path.read_text().replace("SimpleSource", "ComplexSource"))
    rio(folder, *command(fails(lambda: open_mosaic(path)), "rio"))
    assert (raster.read(folder / "town.tif") == raster.read(folder / "a.tif")).all()


@row("inference/vrt_mosaic", "mixes pixels of types", "does not lie where", "bands, {} wants")
def _(folder, fails):
    picture(folder / "a.tif")
    right = {"transform": GRID * Affine.translation(N, 0)}
    wide = picture(folder / "b.tif", np.full((3, N, N), 7, "uint16"), **right)
    path = tiles(folder / "town.vrt", "a.tif", "b.tif")
    assert "one type" in fails(lambda: open_mosaic(path))
    rio(folder, "convert", "b.tif", "b8.tif", "--dtype", "uint8")
    assert open_mosaic(tiles(path, "a.tif", "b8.tif")).count == 3
    picture(wide)
    assert "gdalbuildvrt" in fails(lambda: open_mosaic(tiles(path, "a.tif", "b.tif")))
    picture(wide, np.full((1, N, N), 7, "uint8"), **right)
    assert "one kind" in fails(lambda: open_mosaic(tiles(path, "a.tif", "b.tif")))
    picture(wide, **right)
    assert open_mosaic(tiles(path, "a.tif", "b.tif")).count == 3


def probabilities(path: Path) -> None:
    "What `spacenet5 vectorize` checks of one band, as road."
    channels = Channels.bins((25.0,), has_junction=False)
    stack = windowed_tracing.DiskStack(path, bands=[0, 0])
    skeleton.check_probs(stack, channels, str(path))
    if stack.dtype == np.uint8:
        windowed_tracing.check_scale(int(stack.max()), str(path))


@row("roads/skeleton", "contains NaN", "has values {} to {}", "with values to", "look like logits")
@row("roads/skeleton", "; probabilities are 0 to 1", "has shape")
@row("roads/windowed_tracing", "bytes are probabilities of 0 to 255 here", slow=True)
def _(folder, fails):
    road = np.zeros((1, N, N), "float32")
    road[:, 30:34] = 1
    path = folder / "p.tif"
    for value in (np.nan, -9999):
        image = road.copy()
        image[:, :, :9] = value
        picture(path, image)
        rio(folder, *command(fails(lambda: probabilities(path)), "rio"))
        probabilities(path)
    for image, out in [
        ((road * 65535).astype("uint16"), "bytes.tif"),
        ((road * 100).astype("int16"), "bytes.tif"),
        (road * 14 - 7, "probabilities.tif"),
        (road * 100, "scaled.tif"),
        (road.astype("uint8"), "scaled.tif"),
        ((road * 100).astype("uint8"), "scaled.tif"),
    ]:
        picture(path, image)
        rio(folder, *command(fails(lambda: probabilities(path)), "rio"))
        probabilities(folder / out)
        found, top = raster.read(folder / out), 255 if out != "probabilities.tif" else 1
        top = 1 if found.dtype.kind == "f" else 255
        assert found.max() == pytest.approx(top, rel=0.01), (image.dtype, out)
        (folder / out).unlink()
    two = picture(path, np.concatenate([road, 1 - road]))
    stack = windowed_tracing.DiskStack(two)
    cure = fails(lambda: skeleton.check_probs(stack, Channels.selim_sef(), str(two)))
    rio(folder, *command(cure, "rio"))
    probabilities(folder / "road.tif")


@row("roads/skeleton", "have no coordinate reference system", "is too large for sknw")
@row("roads/windowed_tracing", "is truncated or damaged")
def _(folder, fails):
    assert "crs=" in fails(lambda: skeleton.make_frame((N, N), GRID, None))
    assert skeleton.make_frame((N, N), GRID, UTM).gsd_m == pytest.approx(1, rel=0.01)
    long = np.zeros((2, 40_000), bool)
    assert "`tracer: numpy`" in fails(lambda: skeleton.trace_sknw(long))
    assert "numpy" in skeleton.TRACERS and len(skeleton.TRACERS["numpy"](long).lines) == 0
    whole = picture(folder / "p.tif").read_bytes()
    (folder / "p.tif").write_bytes(whole[: len(whole) // 2])
    assert "Predict it again" in fails(lambda: windowed_tracing.DiskStack(folder / "p.tif").max())
    (folder / "p.tif").write_bytes(whole)
    assert windowed_tracing.DiskStack(folder / "p.tif").max() > 0
