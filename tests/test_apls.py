"APLS: toys worked out by hand, invariances, properties, bad input."

import math

import networkx as nx
import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely import LineString
from shapely.affinity import translate

from spacenet5_nb.apls import apls, apls_both, score_folder, write_scores
from spacenet5_nb.core import DataError, GraphError
from spacenet5_nb.judge.routes import roads_of, snap_points

CRS = "EPSG:32611"
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def road_graph(nodes: dict, edges: list, crs=CRS) -> nx.MultiGraph:
    "Edges are (u, v, km/h) or (u, v, km/h, inner vertices)."
    g = nx.MultiGraph(crs=crs)
    for n, (x, y) in nodes.items():
        g.add_node(n, x=float(x), y=float(y))
    for u, v, kph, *inner in edges:
        line = LineString([nodes[u], *(inner[0] if inner else []), nodes[v]])
        g.add_edge(
            u,
            v,
            geometry=line,
            length=line.length,
            speed_kph=kph,
            travel_time=line.length / kph * 3.6,
        )
    return g


def straight(names: str, step: float = 100.0, kph: float = 36.0) -> nx.MultiGraph:
    return road_graph(
        {n: (i * step, 0) for i, n in enumerate(names)},
        [(a, b, kph) for a, b in zip(names, names[1:], strict=False)],
    )


# toys by hand ------------------------------------------------------------------------------------


def test_a_block_that_lacks_one_side():
    corners = dict(a=(0, 0), b=(100, 0), c=(100, 100), d=(0, 100))
    ring = road_graph(corners, [("a", "b", 36), ("b", "c", 36), ("c", "d", 36), ("d", "a", 36)])
    cut = road_graph(corners, [("a", "b", 36), ("b", "c", 36), ("c", "d", 36)])
    r = apls(ring, cut, midpoint_spacing=1000)
    assert (r.truth_points, r.truth_routes, r.truth_missing) == (4, 6, 0)
    # a-d: 100 m in the truth, 300 m in the proposal: min(1, 200/100) = 1; back 300 -> 100: 2/3
    assert [r.truth_to_proposal, r.proposal_to_truth, r.score] == pytest.approx(
        [5 / 6, 8 / 9, 80 / 93]
    )


def test_half_a_road_with_midpoints():
    r = apls(straight("abc"), straight("ab"))
    # control points at 0, 50, 100, 150, 200 m: 10 routes, of which the 3 among 0, 50, 100 exist
    assert (r.truth_points, r.truth_unsnapped, r.truth_routes, r.truth_missing) == (5, 2, 10, 7)
    assert [r.truth_to_proposal, r.proposal_to_truth, r.score] == pytest.approx([0.3, 1, 6 / 13])


def test_speeds_that_differ():
    length, time = apls_both(straight("ab", kph=36), straight("pq", kph=45))
    assert length.score == 1
    assert [time.truth_to_proposal, time.proposal_to_truth, time.score] == pytest.approx(
        [0.8, 0.75, 1.2 / 1.55]
    )


def test_a_split_road_keeps_its_own_speed():
    # a fast road a-b-c beside a slow one at b: midpoints of the fast road must not drive at the
    # slow one's speed
    nodes = dict(a=(0, 0), b=(100, 0), c=(200, 0), d=(100, 100))
    g = road_graph(nodes, [("b", "d", 10), ("a", "b", 100), ("b", "c", 100)])
    table = apls(g, g, weight="travel_time", explain=True).routes
    mids = table[
        (table.side == "truth") & (table.source == "a-b @ 50 m") & (table.target == "b-c @ 50 m")
    ]
    assert mids.truth.tolist() == pytest.approx([100 / (100 / 3.6)])


# the ends of the scale, odd graphs ---------------------------------------------------------------


def test_empty_cases():
    nothing, road = nx.MultiGraph(crs=CRS), straight("ab")
    lonely = nx.MultiGraph(crs=CRS)
    lonely.add_node(0, x=0.0, y=0.0)
    assert (
        apls(nothing, nothing).score
        == apls(lonely, nothing).score
        == apls(nothing, lonely, weight="travel_time").score
        == 1
    )
    for a, b in ((road, nothing), (nothing, road), (road, lonely)):
        assert apls(a, b).score == 0


