"""How fast the judge is: both protocols beside an all-pairs implementation in networkx, and beside
the original itself.

    python benchmarks/apls.py [--city]
    python benchmarks/apls.py --original [--every 8] [--python PYTHON]

The yardstick inserts every control point into a networkx graph and takes all pairs with networkx's
Dijkstra, as one would write it on a free afternoon. It runs on the same machine in the same minute.
`--original` installs the original (`apls` 0.1.0 of PyPI) into an environment that is thrown away,
or takes the one of --python, and scores each eighth stored chip with both: processor seconds, of
one run. `--city` scores a synthetic network of 100,000 edges with 500 sources instead.
"""

import argparse
import json
import resource
import subprocess
import tempfile
import time
import venv
from pathlib import Path

import networkx as nx
import numpy as np
import shapely
from road_graphs import SHARED, city, graph_of, seconds, stored
from scipy.sparse.csgraph import dijkstra
from shapely.ops import substring

from spacenet5_nb.apls import apls, apls_both, control_points
from spacenet5_nb.judge import cosmiq, routes
from spacenet5_nb.judge.routes import roads_of, snap_points

NEEDED = ["numpy", "scipy", "networkx", "shapely", "pandas", "matplotlib", "utm"]

# the yardstick -----------------------------------------------------------------------------------


def inserted(g: nx.MultiGraph, points: list, snap: float) -> nx.MultiGraph:
    """A copy of the graph with every point as a node of its own, by looking at every edge for
    every point.
    """
    g = g.copy()
    for i, p in enumerate(points):
        edges = list(g.edges(keys=True, data="geometry"))
        if not edges:
            return g
        d = [p.distance(line) for *_, line in edges]
        k = int(np.argmin(d))
        if d[k] > snap:
            continue
        u, v, key, line = edges[k]
        start = shapely.Point(line.coords[0])
        if start.distance(_place(g, v)) < start.distance(_place(g, u)):
            line = shapely.reverse(line)
        at, speed = line.project(p), g.edges[u, v, key]["speed_kph"]
        parts = substring(line, 0, at), substring(line, at, line.length)
        g.remove_edge(u, v, key)
        spot = line.interpolate(at)
        g.add_node(("cp", i), x=spot.x, y=spot.y)
        for end, part, length in ((u, parts[0], at), (v, parts[1], line.length - at)):
            part = part if part.geom_type == "LineString" else shapely.LineString([part, part])
            g.add_edge(end, ("cp", i), geometry=part, length=length, speed_kph=speed)
    return g


def _place(g: nx.MultiGraph, n) -> shapely.Point:
    return shapely.Point(g.nodes[n]["x"], g.nodes[n]["y"])


def yardstick(
    truth: nx.MultiGraph, proposal: nx.MultiGraph, snap: float = 4.0, shortest: float = 10.0
) -> float:
    "APLS by length, straightforwardly."
    both = []
    for a, b in ((truth, proposal), (proposal, truth)):
        points = [shapely.Point(xy) for xy in control_points(roads_of(a)).xy]
        names = [("cp", i) for i in range(len(points))]
        here, there = (
            dict(nx.all_pairs_dijkstra_path_length(inserted(g, points, s), weight="length"))
            for g, s in ((a, 1e-3), (b, snap))
        )
        costs = [
            1.0
            if t not in there.get(s, {})
            else min(1.0, abs(there[s][t] - here[s][t]) / here[s][t])
            for s in names
            for t in here.get(s, {})
            if t in names and s != t and here[s][t] >= shortest
        ]
        both.append(1 - float(np.mean(costs)) if costs else 0.0)
    return 2 * both[0] * both[1] / sum(both) if min(both) > 0 else 0.0


# tables ------------------------------------------------------------------------------------------


def old(t: nx.MultiGraph, p: nx.MultiGraph) -> float:
    return cosmiq.score(t, p, min_path_length=0.001)[2]


def floor(f, *args, **options) -> tuple[float, object]:
    "Processor seconds of the shortest-path calls within one score; and the score."
    spent = [0.0]

    def timed(*a, **k):
        start = time.process_time()
        try:
            return dijkstra(*a, **k)
        finally:
            spent[0] += time.process_time() - start

    routes.dijkstra = cosmiq.dijkstra = timed
    try:
        result = f(*args, **options)
    finally:
        routes.dijkstra = cosmiq.dijkstra = dijkstra
    return spent[0], result


def chips(cases: dict) -> None:
    rows = []
    for name, c in cases.items():
        if name.startswith("mosaic"):
            continue
        t, p = graph_of(c["truth"], 10.0), graph_of(c["proposal"], 10.0)
        rows.append(
            [
                seconds(apls, t, p),
                seconds(apls_both, t, p),
                seconds(old, t, p),
                min(floor(apls, t, p)[0] for _ in range(3)),
                min(floor(old, t, p)[0] for _ in range(3)),
                len(t),
            ]
        )
    rows = np.array(rows)
    print(
        f"{len(rows)} chips, {np.median(rows[:, 5]):.0f} truth nodes in the median; "
        "milliseconds, median (slowest)"
    )
    for k, what in (
        (0, "spacenet, length"),
        (1, "spacenet, length and time"),
        (2, "cosmiq, length"),
    ):
        print(f"  {what:28} {np.median(rows[:, k]) * 1e3:8.1f} ({rows[:, k].max() * 1e3:6.1f})")
    for k, what, own in ((3, "spacenet", 0), (4, "cosmiq", 2)):
        some = rows[rows[:, k] > 0]
        print(
            f"  {what + ', shortest paths alone':28} {np.median(some[:, k]) * 1e3:8.1f}; the "
            f"whole score is {np.median(some[:, own] / some[:, k]):.1f} times that floor"
        )


