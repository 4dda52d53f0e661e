"""The small model of `roads/learned_joins`: trained, scored and taken apart.

    .venv/bin/python benchmarks/connections.py predict A HELD_OUT/last.safetensors
    .venv/bin/python benchmarks/connections.py cities 11 FOLD_1 FOLD_3
    .venv/bin/python benchmarks/connections.py drawn --drawn 31
    .venv/bin/python benchmarks/connections.py train --seeds 21 22
    .venv/bin/python benchmarks/connections.py score
    .venv/bin/python benchmarks/connections.py score --on 11 12 13 14 15 16
    .venv/bin/python benchmarks/connections.py leave-out --seeds 21 22
    .venv/bin/python benchmarks/connections.py recall --on 21 22 --every 3
    .venv/bin/python benchmarks/connections.py draw docs/images/connections.jpg
    .venv/bin/python benchmarks/connections.py overpasses 41
    .venv/bin/python benchmarks/connections.py train-crossings 41 --seeds 21
    .venv/bin/python benchmarks/connections.py crossings 3 5

`predict` writes what a network makes of real tiles that it did not see (folds 0 and 1 of
benchmarks/world.py, and nine Las Vegas chips, which the shipped model does not see either) into a
set of that name; `cities` does it for a generated world of that seed, which no member was trained
on. `drawn` writes masks that no network made, of labels that are not scored: drawn noise over
generated cities and over the labels of `--real`, and truth masks of generated cities. `train`
learns from the set `--real`, from cities of `--seeds` and from `--drawn`, and writes the file that
the package ships, and beside the sets a model without each source. `score` compares `joins: rules`
and `learned` on networks' outputs: cities of `--on` with the shipped model, which saw other seeds;
real tiles with a model that saw nothing of their source. `leave-out` retrains without one group of
evidence at a time and says what that costs on sources left out. `recall` counts proposals a km of
road, and of the dead ends whose true road goes on to another traced road within 45 m, those that
have a right proposal. `draw` draws what rules and model make of two masks of another network.

`overpasses` draws truth masks of generated cities of those seeds at 1 m and noisy ones, with and
without a crossing channel: chips where roads pass over each other, and some others.
`train-crossings` learns from them and from networks' outputs of cities of `--seeds` whether roads
pass or meet, and writes the file that the package ships. `crossings` scores rules and model on
truth masks of chips of other seeds where roads pass over each other: overpasses kept apart,
junctions torn, false passes, APLS.

Truth: an edge is road by the share of it within 6 m of a true road; a join is right where a true
route of about its length runs within 7 m of it; and a road passes where such a route has a true
overpass within 12 m of its middle. Labels of real tiles have no speeds, so their
APLS_time says nothing but for the nine chips.
"""

import argparse
import json
import warnings
from dataclasses import replace
from pathlib import Path

from spacenet5_nb import demo, graph, masks, raster  # isort: skip
import numpy as np
import pandas as pd
import shapely
import vectorize_quality as drawing
import world
from affine import Affine
from scipy import stats
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from spacenet5_nb.apls import apls_both
from spacenet5_nb.core import Channels, DataError, VectorizeConfig, load_preset, write_json
from spacenet5_nb.explore import find_chips
from spacenet5_nb.roads.connection_candidates import candidates, join_evidence
from spacenet5_nb.roads.connection_evidence import (
    EVIDENCE,
    PLACES,
    as_table,
    edge_evidence,
    sample_lines,
)
from spacenet5_nb.roads.crossings import node_groups
from spacenet5_nb.roads.joins import dead_ends
from spacenet5_nb.roads.learned_crossings import passing_evidence, passings
from spacenet5_nb.roads.learned_joins import ConnectionModel, confidence, read_model
from spacenet5_nb.roads.overpass_score import crossing_places, score_crossings
from spacenet5_nb.roads.skeleton import make_frame
from spacenet5_nb.speed import add_speeds
from spacenet5_nb.vectorize import steps, vectorize

NEAR_EDGE_M, NEAR_JOIN_M, OVER_M = 6.0, 7.0, 12.0
HIDDEN, EPOCHS, NETS = 16, 60, 3
THRESHOLDS = ((0.5, 0.3), (0.4, 0.2), (0.3, 0.12))  # of the skeletons whose edges are learned from
GROUPS = {
    "probability along": ("mean", "spread", "soft_minimum", "darker_half", "darkest_fifth"),
    "faint stretch": ("faint_share", "faint_m"),
    "its ends": ("weaker_end", "stronger_end"),
    "width and profile": EVIDENCE[10:16],
    "length and bend": ("length", "detour_of_line", "turn", "bend_from", "bend_to"),
    "what lies around": ("road_around", "murk_around"),
    "speed bins": ("speeds_of_ends", "speed_of_middle"),
    "junction and crossing": EVIDENCE[22:26],
    "roads it connects": ("weaker_next", "stronger_next", "weaker_degree", "stronger_degree"),
    "parallel": ("parallel", "beside_middle"),
    "piece and own road": ("piece", "own_road"),
    "way without it": ("way_without",),
    "the rules' decision": ("ruled", "proposed"),
}