def odd_graphs() -> dict[str, nx.MultiGraph]:
    loop = [(60, 0), (60, 60), (0, 60)]
    one = dict(a=(0, 0), b=(-90, 0))
    double = straight("ab")
    double.add_edge("a", "b", **double.edges["a", "b", 0] | {"speed_kph": 72.0})
    detached = road_graph(
        dict(a=(0, 0), b=(100, 0), p=(0, 0), q=(100, 0)), [("a", "b", 36), ("p", "q", 90)]
    )
    bridge = road_graph(
        dict(a=(-100, 0), b=(100, 0), c=(0, -100), d=(0, 100)), [("a", "b", 36), ("c", "d", 90)]
    )
    return {
        "ring with a stem": road_graph(one, [("a", "a", 36, loop), ("a", "b", 50)]),
        "pure ring": road_graph(dict(a=(0, 0)), [("a", "a", 36, loop)]),
        "parallel roads": road_graph(
            dict(a=(0, 0), b=(100, 0)), [("a", "b", 36), ("a", "b", 72, [(50, 40)])]
        ),
        "a road drawn twice": double,
        "two roads on each other": detached,
        "a bridge over the middle of a road": bridge,
        "a line that crosses itself": road_graph(
            dict(a=(0, 0), b=(50, -50)), [("a", "b", 36, [(100, 0), (100, 50), (50, 50)])]
        ),
        "a line that ends on itself": road_graph(
            dict(a=(0, 0), b=(50, 0)), [("a", "b", 36, [(100, 0), (100, 50), (50, 50)])]
        ),
        "zero-length road": road_graph(
            dict(a=(0, 0), b=(100, 0), z=(100, 0), c=(200, 0)),
            [("a", "b", 36), ("b", "z", 36), ("z", "c", 36)],
        ),
        "isolated node": (lambda g: (g.add_node("i", x=500.0, y=500.0), g)[1])(straight("abc")),
        "two parts": nx.union(
            straight("abc"), nx.relabel_nodes(straight("pqr", 70), {}), rename=("", "x")
        ),
        "a stub of 9 m": straight("ab", 9.0),
    }


@pytest.mark.parametrize("name", odd_graphs())
@pytest.mark.parametrize("weight", ["length", "travel_time"])
def test_a_graph_against_itself_is_exactly_one(name, weight):
    g = odd_graphs()[name]
    r = apls(g, g, weight=weight)
    assert (r.truth_to_proposal, r.proposal_to_truth, r.score) == (1, 1, 1) and r.truth_missing == 0


def test_rings_and_parallel_roads_survive():
    g = odd_graphs()["ring with a stem"]
    without = g.copy()
    without.remove_edge("a", "a")
    assert apls(g, without).score < 0.6
    g = odd_graphs()["parallel roads"]
    assert apls(g, g, explain=True).truth_points == 2 + 1 + 2  # 100 m and 128 m


def test_control_points_at_one_place_all_count():
    # two dead ends 3 m apart beside one dead end of the proposal: both land on it, none takes the
    # other's place
    truth = road_graph(
        dict(a=(0, 0), b=(100, 1.5), c=(100, -1.5)), [("a", "b", 36), ("a", "c", 36)]
    )
    r = apls(truth, straight("ab"), explain=True)
    assert r.truth_unsnapped == r.truth_missing == 0
    routes = r.routes.query("side == 'truth' and source == 'a'").set_index("target").cost
    assert routes["b"] < 0.01 and routes["c"] < 0.01


def test_min_path_length_is_metres_for_both_weights():
    g = straight(
        "abc", 40, kph=360
    )  # 40 m take 0.4 s: a threshold of ten *seconds* would leave nothing
    length, time = apls_both(g, g, min_path_length=50)
    assert (
        length.truth_routes
        == time.truth_routes
        == sum(b - a >= 50 for a in (0, 20, 40, 60, 80) for b in (0, 20, 40, 60, 80) if b > a)
    )


def test_snap_distance():
    truth = straight("ab")
    for y, expected in ((3.9, 1), (4.1, 0)):
        moved = road_graph(dict(a=(0, y), b=(100, y)), [("a", "b", 36)])
        assert apls(truth, moved).score == expected
    assert apls(truth, moved, snap=5).score == 1


