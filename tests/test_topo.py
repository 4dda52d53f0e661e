"""TOPO and SP: toys worked out by hand, a plain networkx implementation, invariances, draws, bad
input."""

import math
import random
import runpy
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_cases import graph_of, read_json

from spacenet5_nb import topo as module
from spacenet5_nb.core import GraphError
from spacenet5_nb.topo import Topo, shortest_path_score, shortest_paths, topo

CRS, BENCHMARKS = "EPSG:32611", Path(__file__).parents[1] / "benchmarks"
few = settings(max_examples=60)


def road_graph(nodes: dict, edges: list, crs=CRS) -> nx.MultiGraph:
    "Edges are (u, v) or (u, v, inner vertices)."
    g = nx.MultiGraph(crs=crs)
    for n, (x, y) in nodes.items():
        g.add_node(n, x=float(x), y=float(y))
    for u, v, *inner in edges:
        line = shapely.LineString([nodes[u], *(inner[0] if inner else []), nodes[v]])
        g.add_edge(u, v, geometry=line, length=line.length)
    return g


def counts(r: Topo) -> tuple[int, int, int]:
    return r.tp, r.fp, r.fn


def grid(side: int = 8, missing: int = 15) -> tuple[nx.MultiGraph, nx.MultiGraph]:
    "A rough town, and a proposal that lacks some of its roads."
    rng = np.random.default_rng(0)
    at = {
        (i, j): (100 * i, 100 * j) + rng.normal(0, 10, 2) for i in range(side) for j in range(side)
    }
    names = {n: k for k, n in enumerate(at)}
    g = road_graph(
        {names[n]: xy for n, xy in at.items()},
        [(names[a], names[b]) for a, b in nx.grid_2d_graph(side, side).edges],
    )
    less, edges = g.copy(), list(g.edges(keys=True))
    less.remove_edges_from([edges[k] for k in rng.choice(len(edges), missing, replace=False)])
    return g, less


# toys by hand ------------------------------------------------------------------------------------


def test_a_straight_road_with_a_gap():
    truth = road_graph({1: (0, 0), 2: (100, 0), 3: (200, 0)}, [(1, 2), (2, 3)])
    gap = road_graph({1: (0, 0), 2: (100, 0), 4: (140, 0), 3: (200, 0)}, [(1, 2), (4, 3)])
    # from 1: holes at 0, 100, 30, 60, 90; all filled, for 3 is 200 m away
    # from 2: holes at 0, 100, 200, 70, 40, 10, 130, 160, 190; marbles at 0, 100, 70, 40, 10
    # from 3: holes at 100, 200, 170, 140, 110; marbles at 200, 140, 170
    for protocol in ("cosmiq", "spacenet"):
        r = topo(truth, gap, protocol=protocol)
        assert counts(r) == (5 + 5 + 3, 0, 0 + 4 + 2) and (r.precision, r.recall, r.f1) == (
            1,
            13 / 19,
            26 / 32,
        )
    assert shortest_path_score(truth, gap) == 2 / 6  # 1-2 and back


def test_a_parallel_road():
    truth = road_graph({1: (0, 0), 2: (100, 0)}, [(1, 2)])
    near, far = (road_graph({1: (0, y), 2: (100, y)}, [(1, 2)]) for y in (3, 5))
    for protocol in ("cosmiq", "spacenet"):
        assert counts(topo(truth, near, protocol=protocol)) == (10, 0, 0)
        assert counts(topo(truth, far, protocol=protocol)) == (0, 0, 10)
        assert counts(topo(truth, far, hole_size=6, protocol=protocol)) == (10, 0, 0)
    assert (
        shortest_path_score(truth, near) == shortest_path_score(truth, far, snap=6) == 1
        and shortest_path_score(truth, far) == 0
    )


def test_a_missing_branch():
    nodes = {1: (0, 0), 2: (100, 0), 3: (200, 0), 4: (100, 60)}
    truth, without = (
        road_graph(nodes, [(1, 2), (2, 3), (2, 4)]),
        road_graph({n: nodes[n] for n in (1, 2, 3)}, [(1, 2), (2, 3)]),
    )
    # 1 and 3 see 5 marks on their road, the branch's end and its one mark; 2 and 4 see 4 nodes,
    # 3 + 3 + 1 marks; near 4 the proposal has no node
    for protocol in ("cosmiq", "spacenet"):
        assert counts(topo(truth, without, protocol=protocol)) == (5 + 9 + 5, 0, 2 + 2 + 2 + 11)
    assert counts(topo(without, truth)) == (5 + 9 + 5, 2 + 2 + 2, 0)
    assert (
        shortest_path_score(truth, without) == 6 / 12 and shortest_path_score(without, truth) == 1
    )


