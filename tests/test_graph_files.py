"Road graphs in files that other programs open, and invariants over random networks."

import networkx as nx
import numpy as np
import pytest
import shapely

from spacenet5_nb import graph  # isort: skip
import geopandas as gpd
from affine import Affine
from shapely.geometry import LineString


def random_network(seed: int, n: int = 30) -> tuple[nx.MultiGraph, list[LineString]]:
    """Lines on a lattice of 40 m: shared vertices, crossings, parallel roads, rings, repeated
    pieces."""
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
            speeds.append(rng.choice([30.0, 50.0]))
            levels.append(int(rng.random() < 0.2))
    return graph.from_lines(lines, speeds, crs="EPSG:32637", level=levels), lines


def totals(g: nx.MultiGraph) -> np.ndarray:
    return np.array([sum(d[k] for *_, d in g.edges(data=True)) for k in ("length", "travel_time")])


@pytest.mark.parametrize("seed", range(20))
def test_no_metre_is_lost_or_made_when_lines_become_a_graph(seed):
    g, lines = random_network(seed)
    graph.validate(g)
    pieces = {
        tuple(sorted(map(tuple, pair)))
        for line in lines
        for pair in zip(line.coords, line.coords[1:], strict=False)
        if pair[0] != pair[1]
    }
    by_piece = sum(np.hypot(*np.subtract(*p)) for p in pieces)
    # a piece that two roads of different level share is there once a level, unless an end joins
    # them
    assert by_piece - 1e-6 <= totals(g)[0] <= sum(line.length for line in lines) + 1e-6
    assert all(
        g.degree(n) != 2
        or len({(d["speed_kph"], d["level"]) for *_, d in g.edges(n, data=True)}) == 2
        or any(u == v for u, v in g.edges(n))
        for n in g
    ), "no node where nothing changes"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("suffix", [".gpkg", ".graphml"])
def test_files_give_back_every_bit(tmp_path, seed, suffix):
    g, _ = random_network(seed)
    again = graph.read(graph.write(g, tmp_path / f"a{suffix}"))
    assert dict(again.nodes(data=True)) == dict(g.nodes(data=True)) and again.graph == g.graph

    def edges(h):
        return {(*sorted((u, v)), k): d for u, v, k, d in h.edges(keys=True, data=True)}

    assert edges(again) == edges(g)


@pytest.mark.parametrize("seed", range(8))
def test_scorer_rows_keep_the_network(seed):
    g, _ = random_network(seed)
    pixel = Affine(0.3, 0, 399000, 0, -0.3, 6172000)
    rows = graph.to_wkt_rows(g, pixel, "EPSG:32637", "AOI_1_X_chip1")
    again = graph.from_wkt_rows(rows, pixel, "EPSG:32637")
    straight_twins = totals(g)[0] - rows["length_m"].sum()
    assert straight_twins >= -1e-6 and np.isclose(
        totals(again)[0], rows["length_m"].sum(), rtol=1e-3
    )
    assert nx.number_connected_components(again) == nx.number_connected_components(g)
    sections = [
        frozenset(pair)
        for line in shapely.from_wkt(rows["WKT_Pix"])
        for pair in zip(line.coords, line.coords[1:], strict=False)
    ]
    assert len(sections) == len(set(sections)) and all(len(s) == 2 for s in sections), (
        "the scorer refuses repeated sections and single points"
    )
    assert min(np.hypot(*np.subtract(*s)) for s in sections) >= 0.0099


def test_osmnx_opens_graphml(tmp_path):
    ox = pytest.importorskip("osmnx")
    g, _ = random_network(1)
    opened = ox.load_graphml(graph.write(g, tmp_path / "a.graphml"))
    assert opened.graph["crs"] == "EPSG:32637" and opened.number_of_edges() == g.number_of_edges()
    assert np.allclose(totals(opened), totals(g))
    nodes, edges = ox.convert.graph_to_gdfs(nx.MultiDiGraph(opened))
    assert len(nodes) == len(g) and edges.crs == "EPSG:32637"


def test_qgis_layers_of_a_geopackage(tmp_path):
    g, _ = random_network(2)
    path = graph.write(g, tmp_path / "a.gpkg")
    edges, nodes = gpd.read_file(path, layer="edges"), gpd.read_file(path, layer="nodes")
    assert (
        len(edges) == g.number_of_edges()
        and len(nodes) == len(g)
        and edges.crs == nodes.crs == "EPSG:32637"
    )
    assert np.isclose(edges.length.sum(), edges["length"].sum())
