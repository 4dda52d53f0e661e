"""`spacenet5 conflate`: what real extracts, hostile texts, odd files and a killed process make of
it."""

import json
import random
import signal
from xml.etree import ElementTree

import geopandas as gpd
import networkx as nx
import numpy as np
import pytest
import shapely

from spacenet5_nb import graph
from spacenet5_nb.acquire.areas import read_area
from spacenet5_nb.base.labels import Rows, move_lines, read_rows
from spacenet5_nb.core import DataError
from spacenet5_nb.mapping.conflation import conflate, crs_of
from spacenet5_nb.mapping.conflation_files import conflate_files, outputs_of
from spacenet5_nb.mapping.doctored_map import agreement, doctored, traced
from spacenet5_nb.mapping.html_page import page_data
from spacenet5_nb.mapping.new_roads import map_nodes
from spacenet5_nb.mapping.road_table import toy_town
from spacenet5_nb.roads import formats

BAD = "</script><img src=x onerror=alert(1)>\x07{{7*7}}"


def quiet(text):
    pass


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    "A predicted town, and a map of it in which three streets lack and one has a hostile name."
    folder, g = tmp_path_factory.mktemp("town"), toy_town(37.6, 55.7, "EPSG:32637", n=6)
    graph.write(g, folder / "roads.gpkg")
    known = g.copy()
    lacking = sorted(known.edges(keys=True), key=lambda e: -known.edges[e]["length"])[4:7]
    known.remove_edges_from(lacking)
    for k, (*_, d) in enumerate(known.edges(data=True)):
        d["name"] = BAD.replace("\x07", "") if k == 1 else f"Street {k}"
    formats.save(known, folder / "map.osm")
    return folder, sum(g.edges[e]["length"] for e in lacking) / 1000


@pytest.fixture(scope="module")
def made(town):
    folder, _ = town
    said = []
    conflate_files(
        [folder / "roads.gpkg"], folder / "map.osm", folder / "c.gpkg", imagery=BAD, say=said.append
    )
    return outputs_of(folder / "c.gpkg"), said


def test_numbers_say_what_the_tables_hold(town, made):
    (roads, _, numbers, _), said = made
    km = json.loads(numbers.read_text())["km"]
    assert km["new"] == pytest.approx(town[1], abs=0.03) and km["missing"] == km["doubtful"] == 0
    assert any(f"{km['new']:.2f} new" in line for line in said)
    layers = {layer: gpd.read_file(roads, layer=layer) for layer in ("predicted", "map", "edges")}
    seen = layers["predicted"]
    km_new = seen.loc[seen["kind"] == "new", "length_m"].sum() / 1000
    assert km_new == pytest.approx(km["new"], abs=1e-3)
    assert set(layers["edges"]["kind"]) == {"new", "confirmed"}


def test_new_roads_are_part_of_the_network(made):
    g = graph.read(made[0].roads)
    assert nx.number_connected_components(nx.Graph(g)) <= 2  # the motorway passes over
    joined = [d for *_, d in g.edges(data=True) if d["kind"] == "new"]
    assert joined and all(d["speed_kph"] > 0 for d in joined)


def test_texts_from_data_stay_harmless(made):
    (_, new, _, page), _ = made
    html = page.read_text()
    assert "onerror=alert" not in html.replace(r"\u003cimg src=x onerror=alert(1)", "")
    assert any(BAD[:20] in name for name in page_data(html)["roads"][0]["name"]["values"])
    root = ElementTree.fromstring(new.read_bytes())  # a control character would be an error
    sources = {t.attrib["v"] for t in root.iter("tag") if t.attrib["k"] == "source"}
    assert sources == {BAD.replace("\x07", "")} and root.attrib["upload"] == "never"


def test_the_maps_own_nodes_keep_their_numbers(made, town):
    "An end of a new road that lies on a node of the extract is that node."
    text = (town[0] / "map.osm").read_text().replace('id="-', 'id="').replace('ref="-', 'ref="')
    numbered = town[0] / "numbered.osm"
    numbered.write_text(text)
    out = town[0] / "n.gpkg"
    conflate_files([town[0] / "roads.gpkg"], numbered, out, html=False, say=quiet)
    root = ElementTree.parse(outputs_of(out).new).getroot()
    known = {n.attrib["id"] for n in root.iter("node") if not n.attrib["id"].startswith("-")}
    assert known and known <= {str(n) for n in map_nodes(numbered).values()}
    ends = {way.findall("nd")[k].attrib["ref"] for way in root.iter("way") for k in (0, -1)}
    assert known <= ends