def test_parameters():
    road = road_graph({1: (0, 0), 2: (100, 0)}, [(1, 2)])
    assert [counts(topo(road, road, interval=s))[0] for s in (10, 25, 99, 100, 500)] == [
        22,
        10,
        6,
        4,
        4,
    ]
    assert counts(topo(road, road, radius=99))[0] == 2
    longer = road_graph({1: (0, 0), 2: (100, 0)}, [])
    longer.add_edge(1, 2, geometry=shapely.LineString([(0, 0), (50, 17), (100, 0)]))
    assert (
        shortest_path_score(road, longer) == 0
        and shortest_path_score(road, longer, tolerance=0.06) == 1
    )


def test_a_route_of_no_length():
    stacked = road_graph({1: (0, 0), 2: (0, 0), 3: (50, 0)}, [(1, 2), (2, 3)])
    one = road_graph({1: (0, 0), 3: (50, 0)}, [(1, 3)])
    assert shortest_path_score(stacked, one) == 1
    apart = road_graph({1: (0, 0), 2: (3, 0)}, [(1, 2)])
    assert shortest_path_score(apart, road_graph({1: (0, 0)}, []), tolerance=5) == 0, (
        "both ends at one node is no route"
    )


# a plain implementation --------------------------------------------------------------------------


@st.composite
def graphs(draw, distinct: bool = False):
    """Bends, parallels, rings, detached parts on a 10 m lattice, so that ties happen; ids out of
    order, geometries drawn either way."""
    spot = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(
        lambda p: (500_000 + 10 * p[0], 4_000_000 + 10 * p[1])
    )
    n = draw(st.integers(2, 9))
    ids = draw(
        st.lists(
            st.one_of(st.integers(0, 12), st.integers(0, 10**6)),
            min_size=n,
            max_size=n,
            unique=True,
        )
    )
    nodes = dict(
        zip(ids, draw(st.lists(spot, min_size=n, max_size=n, unique=distinct)), strict=True)
    )
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(ids),
                st.sampled_from(ids),
                st.lists(spot, max_size=2),
                st.booleans(),
            ),
            min_size=1,
            max_size=14,
        )
    )
    g = road_graph(nodes, [(u, v, inner) for u, v, inner, _ in rows if u != v or inner])
    for (*_, d), back in zip(
        g.edges(data=True), (back for u, v, inner, back in rows if u != v or inner), strict=True
    ):
        if back:
            d["geometry"] = d["geometry"].reverse()
    return g


@pytest.fixture(scope="module")
def plain() -> dict:
    with pytest.MonkeyPatch.context() as m:
        m.syspath_prepend(str(BENCHMARKS))
        return runpy.run_path(str(BENCHMARKS / "topo.py"))


@settings(max_examples=100)
@given(truth=graphs(), proposal=graphs())
def test_counts_are_those_of_networkx_subgraphs(plain, truth, proposal):
    for interval in (30, 7):
        assert counts(topo(truth, proposal, interval=interval)) == plain["plain_topo"](
            truth, proposal, interval=interval
        )
    assert counts(topo(truth, truth)) == plain["plain_topo"](truth, truth)


@few
@given(truth=graphs(distinct=True), proposal=graphs(distinct=True))
def test_routes_are_those_of_networkx(plain, truth, proposal):
    ours = shortest_paths(truth, proposal)
    if ours.counted:
        assert ours.score == pytest.approx(plain["plain_sp"](truth, proposal))
    else:
        assert math.isnan(ours.score)


def test_a_town_as_networkx_has_it(plain):
    g, less = grid(6)
    assert counts(topo(g, less)) == plain["plain_topo"](g, less)
    assert shortest_path_score(g, less) == pytest.approx(plain["plain_sp"](g, less))


# invariances -------------------------------------------------------------------------------------


def renamed(g: nx.MultiGraph, random) -> nx.MultiGraph:
    "Other ids, another order, the other direction."
    names, out = list(g), nx.MultiGraph(crs=CRS)
    random.shuffle(names)
    for k, n in enumerate(names):
        out.add_node(f"n{k}", **g.nodes[n])
    edges = list(g.edges(data=True))
    random.shuffle(edges)
    for u, v, d in edges:
        out.add_edge(
            f"n{names.index(v)}", f"n{names.index(u)}", **d | {"geometry": d["geometry"].reverse()}
        )
    return out


