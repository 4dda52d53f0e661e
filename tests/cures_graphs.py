"Cures of road graphs and their judges: submissions, other programs' graphs, scored pairs."

import re

import networkx as nx
import numpy as np
import pandas as pd
import shapely
from cures import row
from cures_readers import GRID, LINE, UTM, N, picture, roads
from shapely.geometry import LineString

from spacenet5_nb import apls, graph, raster, topo
from spacenet5_nb.judge import chip_graphs, folder_scores
from spacenet5_nb.judge.scoring_rules import Rules
from spacenet5_nb.roads import formats

CSV = "ImageId,WKT_Pix,length_m,travel_time_s\n"
ROAD = '"LINESTRING (1 2, 3 4)"'
NAME = "AOI_2_Vegas_img0"
GOOD = f"{CSV}{NAME},{ROAD},3,1\n"


def street(**more) -> nx.MultiGraph:
    "A graph of one road of 100 m."
    g = graph.empty("EPSG:32636")
    for n, x in enumerate((447000.0, 447100.0)):
        g.add_node(n, x=x, y=1725000.0)
    line = LineString([(447000, 1725000), (447100, 1725000)])
    own = dict(geometry=line, length=100.0, speed_kph=36.0, travel_time=10.0, level=0) | more
    g.add_edge(0, 1, **{k: v for k, v in own.items() if v is not None})
    return g


@row("judge/chip_graphs", "does not exist", "is neither a folder nor a CSV", "is chip {}, as is {}")
@row("judge/chip_graphs", "holds no {} file with roads")
def _(folder, fails):
    assert "path" in fails(lambda: chip_graphs.find_entries(folder / "no"))
    (folder / "a.doc").write_text("x")
    assert "SpaceNet CSV" in fails(lambda: chip_graphs.find_entries(folder / "a.doc"))
    (folder / "sub").mkdir()
    assert "one file of roads per chip" in fails(lambda: chip_graphs.find_entries(folder))
    table = folder / "truth.csv"
    table.write_text(GOOD)
    name = re.search("It holds (.*): name", fails(lambda: chip_graphs.find_entries(folder)))[1]
    assert list(chip_graphs.find_entries(folder / name)) == [NAME]
    for place in ("a.gpkg", "sub/a.gpkg"):
        graph.write(street(), folder / place)
    assert "folder of one split" in fails(lambda: chip_graphs.find_entries(folder))
    assert list(chip_graphs.find_entries(folder / "sub")) == ["a"]
    (folder / "a.gpkg").unlink()
    assert list(chip_graphs.find_entries(folder)) == ["a"], "one of them is kept"


@row("judge/chip_graphs", "has two names for chip", "is not a CSV table", "lacks the columns")
@row("judge/chip_graphs", "twice", "has no rows", "fields, its header", "has no ImageId")
@row("judge/chip_graphs", "has no WKT_Pix", "which is no LINESTRING", "says that {} is empty")
@row("judge/chip_graphs", "line {} ({}) has {}")
def _(folder, fails):
    path = folder / "truth.csv"
    twin = NAME.replace("Vegas_", "Vegas_PS-RGB_")
    for text in [
        f"{GOOD}{twin},{ROAD},3,1\n",
        GOOD.replace(",", ";"),
        CSV.replace("length_m", "travel_time_s") + f"{NAME},{ROAD},3,1\n",
        CSV,
        GOOD.replace('"', ""),
        GOOD + f",{ROAD},3,1\n",
        GOOD + f"{NAME},,,\n",
        GOOD + f"{NAME},POINT (1 2),,\n",
        GOOD + f"{NAME},LINESTRING EMPTY,,\n",
        GOOD.replace(",1\n", ",soon\n"),
        GOOD + f"{NAME},{ROAD.replace('1', '9')},3,\n",
    ]:
        path.write_text(text)
        assert fails(lambda: chip_graphs.read_solution(path))
    path.write_bytes(GOOD.replace("Vegas", "Orléans").encode("latin-1"))
    assert "UTF-8" in fails(lambda: chip_graphs.read_solution(path))
    empty = f"{CSV}{NAME},LINESTRING EMPTY,0,0\n"
    for text in (GOOD, empty, GOOD.replace(",1\n", ",\n")):  # what the cures ask for
        path.write_text(text, "utf-8")
        assert len(chip_graphs.read_solution(path)[NAME]) == 1


