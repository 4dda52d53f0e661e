"""Roads through every format, both ways, by other programs: speeds, levels, bridges and lengths are
the same after as before."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import networkx as nx
import pandas as pd
import pytest
from shapely.geometry import LineString

from spacenet5_nb import graph
from spacenet5_nb.base.labels import read_rows
from spacenet5_nb.judge.chip_graphs import read_entry
from spacenet5_nb.roads import formats
from spacenet5_nb.speed_limits import MPH_TO_KPH, is_bridge, level_of, speed_of

UTM = "EPSG:32637"
ROADS = [(30, 0, 300), (90, 0, 300), (45, 0, 200), (50, 1, 100)]  # km/h, level, metres
BRIDGES = [1]  # levels of bridges
KINDS = ["gpkg", "geojson", "graphml", "osm"]
TABLES = ["gpkg", "shp", "fgb", "parquet", "geojson"]


def town() -> nx.MultiGraph:
    g = graph.empty(UTM)
    for k, (kph, level, metres) in enumerate(ROADS):
        y = 6.18e6 + 50 * k
        for end, x in ((0, 4e5), (1, 4e5 + metres)):
            g.add_node(2 * k + end, x=x, y=y)
        line = LineString([(4e5, y), (4e5 + metres / 3, y), (4e5 + metres, y)])
        time = metres / kph * 3.6
        more = dict(speed_kph=float(kph), travel_time=time, level=level, length=float(metres))
        g.add_edge(2 * k, 2 * k + 1, geometry=line, **more)
    return g


def understood(path: Path) -> list[tuple[float, int, int]]:
    "What our reader makes of a file: km/h, level, metres; bridges lie above."
    rows = read_rows(path)
    metres = gpd.GeoSeries(rows.lines, crs=4326).to_crs(UTM).length
    assert all(is_bridge(t) == (level_of(t) in BRIDGES) for t in rows.tags)
    return sorted(
        (round(speed_of(t).mph * MPH_TO_KPH, 2), level_of(t), round(m))
        for t, m in zip(rows.tags, metres, strict=True)
    )


def in_table(table: pd.DataFrame, level: str = "level") -> list[tuple[float, int, int]]:
    "What a table of another program says, in our own files' words."
    return sorted(
        (round(float(s), 2), int(v), round(float(m)))
        for s, v, m in zip(table["speed_kph"], table[level], table["length"], strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_ours_and_back(tmp_path, kind):
    path = formats.save(town(), tmp_path / f"a.{kind}")
    assert understood(path) == sorted(ROADS)
    g = read_entry(path, "a", crs=UTM, infer=False)
    edges = sorted((round(d["speed_kph"], 2), round(d["length"])) for *_, d in g.edges(data=True))
    assert edges == sorted((kph, m) for kph, _, m in ROADS)
    again = formats.save(formats.load(path), tmp_path / f"b.{kind}")
    assert understood(again) == sorted(ROADS)


@pytest.mark.parametrize("kind", ["gpkg", "geojson"])
def test_ours_in_geopandas(tmp_path, kind):
    path = formats.save(town(), tmp_path / f"a.{kind}")
    table = gpd.read_file(path, **({"layer": "edges"} if kind == "gpkg" else {}))
    table["length"] = table.to_crs(UTM).length
    assert in_table(table) == sorted(ROADS)


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize("crs", [UTM, 4326, 3857])
def test_a_table_of_geopandas_in_ours(tmp_path, ending, crs):
    edges, path = graph.to_gdf(town()).to_crs(crs), tmp_path / f"a.{ending}"
    if crs != 4326 and ending == "geojson":
        path.write_text(edges.to_json(drop_id=True, to_wgs84=True))
    else:
        edges.to_parquet(path) if ending == "parquet" else edges.to_file(path)
    assert understood(path) == sorted(ROADS)


def test_ours_in_osmnx(tmp_path):
    ox = pytest.importorskip("osmnx")
    path = formats.save(town(), tmp_path / "a.graphml")
    edges = ox.load_graphml(path).edges(data=True)
    assert {(round(d["speed_kph"], 2), int(d["level"]), round(d["length"])) for *_, d in edges} == {
        *ROADS
    }
    xml = formats.save(town(), tmp_path / "a.osm")
    ox.settings.useful_tags_way = [*ox.settings.useful_tags_way, "layer"]
    g = ox.graph_from_xml(xml, simplify=True, retain_all=True)
    found = {
        (d["maxspeed"], d.get("layer", "0"), round(d["length"])) for *_, d in g.edges(data=True)
    }
    assert {(float(s), int(v)) for s, v, _ in found} == {(s, v) for s, v, _ in ROADS}
    for s, _, metres in found:
        want = next(m for kph, _, m in ROADS if kph == float(s))
        assert metres == pytest.approx(want, rel=0.01)  # osmnx measures on a sphere
    bridges = [d for *_, d in g.edges(data=True) if d.get("bridge") == "yes"]
    assert {float(d["maxspeed"]) for d in bridges} == {50}


def test_networks_of_osmnx_in_ours(tmp_path):
    ox = pytest.importorskip("osmnx")
    g = nx.MultiDiGraph(crs="EPSG:4326", simplified=True)
    for k, (kph, level, metres) in enumerate(ROADS):
        ends = gpd.GeoSeries(
            gpd.points_from_xy([4e5, 4e5 + metres], [6.18e6 + 50 * k] * 2), crs=UTM
        ).to_crs(4326)
        for n, p in enumerate(ends):
            g.add_node(2 * k + n, x=p.x, y=p.y, street_count=1)
        more = {"bridge": "yes"} if level else {}
        for u, v in ((2 * k, 2 * k + 1), (2 * k + 1, 2 * k)):
            line = LineString([(g.nodes[n]["x"], g.nodes[n]["y"]) for n in (u, v)])
            g.add_edge(u, v, osmid=k, highway="primary", maxspeed=str(kph), oneway=False,
                       geometry=line, **more)  # fmt: skip
    g = ox.add_edge_travel_times(ox.add_edge_speeds(ox.distance.add_edge_lengths(g)))
    ox.save_graphml(g, tmp_path / "a.graphml")
    ox.save_graph_geopackage(g, tmp_path / "a.gpkg", directed=False)
    edges = ox.graph_to_gdfs(ox.convert.to_undirected(g), nodes=False).reset_index()
    edges.to_file(tmp_path / "a.geojson")
    edges.to_file(tmp_path / "a.fgb")
    edges.to_file(tmp_path / "a.shp")
    edges.to_parquet(tmp_path / "a.parquet")
    for ending in ("graphml", *TABLES):
        assert understood(tmp_path / f"a.{ending}") == sorted(ROADS), ending


QGIS = """
import json, sys
from qgis.core import QgsApplication, QgsVectorLayer, QgsVectorFileWriter, QgsProject
app = QgsApplication([], False); app.initQgis()
sources, folder, drivers = json.loads(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
seen = {}
for name, source in sources.items():
    layer = QgsVectorLayer(source, "roads", "ogr"); assert layer.isValid(), source
    names = ("speed_kph", "level", "travel_time")
    seen[name] = [[f[n] for n in names] for f in layer.getFeatures()]
    for ending, driver in drivers.items():
        o = QgsVectorFileWriter.SaveVectorOptions(); o.driverName = driver; o.fileEncoding = "UTF-8"
        done = QgsVectorFileWriter.writeAsVectorFormatV3(
            layer, f"{folder}/of_{name}.{ending}", QgsProject.instance().transformContext(), o)
        assert done[0] == QgsVectorFileWriter.NoError, done
    del layer  # QGIS 3.22 crashes where a layer outlives the application
print(json.dumps(seen)); app.exitQgis()
"""


def qgis() -> str:
    "A Python that has QGIS, as Debian's package python3-qgis puts it."
    python = "/usr/bin/python3"
    if sys.platform == "linux" and shutil.which(python):
        run = [python, "-c", "import qgis.core"]
        if subprocess.run(run, capture_output=True, timeout=120).returncode == 0:
            return python
    pytest.skip("QGIS (Debian's python3-qgis) is not installed")


@pytest.mark.slow
def test_ours_through_qgis_and_back(tmp_path):
    python = qgis()
    ours = {kind: formats.save(town(), tmp_path / f"a.{kind}") for kind in ("gpkg", "geojson")}
    sources = {k: str(p) + "|layername=edges" * (k == "gpkg") for k, p in ours.items()}
    drivers = {"gpkg": "GPKG", "shp": "ESRI Shapefile", "geojson": "GeoJSON", "fgb": "FlatGeobuf"}
    out = subprocess.run(
        [python, "-c", QGIS, json.dumps(sources), str(tmp_path), json.dumps(drivers)],
        check=True, capture_output=True, text=True, timeout=300,
        env={"QT_QPA_PLATFORM": "offscreen", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    for name, rows in json.loads(out.stdout.splitlines()[-1]).items():
        table = pd.DataFrame(rows, columns=["speed_kph", "level", "travel_time"])
        table["length"] = table["speed_kph"] / 3.6 * table["travel_time"]
        assert in_table(table) == sorted(ROADS)
        for ending in drivers:
            assert understood(tmp_path / f"of_{name}.{ending}") == sorted(ROADS), (name, ending)