# osmnx's graphs ----------------------------------------------------------------------------------


def test_directed_graphs_and_missing_geometry_and_crs_objects():
    import pyproj

    g = straight("abc")
    directed = nx.MultiDiGraph(g)
    directed.graph["crs"] = pyproj.CRS(CRS)
    for u, v, k in list(directed.edges(keys=True)):
        if (u, v) == ("b", "a"):
            directed.edges[u, v, k]["geometry"] = shapely.reverse(
                directed.edges[u, v, k]["geometry"]
            )
        else:
            del directed.edges[u, v, k]["geometry"]
    r = apls(g, directed, weight="travel_time")
    assert r.score == 1 and r.truth_points == r.proposal_points == 5


# invariances -------------------------------------------------------------------------------------


@st.composite
def graphs(draw):
    """Random roads: bends, parallels, self loops, isolated nodes, parts; coordinates on a 10 m
    lattice so that ties happen."""
    n = draw(st.integers(2, 7))
    spot = st.tuples(st.integers(0, 25), st.integers(0, 25)).map(
        lambda p: (500_000 + 10 * p[0], 4_000_000 + 10 * p[1])
    )
    nodes = {i: draw(spot) for i in range(n)}
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, n - 1),
                st.integers(0, n - 1),
                st.sampled_from([18, 36, 90]),
                st.lists(spot, max_size=3),
            ),
            min_size=1,
            max_size=9,
        )
    )
    return road_graph(nodes, [r for r in rows if r[0] != r[1] or r[3]])


def near(a, b) -> bool:
    return all(
        math.isclose(getattr(a, f), getattr(b, f), abs_tol=1e-7)
        for f in ("truth_to_proposal", "proposal_to_truth", "score")
    )


@few
@given(graphs(), graphs(), st.sampled_from(["length", "travel_time"]))
def test_symmetric_and_within_bounds(a, b, weight):
    there, back = apls(a, b, weight=weight), apls(b, a, weight=weight)
    assert there.score == back.score and there.truth_to_proposal == back.proposal_to_truth
    assert 0 <= there.score <= 1 and 0 <= there.truth_to_proposal <= 1


@few
@given(graphs(), st.sampled_from(["length", "travel_time"]))
def test_perfect_is_exactly_one_and_deleting_never_helps(g, weight):
    assert apls(g, g, weight=weight).score == 1
    for edge in list(g.edges(keys=True))[:3]:
        less = g.copy()
        less.remove_edge(*edge)
        assert apls(g, less, weight=weight).score <= 1


@few
@given(graphs(), graphs(), st.randoms(use_true_random=False))
def test_names_order_and_direction_do_not_matter(a, b, random):
    names = list(a)
    random.shuffle(names)
    other = nx.MultiGraph(crs=CRS)
    for n in names:
        other.add_node(f"n{names.index(n)}", **a.nodes[n])
    edges = list(a.edges(data=True))
    random.shuffle(edges)
    for u, v, d in edges:
        u, v, d = f"n{names.index(u)}", f"n{names.index(v)}", dict(d)
        if random.random() < 0.5:
            u, v = v, u
        if random.random() < 0.5:
            d["geometry"] = shapely.reverse(d["geometry"])
        other.add_edge(u, v, **d)
    for weight in ("length", "travel_time"):
        assert near(apls(a, b, weight=weight), apls(other, b, weight=weight)) and near(
            apls(b, a, weight=weight), apls(b, other, weight=weight)
        )


def test_at_just_the_snap_distance_rounding_does_not_decide():
    "Points 4 m beside slanted roads, which are drawn from either end: all have a place."
    for x in range(1, 40):
        way = np.array([3.0 * x, 41.0 - x])
        beside = way / 2 + 4 * np.array([-way[1], way[0]]) / np.hypot(*way)
        for line in ([(0, 0), tuple(way)], [tuple(way), (0, 0)]):
            g = nx.MultiGraph(crs=CRS)
            g.add_nodes_from(
                [(0, dict(x=line[0][0], y=line[0][1])), (1, dict(x=line[1][0], y=line[1][1]))]
            )
            g.add_edge(0, 1, geometry=shapely.LineString(line))
            assert len(snap_points(beside[None], roads_of(g), 4.0).owner) == 1, (x, line)