def channels_of(probs):
    "Members of the demo see no crossings, those of `world` do."
    return Channels.best() if len(probs) == 13 else Channels.selim_sef()


def keep(folder, name, probs, grid, **about):
    "Write one chip's probabilities and what they are of."
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.npy", probs)
    place = dict(transform=list(grid.transform)[:6], crs=grid.crs.to_string())
    write_json(folder / f"{name}.json", dict(name=name, **place, **about))


def predict(a):
    "What a network makes of real tiles that it did not see."
    from spacenet5_nb import ensemble

    preset, name, out = load_preset("world"), a.words[0], a.out / "probs" / a.words[0]
    opened = ensemble.open_members(a.words[1:], device="cpu", scales=preset.ensemble.scales)
    tiles = world.open_tiles(a.data, a.world)
    tiles = tiles[tiles.part.isin([0, 1]) | tiles.city.isin(a.sources)]
    nine = find_chips(a.nine, n_bands=3, chip_m=0).assign(city="nine")
    for row in pd.concat([tiles, nine]).itertuples():
        if not (out / f"{row.chip}.json").exists():
            probs = ensemble.predict(
                opened, row.image, tta=preset.ensemble.tta, device="cpu", as_bytes=True
            )
            grid = raster.target_grid(raster.grid_of(row.image), preset.data.gsd_m)
            about = dict(source=row.city, label=str(row.label), image=str(row.image), set=name)
            keep(out, row.chip, probs, grid, **about)


def cities(a):
    "What members make of a generated world of another seed."
    from spacenet5_nb import ensemble

    seed, name = int(a.words[0]), f"city{a.words[0]}"
    members = [m for w in a.words[1:] for m in sorted(Path(w).glob("last.safetensors"))]
    opened = ensemble.open_members(members, device="cpu")
    root = demo.make_demo(a.out / "cities" / str(seed), seed=seed, grid=(3, 3), workers=1)
    for row in find_chips(root, n_bands=3, chip_m=0).itertuples():
        if row.label and not (a.out / "probs" / name / f"{row.chip}.json").exists():
            probs = ensemble.predict(opened, row.image, tta="none", device="cpu", as_bytes=True)
            grid = raster.target_grid(raster.grid_of(row.image), 1.0)
            about = dict(source="cities", label=str(row.label), image=str(row.image), set=name)
            keep(a.out / "probs" / name, row.chip, probs, grid, **about)


def drawn(a):
    "Masks that no network made: drawn noise over labels, and truth masks of generated cities."
    for seed in a.drawn:
        for gsd_m, channels in ((0.3, Channels.selim_sef()), (1.0, Channels.best())):
            chips = drawing.city_chips(gsd_m, seed, channels)
            for k, (name, mask, place, label) in enumerate(chips):
                if k % 3 == seed % 3:
                    keep_drawn(a, f"truth{seed}", f"{name}-{gsd_m}", mask, place, label, "truth")
                if gsd_m < 1 and k % 3 == seed % 3:
                    noisy = drawing.degrade(mask, np.random.default_rng([seed, k]))
                    keep_drawn(a, f"noise{seed}", name, noisy, place, label, "noise")
        for k, chip in enumerate(chips_of(a, a.real)):
            if chip["source"] != "nine":
                mask, place, labels = label_mask(chip["label"], seed)
                noisy = drawing.degrade(mask, np.random.default_rng([seed, k]))
                about = (chip["label"], f"noise {chip['source']}")
                keep_drawn(a, f"noise{seed}", chip["name"], noisy, place, *about)


def label_mask(label, seed):
    "The mask of a label file with seeded speeds, at 0.3 m: mask, place, labels."
    roads = graph.read_labels(label)
    rng = np.random.default_rng([seed, len(roads)])
    labels = roads[["geometry"]].to_crs(4326)
    labels = labels.assign(inferred_speed_mph=rng.choice(drawing.BINS, len(roads)))
    west, south, east, north = labels.total_bounds
    px = drawing.PIXEL
    shape = min(1300, int((north - south) / px) + 1), min(1300, int((east - west) / px) + 1)
    transform = Affine(px, 0, west, 0, -px, north)
    grid = raster.Grid(shape, transform, raster.CRS.from_epsg(4326))
    return masks.make_masks(labels, grid), dict(transform=transform, crs=grid.crs), labels


