"""How fast the City-Scale papers' APLS is: beside a plain networkx version in the same minute, and
27 images of City-Scale's size, the set's test split, with APLS and TOPO and reading.

    python benchmarks/sat2graph.py
    python benchmarks/sat2graph.py --images 27

The yardstick follows the same rules with networkx's graphs and Dijkstra and a k-d tree, as one
would write it on a free afternoon; where no neighbours are equally near it must give the same
score. The pairs are the reference cases (`--cases`); the images of `--images` are the reference
cases' one region of 2 km and its proposal, written as so many files and scored as `spacenet5
leaderboard` does, reading included. The Go program needs 0.4 to 3 s for a small pair and about
90 s for the region, measured elsewhere.
"""

import argparse
import json
import math
import os
import resource
import tempfile
import time
from pathlib import Path

import networkx as nx
import numpy as np
from scipy.spatial import cKDTree

from spacenet5_nb.acquire.pickled_graphs import write_pixel_graph
from spacenet5_nb.judge.leaderboard import leaderboard
from spacenet5_nb.judge.sat2graph_apls import (
    CANDIDATES,
    REACH_M,
    VARIANTS,
    apls_sat2graph,
    degrees_of,
    is_inside,
    metres_between,
)

# the yardstick -----------------------------------------------------------------------------------


def far(a, b):
    return float(metres_between(np.array(a), np.array(b)))


def densify(graph):
    "Hops as a networkx graph; nodes numbered as they come."
    places, g, number = degrees_of(np.array(graph[0], float).reshape(-1, 2)), nx.DiGraph(), {}

    def node(at):
        key = f"{at[0]:.7f}_{at[1]:.7f}"
        if key not in number:
            number[key] = len(number)
            g.add_node(number[key], at=tuple(at))
        return number[key]

    for a, b in graph[1]:
        p, q = places[a], places[b]
        d = far(p, q)
        n = int(d / 2) + 1 if d > 3 else 1
        path = [
            node(p if k == 0 else q if k == n else p * (1 - k / n) + q * (k / n))
            for k in range(n + 1)
        ]
        for u, v in zip(path[:-1], path[1:], strict=True):
            for x, y in ((u, v), (v, u)):
                g.add_edge(x, y, cm=int(far(g.nodes[x]["at"], g.nodes[y]["at"]) * 100))
    return g


def around(g, node, hops):
    return set(nx.single_source_shortest_path_length(g, node, hops)) if node in g else {node}


def control_points(a, b, v):
    "Ascending control points."
    covered, cells, visited, out = set(), set(), set(), []
    inside = is_inside(np.array([a.nodes[n]["at"] for n in a]).reshape(-1, 2), v)

    def offer(n, is_end=False):
        cell = tuple(int(x * 111111.0 / 2) for x in a.nodes[n]["at"])
        if inside[n] and (is_end or n not in covered) and cell not in cells:
            cells.add(cell)
            out.append(n)
            covered.update(around(b, n, 4) | {n})

    for n in sorted(a):
        near = sorted(a[n])
        if len(near) == 2:
            continue
        for m in near:
            if m in visited:
                continue
            chain = [n, m]
            while len(a[chain[-1]]) == 2:
                chain.append(sum(a[chain[-1]]) - chain[-2])
            parts = int(len(chain) / v.hops) + 1 if len(chain) > v.long_chain else 1
            for i in range(1, parts):
                offer(chain[int(len(chain) * i / parts)])
            visited.update(chain)
        offer(n, len(near) == 1)
    return sorted(out)