@row("judge/chip_graphs", "in pixels, and no image", "takes {} to column", "does not exist")
@row("judge/chip_graphs", "of another split", "is {}")
def _(folder, fails):
    path = folder / "truth.csv"
    path.write_text(GOOD.replace("3 4", "30 40"))
    rows = chip_graphs.read_solution(path)[NAME]
    assert "images=" in fails(lambda: chip_graphs.read_entry(rows, NAME))
    small = picture(folder / "small.tif", np.full((3, 8, 8), 7, "uint8"))
    assert "in whose pixels" in fails(lambda: chip_graphs.read_entry(rows, NAME, image=small))
    image = picture(folder / f"{NAME}.tif")
    assert chip_graphs.read_entry(rows, NAME, image=image).number_of_edges() == 1
    assert "folder of the chips' images" in fails(lambda: chip_graphs.find_images(folder / "no"))
    for split in ("train", "test"):
        (folder / split).mkdir()
        picture(folder / split / f"SN3_roads_{split}_AOI_2_Vegas_PS-RGB_img1.tif")
    assert "one split" in fails(lambda: chip_graphs.find_images(folder))
    assert list(chip_graphs.find_images(folder / "test")) == ["AOI_2_Vegas_img1"]
    cure = fails(lambda: chip_graphs.flat_grid(0))
    assert chip_graphs.flat_grid(float(re.search(r"metres: (\S+) for", cure)[1])).transform.a == 0.3


@row("judge/chip_graphs", "says nothing about the speed of road")
def _(folder, fails):
    path = roads(folder / "a.geojson", LINE, shapely.transform(LINE, lambda xy: xy + 0.01), x=1)

    def speeds(*mph):
        import geopandas as gpd

        table = gpd.read_file(path)
        table["speed_mph"] = mph
        table.to_file(path)

    speeds(30, None)
    assert "speed_mph" in fails(lambda: chip_graphs.read_entry(path, "a", infer=False))
    for mph, has in (((30, 20), True), ((None, None), False)):
        speeds(*mph)
        assert chip_graphs.has_times(chip_graphs.read_entry(path, "a", infer=False)) is has


@row("judge/chip_graphs", "no such graph file", "is not GraphML", "is not a road graph")
@row("judge/chip_graphs", "has the crs {}, which is not known")
def _(folder, fails):
    path = folder / "a.graphml"
    assert "path" in fails(lambda: chip_graphs.read_graphml(path))
    path.write_text("<graphml")
    assert "Export it again" in fails(lambda: chip_graphs.read_graphml(path))

    def write(crs: str, **place) -> None:
        g = nx.MultiGraph(crs=crs)
        g.add_nodes_from([(0, {"x": 33.0, **place}), (1, {"x": 33.01, **place})])
        g.add_edge(0, 1)
        nx.write_graphml(g, path)

    write("my own", y=15.6)
    assert "osmnx" in fails(lambda: chip_graphs.read_graphml(path))
    write("epsg:4326")
    assert "x and y" in fails(lambda: chip_graphs.read_graphml(path))
    write("epsg:4326", y=15.6)
    assert chip_graphs.read_graphml(path).number_of_edges() == 1


@row("graph", "has no crs", "is not projected in metres", "needs finite x and y")
@row("graph", "unknown kind of graph file", "no such graph file", "{} {}", "is not a road graph")
@row("graph", "lacks the tables")
def _(folder, fails):
    g = street()
    g.graph["crs"] = None
    g.graph["crs"] = re.search("'(EPSG:[0-9]+)'", fails(lambda: graph.validate(g)))[1]
    graph.validate(g)
    far = graph.project(street(), "EPSG:32636")
    far.graph["crs"] = "EPSG:4326"
    assert "graph.project" in fails(lambda: graph.validate(far))
    graph.validate(graph.project(street(), graph.utm_of(33, 15.6)))
    bare = street()
    bare.nodes[0]["x"] = None
    assert "'x': None" in fails(lambda: graph.validate(bare))
    bare.nodes[0]["x"] = 447000.0
    graph.validate(bare)
    path = folder / "a.gpkg"
    assert ".gpkg" in fails(lambda: graph.write(g, folder / "a.txt"))
    assert "06_vectorize" in fails(lambda: graph.read(path))
    path.write_text("x")
    assert "06_vectorize" in fails(lambda: graph.read(path))
    roads(path, LINE)
    assert "GeoJSON" in fails(lambda: graph.read(path))
    path.unlink()
    assert graph.read(graph.write(g, path)).number_of_edges() == 1, "graph.write makes such"
    lines = roads(folder / "lines.geojson", LINE)
    assert graph.from_labels(lines).number_of_edges() == 1, "roads from elsewhere as lines"
    (folder / "a.txt").write_text("x")
    assert ".graphml" in fails(lambda: graph.read(folder / "a.txt"))
    assert graph.read(graph.write(g, folder / "a.graphml")).number_of_edges() == 1


@row("graph", "is not valid WKT", "is missing or not positive in row")
def _(folder, fails):
    def made(*rows: tuple) -> nx.MultiGraph:
        return graph.from_wkt_rows(
            pd.DataFrame(rows, columns=["WKT_Pix", "travel_time_s"]), GRID, UTM
        )

    good = ("LINESTRING (1 2, 30 4)", 3.0)
    other = ("LINESTRING (1 9, 30 9)", np.nan)
    assert "remove that row" in fails(lambda: made(good, ("LINESTRING (1", 1)))
    assert "or none" in fails(lambda: made(good, other))
    assert made(good).number_of_edges() == 1
    assert made(good, (other[0], 4.0)).number_of_edges() == 2
    assert made((good[0], np.nan), other).number_of_edges() == 2


