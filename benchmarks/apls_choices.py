"""What each choice of protocol="spacenet" is worth: the protocol written once more, plainly, with
every choice as a switch.

    python benchmarks/apls_choices.py [--cases N]

The judge here shares no code with `spacenet5_nb`: every control point becomes a node of a networkx
graph, every point is held against every segment, all pairs are taken. With all switches at our
choice it must equal `spacenet5_nb.apls.apls` on every stored case (asserted, to 1e-9). Then one
choice at a time is replaced by what CosmiQ's code does, and the change of the total score is
printed: by length and by travel time, over all cases that have roads' speeds (seven samples have
none). Choices that no stored case touches are shown on toys. At the end all choices are replaced at
once: the result is held against the original's stored scores, so that one sees that no choice is
missing from the table. Sampling is shown on the stored mosaic with a tenth of its edges deleted.
About three minutes on two slow cores.
"""

import argparse
import math
from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
import shapely
from road_graphs import graph_of, stored
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from spacenet5_nb.apls import apls

TOUCH, SAME, LARGE = 1e-6, 1e-9, 500  # metres, metres, nodes
WEIGHTS = ("length", "travel_time")


@dataclass(frozen=True)
class Rules:
    "The choices; the defaults are ours."

    spacing: float = 50.0
    snap: float = 4.0
    shortest: float = 10.0  # metres
    seconds: bool = False  # with travel times `shortest` is seconds
    first: bool = False  # of equally near places the first, not the kindest
    renames: bool = (
        False  # of the points at one place the last takes the others' name: they go missing
    )
    others_speed: bool = (
        False  # the parts of a split road take the speed of the first edge at its earlier end
    )
    drops: bool = False  # repeated lines and rings are removed, both copies
    stored: bool = False  # roads have their stored length, their parts that of the geometry
    short_too: bool = False  # from a point without a place short routes count too
    silent: bool = False  # a direction without routes is 0
    empty: bool = False  # two graphs without roads: 0
    ids: bool = False  # a control point is where the other graph has its id
    nearest: bool = False  # a midpoint goes on the nearest edge, not on its own
    curved: float = (
        -1.0
    )  # midpoints where the box's diagonal deviates more than this from the length
    rounding: float = 1e-7  # a smaller relative difference is none
    ordered: bool = False  # both orders of a pair are routes
    bare: bool = False  # nodes without a road are control points
    ragged: bool = (
        False  # a point on an end of a line that does not meet its node (0.05 m) hangs in the air
    )
    nodes: int | None = None  # of large truths so many nodes, no midpoints
    sources: int | None = None  # so many control points as sources
    seed: int = 0


# a road graph whose roads can be split -----------------------------------------------------------


