"Cures of areas, of roads compared with a map, and of the weights of mended labels."

import json
import re

import geopandas as gpd
import numpy as np
import shapely
from cures import row
from cures_readers import LINE, geojson, roads
from shapely.geometry import mapping

from spacenet5_nb import graph, raster
from spacenet5_nb.acquire.areas import read_area
from spacenet5_nb.mapping import conflation_files
from spacenet5_nb.mapping.corrections import mended_labels
from spacenet5_nb.mapping.road_table import toy_town
from spacenet5_nb.targets import label_weights

AREA = LINE.buffer(0.01)


@row("acquire/areas", "no such file of an area", "is no kind of area", "holds no polygon")
@row("acquire/areas", "lies outside longitude", "does not say which CRS", "is not readable")
@row("acquire/areas", "has no layer", "layers of polygons, not one")
def _(folder, fails):
    path = folder / "area.geojson"
    assert "path" in fails(lambda: read_area(path))
    path.write_text("{")
    assert "Export the area again" in fails(lambda: read_area(path))
    geojson(path, mapping(LINE))
    assert "as a polygon" in fails(lambda: read_area(path))
    geojson(path, mapping(shapely.transform(AREA, lambda xy: xy * 1000)))
    assert "Check its CRS" in fails(lambda: read_area(path))
    assert read_area(geojson(path, mapping(AREA))).area > 0
    (folder / "area.osm").write_text("<osm/>")
    kinds = fails(lambda: read_area(folder / "area.osm"))
    for ending in re.findall(r"\.(\w+)", kinds):
        assert read_area(roads(folder / f"b.{ending}", AREA)).area > 0
    (folder / "b.prj").unlink()
    assert ".prj" in fails(lambda: read_area(folder / "b.shp"))
    for layer in ("seen", "other"):
        table = gpd.GeoDataFrame({"name": [layer]}, geometry=[AREA], crs=4326)
        table.to_file(folder / "two.gpkg", layer=layer)
    said = re.search(r"Say which: (.*)\.$", fails(lambda: read_area(folder / "two.gpkg")))[1]
    assert read_area(said).area > 0
    names = fails(lambda: read_area(f"{folder / 'two.gpkg'}#layer=no"))
    assert set(re.findall(r"seen|other", names)) == {"seen", "other"}


@row("mapping/conflation_files", "holds no road", "no such file of", "it covers west, south")
@row("mapping/conflation_files", "lies elsewhere than", "is no GeoPackage", "would be overwritten")
def _(folder, fails):
    mine, drawn = folder / "mine.geojson", folder / "map.geojson"

    def read(**more):
        return conflation_files.read_sides([mine], drawn, **more)

    geojson(mine)
    geojson(drawn)
    assert "spacenet5 extract" in fails(read)
    geojson(mine, mapping(LINE))
    assert "Get an extract" in fails(read)
    geojson(drawn, mapping(shapely.transform(LINE, lambda xy: xy + 20)))
    assert "bbbike" in fails(read)
    drawn.unlink()
    assert "path" in fails(read)
    geojson(drawn, mapping(LINE))
    far = geojson(folder / "far.geojson", mapping(shapely.transform(AREA, lambda xy: xy + 20)))
    assert "the roads' own" in fails(lambda: read(looked_at=far))
    assert read() and read(looked_at=geojson(far, mapping(AREA)))
    ending = re.search(r"\.\w+", fails(lambda: conflation_files.outputs_of(folder / "a.shp")))[0]
    out = conflation_files.outputs_of(folder / f"a{ending}")
    assert "another --out" in fails(lambda: conflation_files.check_inputs(out, out[0]))
    conflation_files.check_inputs(out, mine)


@row("targets/label_weights", "has {} that are none", "has {} beyond 0 to 1")
@row("targets/label_weights", "is not valid GeoJSON")
def _(folder, fails):
    path, member = folder / "a.geojson", label_weights.MEMBER
    for value in (7, {"rest": 2, "areas": []}):
        geojson(path, mapping(LINE), **{member: value})
        assert "Remove that member" in fails(lambda: label_weights.read_weights(path))
    path.write_text(json.dumps({member: 1})[:-1])
    assert "Make the label again" in fails(lambda: label_weights.read_weights(path))
    assert label_weights.read_weights(geojson(path, mapping(LINE))) is None
    assert np.isclose(label_weights.weights_from({"rest": 1, "areas": []}).rest, 1)


@row("mapping/corrections", "lies beside several predictions", "no such file of", "lies outside {}")
@row("mapping/corrections", "holds no road on", "is no mended copy of")
def _(folder, fails):
    crs = raster.CRS.from_epsg(32637)

    def write(name, east):
        "A town with its probabilities and its image, so far east."
        town = toy_town(37.5975 + east / 1000, 55.7005, "EPSG:32637", n=3, step=80)
        graph.write(town, folder / f"{name}.gpkg")
        place = raster.Affine(1, 0, 411_800 + 62 * east, 0, -1, 6_174_000)
        pixels = np.ones((3, 400, 400), np.uint8)
        raster.write(folder / f"{name}.tif", pixels, grid=raster.Grid((400, 400), place, crs))
        return gpd.read_file(folder / f"{name}.gpkg", layer="edges").to_crs(4326)

    def call(labels="mended.gpkg", image="town.tif", **more):
        more = {k: folder / name for k, name in more.items()}
        out, quiet = folder / "m.geojson", lambda text: None
        return mended_labels(folder / labels, folder / image, out, say=quiet, **more)

    edges = write("town", 0)
    (folder / "town_probs.tif").touch()
    edges[["speed_kph", "geometry"]][1:].to_file(folder / "mended.gpkg", driver="GPKG")
    assert "path" in fails(lambda: call("no.gpkg"))
    write("away", 300)
    assert "Name the image" in fails(lambda: call(image="away.tif"))
    seen = shapely.box(*edges.total_bounds)
    geojson(folder / "area.geojson", mapping(shapely.transform(seen, lambda xy: xy + 1)))
    assert "on that image" in fails(lambda: call(looked_at="area.geojson"))
    geojson(folder / "area.geojson", mapping(seen))
    assert call(looked_at="area.geojson")
    write("near", 1)
    assert "leave --predicted out" in fails(lambda: call(predicted="near.gpkg"))
    assert call()
    (folder / "near_probs.tif").touch()
    assert "--predicted FILE" in fails(call)
    assert call(predicted="town.gpkg")
