"Cures of areas, of roads compared with a map, and of the weights of mended labels."

import json
import re

import geopandas as gpd
import numpy as np
import shapely
from cures import row
from cures_readers import LINE, geojson, roads
from shapely.geometry import mapping

from spacenet5_nb.acquire.areas import read_area
from spacenet5_nb.mapping import conflation_files
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