class Net:
    "Roads in networkx's order; node numbers are places in that order."

    def __init__(self, g: nx.MultiGraph, rules: Rules, drops: bool = False):
        self.rules, self.names, number = rules, list(g), {n: i for i, n in enumerate(g)}
        self.xy = [(d["x"], d["y"]) for _, d in g.nodes(data=True)]
        gone = repeated(g) if drops else set()
        rows = [
            (number[u], number[v], k, d)
            for u, v, k, d in g.edges(keys=True, data=True)
            if (u, v, k) not in gone
        ]
        self.ends = [r[:2] for r in rows]
        self.lines = [from_to(d["geometry"], self.xy[u], self.xy[v]) for u, v, _, d in rows]
        self.size = [line.length for line in self.lines]
        self.stored = [
            float(d["length"]) if rules.stored else s
            for (*_, d), s in zip(rows, self.size, strict=True)
        ]
        self.cuts = [[(0.0, u), (s, v)] for (u, v), s in zip(self.ends, self.size, strict=True)]
        self.keys = [[r[2]] for r in rows]
        self.graph = nx.MultiGraph()
        self.graph.add_nodes_from(range(len(self.names)))
        for (u, v, k, d), length in zip(rows, self.stored, strict=True):
            self.graph.add_edge(u, v, k, length=length, speed=d.get("speed_kph", math.nan) / 3.6)
        self.segments = segments(self.lines)

    def insert(self, e: int, at: float) -> int:
        "The node `at` metres along an edge; made where there is none."
        at = 0.0 if at <= TOUCH else self.size[e] if self.size[e] - at <= TOUCH else at
        if at in (0.0, self.size[e]) and self.rules.ragged:
            return self._end(e, at)
        i = bisect(self.cuts[e], (at,))
        for where, node in self.cuts[e][max(i - 1, 0) : i + 1]:
            if abs(where - at) < SAME:
                return node
        return self._split(e, i, at)

    def _split(self, e: int, i: int, at: float) -> int:
        "Cut the part before the i-th cut in two."
        (a, left), (b, right) = self.cuts[e][i - 1 : i + 1]
        first, last, new, key = (
            min(left, right),
            max(left, right),
            self._node(e, at),
            self.keys[e][i - 1],
        )
        neighbour = next(iter(self.graph.adj[first].values()))
        speed = (
            next(iter(neighbour.values()))
            if self.rules.others_speed
            else self.graph.edges[left, right, key]
        )["speed"]
        far = {left: at - a, right: b - at}
        if left == right:
            made = [self.graph.add_edge(left, new, length=x, speed=speed) for x in (at - a, b - at)]
        else:
            keys = {
                n: self.graph.add_edge(n, new, length=far[n], speed=speed) for n in (first, last)
            }
            made = [keys[left], keys[right]]
        self.graph.remove_edge(left, right, key)
        self.cuts[e].insert(i, (at, new))
        self.keys[e][i - 1 : i] = made
        return new

    def _end(self, e: int, at: float) -> int:
        "An end's node, or a lonely new one where the line does not meet it."
        x, y = self.lines[e].coords[0 if at == 0.0 else -1]
        near = [
            n
            for n in self.ends[e]
            if abs(self.xy[n][0] - x) <= 0.05 and abs(self.xy[n][1] - y) <= 0.05
        ]
        return near[0] if near else self._node(e, at)

    def _node(self, e: int, at: float) -> int:
        new = self.graph.number_of_nodes()
        self.graph.add_node(new)
        self.xy.append(self.lines[e].interpolate(at).coords[0])
        return new

    def table(self, weight: str) -> np.ndarray:
        "Cheapest routes between all nodes."
        best: dict[tuple[int, int], float] = {}
        for u, v, d in self.graph.edges(data=True):
            cost = d["length"] if weight == "length" else d["length"] / d["speed"]
            for pair in ((u, v), (v, u)):
                best[pair] = min(cost, best.get(pair, math.inf))
        ends, n = np.array(list(best), dtype=int).reshape(-1, 2), self.graph.number_of_nodes()
        return dijkstra(csr_array((list(best.values()), tuple(ends.T)), shape=(n, n)))


def from_to(line: shapely.LineString, u: tuple, v: tuple) -> shapely.LineString:
    "The line from u to v."
    a, b = line.coords[0], line.coords[-1]
    return (
        shapely.reverse(line)
        if math.dist(a, u) + math.dist(b, v) > math.dist(a, v) + math.dist(b, u)
        else line
    )


def segments(lines: list) -> tuple[np.ndarray, ...]:
    "Of every straight piece: its edge, its metres along the edge, start, and course."
    edge, at, start, course = [], [], [], []
    for e, line in enumerate(lines):
        xy = np.array(line.coords)
        step = np.diff(xy, axis=0)
        far = np.cumsum(np.hypot(*step.T))
        edge += [e] * len(step)
        at += [0.0, *far[:-1]]
        start.append(xy[:-1])
        course.append(step)
    if not lines:
        return np.zeros(0, int), np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2))
    return np.array(edge), np.array(at), np.concatenate(start), np.concatenate(course)


def repeated(g: nx.MultiGraph) -> set:
    """Edges that the original's removal of repeated lines takes out: a line between the same
    nodes is stored both ways, so both copies go.
    """
    seen, pairs, doomed = [], set(), []
    for i, (u, v, line) in enumerate(g.edges(data="geometry")):
        course = list(line.coords)
        if i and (u, v) in pairs:
            doomed += [(u, v)] * sum(s in (course, course[::-1]) for s in seen)
        else:
            pairs.add((u, v))
            seen += [course, course[::-1]] if i else [course]
    left, gone = nx.MultiGraph(g), set()
    for u, v in doomed:
        if not left.has_edge(u, v):
            continue
        key = list(left.adj[u][v])[-1]
        left.remove_edge(u, v, key)
        gone.add((u, v, key))
    return gone