@row("roads/formats", "is not a CSV table", "line {}, chip {}: {}{}", "is no GeoJSON of a road")
@row("roads/formats", "is no OSM XML of a road", "unknown kind of graph file")
def _(folder, fails):
    table = folder / "rows.csv"
    assert "rows.to_csv" in fails(lambda: formats.read_rows(table))
    grid = raster.Grid((N, N), GRID, raster.CRS.from_string(UTM))
    rows = graph.to_wkt_rows(street(), grid.transform, grid.crs, NAME)
    rows.assign(length_m=-1).to_csv(table, index=False)
    assert "to_wkt_rows" in fails(lambda: formats.check_solution(table))
    rows.to_csv(table, index=False)
    assert len(formats.check_solution(table)) == len(formats.read_rows(table)) == 1
    for ending, write in ((".geojson", formats.write_geojson), (".osm", formats.write_osm)):
        path = folder / f"a{ending}"
        path.write_text("x")
        assert write.__name__ in fails(lambda path=path: formats.load(path))
        assert formats.load(write(street(), path)).number_of_edges() == 1
    cure = fails(lambda: formats.save(street(), folder / "a.kml"))
    for ending in re.findall(r"\.\w+", cure.removesuffix(".")):
        assert formats.save(street(), folder / f"b{ending}").is_file()


@row("judge/folder_scores", "has no chip in common", "chips that the truth does not have")
@row("judge/folder_scores", "is given, and images are too", "is not in pixels on both sides")
@row("judge/folder_scores", "is in pixels, and {} chips have no image")
def _(folder, fails):
    def score(truth, proposal, **more):
        return folder_scores.make_jobs(truth, proposal, Rules(), **more)

    g = street()
    assert "same city and split" in fails(lambda: score({"a": g}, {"b": g}))
    assert "--ignore-extra" in fails(lambda: score({"a": g}, {"a": g, "b": g}))
    for proposal, more in (({"a": g}, {}), ({"a": g, "b": g}, {"extra": "ignore"})):
        assert len(score({"a": g}, proposal, **more)[0]) == 1
    path = folder / "truth.csv"
    path.write_text(GOOD)
    (folder / "images").mkdir()
    picture(folder / "images" / f"{NAME}.tif")
    folders = {"images": folder / "images"}
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    path = path.rename(elsewhere / "truth.csv")
    assert "one of them" in fails(lambda: score(path, path, pixel_m=0.3, **folders))
    assert "--images" in fails(lambda: score(path, {NAME: g}, pixel_m=0.3))
    assert "--pixel-m 0.3" in fails(lambda: score(path, path))
    for more in ({"pixel_m": 0.3}, folders):
        assert len(score(path, path, **more)[0]) == 1


@row("judge/routes", "is in {}, but the truth is in", "<problem>", "have no usable speed")
@row("topo", "is in {}, but the truth is in", "is not a number of metres")
def _(folder, fails):
    g, away = street(), graph.project(street(), "EPSG:32637")
    for judge in (apls.apls, topo.topo):
        assert "graph.project(g, crs)" in fails(lambda judge=judge: judge(g, away))
        assert judge(g, graph.project(away, "EPSG:32636"))
    far = street()
    far.graph["crs"] = "EPSG:4326"
    assert "graph.project" in fails(lambda: apls.apls(far, far))
    slow = street(speed_kph=None, travel_time=None)
    cure = fails(lambda: apls.apls(slow, slow, weight="travel_time"))
    assert "weight='length'" in cure and apls.apls(slow, slow, weight="length").score == 1
    assert apls.apls(g, g, weight="travel_time").score == 1, "with a speed_kph"
    odd = street(length="long")
    assert "Remove the attribute" in fails(lambda: topo.topo(odd, odd))
    assert topo.topo(street(length=None), street(length=None)).f1 == 1


@row("base/geoparquet", "is no GeoParquet")
@row("graph", "<what>", "has a row without a line", "have no CRS", "<e.problem>")
@row("graph", "cannot be rebuilt")
def _(folder, fails):
    import geopandas as gpd

    path = folder / "a.parquet"
    path.write_text("x")
    assert "to_parquet" in fails(lambda: graph.read(path))
    g = street()
    edited = graph.to_gdf(g)
    lost = edited.reset_index().assign(u=None) if "u" not in edited else edited.assign(u=None)
    lost.to_parquet(path)
    assert "rebuild=True" in fails(lambda: graph.read(path))
    assert graph.read(path, rebuild=True).number_of_edges() == 1
    table = gpd.GeoDataFrame({"speed_kph": [36.0]}, geometry=[LINE])
    assert "set_crs" in fails(lambda: graph.rebuilt(table))
    assert graph.rebuilt(table.set_crs(4326)).number_of_edges() == 1
    assert graph.read(graph.write(g, path)).number_of_edges() == 1
    other = graph.write(g, folder / "a.graphml")
    assert "GeoPackage or GeoParquet" in fails(lambda: graph.read(other, rebuild=True))
    assert graph.read(graph.write(g, folder / "a.gpkg"), rebuild=True).number_of_edges() == 1
