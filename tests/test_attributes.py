"""What an edge says: every file keeps it with its type, QGIS draws it, and the docs say what the
tables say.

`python tests/test_attributes.py` writes the tables of docs/mapping.md anew.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import networkx as nx
import numpy as np
import pytest
import shapely
from affine import Affine
from test_formats import network, overpass

from spacenet5_nb import graph
from spacenet5_nb.base.edge_attributes import attributes_markdown, edge_attributes
from spacenet5_nb.core import Channels, GraphError
from spacenet5_nb.mapping.road_table import road_frame
from spacenet5_nb.roads import formats
from spacenet5_nb.roads.road_attributes import classes_markdown, describe_roads

PAGE = Path(__file__).parents[1] / "docs/mapping.md"
HOSTILE = "<script>alert(1)</script>\"'&amp;]]>$x$.tif"


def described(seed: int = 3) -> nx.MultiGraph:
    "A network whose roads say all that there is to say, some of them less."
    g = network(seed)
    for i, (*_, d) in enumerate(g.edges(data=True)):
        d |= dict(width_m=4.0 + i / 7, highway="residential", highway_confidence=0.25)
        d |= dict(bridge="yes" if d["level"] else "no", source=["2019", HOSTILE, "1e5"][i % 3])
        if i % 2:
            d["lanes"] = 2
        if i % 3 == 1:  # whose connections a model decided
            d["connection_confidence"] = i / 100
    assert set(edge_attributes()) <= set.union(*(set(d) for *_, d in g.edges(data=True)))
    return g


def said(g: nx.MultiGraph) -> dict:
    return {
        (*sorted((u, v)), k): {n: (type(x), x) for n, x in d.items() if n != "geometry"}
        for u, v, k, d in g.edges(keys=True, data=True)
    }


@pytest.mark.parametrize("kind", formats.WRITERS)
def test_every_file_keeps_every_attribute_with_its_type(tmp_path, kind):
    g = described()
    again = formats.load(formats.save(g, tmp_path / f"a{kind}"))
    assert said(again) == said(g)


def test_a_row_an_edge_in_geopandas(tmp_path):
    g = described()
    table = gpd.read_parquet(formats.save(g, tmp_path / "roads.parquet"))
    assert len(table) == g.number_of_edges() and table.crs == g.graph["crs"]
    assert set(edge_attributes()) <= set(table) and str(table["lanes"].dtype) == "Int64"
    for row in table.itertuples():
        ends = shapely.get_coordinates(row.geometry)[[0, -1]]
        assert ends.tolist() == [[g.nodes[n]["x"], g.nodes[n]["y"]] for n in (row.u, row.v)]


def test_what_no_file_could_hold_is_replaced_when_a_road_is_described(tmp_path):
    "A name with bytes that are no text, and control characters."
    g = network(1)
    stack = np.zeros((2, 50, 50), np.uint8)
    place = dict(transform=Affine(10, 0, 4e5, 0, -10, 6.1705e6), crs="EPSG:32637")
    describe_roads(g, stack, **place, channels=Channels.of_speed(has_junction=False), source=(
        "a\x00\x1b\udcff<b>.tif"))  # fmt: skip
    for kind in formats.WRITERS:
        again = formats.load(formats.save(g, tmp_path / f"a{kind}"))
        assert {d["source"] for *_, d in again.edges(data=True)} == {"a\ufffd\ufffd\ufffd<b>.tif"}


def test_a_map_knows_every_attribute_of_a_file(tmp_path):
    g = described()
    for kind in (".gpkg", ".graphml", ".geojson"):
        roads = road_frame(formats.save(g, tmp_path / f"a{kind}"))
        assert roads["width_m"].sum() == pytest.approx(
            sum(d["width_m"] for *_, d in g.edges(data=True))
        )
        assert set(roads["kind"]) == {"residential"} and set(roads["highway_confidence"]) == {0.25}
        sure = [d.get("connection_confidence", np.nan) for *_, d in g.edges(data=True)]
        assert (
            sorted(roads["connection_confidence"].dropna()) == sorted(c for c in sure if c == c)
            and len(roads) == len(sure) > roads["connection_confidence"].count() > 0
        )
        assert roads["lanes"].value_counts().to_dict() == {2: g.number_of_edges() // 2}
        assert set(roads["source"]) == {"2019", HOSTILE, "1e5"} and set(roads["bridge"]) == {
            "yes", "no"}  # fmt: skip


def tables(text: str) -> str:
    "The page with the two tables as they should be."
    for mark, table in (("attributes", attributes_markdown()), ("classes", classes_markdown())):
        text = re.sub(
            rf"(<!-- {mark} -->\n).*?(\n<!-- /{mark} -->)",
            lambda m, table=table: m[1] + table + m[2],
            text,
            flags=re.S,
        )
    return text


def test_the_docs_have_the_tables_that_the_code_reads():
    text = PAGE.read_text()
    assert "<!-- attributes -->" in text and "<!-- classes -->" in text
    assert tables(text) == text, "run: .venv/bin/python tests/test_attributes.py"


# ---- edited elsewhere ----


def edited(tmp_path: Path, kind: str, change) -> Path:
    "A file of roads as a GIS leaves it."
    path = formats.save(described(), tmp_path / f"mended.{kind}")
    roads = gpd.read_file(path, layer="edges") if kind == "gpkg" else gpd.read_parquet(path)
    roads = change(roads)
    roads.to_file(path, layer="edges") if kind == "gpkg" else roads.to_parquet(path)
    return path


CHANGES = {
    "ids-lost": lambda roads: roads.drop(columns=["u", "v", "key"]),
    "one-drawn": lambda roads: roads.assign(u=roads.u.where(roads.index != 3)),
    "moved": lambda roads: roads.set_geometry(
        roads.geometry.where(roads.index != 3, roads.translate(7, 0))
    ),
}


@pytest.mark.parametrize("kind", ["gpkg", "parquet"])
@pytest.mark.parametrize("change", CHANGES)
def test_an_edited_file_is_refused_with_its_cure_and_can_be_rebuilt(tmp_path, kind, change):
    path = edited(tmp_path, kind, CHANGES[change])
    with pytest.raises(GraphError, match=f"{path.name}.*rebuild=True"):
        graph.read(path)
    g, before = graph.read(path, rebuild=True), described()
    assert g.number_of_edges() >= before.number_of_edges() and g.graph["crs"] == "EPSG:32637"
    total = sum(d["length"] for *_, d in before.edges(data=True))
    assert sum(d["length"] for *_, d in g.edges(data=True)) == pytest.approx(total)
    assert all(d["source"] and "lanes" in d or d["width_m"] for *_, d in g.edges(data=True))


def test_a_rebuilt_graph_is_the_graph_again():
    "Nodes and ends; crossings without a node stay crossings."
    g = overpass()
    again = graph.rebuilt(graph.to_gdf(g).drop(columns=["u", "v", "key"]))
    assert again.number_of_edges() == g.number_of_edges() and len(again) == len(g)
    assert nx.number_connected_components(again) == nx.number_connected_components(g)
    assert sorted(dict(again.degree()).values()) == sorted(dict(g.degree()).values())


def test_two_files_of_predictions_that_overlap_are_one_graph(tmp_path):
    "Each road once, and every road still says all that it said."
    from spacenet5_nb.raster import CRS, Grid
    from spacenet5_nb.roads.stitch import stitch

    def seen(east: float, name: str) -> tuple[Path, Grid]:
        "A street of 300 m and one across, as a picture of 200 m sees them, half a metre off."
        x, y = 4e5 + east, 6.17e6 + east / 200
        lines = [
            [(x, y), (x + 150, y)],
            [(x + 150, y), (x + 200, y)],
            [(x + 150, y), (x + 150, y - 60)],
        ]
        g = graph.from_lines(map(shapely.LineString, lines), [50, 50, 30], crs="EPSG:32637")
        for *_, d in g.edges(data=True):
            d |= dict(width_m=5.0, highway="tertiary", highway_confidence=0.5, source=name)
        grid = Grid((200, 200), Affine(1, 0, x, 0, -1, 6170100), CRS.from_epsg(32637))
        return graph.write(g, tmp_path / f"{name}.gpkg"), grid

    g = graph.validate(stitch([seen(0, "a.tif"), seen(100, "b.tif")]))
    total = sum(d["length"] for *_, d in g.edges(data=True))
    assert total == pytest.approx(300 + 60 + 60, abs=4)
    assert all({"width_m", "highway", "source"} <= set(d) for *_, d in g.edges(data=True))
    assert {d["source"] for *_, d in g.edges(data=True)} == {"a.tif", "b.tif"}


# ---- QGIS ----

IN_QGIS = """
import sys
from qgis.core import *
from qgis.PyQt.QtCore import QSize
app = QgsApplication([], False)
app.initQgis()