def keep_drawn(a, name, chip, mask, place, label, source):
    "One drawn mask, compressed, with its labels."
    folder = a.out / "probs" / name
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{chip}.npz", probs=mask)
    copy = folder / f"{chip}.geojson"
    copy.write_text(Path(label).read_text())
    place = dict(transform=list(place["transform"])[:6], crs=raster.CRS(place["crs"]).to_string())
    about = dict(source=source, label=str(copy), set=name, shape=mask.shape)
    write_json(folder / f"{chip}.json", dict(name=chip, **place, **about))


def chips_of(a, name):
    "The chips of a set."
    found = sorted((a.out / "probs" / name).glob("*.json"))
    if not found:
        raise DataError(name, "has no predictions", "Make them: predict, or cities.")
    chips = [json.loads(f.read_text()) | {"file": str(f.with_suffix(""))} for f in found]
    chips = [c | {"set": name} for c in chips]
    return [c | {"source": "cities"} if name.startswith("city") else c for c in chips]


def read_masks(chip):
    "A network's probabilities, or a drawn mask, which is compressed."
    file = Path(f"{chip['file']}.npz")
    if not file.is_file():
        return np.load(f"{chip['file']}.npy")
    with np.load(file) as found:
        return found["probs"]


def is_real(chip):
    "Whether a network made it of a real picture."
    return chip["source"] != "cities" and not chip["source"].startswith(("noise", "truth"))


def opened_chip(chip, gsd_m=0.0):
    "Probabilities, their place and frame, and the truth."
    probs, transform = read_masks(chip), Affine(*chip["transform"])
    if gsd_m:
        crs = raster.CRS.from_string(chip["crs"])
        grid = raster.Grid(probs.shape[1:], transform, crs)
        fine = raster.target_grid(grid, gsd_m)
        probs, _ = raster.resample(probs, np.ones(grid.shape, bool), grid, fine)
        transform = fine.transform
    place = dict(transform=transform, crs=chip["crs"])
    frame = make_frame(probs.shape[1:], **place)
    truth = graph.from_labels(chip["label"], crs=frame.target)
    if is_real(chip) and chip["source"] != "nine":
        _, valid = raster.read_valid(chip["image"], 3)
        truth = world.cut(truth, raster.grid_of(chip["image"]), valid)
    return probs, place, frame, truth


def config_of(chip):
    "The preset that its kind of chip is vectorized with."
    return load_preset("world").vectorize if is_real(chip) else VectorizeConfig()


class Truth:
    "True roads as points 2.5 m apart, to ask whether lines lie on them."

    def __init__(self, truth):
        xy, links, number = [], [], {}

        def add(p, node=None):
            if node is None or node not in number:
                xy.append(p)
                if node is not None:
                    number[node] = len(xy) - 1
                return len(xy) - 1
            return number[node]

        for u, v, d in truth.edges(data=True):
            pts = shapely.get_coordinates(shapely.segmentize(d["geometry"], 2.5))
            start = np.array((truth.nodes[u]["x"], truth.nodes[u]["y"]))
            if np.hypot(*(pts[0] - start)) > np.hypot(*(pts[-1] - start)):
                pts = pts[::-1]
            at = [add(pts[0], u), *(add(p) for p in pts[1:-1]), add(pts[-1], v)]
            links += list(zip(at, at[1:], strict=False))
        self.xy, at = np.array(xy).reshape(-1, 2), np.array(links, int).reshape(-1, 2)
        step = np.maximum(np.hypot(*(self.xy[at[:, 0]] - self.xy[at[:, 1]]).T), 1e-3)
        self.links = csr_matrix((step, (at[:, 0], at[:, 1])), (len(xy), len(xy)))
        self.tree = cKDTree(self.xy) if len(xy) else None

    def near(self, ways):
        "How far each place lies from the next true one, and which that is."
        away, which = self.tree.query(ways.reshape(-1, 2))
        return away.reshape(-1, PLACES), which.reshape(-1, PLACES)

    def cover(self, ways):
        "The share of each line that lies on true roads."
        return (self.near(ways)[0] <= NEAR_EDGE_M).mean(1) if self.tree else np.zeros(len(ways))

    def is_route(self, ways, length):
        "1 where a true route of about that length exists there."
        if not self.tree or not len(ways):
            return np.zeros(len(ways))
        away, which = self.near(ways)
        starts, row = np.unique(which[:, 0], return_inverse=True)
        metres = dijkstra(self.links, directed=False, indices=starts, limit=120.0)
        route = metres[row, which[:, -1]]
        there = (away <= NEAR_JOIN_M).mean(1) >= 0.85
        there &= (away[:, [0, -1]] <= NEAR_JOIN_M + 1).all(1)
        return (there & (route <= 1.25 * length + 8) & (route >= 0.6 * length - 8)).astype(float)