@few
@given(graphs(), graphs(), st.randoms(use_true_random=False))
def test_the_fair_protocol_knows_neither_names_nor_order(a, b, random):
    assert topo(a, b, protocol="spacenet") == topo(
        renamed(a, random), renamed(b, random), protocol="spacenet"
    )


@few
@given(graphs(distinct=True), graphs(distinct=True), st.randoms(use_true_random=False))
def test_routes_know_neither_names_nor_order(a, b, random):
    one, other = shortest_paths(a, b), shortest_paths(renamed(a, random), renamed(b, random))
    assert (one.matches, one.counted) == (other.matches, other.counted)


@few
@given(graphs(), graphs(), st.tuples(st.integers(-9999, 9999), st.integers(-9999, 9999)))
def test_translation(a, b, shift):
    def moved(g):
        g = g.copy()
        for _, d in g.nodes(data=True):
            d["x"] += shift[0]
            d["y"] += shift[1]
        for *_, d in g.edges(data=True):
            d["geometry"] = shapely.transform(d["geometry"], lambda xy: xy + shift)
        return g

    assert topo(a, b, protocol="spacenet") == topo(moved(a), moved(b), protocol="spacenet")
    one, other = shortest_paths(a, b), shortest_paths(moved(a), moved(b))
    assert (one.matches, one.counted) == (other.matches, other.counted)


@few
@given(graphs())
def test_a_graph_against_itself(g):
    r = topo(g, g, protocol="spacenet")
    assert (r.precision, r.recall, r.f1, r.fp, r.fn) == (1, 1, 1, 0, 0)


@few
@given(graphs(distinct=True))
def test_a_graph_against_itself_where_no_nodes_meet(g):
    r = shortest_paths(g, g)
    assert r.matches == r.counted and topo(g, g).f1 == 1


@few
@given(graphs(), graphs())
def test_the_counts_fit_together(a, b):
    for protocol in ("cosmiq", "spacenet"):
        r, back = topo(a, b, protocol=protocol), topo(a, a, protocol=protocol)
        assert min(counts(r)) >= 0 and r.tp + r.fn == back.tp + back.fn, (
            "holes depend on the truth alone"
        )
        assert all(0 <= v <= 1 for v in (r.precision, r.recall, r.f1)) and r.origins == len(a)


def test_the_original_depends_on_order_and_the_fair_protocol_does_not():
    truth = road_graph({1: (0, 0), 2: (5, 0)}, [(1, 2)])
    for order, hits in (((2, -2), 2), ((-2, 2), 4)):
        marbles = road_graph({k: (x, 0) for k, x in enumerate(order)}, [(0, 1)])
        assert topo(truth, marbles).tp == hits and topo(truth, marbles, protocol="spacenet").tp == 4


def test_names_that_are_no_numbers_count_in_their_order():
    g, less = grid()

    def numbered(g, name):
        return nx.relabel_nodes(g, {n: name(k) for k, n in enumerate(g)})

    assert topo(*(numbered(x, lambda k: f"node {k}") for x in (g, less))) == topo(
        *(numbered(x, lambda k: k) for x in (g, less))
    )


def test_the_graphs_are_left_as_they_are():
    g, less = grid(4, 4)
    before = [(g.nodes(data=True), list(g.edges(keys=True, data=True))), less.copy()]
    topo(g, less)
    shortest_path_score(g, less)
    assert list(g.edges(keys=True, data=True)) == before[0][1] and nx.utils.graphs_equal(
        less, before[1]
    )


def test_directed_graphs_and_missing_geometry():
    g, less = grid()
    directed = nx.MultiDiGraph(less)
    for u, v, k in list(directed.edges(keys=True)):
        if u > v:
            directed.edges[u, v, k]["geometry"] = directed.edges[u, v, k]["geometry"].reverse()
    bare = less.copy()
    for *_, d in bare.edges(data=True):
        del d["geometry"], d["length"]
    for other in (directed, bare, nx.Graph(less)):
        for protocol in ("cosmiq", "spacenet"):
            assert topo(g, other, protocol=protocol) == topo(g, less, protocol=protocol)
        assert shortest_path_score(g, other) == shortest_path_score(g, less)