# control points and where they land --------------------------------------------------------------


def midpoints(net: Net) -> Iterable[tuple[int, float]]:
    "Edge and metres along it."
    for e, (line, length) in enumerate(zip(net.lines, net.stored, strict=True)):
        x0, y0, x1, y1 = line.bounds
        if (
            length < 0.75 * net.rules.spacing
            or abs(math.hypot(x1 - x0, y1 - y0) - length) / length < net.rules.curved
        ):
            continue
        parts = max(2, math.ceil(length / net.rules.spacing - 1e-9))
        along = net.size[e] if parts == 2 and length <= net.rules.spacing else length
        for k in range(1, parts):
            yield e, along * k / parts


def control_points(net: Net) -> list[tuple]:
    "Name, place and node of every control point, in the original's order."
    rules, graph = net.rules, net.graph
    if rules.nodes:
        chosen = (
            np.random.default_rng(rules.seed).permutation(len(net.names))[: rules.nodes].tolist()
        )
        return [(net.names[n], net.xy[n], n) for n in chosen]
    points = [
        (net.names[n], net.xy[n], n) for n in range(len(net.names)) if rules.bare or graph.degree(n)
    ]
    name = max((n for n in net.names if isinstance(n, int)), default=0)
    for k, (e, at) in enumerate(list(midpoints(net)), 1):
        xy = net.lines[e].interpolate(at).coords[0]
        if rules.nearest:
            ((e, at),) = places(xy, net, 5.0, True)
        points.append((name + k, xy, net.insert(e, at)))
    return (
        list({node: (n, xy, node) for n, xy, node in points}.values()) if rules.renames else points
    )


def places(xy: tuple, net: Net, snap: float, first: bool) -> list[tuple[int, float]]:
    "The nearest places within reach: all that are equally near, or the first."
    if not net.lines:
        return []
    if first:
        away = shapely.distance(shapely.Point(xy), net.lines)
        e = int(away.argmin())
        return [(e, net.lines[e].project(shapely.Point(xy)))] if away[e] <= snap else []
    edge, at, start, course = net.segments
    size, to = np.hypot(*course.T), np.array(xy) - start
    along = np.clip((to * course).sum(1) / np.maximum(size, 1e-300), 0, size)
    away = np.hypot(*(to - (along / np.maximum(size, 1e-300))[:, None] * course).T)
    keep = np.flatnonzero((away <= away.min() + TOUCH) & (away <= snap))
    found: list[tuple[int, float]] = []
    for e, a in sorted(zip(edge[keep].tolist(), (at + along)[keep].tolist(), strict=True)):
        if not found or found[-1][0] != e or a - found[-1][1] > 10 * TOUCH:
            found.append((e, a))
    return found


def land(points: list[tuple], net: Net) -> list[list[int]]:
    "Nodes of the other graph on which each control point stands."
    rules = net.rules
    owner = dict(enumerate(net.names)) if rules.ids else {}
    home, seats = {name: n for n, name in owner.items()}, []
    for i, (name, xy, _) in enumerate(points):
        who = name if rules.ids else i
        if who in home:
            seats.append([home[who]])
            continue
        seats.append(
            list(
                dict.fromkeys(
                    net.insert(e, at) for e, at in places(xy, net, rules.snap, rules.first)
                )
            )
        )
        for n in seats[-1]:
            if n in owner and not rules.renames:
                continue
            home.pop(owner.get(n), None)
            owner[n], home[who] = who, n
    if not rules.renames:
        return seats
    return [
        [n for n in here if owner[n] == (p[0] if rules.ids else i)]
        for i, (p, here) in enumerate(zip(points, seats, strict=True))
    ]


# routes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    score: float  # NaN: no route
    error: float
    routes: int