@few
@given(graphs(), graphs(), st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000)))
def test_translation_does_not_matter(a, b, shift):
    def moved(g):
        g = g.copy()
        for _, d in g.nodes(data=True):
            d["x"] += shift[0]
            d["y"] += shift[1]
        for *_, d in g.edges(data=True):
            d["geometry"] = translate(d["geometry"], *shift)
        return g

    assert near(apls(a, b), apls(moved(a), moved(b)))


def test_both_is_the_same_as_each():
    a, b = odd_graphs()["ring with a stem"], odd_graphs()["two parts"]
    assert apls_both(a, b) == (apls(a, b), apls(a, b, weight="travel_time"))


def test_sampled_sources_estimate_the_score():
    rng = np.random.default_rng(0)
    g = road_graph(
        {(i, j): (100 * i, 100 * j) for i in range(8) for j in range(8)},
        [
            ((i, j), (i + a, j + b), 36)
            for i in range(8)
            for j in range(8)
            for a, b in ((1, 0), (0, 1))
            if i + a < 8 and j + b < 8
        ],
    )
    less = g.copy()
    edges = list(g.edges(keys=True))
    less.remove_edges_from([edges[i] for i in rng.choice(len(edges), 15, replace=False)])
    full = apls(g, less)
    tries = [apls(g, less, sources=40, seed=s) for s in range(8)]
    assert full.standard_error == 0 and all(0 < t.standard_error < 0.05 for t in tries)
    assert abs(np.mean([t.score for t in tries]) - full.score) < 0.01
    assert tries[3] == apls(g, less, sources=40, seed=3)


# bad input ---------------------------------------------------------------------------------------


def test_different_crs_names_both():
    with pytest.raises(GraphError, match="EPSG:32612.*EPSG:32611"):
        apls(straight("ab"), road_graph(dict(a=(0, 0), b=(9, 9)), [("a", "b", 9)], "EPSG:32612"))


@pytest.mark.parametrize(
    "crs, word",
    [
        (None, "no crs"),
        ("EPSG:4326", "geographic"),
        ("EPSG:2263", "unit"),
        ("nonsense", "not known"),
    ],
)
def test_a_crs_without_metres_is_refused(crs, word):
    with pytest.raises(GraphError, match=f"proposal.*{word}"):
        apls(straight("ab"), road_graph(dict(a=(0, 0), b=(9, 9)), [("a", "b", 9)], crs))


def test_bad_coordinates_geometries_and_speeds():
    def spoiled(change):
        g = straight("abc")
        change(g)
        return g

    for change, word in [
        (lambda g: g.nodes["b"].update(x=math.nan), "node b"),
        (lambda g: g.nodes["b"].pop("y"), "x and y"),
        (
            lambda g: g.edges["a", "b", 0].update(geometry=LineString([(0, 0), (math.inf, 0)])),
            r"\('a', 'b', 0\)",
        ),
        (lambda g: g.edges["a", "b", 0].update(geometry=shapely.Point(0, 0)), r"\('a', 'b', 0\)"),
    ]:
        with pytest.raises(GraphError, match=word):
            apls(straight("abc"), spoiled(change))
    for speed in (0, -3, math.nan, "fast", [30, 50]):
        slow = spoiled(
            lambda g, speed=speed: (
                g.edges["b", "c", 0].update(speed_kph=speed),
                g.edges["b", "c", 0].pop("travel_time"),
            )
        )
        assert apls(straight("abc"), slow).score == 1
        with pytest.raises(GraphError, match=r"proposal.*\('b', 'c', 0\)"):
            apls(straight("abc"), slow, weight="travel_time")


