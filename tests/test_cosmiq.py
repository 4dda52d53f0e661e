"""CosmiQ's protocol: points put in all at once against the same points put in one by one, on
graphs made to be awkward."""

import networkx as nx
import numpy as np
import pytest
import shapely

from spacenet5_nb.judge import cosmiq
from spacenet5_nb.judge.control_points import MANY_NODES, insert_slowly, net_of


def graph_of(
    xy: np.ndarray, edges: list[tuple[int, int, shapely.LineString | None]], first: int = 0
) -> nx.MultiGraph:
    g = nx.MultiGraph(crs="EPSG:32611")
    for i, (x, y) in enumerate(xy.tolist()):
        g.add_node(first + i, x=x, y=y)
    for k, (u, v, line) in enumerate(edges):
        line = line or shapely.LineString([xy[u], xy[v]])
        g.add_edge(
            first + u, first + v, geometry=line, length=line.length, speed_kph=30.0 + 7 * (k % 5)
        )
    return g


def awkward(rng: np.random.Generator, n: int = 14) -> tuple[nx.MultiGraph, nx.MultiGraph]:
    """A lattice with exact ties, roads drawn twice, rings, stubs, bends, crossings and lone nodes;
    and a copy that is moved, torn and renumbered."""
    xy = rng.choice(np.arange(0, 401, 40.0), (n, 2)) + rng.choice([0, 0, 0.5, 3.0], (n, 2))
    pairs = rng.integers(0, n, (int(1.7 * n), 2)).tolist()
    edges = []
    for u, v in pairs:
        bend = rng.choice(np.arange(0, 401, 20.0), (rng.integers(0, 3) + 2 * (u == v), 2))
        line = shapely.LineString([xy[u], *bend, xy[v]])
        if line.length > 0:
            edges.append((u, v, line))
    edges += [
        (u, v, shapely.reverse(line) if rng.random() < 0.5 else line)
        for u, v, line in edges
        if rng.random() < 0.2
    ]
    moved = xy + rng.choice([0.0, 0.0, 1e-9, 2.0], (n, 2)) * rng.choice([-1, 1], (n, 2))
    kept = [e for e in edges if rng.random() < 0.85]
    other = [
        (u, v, shapely.LineString([moved[u], *shapely.get_coordinates(line)[1:-1], moved[v]]))
        for u, v, line in kept
    ]
    other = [e for e in other if e[2].length > 0]
    return graph_of(xy, edges), graph_of(moved, other, first=int(rng.choice([0, 3, 500])))


def slowly(monkeypatch) -> None:
    "Let the score put in every point by itself."

    def along(net, on, at, label, limit):
        xy = shapely.get_coordinates(
            shapely.line_interpolate_point(np.array(net.lines, dtype=object)[on], at)
        ).tolist()
        return insert_slowly(
            net, [(label + k, *p) for k, p in enumerate(xy)], limit, True, everywhere=True
        )

    monkeypatch.setattr(cosmiq, "insert_along", along)
    monkeypatch.setattr(cosmiq, "insert_all", insert_slowly)


@pytest.mark.parametrize("seed", range(40))
def test_all_at_once_is_one_by_one(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    truth, proposal = awkward(rng)
    options = dict(
        midpoint_spacing=float(rng.choice([17.0, 40.0, 50.0])),
        snap=float(rng.choice([2.0, 4.0])),
        min_path_length=float(rng.choice([0.001, 10.0])),
    )
    quick = {
        w: cosmiq.score(truth, proposal, weight=w, **options) for w in ("length", "travel_time")
    }
    slowly(monkeypatch)
    for w, (a, b, total) in quick.items():
        x, y, expected = cosmiq.score(truth, proposal, weight=w, **options)
        assert (a.points, a.missing_points, b.points, b.missing_points) == (
            x.points,
            x.missing_points,
            y.points,
            y.missing_points,
        )
        assert (a.score, b.score, total) == pytest.approx((x.score, y.score, expected), abs=1e-9)


def test_midpoints_of_large_graphs_look_at_all_edges():
    """Control points of large graphs look only at edges near 20 nodes; midpoints, at every edge:
    lone nodes beside a long road hide it from the former alone."""
    road = [(0, 1, None)]
    alone = np.stack([np.linspace(100, 900, MANY_NODES), np.full(MANY_NODES, 1.0)], 1)
    net = net_of(
        graph_of(np.concatenate([[[0.0, 0.0], [1000.0, 0.0]], alone]), road), "truth", "length"
    )
    assert len(cosmiq.with_midpoints(net, 50.0, -1.0).edges()) == 20
    hidden = insert_slowly(net, [(5000, 500.0, 0.0)], 4.0, True)
    assert len(hidden.edges()) == 1 and 5000 not in hidden.index