# draws -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["cosmiq", "spacenet"])
def test_drawn_origins_estimate_the_whole(protocol):
    g, less = grid(12, 40)
    g.remove_edges_from(list(g.edges(keys=True))[::7])  # so that there are false positives, too
    whole = topo(g, less, protocol=protocol)
    tries = [topo(g, less, origins=60, seed=s, protocol=protocol) for s in range(40)]
    assert (
        whole.origins == 144 and {t.origins for t in tries} == {60} and whole.f1_standard_error == 0
    )
    for name in ("precision", "recall", "f1"):
        off = np.array([getattr(t, name) - getattr(whole, name) for t in tries])
        stated = np.array([getattr(t, f"{name}_standard_error") for t in tries])
        assert abs(off.mean()) < 0.01 and 0.7 < off.std() / stated.mean() < 1.4, (
            "errors are as large as they are said to be"
        )
    assert tries[3] == topo(g, less, origins=60, seed=3, protocol=protocol) != tries[4]


def test_at_most_as_many_origins_as_nodes():
    g, less = grid(4, 4)
    assert topo(g, less, origins=1000, seed=5) == topo(g, less, origins=16, seed=5)
    one = topo(g, less, origins=1)
    assert one.origins == 1 and math.isnan(one.f1_standard_error)


def test_drawn_routes_estimate_the_whole():
    g, less = grid(8, 30)
    whole = shortest_paths(g, less)
    tries = [shortest_paths(g, less, routes=200, seed=s) for s in range(40)]
    off = np.array([t.score - whole.score for t in tries])
    assert (
        whole.counted == 64 * 63
        and whole.standard_error == 0
        and {t.counted for t in tries} == {200}
    )
    assert (
        abs(off.mean()) < 0.02
        and 0.7 < off.std() / np.mean([t.standard_error for t in tries]) < 1.4
    )
    assert tries[3] == shortest_paths(g, less, routes=200, seed=3) != tries[4]
    assert math.isnan(shortest_paths(g, less, routes=1).standard_error)


@pytest.fixture(scope="module")
def samples(reference) -> dict[str, tuple]:
    "The original's sample pairs: truth, proposal, and its TOPO and SP."
    cases = read_json(reference / "apls/cosmiq_cases.json")["cases"]
    return {
        name: (graph_of(cases[name]["truth"]), graph_of(cases[name]["proposal"]), stored)
        for name, stored in read_json(reference / "apls/topo_sp.json")["cases"].items()
    }


def test_draws_are_the_originals(samples):
    for name, (truth, proposal, stored) in samples.items():
        for seed in range(3):
            expected, sp = stored[f"topo_seed{seed}"], stored[f"sp_seed{seed}"]
            assert counts(topo(truth, proposal, origins=1000, seed=seed)) == tuple(
                expected[k] for k in ("tp", "fp", "fn")
            ), (name, seed)
            r = shortest_paths(truth, proposal, routes=1000, seed=seed)
            assert (r.score, r.counted) == (sp["sp"], sp["n_counted"]), (name, seed)


def test_real_graphs_under_other_names(samples):
    chance = random.Random(0)
    for truth, proposal, _ in samples.values():
        one, other = (
            topo(truth, proposal, protocol="spacenet"),
            topo(renamed(truth, chance), renamed(proposal, chance), protocol="spacenet"),
        )
        assert one == other and abs(one.f1 - topo(truth, proposal).f1) < 0.02
        assert shortest_path_score(truth, proposal) == shortest_path_score(
            renamed(truth, chance), renamed(proposal, chance)
        )