def side(native: Net, other: Net, weights: Iterable[str]) -> dict[str, Side]:
    "Routes between the control points of one graph, taken again in the other."
    points = control_points(native)
    seats, nodes = land(points, other), [p[2] for p in points]
    metres, out = native.table("length")[np.ix_(nodes, nodes)], {}
    lost, rows = np.array([not s for s in seats], dtype=bool), sampled(points, native.rules)
    for w in weights:
        here = metres if w == "length" else native.table(w)[np.ix_(nodes, nodes)]
        fits = counted(metres, here, lost, native.rules)
        there = retaken(here, other.table(w), seats)
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.abs(there - here) / here
        cost = np.where(fits, np.where(gap < native.rules.rounding, 0, np.minimum(gap, 1)), 0)
        out[w] = summed(cost[rows].sum(1), fits[rows].sum(1), len(points))
    return out


def sampled(points: list[tuple], rules: Rules) -> np.ndarray:
    "All control points, or a sample of them in the order of y, then x."
    n = len(points)
    if rules.sources is None:
        return np.arange(n)
    order = sorted(range(n), key=lambda i: points[i][1][::-1])
    return np.array(order)[
        np.random.default_rng(rules.seed).choice(n, min(rules.sources, n), replace=False)
    ]


def counted(metres: np.ndarray, here: np.ndarray, lost: np.ndarray, rules: Rules) -> np.ndarray:
    "Which pairs are routes to compare."
    joined = np.isfinite(here) & ~np.eye(len(here), dtype=bool)
    fits = joined & ((here if rules.seconds else metres) > max(rules.shortest, 2 * TOUCH) - TOUCH)
    if rules.short_too:
        return fits | joined & lost[:, None]
    return fits if rules.ordered or rules.sources else np.triu(fits, 1)


def retaken(here: np.ndarray, table: np.ndarray, seats: list[list[int]]) -> np.ndarray:
    """Every route in the other graph, between those of its ends' places that come closest; inf
    where it is missing.
    """
    table = np.pad(table, (0, 1), constant_values=np.inf)  # the last node: nowhere
    most = max(map(len, seats), default=0)
    seat = np.array(
        [(s + s[:1] * most)[:most] if s else [-1] * most for s in seats], dtype=int
    ).reshape(len(seats), -1)
    best = np.full(here.shape, np.inf)
    for a in seat.T:
        for b in seat.T:
            new = table[np.ix_(a, b)]
            with np.errstate(invalid="ignore"):
                best = np.where(np.abs(new - here) < np.abs(best - here), new, best)
    return best


def summed(cost: np.ndarray, routes: np.ndarray, points: int) -> Side:
    "A ratio of sums over sources, and its standard error."
    n, k = int(routes.sum()), len(cost)
    if not n:
        return Side(math.nan, 0.0, 0)
    off = cost - routes * cost.sum() / n
    spread = off.var(ddof=1) if k > 1 else 0.0
    return Side(1 - cost.sum() / n, math.sqrt(max(0.0, 1 - k / points) * k * spread) / n, n)


# the score ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Total:
    there: float
    back: float
    score: float
    error: float = 0.0


def judge(
    truth: nx.MultiGraph, proposal: nx.MultiGraph, rules: Rules, weights: Iterable[str] = WEIGHTS
) -> dict[str, Total]:
    "APLS by the rules, for some weights."
    empty = [not g.number_of_edges() for g in (truth, proposal)]
    if any(empty):
        return dict.fromkeys(weights, Total(*[float(all(empty) and not rules.empty)] * 3))
    large = rules.nodes and len(truth) >= LARGE
    rules = replace(rules, nodes=rules.nodes if large else None, drops=rules.drops and not large)

    def net(g: nx.MultiGraph, drops: bool = rules.drops) -> Net:
        return Net(g, rules, drops)

    there, back = (
        side(net(truth), net(proposal), weights),
        side(net(proposal), net(truth, False), weights),
    )
    return {w: both(there[w], back[w], rules) for w in weights}


def both(a: Side, b: Side, rules: Rules) -> Total:
    "Two directions as one score."
    x, y = a.score, b.score
    if rules.silent:
        x, y = np.nan_to_num([x, y]).tolist()
    elif math.isnan(x) and math.isnan(y):
        x = y = 1.0
    x, y = (y if math.isnan(x) else x), (x if math.isnan(y) else y)
    if x + y <= 0:
        return Total(x, y, 0.0)
    return Total(
        x, y, 2 * x * y / (x + y), 2 * math.hypot(y * y * a.error, x * x * b.error) / (x + y) ** 2
    )