def network_of(probs, frame, config, after="pieces"):
    "The network before anything is joined."
    for name, g in steps(probs, frame, config, channels_of(probs)):
        if name == after:
            return g


def examples(chip):
    "Evidence, truth, weight and whether it is a join, of one chip's edges and proposed joins."
    probs, _, frame, truth = opened_chip(chip)
    truth, base, channels, out = Truth(truth), config_of(chip), channels_of(probs), []
    for t, low in THRESHOLDS[: None if len(probs) * probs[0].size < 13e6 else 1]:
        config = replace(base, threshold=t, low_threshold=low)
        g = network_of(probs, frame, config)
        if g.number_of_edges():
            ways, _, length = sample_lines([d["pts"] for *_, d in g.edges(data=True)])
            table = as_table(edge_evidence(g, probs, frame, channels))
            out.append((table, truth.cover(ways), np.sqrt(np.clip(length, 5, 100)), 0))
        ends = dead_ends(g, base.gap_heading_m, base.gap_tip_m)
        ends, found = candidates(g, ends, probs[channels.road], frame, config)
        if found:
            ways, _, length = sample_lines([c.join.path for c in found])
            table = as_table(join_evidence(g, ends, found, probs, frame, channels))
            weight = np.sqrt(np.clip(length, 5, 100))
            out.append((table, truth.is_route(ways, length), weight, 1))
    if not out:
        return np.zeros((0, len(EVIDENCE) + 3))
    rows = [np.column_stack([t, y, w, np.full(len(y), join)]) for t, y, w, join in out]
    return np.vstack(rows)


def learning_chips(a):
    "The chips that may be learned from."
    chips = chips_of(a, a.real) + [c for s in a.seeds for c in chips_of(a, f"city{s}")[::2]]
    return chips + [c for s in a.drawn for k in ("noise", "truth") for c in chips_of(a, f"{k}{s}")]


def gathered(a):
    "Examples of all chips that may be learned from: source, rows, chip; kept in a file."
    file = a.out / f"examples-{'-'.join(map(str, [a.real, *a.seeds, *a.drawn]))}.npz"
    if not file.is_file():
        chips = learning_chips(a)
        rows = [examples(c) for c in chips]
        source = np.repeat([place_of(c) for c in chips], [len(r) for r in rows])
        chip = np.repeat([c["name"] for c in chips], [len(r) for r in rows])
        np.savez(file, rows=np.vstack(rows), source=source, chip=chip)
    with np.load(file) as found:
        return found["source"], found["rows"], found["chip"]


def place_of(chip):
    "The source that a chip is held out with: all of Las Vegas is one."
    name = chip["source"].replace("spacenet3_", "").replace("gsi_japan_roads", "japan")
    return name.replace("nine", "vegas")


def without_source(source, held):
    "Which examples to learn from where a source is held out: noise over its labels goes, too."
    return ~np.array([held in s.split() for s in source])


def fitted(rows, without=(), nets=NETS, epochs=EPOCHS):
    "A model of examples, without some kinds of evidence: the mean of several small nets, as one."
    n = len(EVIDENCE)
    table, y, weight = rows[:, :n].copy(), rows[:, n], rows[:, n + 1] / rows[:, n + 1].mean()
    table[:, [EVIDENCE.index(name) for name in without]] = 0
    mean, spread = table.mean(0), table.std(0) + 1e-3
    z = np.clip((table - mean) / spread, -4, 4)
    layers = list(zip(*(one_net(z, y, weight, seed, epochs) for seed in range(nets)), strict=True))
    first = np.hstack(layers[0]), np.concatenate(layers[1])
    last = np.vstack(layers[2]) / nets, np.mean(layers[3], axis=0)
    return ConnectionModel(mean, spread, (first, last))


def one_net(z, y, weight, seed, epochs):
    "Weights and biases of the two layers of one net."
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    z, y, weight = (torch.tensor(x, dtype=torch.float32) for x in (z, y, weight))
    net = torch.nn.Sequential(
        torch.nn.Linear(z.shape[1], HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 1)
    )
    batches = len(z) // 1024 + 1
    best = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(best, 0.02, total_steps=epochs * batches)
    for _ in range(epochs):
        for part in torch.randperm(len(z)).chunk(batches):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                net(z[part])[:, 0], y[part], weight[part]
            )
            best.zero_grad()
            loss.backward()
            best.step()
            rate.step()
    w0, b0, w1, b1 = (p.detach().numpy().astype(float) for p in net.parameters())
    return w0.T, b0, w1.T, b1


