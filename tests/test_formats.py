"""Roads in other programs' files: the scorer's rules, round trips, overpasses that stay apart,
osmnx and osmium as readers."""

import csv
import subprocess
import sys
from collections import Counter

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import shapely
from reference_cases import CHOICE, SHARED
from shapely.geometry import LineString

from spacenet5_nb import graph
from spacenet5_nb.core import DataError, GraphError
from spacenet5_nb.roads import formats

# isort: split
from affine import Affine

KINDS = sorted(formats.WRITERS)
PIXEL = Affine(0.3, 0, 399000, 0, -0.3, 6172000)


def network(seed: int, n: int = 30) -> nx.MultiGraph:
    "Lines on a lattice of 40 m: shared vertices, crossings, overpasses, parallel roads, rings."
    rng = np.random.default_rng(seed)
    lines, speeds, levels = [], [], []
    for _ in range(n):
        steps = rng.integers(-2, 3, (rng.integers(1, 6), 2))
        coords = np.cumsum(np.r_[rng.integers(0, 12, (1, 2)), steps], axis=0) * 40.0 + (
            400000,
            6170000,
        )
        if len(np.unique(coords, axis=0)) > 1:
            lines.append(LineString(coords))
            speeds.append(rng.uniform(20, 90))
            levels.append(int(rng.random() < 0.2))
    g = graph.from_lines(lines, speeds, crs="EPSG:32637", level=levels)
    for *_, d in g.edges(data=True):
        d["speed_confidence"] = float(rng.random())
    return g


def overpass() -> nx.MultiGraph:
    "Two roads that cross and do not meet, with vertices where they cross, and a junction beside."
    lines = [
        LineString([(400000, 6170000), (400050, 6170000), (400100, 6170000)]),
        LineString([(400050, 6169950), (400050, 6170000), (400050, 6170050)]),
        LineString([(400100, 6170000), (400100, 6170060)]),
        LineString([(400100, 6170000), (400160, 6170000)]),
    ]
    g = graph.from_lines(lines, [50, 80, 30, 50], crs="EPSG:32637", level=[0, 1, 0, 0])
    assert g.number_of_edges() == 4 and nx.number_connected_components(g) == 2
    return g