@pytest.mark.parametrize(
    "options",
    [
        dict(weight="time"),
        dict(midpoint_spacing=0),
        dict(snap=-1),
        dict(min_path_length=-1),
        dict(protocol="x"),
        dict(explain=True, protocol="cosmiq"),
        dict(explain=True, sources=5),
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError):
        apls(straight("ab"), straight("ab"), **options)


def test_a_city_is_not_explained_whole(monkeypatch):
    from spacenet5_nb.judge import explanation as judge

    monkeypatch.setattr(judge, "EXPLAINED", 4)
    with pytest.raises(GraphError, match="5 control points"):
        apls(straight("abc"), straight("ab"), explain=True)


# many chips --------------------------------------------------------------------------------------


def test_a_folder_of_chips(tmp_path):
    from spacenet5_nb import graph

    for k in (1, 2):
        graph.write(straight("abc"), tmp_path / f"truth/AOI_7_Moscow_chip{k}.gpkg")
    graph.write(straight("abc"), tmp_path / "ours/AOI_7_Moscow_chip1.gpkg")
    done = score_folder(tmp_path / "truth", tmp_path / "ours")
    assert done.table.set_index("chip").apls_length.to_dict() == {
        "AOI_7_Moscow_chip1": 1,
        "AOI_7_Moscow_chip2": 0,
    }
    assert (
        done.summary["missing"] == ["AOI_7_Moscow_chip2"]
        and done.summary["cities"]["Moscow"]["apls_time"] == 0.5
    )
    graph.write(straight("abc"), tmp_path / "ours/AOI_7_Moscow_chip9.graphml")
    with pytest.raises(DataError, match="chip9"):
        score_folder(tmp_path / "truth", tmp_path / "ours")
    assert score_folder(
        tmp_path / "truth", tmp_path / "ours", extra="ignore", workers=2
    ).table.equals(done.table)


def test_cities_can_be_given():
    names = ["village_1", "village_2"]
    truth = {n: straight("abc") for n in names}
    loose = score_folder(truth, truth, trained_cities=["village"])
    assert loose.summary["trained_cities"] is None, "a name of its own says nothing about its city"
    known = score_folder(
        truth, truth, trained_cities=["village"], cities=dict.fromkeys(names, "village")
    )
    assert (
        known.table.trained_city.all()
        and known.table.city.unique().tolist() == ["village"]
        and known.summary["trained_cities"]["chips"] == 2
    )


def test_no_labelled_chip_is_a_table_without_rows(tmp_path):
    import json

    import pandas as pd

    none, one = score_folder({}, {}), score_folder({"a": straight("ab")}, {"a": straight("ab")})
    assert list(none.table) == list(one.table) and len(none.table) == 0
    assert (
        none.summary["cities"] == {}
        and none.summary["all"] is None is none.summary["trained_cities"]
        and none.summary["missing"] == []
    )
    write_scores(none, tmp_path / "scores.csv", tmp_path / "scores.json", members=[])
    assert (
        list(pd.read_csv(tmp_path / "scores.csv")) == list(one.table)
        and json.loads((tmp_path / "scores.json").read_text())["all"] is None
    )


def test_the_last_cells_of_the_stage_without_labels(tmp_path, monkeypatch, capsys):
    "Run as papermill would run them, for a run whose test chips have no labels."
    import matplotlib

    matplotlib.use("Agg")
    import json
    from pathlib import Path

    import pandas as pd

    from spacenet5_nb import core

    r = core.Run(
        "t", tmp_path, tmp_path, core.load_preset({"name": "t", "folds": [{"encoder": "e"}]}), 1
    )
    r.chips.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(
        dict(
            chip=["a", "b"],
            city="x",
            split=["train", "test"],
            label=["a.geojson", ""],
            image="a.tif",
        )
    ).to_parquet(r.chips)
    core.write_text(r.solution, "ImageId,WKT_Pix,length_m,travel_time_s\n")
    monkeypatch.setattr(core, "open_run", lambda *a: r)
    cells = json.loads((Path(__file__).parents[1] / "nbs/07_apls.ipynb").read_text())["cells"]
    code = [
        "".join(c["source"])
        for c in cells
        if c["cell_type"] == "code" and "".join(c["source"]).startswith("#| eval: false")
    ]
    space = {"run": "", "preset": "", "data_root": ""}
    exec(
        "from spacenet5_nb.apls import *\nimport pandas as pd\nfrom "
        "spacenet5_nb.judge.diagnosis import backdrop, plot_costs, plot_diagnosis",
        space,
    )
    for source in code:
        exec(compile(source, "07_apls", "exec"), space)
    assert (
        "No test chip has a label" in capsys.readouterr().out
        and len(pd.read_csv(r.scores_csv)) == 0
        and r.scores_json.is_file()
    )
