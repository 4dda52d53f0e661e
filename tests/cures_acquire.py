"Cures of what comes from outside: masks, pickles, archives, street maps, extracts."

import gzip
import io
import json
import pickle
import re
import tarfile
from pathlib import Path

import geopandas as gpd
import numpy as np
from cures import row
from cures_readers import GRID, LINE, N, geojson, picture, rio
from pyproj import Transformer
from shapely.geometry import LineString, mapping

from spacenet5_nb import raster
from spacenet5_nb.acquire import mask_pairs, mask_values, osm, pickled_graphs, unpack
from spacenet5_nb.acquire.street_topology import node_file, read_streets
from spacenet5_nb.base.local_grid import read_picture

LINKS = {(0, 0): [(0, 9)], (0, 9): [(0, 0)]}


def mask(path: Path, *values: int, size: int = N) -> Path:
    "A PNG of stripes; the first value has most of the pixels."
    image = np.full((1, size, size), values[0], "uint8")
    for k, value in enumerate(values[1:], 1):
        image[:, 4 * k : 4 * k + 4] = value
    return picture(path, image, driver="PNG", crs=None, transform=None)


@row("acquire/mask_pairs", "no such folder", "has two {}s by their names", "has the same chip id")
def _(folder, fails):
    root = folder / "set"
    assert "images and masks" in fails(lambda: mask_pairs.find_pairs(root))
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    mask(root / "images/a.png", 0, 9)
    for name in ("a.png", "a_mask.png"):
        mask(root / "masks" / name, 0, 255)
    assert "move it out" in fails(lambda: mask_pairs.find_pairs(root))
    (root / "masks/a_mask.png").rename(folder / "a_mask.png")
    (pair,) = mask_pairs.find_pairs(root).pairs
    assert "Rename" in fails(lambda: mask_pairs.chip_names([pair, pair]))
    assert mask_pairs.chip_names([pair, pair._replace(name="b")]) == ["a", "b"]


@row("acquire/mask_values", "; a mask has one, or three", "that are not finite", "negative values")
@row("acquire/mask_values", "is no colour", "is a mask of {} colours", "have one colour")
@row("acquire/mask_values", "that could both be road", "no pixel of the road value")
@row("acquire/mask_values", "are road everywhere", "neither road's nor ground's colour")
def _(folder, fails):
    path = folder / "m.tif"
    for image in (np.zeros((2, N, N), "uint8"), np.full((1, N, N), np.nan, "float32"),
                  np.full((1, N, N), -1, "int16")):  # fmt: skip
        picture(path, image)
        assert "xport it" in fails(lambda: mask_values.read_colours(path))
    assert mask_values.read_colours(mask(folder / "a.png", 0, 255)).shape == (N, N)

    def palette(*values: int, road: str = ""):
        tally = mask_values.tally(mask_values.read_colours(mask(folder / "a.png", *values)))
        return mask_values.find_palette(
            {"a.png": tally}, mask_values.parse_colours(road) if road else ()
        )

    assert "'#ffff00'" in fails(lambda: mask_values.parse_colours("white"))
    assert mask_values.parse_colours("#ffff00,255") == (0xFFFF00, 0xFFFFFF)
    cure = fails(lambda: palette(0, 128, 255))
    for road in re.findall(r"--road-value '?(\d+(?:,\d+)*)", cure):
        assert palette(0, 128, 255, road=road).said
    assert "leave out the folder" in fails(lambda: palette(0))
    assert palette(0, 255).road == (0xFFFFFF,), "these are the masks"
    half = [0, *[255] * 7]
    road = re.search(r"--road-value (\d+)", fails(lambda: palette(*half)))[1]
    assert palette(*half, road=road).said
    assert "one of these" in fails(lambda: palette(0, 255, road="7"))
    assert "--road-value" in fails(lambda: palette(0, 255, road="0,255"))
    found = palette(0, 255, road="255")
    grey = mask(folder / "b.png", 0, 128, 255)
    assert "vectorize" in fails(lambda: mask_values.read_road(grey, found))
    assert mask_values.read_road(mask(grey, 0, 255), found).road.any()
    assert read_picture(grey).shape == (1, N, N)


@row("acquire/pickled_graphs", "more than a graph", "is a pickle that asks for", "is no JSON")
@row("acquire/pickled_graphs", "is of no kind that holds", "{} ({})")
def _(folder, fails):
    path = folder / "g.txt"
    kinds = re.findall(r"'(\.\w+)'", fails(lambda: pickled_graphs.read_pixel_graph(path)))
    assert ".p" in kinds and ".json" in kinds
    bad, texts = folder / "g.p", folder / "g.json"
    for data in (pickle.dumps(Path("x")), pickle.dumps(7), b"nothing"):
        bad.write_bytes(data)
        assert "save it" in fails(lambda: pickled_graphs.read_pixel_graph(bad))
    for text in ("{", "7"):
        texts.write_text(text)
        assert "save it" in fails(lambda: pickled_graphs.read_pixel_graph(texts))
    bad.write_bytes(pickle.dumps(LINKS))
    texts.write_text(json.dumps({str(k): v for k, v in LINKS.items()}))
    for file in (bad, texts):
        assert pickled_graphs.read_pixel_graph(file).length == 9