# the stored cases, and what each of them holds ---------------------------------------------------


@dataclass(frozen=True)
class Case:
    name: str
    truth: nx.MultiGraph
    proposal: nx.MultiGraph
    weights: tuple[str, ...]
    original: dict  # weight -> stored total with 10 m and midpoints everywhere; empty: not stored


def read_cases() -> list[Case]:
    cases = []
    for name, c in stored("cosmiq_cases.json.gz")["cases"].items():
        t, p = graph_of(c["truth"]), graph_of(c["proposal"])
        timed = all("speed_kph" in d for g in (t, p) for *_, d in g.edges(data=True))
        original = {w.removesuffix("_s"): s[2] for w, s in c["scores"].get("B_mpl10", {}).items()}
        cases.append(Case(name, t, p, WEIGHTS[: 1 + timed], original))
    return cases


def holds(case: Case, seen: set[str]) -> set[str]:
    "Which of the rarer situations occur in a case."
    t, p = case.truth, case.proposal
    pairs, roads = ((t, p), (p, t)), [bool(g.number_of_edges()) for g in (t, p)]
    if not any(roads):
        seen.add("empty")
    if set(t) & set(p):
        seen.add("ids")
    if len(t) >= LARGE:
        seen.add("nodes")
    if any(repeated(g) for g in (t, p)):
        seen.add("drops")
    if any(not d for g in (t, p) for _, d in g.degree()):
        seen.add("bare")
    if all(roads):
        seen |= {mark for a, b in pairs for mark in landed(Net(a, Rules()), Net(b, Rules()))}
    return seen


def landed(native: Net, other: Net) -> set[str]:
    "What happens where the control points of one graph land on another."
    points = control_points(native)
    seats = land(points, other)
    one = [n for s in seats for n in s]
    ends = [
        (other.xy[u], line.coords[0]) for (u, _), line in zip(other.ends, other.lines, strict=True)
    ]
    ends += [
        (other.xy[v], line.coords[-1]) for (_, v), line in zip(other.ends, other.lines, strict=True)
    ]
    marks = {
        "lost": not all(seats),
        "first": any(len(s) > 1 for s in seats),
        "renames": len(set(one)) < len(one),
        "ragged": any(max(abs(a[0] - b[0]), abs(a[1] - b[1])) > 0.05 for a, b in ends),
        "silent": not side(native, other, ["length"])["length"].routes,
    }
    return {k for k, v in marks.items() if v}


# tables ------------------------------------------------------------------------------------------

ALL = dict(
    first=True,
    renames=True,
    others_speed=True,
    drops=True,
    stored=True,
    seconds=True,
    short_too=True,
    silent=True,
    empty=True,
    ids=True,
    nearest=True,
    rounding=0.0,
    ordered=True,
    bare=True,
    ragged=True,
)
# what stands in CosmiQ's code, the switches, the situation that it needs ("": roads in both graphs)
CHOICES = [
    ("routes from 0.001 m (its command line)", dict(shortest=0.001), ""),
    ("shortest route 10 s with travel times", dict(seconds=True), ""),
    ("the first of equally near places", dict(first=True), "first"),
    ("the last at a place takes the name", dict(renames=True), "renames"),
    ("parts take the first edge's speed", dict(others_speed=True), ""),
    ("stored lengths", dict(stored=True), ""),
    ("short routes of lost points count", dict(short_too=True), "lost"),
    ("equal ids are present", dict(ids=True), "ids"),
    ("midpoints on the nearest edge", dict(nearest=True), ""),
    ("no midpoints (eps 1000, its execute())", dict(curved=1000.0), ""),
    ("midpoints on bends (eps 0.012)", dict(curved=0.012), ""),
    ("large truths: 500 nodes, no midpoints", dict(nodes=500), "nodes"),
    ("repeated lines and rings removed", dict(drops=True), "drops"),
    ("a direction without routes is 0", dict(silent=True), "silent"),
    ("both without roads: 0", dict(empty=True), "empty"),
    ("nodes without a road count", dict(bare=True), "bare"),
    ("the same, and names are taken", dict(bare=True, renames=True), "bare"),
    ("a line's loose end is nowhere", dict(ragged=True), "ragged"),
    ("no threshold of rounding", dict(rounding=0.0), ""),
    ("ordered pairs", dict(ordered=True), ""),
    ("all of these (10 m or s, midpoints)", ALL, ""),
]