def beside_networkx(cases: dict) -> None:
    print("beside all pairs in networkx, same machine, length")
    for name in ("gt_gt__img99", "gt_gt__img991", "gt_gt__img990", "jit3__img0", "sn_osm__img991"):
        if name not in cases:
            continue
        t, p = graph_of(cases[name]["truth"], 10.0), graph_of(cases[name]["proposal"], 10.0)
        slow, value = seconds(yardstick, t, p, repeats=1), yardstick(t, p)
        fast, ours = seconds(apls, t, p), apls(t, p).score
        print(
            f"  {name:20} networkx {slow:6.2f} s ({value:.4f})   spacenet {fast * 1e3:6.1f} "
            f"ms ({ours:.4f})   {slow / fast:6.0f} x"
        )


def mosaic(cases: dict) -> None:
    c = cases["mosaic__gt_gt"]
    t, p = graph_of(c["truth"], 10.0), graph_of(c["proposal"], 10.0)
    n = len(control_points(roads_of(t)).edge)
    for what, f in (("spacenet", apls), ("spacenet, both weights", apls_both), ("cosmiq", old)):
        s, alone = seconds(f, t, p, repeats=2), floor(f, t, p)[0]
        print(
            f"mosaic, {n} control points a side, {what:24} {s:6.2f} s   "
            f"shortest paths alone {alone:.2f} s: {s / alone:.1f} times that"
        )


def whole_city(sources: int = 500) -> None:
    g, less = city()
    start = time.perf_counter()
    alone, r = floor(apls, g, less, sources=sources)
    took, memory = (
        time.perf_counter() - start,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )
    print(
        f"city: {g.number_of_edges()} edges, {r.truth_points} control points, {sources} "
        f"sources: {took:.1f} s, peak {memory:.2f} GB, "
        f"APLS {r.score:.4f} with a standard error of {r.standard_error:.4f}"
    )
    roads = roads_of(less)
    print(
        f"  of which the shortest paths {alone:.1f} s (the whole is {took / alone:.1f} times "
        "that), snapping "
        f"{seconds(snap_points, control_points(roads_of(g)).xy, roads, repeats=1):.1f} s"
    )


def environment(folder: Path) -> Path:
    "Python of a fresh environment with the original; its GDAL of 2019 cannot be installed."
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    for what in (["--no-deps", "apls==0.1.0"], NEEDED):
        subprocess.run([python, "-m", "pip", "install", "--quiet", *what], check=True)
    return python


def beside_original(cases: dict, every: int, python: str) -> None:
    "Processor seconds of the original and of ours on the same chips, in one run."
    names = [n for n in cases if not n.startswith("mosaic")][::every]
    with tempfile.TemporaryDirectory() as folder:
        python = python or str(environment(Path(folder)))
        program = Path(__file__).with_name("apls_original.py")
        command = [python, program, SHARED / "reference/apls/cosmiq_cases.json.gz", *names]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    theirs, ratios = json.loads(said.splitlines()[-1]), {"spacenet": [], "cosmiq": []}
    for name in names:
        t, p = graph_of(cases[name]["truth"], 10.0), graph_of(cases[name]["proposal"], 10.0)
        spent = theirs[name]["graphs_s"] + theirs[name]["score_s"]
        for what, f in (("spacenet", apls), ("cosmiq", old)):
            ratios[what].append(spent / seconds(f, t, p, repeats=5))
        print(
            f"  {name:20} original {spent:6.3f} s ({theirs[name]['score']:.4f})   "
            f"cosmiq {old(t, p):.4f}   spacenet {apls(t, p).score:.4f}"
        )
    for what, r in ratios.items():
        print(
            f"{what}: {np.median(r):.0f} times as fast as the original in the median of "
            f"{len(r)} chips ({min(r):.0f} to {max(r):.0f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--city", action="store_true", help="a network of 100,000 edges alone")
    parser.add_argument("--original", action="store_true", help="beside apls 0.1.0 of PyPI alone")
    parser.add_argument("--every", type=int, default=8, help="of the stored chips")
    parser.add_argument("--python", default="", help="of an environment that has the original")
    a = parser.parse_args()
    if a.city:
        return whole_city()
    cases = stored("cosmiq_cases.json.gz")["cases"]
    if a.original:
        return beside_original(cases, a.every, a.python)
    chips(cases)
    beside_networkx(cases)
    mosaic(cases)


if __name__ == "__main__":
    main()