def edges_of(g, digits=9):
    return {
        (*sorted((u, v)), k): {n: round(x, digits) for n, x in d.items() if n != "geometry"}
        for u, v, k, d in g.edges(keys=True, data=True)
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_round_trips_lose_nothing(tmp_path, kind, seed):
    g = network(seed)
    again = formats.load(formats.save(g, tmp_path / f"a{kind}"))
    assert set(again) == set(g) and again.graph["crs"] == g.graph["crs"]
    assert edges_of(again) == edges_of(g)
    limit = 0.015 if kind == ".osm" else 1e-6  # OSM keeps seven decimals of a degree
    assert (
        max(
            np.hypot(d["x"] - g.nodes[n]["x"], d["y"] - g.nodes[n]["y"])
            for n, d in again.nodes(data=True)
        )
        < limit
    )
    for u, v, k, d in again.edges(keys=True, data=True):
        assert shapely.hausdorff_distance(d["geometry"], g.edges[u, v, k]["geometry"]) < limit


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_without_speeds_and_one_without_roads(tmp_path, kind):
    g = graph.without_speeds(network(5))
    assert edges_of(
        formats.load(formats.save(g, tmp_path / f"a{kind}", speeds=False), speeds=False)
    ) == edges_of(g)
    assert (
        formats.load(
            formats.save(graph.empty("EPSG:32637"), tmp_path / f"b{kind}")
        ).number_of_edges()
        == 0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_is_left_of_a_graph_that_breaks_the_contract(tmp_path, kind):
    g = network(6)
    next(iter(g.edges(data=True)))[2]["speed_kph"] = 0.0
    with pytest.raises(GraphError, match="speed_kph"):
        formats.save(g, tmp_path / f"a{kind}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_graph_is_refused_by_name(tmp_path, kind):
    path = tmp_path / f"a{kind}"
    path.write_text("<osm/>" if kind == ".osm" else "{}")
    with pytest.raises(GraphError, match=path.name):
        formats.load(path)


@pytest.mark.parametrize("kind", KINDS)
def test_an_overpass_stays_apart_in_every_file(tmp_path, kind):
    again = formats.load(formats.save(overpass(), tmp_path / f"a{kind}"))
    assert nx.number_connected_components(again) == 2 and sorted(
        d["level"] for *_, d in again.edges(data=True)
    ) == [0, 0, 0, 1]


def test_an_overpass_shares_no_vertex_in_the_csv():
    rows = formats.check_solution(graph.to_wkt_rows(overpass(), PIXEL, "EPSG:32637", "c"))
    uses = Counter(p for text in rows["WKT_Pix"] for p in set(shapely.from_wkt(text).coords))
    lines = list(shapely.from_wkt(rows["WKT_Pix"]))
    crossing = [(a, b) for i, a in enumerate(lines) for b in lines[:i] if a.crosses(b)]
    assert len(crossing) == 1 and not set(crossing[0][0].coords) & set(crossing[0][1].coords)
    assert sorted(uses.values())[-1] == 3, "the junction beside it is shared by its three roads"
    assert nx.number_connected_components(graph.from_wkt_rows(rows, PIXEL, "EPSG:32637")) == 2


def test_an_overpass_shares_no_node_in_osm_xml(tmp_path):
    osmium = pytest.importorskip("osmium")
    ways = {}

    class Ways(osmium.SimpleHandler):
        def way(self, w):
            ways[w.id] = (dict((t.k, t.v) for t in w.tags), [n.ref for n in w.nodes])

    Ways().apply_file(str(formats.save(overpass(), tmp_path / "a.osm")))
    over = [
        refs
        for tags, refs in ways.values()
        if tags.get("bridge") == "yes" and tags.get("layer") == "1"
    ]
    below = {
        ref
        for tags, refs in ways.values()
        if "bridge" not in tags and "layer" not in tags
        for ref in refs
    }
    assert len(ways) == 4 and len(over) == 1 and not set(over[0]) & below


def test_osmnx_routes_on_graphml_by_time(tmp_path):
    ox = pytest.importorskip("osmnx")
    g = network(1)
    opened = ox.load_graphml(formats.save(g, tmp_path / "a.graphml"))
    part = sorted(max(nx.connected_components(g), key=len))
    start, stop = part[0], part[-1]
    xy = g.nodes[stop]
    assert ox.distance.nearest_nodes(opened, xy["x"], xy["y"]) == stop
    route = ox.routing.shortest_path(opened, start, stop, weight="travel_time")
    seconds = sum(
        min(d["travel_time"] for d in opened[a][b].values())
        for a, b in zip(route, route[1:], strict=False)
    )
    assert seconds == pytest.approx(nx.shortest_path_length(g, start, stop, weight="travel_time"))


def test_osmnx_opens_osm_xml(tmp_path):
    ox = pytest.importorskip("osmnx")
    opened = ox.graph_from_xml(
        formats.save(overpass(), tmp_path / "a.osm"), simplify=True, retain_all=True
    )
    undirected = ox.convert.to_undirected(opened)
    assert nx.number_connected_components(undirected) == 2 and undirected.number_of_edges() == 4
    assert {d["maxspeed"] for *_, d in opened.edges(data=True)} == {"30", "50", "80"}
    metres = sum(d["length"] for *_, d in undirected.edges(data=True))
    assert metres == pytest.approx(
        sum(d["length"] for *_, d in overpass().edges(data=True)), rel=5e-3
    ), "osmnx measures on a sphere"


def test_our_own_reader_of_osm_takes_it(tmp_path):
    pytest.importorskip("osmium")
    from spacenet5_nb.acquire.osm import read_osm

    roads = read_osm(formats.save(overpass(), tmp_path / "a.osm"))
    assert len(roads) == 4 and sorted(roads["layer"].dropna().tolist()) == ["1"]


@pytest.mark.parametrize("seed", range(12))
def test_the_scorer_takes_what_we_write(tmp_path, seed):
    rows = pd.concat(
        [
            graph.to_wkt_rows(network(seed), PIXEL, "EPSG:32637", "AOI_1_X_chip1"),
            graph.to_wkt_rows(graph.empty("EPSG:32637"), PIXEL, "EPSG:32637", "AOI_1_X_chip2"),
        ]
    )
    rows.to_csv(path := tmp_path / "solution.csv", index=False)
    assert formats.solution_problems(path, chips=["AOI_1_X_chip1", "AOI_1_X_chip2"]).empty


ROW = ("c", "LINESTRING (0 0, 10 0)", 3.0, 0.5)


@pytest.mark.parametrize(
    "rows, problem",
    [
        ([ROW, ("c", "LINESTRING (10 0, 0 0)", 3.0, 0.5)], "repeats a section of line 2"),
        ([("c", "LINESTRING (0 0, 10 0, 0 0)", 3.0, 0.5)], "repeats a section"),
        ([("c", "LINESTRING (0 0, 5 0, 5 0.009, 9 0)", 3.0, 0.5)], "shorter than 0.01"),
        ([("c", "LINESTRING (0 0)", 3.0, 0.5)], "no LINESTRING"),
        ([("c", "POINT (0 0)", 3.0, 0.5)], "no LINESTRING"),
        ([("c", "", 3.0, 0.5)], "no LINESTRING"),
        ([("c", "LINESTRING (0 0, NaN 5)", 3.0, 0.5)], "not finite"),
        ([ROW, ("c", "LINESTRING EMPTY", 0.0, 0.0)], "EMPTY beside"),
        ([("c", "LINESTRING EMPTY", 0.0, 0.0)] * 2, "EMPTY beside"),
        ([(*ROW[:2], -1.0, 0.5)], "length_m"),
        ([(*ROW[:2], 3.0, float("inf"))], "travel_time_s"),
        ([(*ROW[:2], "", 0.5)], "length_m"),
        ([(*ROW[:2], 3.0, 0.0)], "of a road is 0"),
        ([(" c", *ROW[1:])], "spaces"),
    ],
)
def test_the_validator_names_the_line_and_the_rule(tmp_path, rows, problem):
    with open(path := tmp_path / "s.csv", "w", newline="") as f:
        csv.writer(f).writerows([formats.COLUMNS, ("first", *ROW[1:]), *rows])
    found = formats.solution_problems(path)
    assert problem.replace("line 2", "line 3") in " ".join(found["problem"]), found
    assert set(found["line"]) <= set(range(3, 3 + len(rows)))
    with pytest.raises(DataError, match=path.name):
        formats.check_solution(path)


def test_the_header_is_checked_to_the_letter(tmp_path):
    for header in (
        ["ImageId", "WKT_Pix"],
        formats.COLUMNS[::-1],
        [*formats.COLUMNS, "speed"],
        ["imageid", *formats.COLUMNS[1:]],
    ):
        with open(path := tmp_path / "s.csv", "w", newline="") as f:
            csv.writer(f).writerow(header)
        with pytest.raises(DataError, match="header"):
            formats.check_solution(path)
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(DataError, match="empty.csv"):
        formats.check_solution(tmp_path / "empty.csv")


def test_the_originals_submissions_are_taken():
    paths = sorted((CHOICE / "vectorize").glob("*_solution_reference.csv"))
    assert len(paths) == 4
    for path in paths:
        found = formats.solution_problems(path)
        assert set(found["problem"].str.replace(r"[\d.]+", "", regex=True)) <= {
            "repeats a section of line "
        }, (path.name, found)


def winners_rows() -> list:
    "The first 400 rows that the contest's scorer took, and 4,000 where they are at hand."
    full = SHARED / "data/submissions/albu_sn3_test_4000rows.csv"
    return [CHOICE / "submissions/albu_sn3_test_400rows.csv", *[full] * full.exists()]


@pytest.mark.parametrize("path", winners_rows(), ids=lambda p: p.stem)
def test_a_winners_submission_is_taken(path):
    "With lengths and times put in, which the contest did not ask for then."
    rows = pd.read_csv(path, keep_default_na=False)
    number = np.where(rows["WKT_Pix"].str.contains("EMPTY"), 0.0, 1.0)
    assert formats.solution_problems(rows.assign(length_m=number, travel_time_s=number)).empty


def test_scripts_from_before_the_rooms_find_it():
    "Others' scripts, and those of the shared cases, import it from the package's top."
    code = "from spacenet5_nb import formats, graph; print(formats.__name__, graph.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["spacenet5_nb.roads.formats", "spacenet5_nb.graph"]
    with pytest.raises(ImportError, match="cannot import name 'format'"):
        from spacenet5_nb import format  # noqa: F401