def check(cases: list[Case]) -> dict[str, dict[str, float]]:
    "Our total score of every case and weight, after asserting that it is the package's."
    worst, ours = {w: 0.0 for w in WEIGHTS}, {}
    for c in cases:
        mine = judge(c.truth, c.proposal, Rules(), c.weights)
        for w in c.weights:
            r = apls(c.truth, c.proposal, weight=w)
            off = np.abs(
                np.array([r.truth_to_proposal, r.proposal_to_truth, r.score])
                - [mine[w].there, mine[w].back, mine[w].score]
            ).max()
            assert off <= 1e-9, f"{c.name}, {w}: {mine[w]} here, {r} in the package"
            worst[w] = max(worst[w], off)
        ours[c.name] = {w: t.score for w, t in mine.items()}
    print(
        f"{len(cases)} cases; largest difference between this judge and spacenet5_nb.apls: "
        + ", ".join(f"{w} {d:.1e}" for w, d in worst.items())
    )
    return ours


def changes(values: dict, ours: dict, weight: str) -> str:
    """A table's cells: cases changed, and the median, mean and largest absolute change and the
    mean change over all cases.
    """
    d = np.array([values[n][weight] - ours[n][weight] for n in ours if weight in values.get(n, {})])
    if not len(d):
        return f"{'-':>50}"
    a = np.abs(d)
    return (
        f"{(a > 1e-9).sum():4d}/{len(d):<2d} "
        + " ".join(f"{number(x):>9}" for x in (np.median(a), a.mean(), a.max()))
        + f" {number(d.mean(), '+'):>10}"
    )


def number(x: float, sign: str = "") -> str:
    return "0" if abs(x) < 1e-12 else f"{x:{sign}.5f}" if abs(x) >= 1e-5 else f"{x:{sign}.0e}"


def table(cases: list[Case], ours: dict) -> dict:
    "One line per choice; the values with all of them."
    situations = {c.name: holds(c, set()) for c in cases}
    roads = sum(bool(c.truth.number_of_edges() and c.proposal.number_of_edges()) for c in cases)
    head = f"{'changed':>7} {'median':>9} {'mean':>9} {'largest':>9} {'signed':>10}"
    print(
        f"\n{'CosmiQ, where we choose otherwise':40} {'applies':>7} | length: {head[8:]:42} | "
        f"travel time\n{'':40} {'':7} | {head} | {head}"
    )
    values = {}
    for what, switches, needs in CHOICES:
        values = {
            c.name: {
                w: t.score
                for w, t in judge(c.truth, c.proposal, Rules(**switches), c.weights).items()
            }
            for c in cases
        }
        applies = sum(needs in s for s in situations.values()) if needs else roads
        print(
            f"{what:40} {applies:7d} | {changes(values, ours, 'length')} | "
            f"{changes(values, ours, 'travel_time')}",
            flush=True,
        )
    return values


def whole_gap(cases: list[Case], ours: dict, together: dict) -> None:
    """The other protocol beside ours; what the table's choices leave unexplained of the
    original's stored scores.
    """
    options = dict(protocol="cosmiq", min_path_length=10.0)
    other = {
        c.name: {w: apls(c.truth, c.proposal, weight=w, **options).score for w in c.weights}
        for c in cases
    }
    print(
        f"{'protocol=cosmiq, same parameters':40} {len(cases):7d} | "
        f"{changes(other, ours, 'length')} | {changes(other, ours, 'travel_time')}"
    )
    stored = {c.name: c.original for c in cases if c.original}
    mine = {n: together[n] for n in stored}
    print(
        f"{'the original, beside all of these':40} {len(stored):7d} | "
        f"{changes(stored, mine, 'length')} | {changes(stored, mine, 'travel_time')}"
    )