@row("acquire/street_topology", "no such street map", "is the street map itself")
@row("acquire/street_topology", "is no name of a label file", "holds no line")
def _(folder, fails):
    path = folder / "a.geojson"
    assert "path" in fails(lambda: read_streets(path))
    geojson(path)
    assert "as lines" in fails(lambda: node_file(path, folder / "b.geojson"))
    geojson(path, mapping(LINE))
    assert "another file" in fails(lambda: node_file(path, path))
    assert ".geojson" in fails(lambda: node_file(path, folder / "b.gpkg"))
    assert node_file(path, folder / "b.geojson") == 0 and len(read_streets(path).lines) == 1


def archive(path: Path, *names: str, size: int = 9) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(b"x" * size))
    return path


@row("acquire/unpack", "member {} {}", "unpacks to more than", "is not a whole tar.gz")
@row("acquire/unpack", "holds no files", "is there already, and is not", "with another content")
@row("acquire/unpack", "is broken after")
def _(folder, fails):
    path, out = archive(folder / "a.tar.gz", "../x"), folder / "out"
    assert "do not trust" in fails(lambda: unpack.unpack(path, out)) and not out.exists()
    archive(path, "x", size=9000)
    assert "Free some space" in fails(lambda: unpack.unpack(path, out, max_bytes=9000))
    whole = archive(path, "x", "y").read_bytes()
    for data in (whole[:60], gzip.compress(gzip.decompress(whole)[:1536]), b"nothing"):
        path.write_bytes(data)
        assert "fetch it again" in fails(lambda: unpack.unpack(path, out))
    archive(path)
    assert "Fetch it again" in fails(lambda: unpack.unpack(path, out))
    path.write_bytes(whole)
    out.write_text("mine")
    assert "another target" in fails(lambda: unpack.unpack(path, out))
    out.rename(folder / "moved")
    assert unpack.unpack(path, out).files == 2
    (out / "x").write_text("changed")
    assert "Move the folder" in fails(lambda: unpack.unpack(path, out))
    out.rename(folder / "kept")
    assert unpack.unpack(path, out).files == unpack.unpack(path, folder / "other").files == 2


NODE = '<node id="{}" lon="{}" lat="{}"/>'
WAY = '<way id="1"><nd ref="1"/><nd ref="2"/><tag k="{}" v="primary"/></way>'


def extract(path: Path, lon: float, lat: float, tag: str = "highway") -> Path:
    "OpenStreetMap's XML of one road from a place to the north-east."
    nodes = NODE.format(1, lon, lat) + NODE.format(2, lon + 0.01, lat + 0.01)
    path.write_text(f'<osm version="0.6">{nodes}{WAY.format(tag)}</osm>')
    return path


@row("acquire/osm", "no such OSM extract", "is no OSM extract by its name", "is truncated, damaged")
@row("acquire/osm", "lies across the 180th meridian", "holds no road", "does not reach")
@row("acquire/osm", "would be the label file of two images", "is there already")
@row("acquire/osm", "have no CRS", "that are not finite", "is infinite in a road")
def _(folder, fails):
    image, path = picture(folder / "c.tif"), folder / "a.osm"
    lon, lat = raster.lonlat_bounds(raster.grid_of(image))[:2]

    def labels(images=(image,), out: str = "c.geojson", **more):
        return osm.make_labels(path, dict.fromkeys(images, folder / out), **more)

    assert "bbbike" in fails(labels)
    (folder / "a.txt").write_text("x")
    assert ".osm" in fails(lambda: osm.osm_format(folder / "a.txt"))
    path.write_text("<osm><way")
    assert fails(labels)
    extract(path, lon, lat, "power")
    assert "`highway`" in fails(labels)
    extract(path, 3, 4)
    assert "image's area" in fails(labels)
    extract(path, lon, lat)
    assert labels()
    assert "--overwrite" in fails(labels)
    assert labels(overwrite=True) and labels(out="d.geojson")
    assert "name each" in fails(lambda: labels([image, picture(folder / "e.tif")], "e.geojson"))
    x, y = Transformer.from_crs(4326, 32760, always_xy=True).transform(180, -16.85)
    x, y = round(x), round(y)
    at = {"crs": "EPSG:32760", "transform": GRID.translation(x - 32, y) * GRID.scale(1, -1)}
    across = picture(folder / "f.tif", **at)
    assert "Cut the image" in fails(lambda: osm.footprint(across))
    bounds = f"{x - 32} {y - 64} {x - 4} {y}"
    rio(folder, "clip", "f.tif", "west.tif", "--bounds", bounds)
    assert osm.footprint(folder / "west.tif").bounds[2] < 180
    table = gpd.GeoDataFrame({"highway": ["primary"]}, geometry=[LINE])
    made = folder / "made.geojson"
    assert "set_crs" in fails(lambda: osm.write_labels(table, made))
    table = table.set_crs(4326)
    assert "finite" in fails(lambda: osm.write_labels(table.assign(x=np.inf), made))
    far = table.set_crs(32636, allow_override=True).set_geometry([LineString([(0, 0), (1e99, 1)])])
    assert "Check the CRS" in fails(lambda: osm.write_labels(far.set_crs(32636), made))
    assert osm.write_labels(table, made)