def quality(rows, p):
    "Area under the ROC curve, Brier score and calibration error, of edges and of joins."
    n, out = len(EVIDENCE), {}
    for kind, name in ((0, "edges"), (1, "joins")):
        mine = rows[:, n + 2] == kind
        found = measures(rows[mine, n], p[mine], rows[mine, n + 1])
        out |= {f"{name} {measure}": value for measure, value in found.items()}
    return out


def measures(y, q, weight):
    "How many there are, the share that is true, and how well a confidence says so."
    right = y >= 0.7
    rank = stats.rankdata(q)[right].sum() - right.sum() * (right.sum() + 1) / 2
    bins = np.digitize(q, np.linspace(0, 1, 11)[1:-1])
    off = [
        abs((weight * (q - y))[bins == b].sum()) for b in range(10)
    ]  # of each tenth, its share of the weight included
    return {
        "n": len(y),
        "true": float(np.average(y, weights=weight)),
        "auc": float(rank / max(right.sum() * (~right).sum(), 1)),
        "brier": float(np.average((q - y) ** 2, weights=weight)),
        "calibration": float(sum(off) / weight.sum()),
    }


HELD_OUT = ("cities", "japan", "shanghai", "vegas", "noise", "truth")


def train(a):
    "The shipped model, from everything; what it is worth, from models without each source."
    source, rows, chip = gathered(a)
    table = []
    for name in HELD_OUT:
        mine = without_source(source, name)
        write_model(model := fitted(rows[mine]), a.out / f"without-{name}.npz")
        p = confidence(model, rows[~mine, : len(EVIDENCE)])
        table.append({"held out": name, **quality(rows[~mine], p)})
    print(pd.DataFrame(table).round(3).to_string(index=False))
    nine = np.char.startswith(chip, "AOI_2_Vegas")  # never learned from, so that they can be shown
    write_model(fitted(rows[~nine]), a.model)


def write_model(model, path):
    "A model as a file of arrays."
    parts = dict(evidence=np.array(EVIDENCE), mean=model.mean, spread=model.spread)
    for k, (weights, biases) in enumerate(model.layers):
        parts |= {f"weights{k}": weights, f"biases{k}": biases}
    parts = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in parts.items()}
    np.savez_compressed(path, **parts)
    count = sum(v.size for k, v in parts.items() if k.startswith(("weights", "biases")))
    print(f"{path}: {count} weights, {path.stat().st_size} bytes")
    read_model(path)