@pytest.mark.parametrize("ending", ["gpkg", "geojson", "parquet", "shp"])
def test_an_edited_file_whose_ids_were_lost_is_compared_all_the_same(town, made, tmp_path, ending):
    "Roads saved by a GIS: no node table, no u and v."
    folder, _ = town
    roads = gpd.read_file(folder / "roads.gpkg", layer="edges")[["speed_kph", "geometry"]]
    path = tmp_path / f"edited.{ending}"
    drivers = {"gpkg": "GPKG", "geojson": "GeoJSON", "shp": "ESRI Shapefile"}
    if ending == "parquet":
        roads.to_parquet(path)
    else:
        roads.to_crs(4326).to_file(path, driver=drivers[ending])
    found = conflate_files([path], folder / "map.osm", tmp_path / "c.gpkg", html=False, say=quiet)
    km = json.loads(made[0].numbers.read_text())["km"]
    assert found.km()["new"] == pytest.approx(km["new"], abs=0.01)


def test_two_predictions_that_overlap_count_once(town, tmp_path):
    folder, _ = town
    roads = gpd.read_file(folder / "roads.gpkg", layer="edges")
    half = len(roads) * 2 // 3
    for name, part in (("a", roads[:half]), ("b", roads[half // 2 :])):
        part.to_crs(4326).to_file(tmp_path / f"{name}.geojson", driver="GeoJSON")
    parts = [tmp_path / "a.geojson", tmp_path / "b.geojson"]
    found = conflate_files(parts, folder / "map.osm", tmp_path / "c.gpkg", html=False, say=quiet)
    assert found.twice_km > 0.5
    assert found.seen["length_m"].sum() == pytest.approx(roads.length.sum(), rel=0.02)


def test_an_area_of_another_place_is_refused(town, tmp_path):
    folder, _ = town
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326").to_file(
        tmp_path / "area.geojson", driver="GeoJSON"
    )
    assert read_area(tmp_path / "area.geojson").area == pytest.approx(1)
    with pytest.raises(DataError, match="lies elsewhere"):
        conflate_files(
            [folder / "roads.gpkg"], folder / "map.osm", tmp_path / "c.gpkg",
            looked_at=tmp_path / "area.geojson", say=quiet,
        )  # fmt: skip
    assert not (tmp_path / "c.gpkg").exists()


@pytest.mark.shared
def test_a_real_extract_with_its_own_footpaths(shared):
    "Moscow's extract, doctored: new roads are found, and no footpath is missing in the picture."
    path = shared / "data/osm/moscow.osm.gz"
    rows = read_rows(path)
    roads = [k for k, t in enumerate(rows.tags) if t.get("highway") in
             ("secondary", "tertiary", "residential", "unclassified", "service")]  # fmt: skip
    crs = crs_of(rows.lines)
    lines, rng = move_lines(rows.lines[roads], "EPSG:4326", crs), np.random.default_rng(1)
    wrong = doctored(lines, rng, tags=[{"highway": rows.tags[k]["highway"]} for k in roads])
    paths = [k for k, t in enumerate(rows.tags) if t.get("highway") == "footway"]
    drawn = np.r_[move_lines(wrong.lines, crs, "EPSG:4326"), rows.lines[paths]]
    tags = wrong.tags + [{"highway": "footway", "osm_id": "f"}] * len(paths)
    seen = shapely.transform(traced(lines, rng), lambda xy: xy - (4, 3))
    seen = Rows(move_lines(seen, crs, "EPSG:4326"), [{}] * len(seen), [])
    found = conflate(seen, Rows(drawn, tags, []))
    assert np.hypot(*(found.shift.whole - (4, 3))) < 0.5
    new = found.seen[found.seen["kind"] == "new"].to_crs(crs).geometry.to_numpy()
    assert min(agreement(new, wrong.removed)[:2]) > 0.85
    assert "f" not in set(found.drawn["osm_id"])


@pytest.mark.slow
def test_killed_it_ends_at_the_same_bytes(town, tmp_path):
    "Ended before and after each of its four files got its name."
    from test_kills import Killing, left_behind

    folder, _ = town
    (tmp_path / "box").mkdir()
    killing, moments = Killing(tmp_path, "outputs", tmp_path / "box"), random.Random(3)
    made = {}
    for place in ("whole", "killed"):
        (tmp_path / place).mkdir()
        call = ("conflate", str(folder / "roads.gpkg"), "--osm", str(folder / "map.osm"))
        call += ("-o", str(tmp_path / place / "c.gpkg"))
        for part in ("c_new.osm", "c.json", "c.html", "c.gpkg") if place == "killed" else ():
            when = moments.choice(("before", "after"))
            assert killing.run(call, part, 1, when) == -signal.SIGKILL, part
        assert killing.run(call, "nothing of that name", 1, "before") == 0
        assert left_behind(tmp_path / place, tmp_path / "box" / "tmp") == []
        made[place] = {p.name: p.read_bytes() for p in (tmp_path / place).iterdir()}
    assert made["killed"].keys() == made["whole"].keys() and len(made["whole"]) == 4
    assert made["killed"] == made["whole"]