# large graphs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 200, 1000])
def test_blocks_are_the_whole(monkeypatch, block):
    g, less = grid()
    whole = [shortest_paths(g, less, routes=r, seed=2) for r in (None, 50)]
    monkeypatch.setattr(module, "BLOCK", block)
    sizes, ours = [], module.dijkstra

    def watched(*a, **k):
        sizes.append(len(k["indices"]))
        return ours(*a, **k)

    monkeypatch.setattr(module, "dijkstra", watched)
    assert [shortest_paths(g, less, routes=r, seed=2) for r in (None, 50)] == whole
    assert max(sizes) <= max(1, block // 64) and len(sizes) > 2


def test_only_sources_of_drawn_routes_are_searched(monkeypatch):
    g, less = grid()
    searched, ours = [], module.dijkstra

    def watched(*a, **k):
        searched.extend(k["indices"].tolist())
        return ours(*a, **k)

    monkeypatch.setattr(module, "dijkstra", watched)
    shortest_paths(g, less, routes=5)
    assert 0 < len(searched) <= 2 * 5


# the ends of the scale, bad input ----------------------------------------------------------------


def test_empty_graphs():
    nothing, lonely, road = (
        road_graph({}, []),
        road_graph({0: (0, 0)}, []),
        road_graph({1: (0, 0), 2: (100, 0)}, [(1, 2)]),
    )
    for protocol in ("cosmiq", "spacenet"):
        for a in (nothing, road):
            assert topo(nothing, a, protocol=protocol) == Topo(0, 0, 0, 0, 0, 0)
        assert topo(lonely, lonely, protocol=protocol) == Topo(1, 1, 1, 1, 0, 0)
        assert topo(lonely, road, protocol=protocol) == Topo(1 / 5, 1, 1 / 3, 1, 4, 0)
    assert topo(road, nothing) == Topo(0, 0, 0, 0, 0, 0) and topo(
        road, nothing, protocol="spacenet"
    ) == Topo(0, 0, 0, 0, 0, 10)
    assert (
        shortest_path_score(road, nothing)
        == shortest_path_score(nothing, nothing)
        == shortest_path_score(road, lonely)
        == 0
    )
    for a in (nothing, lonely):
        assert math.isnan(shortest_path_score(a, road))
    two = road_graph({1: (0, 0), 2: (100, 0)}, [])
    for routes in (None, 9):
        r = shortest_paths(two, two, routes=routes)
        assert (r.matches, r.counted) == (0, 0) and math.isnan(r.score)
    assert shortest_path_score(two, road) == 0, "a route that only the proposal has counts"


def test_equal_where_the_six_are():
    assert (
        Topo(1.0, 0.5, 2 / 3, 1, 0, 1)
        == Topo(1.0, 0.5, 2 / 3, 1, 0, 1, origins=7, f1_standard_error=0.1)
        != Topo(1.0, 0.5, 2 / 3, 1, 1, 1)
    )


@pytest.mark.parametrize("judge", [topo, shortest_path_score])
def test_bad_graphs(judge):
    good = road_graph({1: (0, 0), 2: (100, 0)}, [(1, 2)])

    def spoiled(change):
        g = good.copy()
        change(g)
        return g

    with pytest.raises(GraphError, match="proposal.*EPSG:32612.*truth.*EPSG:32611"):
        judge(good, spoiled(lambda g: g.graph.update(crs="EPSG:32612")))
    for crs, word in ((None, "no crs"), ("EPSG:4326", "geographic"), ("nonsense", "not known")):
        with pytest.raises(GraphError, match=f"truth.*{word}"):
            judge(spoiled(lambda g, crs=crs: g.graph.update(crs=crs)), good)
    for change, word in [
        (lambda g: g.nodes[2].update(x=math.nan), "node 2"),
        (lambda g: g.nodes[2].pop("y"), "x and y"),
        (
            lambda g: g.edges[1, 2, 0].update(geometry=shapely.LineString([(0, 0), (math.inf, 0)])),
            r"\(1, 2, 0\)",
        ),
        (lambda g: g.edges[1, 2, 0].update(geometry=shapely.Point(0, 0)), r"\(1, 2, 0\)"),
        *(
            (lambda g, v=v: g.edges[1, 2, 0].update(length=v), r"length.*\(1, 2, 0\)")
            for v in (math.nan, -1, math.inf, "long", [1, 2])
        ),
    ]:
        with pytest.raises(GraphError, match=f"proposal.*{word}"):
            judge(good, spoiled(change))


@pytest.mark.parametrize(
    "judge, name, values",
    [
        (topo, "radius", [0, -1, math.nan, math.inf]),
        (topo, "interval", [0, -30, math.nan]),
        (topo, "hole_size", [0, -4]),
        (topo, "origins", [0, -3, 1.5]),
        (topo, "protocol", ["apls", None]),
        (shortest_path_score, "snap", [-1, math.nan]),
        (shortest_path_score, "tolerance", [-0.1, math.nan]),
        (shortest_path_score, "routes", [0, -1, 2.5]),
    ],
)
def test_bad_options_are_named(judge, name, values):
    road = road_graph({1: (0, 0), 2: (100, 0)}, [(1, 2)])
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} "):
            judge(road, road, **{name: value})
    with pytest.raises(TypeError):
        judge(road, road, 150)