def render(layers, framed, around, size, path):
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(framed.crs())
    settings.setExtent(framed.extent().buffered(around))
    settings.setOutputSize(size)
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(path)


"""

LOOK = """
roads = QgsVectorLayer(sys.argv[1] + "|layername=edges", "edges", "ogr")
nodes = QgsVectorLayer(sys.argv[1] + "|layername=nodes", "nodes", "ogr")
rules = roads.renderer().rootRule().children()
for rule in rules:
    for layer in rule.symbol().symbolLayers():
        for key in (QgsSymbolLayer.PropertyStrokeWidth, QgsSymbolLayer.PropertyStrokeStyle):
            found = layer.dataDefinedProperties().property(key)
            assert not QgsExpression(found.expressionString()).hasParserError()
render([nodes, roads], roads, 40, QSize(800, 700), sys.argv[2])
print(len(rules), nodes.renderer().type(), roads.featureCount())
"""


QGIS = "/usr/bin/python3"  # Debian's, which has QGIS' modules


def has_qgis() -> bool:
    call = [QGIS, "-c", "import qgis.core"]
    return Path(QGIS).is_file() and not subprocess.run(call, capture_output=True).returncode


def in_qgis(code: str, home: Path, *given: Path) -> list[str]:
    "The words that a script prints in a QGIS of its own, after `IN_QGIS`."
    done = subprocess.run(
        [QGIS, "-c", IN_QGIS + code, *map(str, given)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "QT_QPA_PLATFORM": "offscreen", "HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


@pytest.mark.slow
def test_qgis_opens_the_geopackage_styled(tmp_path):
    if not has_qgis():
        pytest.skip("needs QGIS with its Python: apt-get install python3-qgis")
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    from spacenet5_nb.base.qgis_style import COLORS

    g, picture = described(), tmp_path / "map.png"
    for i, (*_, d) in enumerate(g.edges(data=True)):
        d["speed_kph"] = (20.0, 40.0, 50.0, 80.0)[i % 4]
        d["travel_time"] = d["length"] / d["speed_kph"] * 3.6
    path = graph.write(g, Path(os.environ.get("SPACENET5_KEEP", tmp_path), "styled.gpkg"))
    assert in_qgis(LOOK, tmp_path, path, picture) == ["8", "singleSymbol", str(g.number_of_edges())]
    pixels = imread(picture)[..., :3].reshape(-1, 3)
    for k, color in enumerate(COLORS):
        near = np.abs(pixels - to_rgb(color)).max(axis=1) < 0.02
        assert (near.sum() > 200) == (k in (0, 2, 3, 5)), (k, near.sum())


if __name__ == "__main__":
    PAGE.write_text(tables(PAGE.read_text()))
    sys.exit()