# what no stored case holds -----------------------------------------------------------------------


def toy(nodes: dict, roads: list) -> nx.MultiGraph:
    "A graph of nodes (x, y) and roads (u, v, or a longer course between them)."
    g = nx.MultiGraph(crs="EPSG:32611")
    for n, (x, y) in nodes.items():
        g.add_node(n, x=float(x), y=float(y))
    for u, *course, v in roads:
        line = shapely.LineString([nodes[u], *course, nodes[v]])
        g.add_edge(u, v, geometry=line, length=line.length, speed_kph=36.0)
    return g


def toys() -> None:
    street = {1: (0, 0), 2: (100, 0), 3: (200, 0)}
    ring = [(140, 60), (60, 60)]
    close = toy(street, [(1, 2), (2, 3), (2, *ring, 2), (2, *ring[::-1], 2)])
    twice = toy(street, [(1, 2), (2, 3), (2, 3)])
    plain, stub, nothing = (
        toy(street, [(1, 2), (2, 3)]),
        toy({1: (0, 0), 2: (9, 0)}, [(1, 2)]),
        toy({}, []),
    )
    loose = toy(street, [(1, 2), (2, 3)])
    loose.edges[2, 3, 0].update(geometry=shapely.LineString([(103, 0), (200, 0)]), length=97.0)
    print("\nwhat no stored case holds, on toys (length): ours, CosmiQ's")
    for what, t, p, switches in (
        ("a ring at a dead end, truth with itself", close, close, dict(drops=True)),
        ("the same, the proposal lacks the ring", close, plain, dict(drops=True)),
        ("a road drawn twice, truth without", plain, twice, dict(drops=True)),
        ("9 m of a 200 m street", plain, stub, dict(silent=True)),
        ("9 m, truth with itself", stub, stub, dict(silent=True)),
        ("no road, truth with itself", nothing, nothing, dict(empty=True)),
        ("a line ends 3 m from its node", plain, loose, dict(ragged=True)),
    ):
        a, b = (judge(t, p, r, ["length"])["length"].score for r in (Rules(), Rules(**switches)))
        assert abs(a - apls(t, p).score) < 1e-9, what
        print(f"  {what:44} {a:.4f}  {b:.4f}")


def sampling(case: Case, seeds: int = 5) -> None:
    "Samples of a large truth, a tenth of whose edges the proposal lacks."
    less, rng = case.truth.copy(), np.random.default_rng(0)
    edges = list(less.edges(keys=True))
    less.remove_edges_from(
        [edges[i] for i in rng.choice(len(edges), len(edges) // 10, replace=False)]
    )
    whole = judge(case.truth, less, Rules())
    print(f"\n{case.name}, a tenth of the edges deleted; {seeds} seeds")
    for w in WEIGHTS:
        draws = [judge(case.truth, less, Rules(sources=200, seed=s), [w])[w] for s in range(seeds)]
        package = [apls(case.truth, less, weight=w, sources=200, seed=s) for s in range(seeds)]
        assert all(
            abs(a.score - b.score) < 1e-9 and abs(a.error - b.standard_error) < 1e-9
            for a, b in zip(draws, package, strict=True)
        ), w
        nodes = [
            judge(case.truth, less, Rules(nodes=500, seed=s), [w])[w].score for s in range(seeds)
        ]
        found = [d.score for d in draws]
        print(
            f"  {w:12} all {whole[w].score:.4f}; 200 sources {min(found):.4f} to "
            f"{max(found):.4f}, standard error {np.mean([d.error for d in draws]):.4f}; "
            f"500 nodes without midpoints {min(nodes):.4f} to {max(nodes):.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, help="so many cases, evenly spread, for a quick look")
    options = parser.parse_args()
    every = read_cases()
    cases = (
        every
        if not options.cases
        else [
            every[i]
            for i in np.linspace(0, len(every) - 1, min(options.cases, len(every))).astype(int)
        ]
    )
    ours = check(cases)
    together = table(cases, ours)
    whole_gap(cases, ours, together)
    toys()
    if not options.cases:
        sampling(next(c for c in every if len(c.truth) >= LARGE))


if __name__ == "__main__":
    main()