def one_way(a, b, v):
    "Score of a's routes in b."
    points, taken, found = control_points(a, b, v), set(), {}
    at = np.array([b.nodes[n]["at"] for n in sorted(b)]).reshape(-1, 2)
    tree = cKDTree(at) if len(at) else None
    for p in points if tree else ():
        place = a.nodes[p]["at"]
        for c in np.atleast_1d(tree.query(place, min(CANDIDATES, len(at)))[1]).tolist():
            if c not in taken and far(at[c], place) < REACH_M:
                found[p] = c
                taken |= around(b, c, v.free_hops)
                break
    here = {p: nx.single_source_dijkstra_path_length(a, p, weight="cm") for p in found}
    there = {p: nx.single_source_dijkstra_path_length(b, q, weight="cm") for p, q in found.items()}
    cost = []
    for i, p in enumerate(points):
        for q in points[i + 1 :]:
            if p not in found or q not in found:
                cost.append(1.0)
            elif (d := here[p].get(q, -100) / 100) > v.min_path_m:
                cost.append(min(1.0, abs(d - there[p].get(found[q], 0) / 100) / d))
    return 1 - sum(cost) / len(cost) if cost else math.nan


def plain(truth, proposal, variant):
    t, p, v = densify(truth), densify(proposal), VARIANTS[variant]
    return (one_way(t, p, v) + one_way(p, t, v)) / 2


# the measurements --------------------------------------------------------------------------------


def seconds(f, *arguments, **options):
    start = time.perf_counter()
    out = f(*arguments, **options)
    return time.perf_counter() - start, out


def processor():
    "Seconds of processors that this program and its ended processes have used."
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(r.ru_utime + r.ru_stime for r in map(resource.getrusage, kinds))


def compare(cases, names):
    "Seconds of both on the same pairs, one after the other."
    print(f"{'pair':38}{'variant':16}{'plain s':>9}{'here s':>9}{'ratio':>8}   score, difference")
    ratios = []
    for name in names:
        pair = [(cases[name][s]["nodes"], cases[name][s]["edges"]) for s in ("gt", "prop")]
        variant = next(
            iter(v for v in ("small_samroad", "default_2048") if v in cases[name]["apls"])
        )
        slow, theirs = seconds(plain, *pair, variant)
        fast, ours = min(seconds(apls_sat2graph, *pair, variant=variant) for _ in range(3))
        ratios.append(slow / fast)
        gap = abs(ours.score - theirs)
        print(
            f"{name:38}{variant:16}{slow:9.2f}{fast:9.4f}{slow / fast:8.0f}   "
            f"{ours.score:.4f}, {gap:.1e}",
            flush=True,
        )
    print(f"ratio, median: {np.median(ratios):.0f}")


def whole_set(case, n, workers):
    "So many images of the region's size, from files to the table."
    with tempfile.TemporaryDirectory() as d:
        for side, folder in (("gt", "truth"), ("prop", "mine")):
            for k in range(n):
                write_pixel_graph((case[side]["nodes"], case[side]["edges"]), f"{d}/{folder}/{k}.p")
        told, before = dict(kind="city-scale", workers=workers), processor()
        took, board = seconds(leaderboard, f"{d}/truth", f"{d}/mine", **told)
    used = processor() - before
    print(f"{n} images of 2 km, {workers} processes, files to table: {took:.1f} s", end="")
    print(f", {used:.1f} s of processors")
    print({k: round(v, 6) for k, v in board.means.items()}, f"load {os.getloadavg()[0]:.1f}")


def main():
    shared = Path(os.environ.get("SPACENET5_SHARED") or Path(__file__).parents[1] / "../shared")
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ask.add_argument("--cases", type=Path, default=shared / "reference/sat2graph/cases.json")
    ask.add_argument("--images", type=int, default=0, help="score so many images of 2 km instead")
    ask.add_argument("--workers", type=int, default=2)
    ask.add_argument("--city", action="store_true", help="the plain version on the region, too")
    a = ask.parse_args()
    cases = {c["name"]: c for c in json.loads(a.cases.read_text())}
    region = "city_original_pickle_order"
    if a.images:
        return whole_set(cases[region], a.images, a.workers)
    small = ["gt_gt__img0__float", "mix__img0__float", "jit6__img990__float", "grid_shift4"]
    compare(cases, [*small, region] if a.city else small)


if __name__ == "__main__":
    main()