def leave_out(a):
    "What each group of evidence is worth, on sources that the model did not see."
    source, rows = (x[::2] for x in gathered(a)[:2])  # many trainings: half the examples will do
    n, out = len(EVIDENCE), []
    for name, without in {"nothing": (), **GROUPS}.items():
        p = np.zeros(len(rows))
        for held in HELD_OUT:
            mine, part = ~without_source(source, held), rows[:, :n].copy()
            part[:, [EVIDENCE.index(w) for w in without]] = 0
            p[mine] = confidence(fitted(rows[~mine], without, 1, EPOCHS // 4), part[mine])
        q = quality(rows, p)
        out.append({"left out": name, **{k: q[k] for k in q if k.split()[1] in ("auc", "brier")}})
        print(out[-1], flush=True)
    print(pd.DataFrame(out).round(4).to_string(index=False))


def recall(a):
    "How many joins are proposed, and how many of the true ones are among them."
    rows = []
    for chip in chips_of(a, a.real) + [
        c for s in a.on for c in chips_of(a, f"city{s}")[:: a.every]
    ]:
        probs, _, frame, truth = opened_chip(chip)
        base, asked = config_of(chip), Truth(truth)
        g = network_of(probs, frame, base)
        ends = dead_ends(g, base.gap_heading_m, base.gap_tip_m)
        _, found = candidates(g, ends, probs[channels_of(probs).road], frame, base)
        lines = {
            (u, v, k): shapely.LineString(d["pts"]) for u, v, k, d in g.edges(keys=True, data=True)
        }
        km = sum(line.length for line in lines.values()) / 1000
        torn = torn_ends(ends, lines, asked)
        right = set()
        if found:
            ways, _, length = sample_lines([c.join.path for c in found])
            for c, y in zip(found, asked.is_route(ways, length), strict=True):
                right |= {c.join.start, c.join.stop} if y else set()
        rows.append((place_of(chip), km, len(found), len(torn), len(torn & right)))
    table = pd.DataFrame(rows, columns=["source", "km", "proposed", "torn", "found"])
    total = table.groupby("source").sum()
    total["proposed a km"] = total.proposed / total.km
    total["recall"] = total.found / total.torn
    print(total.round(3).to_string())


def torn_ends(ends, edges, asked):
    """Dead ends on a true road (within 4 m) that goes on in their direction and comes, on a true
    way of at most 45 m, to another traced road, along which (within 4 m) it then runs for 20 m: a
    road that is only passed, above or below, does not count."""
    if not asked.tree or not len(ends.node):
        return set()
    ahead = ends.root[:, None] + ends.heading[:, None] * np.array([0.0, 6.0, 12.0])[None, :, None]
    away, which = asked.tree.query(ahead.reshape(-1, 2))
    away, which = away.reshape(-1, 3), which.reshape(-1, 3)
    lines, out = shapely.STRtree(list(edges.values())), set()
    names = list(edges)
    for n in np.flatnonzero((away <= 4).all(1)).tolist():
        back, on = dijkstra(asked.links, directed=False, indices=which[n, [0, 2]], limit=65.0)
        met = np.flatnonzero(np.isfinite(back) & (on < back))
        place, road = lines.query(shapely.points(asked.xy[met]), predicate="dwithin", distance=4.0)
        u, v, k = ends.edges[n]
        for m in np.unique(road).tolist():
            reached = np.sort(back[met[place[road == m]]])
            if names[m] not in ((u, v, k), (v, u, k)) and len(reached) >= 8 and reached[0] <= 45:
                out.add(n)
    return out


def overpasses(a):
    "Truth and noisy masks of generated cities where roads pass over each other."
    for seed in map(int, a.words):
        for channels in (Channels.best(), Channels.selim_sef()):
            chips = drawing.city_chips(1.0, seed, channels)
            for k, (name, mask, place, label) in enumerate(chips):
                frame = make_frame(mask.shape[1:], place["transform"], place["crs"])
                truth = graph.from_labels(label, crs=frame.target)
                over, where = len(crossing_places(truth)), (place, label)
                name = f"{name}-{len(channels)}"
                if over or k % 3 == seed % 3:
                    keep_drawn(a, f"over{seed}", name, mask, *where, "truth")
                if over or k % 5 == seed % 5:
                    noisy = drawing.degrade(mask, np.random.default_rng([seed, k]))
                    keep_drawn(a, f"over{seed}", f"{name}-noise", noisy, *where, "noise")


def crossing_examples(chip):
    "Evidence, truth, weight and 1 of each road through each place where roads could pass."
    probs, _, frame, truth = opened_chip(chip)
    channels, config = channels_of(probs), VectorizeConfig()
    g = network_of(probs, frame, config, "whiskers")
    about = (probs, frame, channels)
    found = passings(g, node_groups(g, *about, config), *about, config)
    if not found:
        return np.zeros((0, len(EVIDENCE) + 3))
    table, _ = passing_evidence(g, found, *about)
    ways, _, length = sample_lines([road for p in found for road in p.roads])
    over = crossing_places(truth)
    near = np.zeros(len(ways), bool)
    if len(over):
        near = cKDTree(over).query(ways[:, PLACES // 2])[0] <= OVER_M
    right, one = Truth(truth).is_route(ways, length) * near, np.ones(len(ways))
    return np.column_stack([table, right, one, one])


def crossing_rows(a, name):
    "Examples of crossings of a set of masks; kept in a file."
    file = a.out / f"crossings-{name}.npz"
    if not file.is_file():
        np.savez(file, rows=np.vstack([crossing_examples(c) for c in chips_of(a, name)]))
    with np.load(file) as found:
        return found["rows"]


def in_fifths(rows, other):
    "Confidence of each row by a model that saw none of its fifth of the set: about a city each."
    out, parts = np.zeros(len(rows)), np.array_split(np.arange(len(rows)), 5)
    for part in parts:
        rest = np.setdiff1d(np.arange(len(rows)), part)
        model = fitted(np.vstack([rows[rest], *other]), nets=1)
        out[part] = confidence(model, rows[part, : len(EVIDENCE)])
    return out


def train_crossings(a):
    "The shipped model of crossings, and what models are worth that saw four fifths of a set."
    drawn, seen = [f"over{w}" for w in a.words], [f"city{s}" for s in a.seeds]
    parts, n = {name: crossing_rows(a, name) for name in drawn + seen}, len(EVIDENCE)
    table = []
    for name, rows in parts.items():
        other = [r for key, r in parts.items() if key != name]
        ruled = (rows[:, EVIDENCE.index("ruled")] == 1).astype(float)
        for who, p in {"model": in_fifths(rows, other), "rules": ruled}.items():
            table.append({"set": name, "by": who, **measures(rows[:, n], p, rows[:, n + 1])})
    print(pd.DataFrame(table).round(3).to_string(index=False), flush=True)
    write_model(fitted(np.vstack(list(parts.values()))), a.crossings)


def crossings(a):
    "Rules and model on truth masks: overpasses kept apart, junctions torn, false passes, APLS."
    model = read_model(a.crossings)
    for seed in map(int, a.words):
        for channels in (Channels.best(), Channels.selim_sef()):
            found = {"rules": [], "learned": []}
            for _, mask, place, label in drawing.city_chips(a.gsd, seed, channels):
                frame = make_frame(mask.shape[1:], place["transform"], place["crs"])
                truth = graph.from_labels(label, crs=frame.target)
                for who, rows in found.items() if len(crossing_places(truth)) else ():
                    rows.append(passed(mask, place, truth, channels, who, model))
            for who, rows in found.items():
                n = np.sum(rows, axis=0)
                print(
                    f"seed {seed}, {a.gsd} m, {len(channels)} bands, {who}: kept apart "
                    f"{n[1]:.0f} of {n[0]:.0f}, torn {n[3]:.0f} of {n[2]:.0f}, false passes "
                    f"{n[4]:.0f}; APLS {np.mean(rows, axis=0)[5:].round(4)}",
                    flush=True,
                )


def passed(mask, place, truth, channels, who, model):
    "One chip: overpasses, kept, junctions, torn, false passes, APLS_length and APLS_time."
    import spacenet5_nb.roads.learned_crossings as shelf

    shelf.shipped_crossings = lambda: model
    config = VectorizeConfig(crossings=who)
    g = vectorize(mask, config=config, channels=channels, **place)
    count, over, made = score_crossings(truth, g), crossing_places(truth), crossing_places(g)
    away = cKDTree(over).query(made)[0] if len(made) else np.zeros(0)
    both = [s.score for s in apls_both(truth, add_speeds(g, mask, channels=channels, **place))]
    return [*count, int((away > OVER_M).sum()), *both]


def draw(a):
    "Two real masks of ../shared/data/road_probability: graphs by rules, learned, and filled."
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    configs = {"rules": VectorizeConfig(), "learned": VectorizeConfig(joins="learned")}
    configs["learned, wide roads filled"] = VectorizeConfig(joins="learned", fill_wide=True)
    place = dict(transform=Affine(1, 0, 500_000.5, 0, -1, 4_000_000.5), crs="EPSG:32611")
    fig, axes = plt.subplots(2, 3, figsize=(15, 10.2), layout="constrained")
    for k, row in enumerate(axes):
        band = plt.imread(a.masks / f"samroad_mask_{k}.png")
        probs = np.zeros((12, *band.shape), np.uint8)
        probs[[4, 10]] = np.round(255 * band)
        for ax, (name, config) in zip(row, configs.items(), strict=True):
            g = vectorize(probs, config=config, **place)
            ax.imshow(band, cmap="gray", vmax=1.6)
            for *_, d in g.edges(data=True):
                x, y = np.array(d["geometry"].coords).T
                sure = d.get("connection_confidence")
                color = "cyan" if sure is None else plt.get_cmap("RdYlGn")(float(sure))
                ax.plot(x - 500_001, 4_000_000 - y, color=color, lw=1.3)
            tips = np.array([(d["x"], d["y"]) for n, d in g.nodes(data=True) if g.degree(n) == 1])
            ax.plot(tips[:, 0] - 500_001, 4_000_000 - tips[:, 1], "o", color="magenta", ms=3)
            km = sum(d["length"] for *_, d in g.edges(data=True)) / 1000
            ax.set_title(f"{name}: {g.number_of_edges()} edges, {km:.1f} km", fontsize=11)
            ax.axis("off")
    fig.savefig(a.words[0], dpi=75, pil_kwargs=dict(quality=72))


def made(chip, opened, model, **options):
    "The road graph of one chip, by rules where there is no model."
    probs, place, frame, _ = opened
    config, channels = config_of(chip), channels_of(probs)
    if isinstance(model, str):
        config = model
    elif model is not None:
        config = replace(config, joins="learned", **options)
        import spacenet5_nb.roads.learned_joins as shelf

        shelf.shipped_model = lambda: model
    g = vectorize(probs, config=config, channels=channels, **place)
    return add_speeds(g, probs, channels=channels, **place)


def scored(chip, who, g, truth):
    "One row: APLS by length and by time, and the lengths that make precision and recall."
    length, time = (
        (s.score for s in apls_both(truth, g)) if truth.number_of_edges() else (None,) * 2
    )
    about = dict(chip=chip["name"], source=chip["source"], who=who)
    return about | dict(apls_length=length, apls_time=time, **world.lengths(truth, g))


def score(a):
    "Rules and learned, side by side."
    rows, models = [], {}
    options = dict(connection_make=a.make, connection_keep=a.keep, connection_keep_end=a.keep_end)
    jobs = [] if a.on else [(c, 0.0) for c in chips_of(a, a.real)]
    chips = [c for s in a.on for c in chips_of(a, f"city{s}")[:: a.every]]
    jobs += [(c, g) for g in (1.0, 0.5) for c in chips]
    for chip, gsd_m in jobs:
        place = place_of(chip)
        if place not in models:
            held = a.model if place == "cities" else a.out / f"without-{place}.npz"
            models[place] = read_model(held)
        opened = opened_chip(chip, gsd_m if gsd_m < 1 else 0.0)
        if gsd_m:
            chip = chip | {"source": f"cities {gsd_m} m"}
        base = chip | {"source": "cities"} if gsd_m else chip
        graphs = [("rules", None), ("learned", models[place])]
        for who, model in [("selim_sef", "selim_sef")] * a.original + graphs:
            rows.append(scored(chip, who, made(base, opened, model, **options), opened[3]))
    table = pd.DataFrame(rows)
    table.to_csv(a.out / f"scores-{'-'.join(map(str, a.on)) or a.real}.csv", index=False)
    show(table)


def show(rows):
    "A table of sources; differences of learned and rules with intervals over chips."
    for source, mine in rows.groupby("source", sort=False):
        print(f"{source}: {len(mine) // mine.who.nunique()} chips")
        for who, part in mine.groupby("who", sort=False):
            f1, precision, recall = world.f1_of(part)
            print(
                f"  {who:10} APLS_length {part.apls_length.mean():.3f}, APLS_time "
                f"{part.apls_time.mean():.3f}; F1 {f1:.3f}, precision {precision:.3f}, "
                f"recall {recall:.3f}"
            )
        for measure in ("apls_length", "apls_time"):
            wide = mine.pivot_table(
                index=mine.groupby("who").cumcount(), columns="who", values=measure
            )
            print(f"  learned - rules, {measure}: {world.spread(wide.learned - wide.rules)}")


COMMANDS = {
    "predict": predict,
    "cities": cities,
    "drawn": drawn,
    "train": train,
    "score": score,
    "leave-out": leave_out,
    "recall": recall,
    "draw": draw,
    "overpasses": overpasses,
    "train-crossings": train_crossings,
    "crossings": crossings,
}


def main():
    root = Path(__file__).resolve().parents[1]
    shared = root / "../shared/data"
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ask.add_argument("command", choices=COMMANDS)
    ask.add_argument("words", nargs="*", help="predict: set, members; cities: seed, folders; draw")
    ask.add_argument("--out", type=Path, default=Path("outputs/connections"))
    ask.add_argument("--data", type=Path, default=shared / "real_roads")
    ask.add_argument("--nine", type=Path, default=shared / "spacenet3_vegas")
    ask.add_argument("--masks", type=Path, default=shared / "road_probability")
    ask.add_argument("--world", type=Path, default=Path("outputs/world"), help="tiles' files")
    ask.add_argument("--sources", nargs="*", default=[], help="predict: all tiles of these too")
    ask.add_argument("--real", default="A", help="set of real tiles")
    ask.add_argument("--seeds", type=int, nargs="*", default=[21, 22], help="cities to learn from")
    ask.add_argument("--drawn", type=int, nargs="*", default=[31], help="seeds of drawn masks")
    ask.add_argument("--on", type=int, nargs="*", default=[], help="score, recall: these cities")
    ask.add_argument("--every", type=int, default=1, help="score: only every so-manieth city chip")
    ask.add_argument("--original", action="store_true", help="score: selim_sef, too")
    ask.add_argument("--make", type=float, default=VectorizeConfig().connection_make)
    ask.add_argument("--keep", type=float, default=VectorizeConfig().connection_keep)
    ask.add_argument("--keep-end", type=float, default=VectorizeConfig().connection_keep_end)
    ask.add_argument("--model", type=Path, default=root / "spacenet5_nb/assets/connections.npz")
    ask.add_argument("--crossings", type=Path, default=root / "spacenet5_nb/assets/crossings.npz")
    ask.add_argument("--gsd", type=float, default=1.0, help="crossings: metres a pixel")
    a = ask.parse_args()
    warnings.simplefilter("ignore")
    COMMANDS[a.command](a)


if __name__ == "__main__":
    main()
