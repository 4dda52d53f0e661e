"""How often the estimated class of a road (`highway`, roads/road_attributes) is right.

    .venv/bin/python benchmarks/road_classes.py [--extracts ../shared/data/osm]
        [--predicted outputs/corrections]

Extracts: the true network with all tags removed but a posted limit, which stands for the speed that
a network sees; roads without a posted limit take part in the network and are not judged. With
`--predicted`, what `benchmarks/corrections.py` left: roads with speeds that a member saw in a
generated city, against the class of the true street beside them (within 7 m, 30 degrees).
Kilometres; rows are true classes (ramps count as their road's, living streets and unclassified as
residential), columns estimates.
"""

import argparse
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd

from spacenet5_nb import graph
from spacenet5_nb.acquire.osm import is_hidden, left_out
from spacenet5_nb.base.labels import move_lines, read_rows
from spacenet5_nb.base.road_columns import text_of
from spacenet5_nb.mapping.conflation import crs_of
from spacenet5_nb.mapping.shift import neighbours_of, pair, sample_lines
from spacenet5_nb.roads.road_attributes import add_classes, road_classes
from spacenet5_nb.speed_limits import MPH_TO_KPH, speed_of

CLASSES = list(road_classes()["classes"])
SAME = {"living_street": "residential", "unclassified": "residential"}


def true_class(tags: dict[str, str]) -> str:
    "Of the words of the estimate; '' for others."
    word = tags.get("highway", "").removesuffix("_link")
    return word if word in CLASSES else SAME.get(word, "")


def roads_of(path: Path) -> tuple[np.ndarray, list[dict[str, str]], str]:
    "An extract's roads for cars in metres, their tags, the zone."
    rows = read_rows(path)
    tags = [{k: text_of(v) for k, v in t.items() if text_of(v)} for t in rows.tags]
    kept = [k for k, t in enumerate(tags) if not left_out(t) and not is_hidden(t)]
    crs = crs_of(rows.lines[kept])
    return move_lines(rows.lines[kept], "EPSG:4326", crs), [tags[k] for k in kept], crs


def judged(
    g: nx.MultiGraph,
    lines: np.ndarray,  # true ones
    tags: list[dict[str, str]],
) -> pd.DataFrame:  # truth, estimate, confidence, km
    "Estimates beside the true class of the road that most of each edge lies on."
    edges = [d for *_, d in add_classes(g).edges(data=True)]
    here = sample_lines(np.array([d["geometry"] for d in edges], object))
    there = sample_lines(lines)
    beside = pair(here, neighbours_of(there), 7.0).index
    parts = np.split(beside, np.searchsorted(here.line, np.arange(1, len(edges))))
    rows = []
    for part, d in zip(parts, edges, strict=True):
        on = there.line[part[part >= 0]]
        truth = true_class(tags[np.bincount(on).argmax()]) if len(on) else ""
        rows.append((truth, d["highway"], d["highway_confidence"], d["length"] / 1000))
    found = pd.DataFrame(rows, columns=["truth", "estimate", "confidence", "km"])
    return found[found["truth"] != ""]


def extract(path: Path) -> pd.DataFrame:
    "Estimates on the roads of an extract that say their limit."
    lines, tags, crs = roads_of(path)
    speeds = [speed_of(t) for t in tags]
    posted = np.array([s.rule.startswith("label: ") for s in speeds])
    kph = [s.mph * MPH_TO_KPH for s in speeds]
    g = graph.from_lines(lines, kph, crs=crs)
    said = [t if p else {} for t, p in zip(tags, posted, strict=True)]
    return judged(g, lines, said)


def network(folder: Path) -> pd.DataFrame:
    "Estimates on what a member saw, chip by chip."
    parts = []
    for path in sorted(folder.glob("predicted/*.geojson")):
        label = next(
            folder.glob(f"city/**/geojson_roads_speed/*{path.stem.split('_')[-1]}.geojson")
        )
        seen, truth = read_rows(path), read_rows(label)
        crs = crs_of(truth.lines)
        kph = [float(t["speed_kph"]) for t in seen.tags]
        g = graph.from_lines(move_lines(seen.lines, "EPSG:4326", crs), kph, crs=crs)
        tags = [{k: text_of(v) for k, v in t.items()} for t in truth.tags]
        parts.append(judged(g, move_lines(truth.lines, "EPSG:4326", crs), tags))
    return pd.concat(parts)


def report(name: str, found: pd.DataFrame) -> None:
    "The confusion table and shares of kilometres."
    table = found.pivot_table(
        index="truth", columns="estimate", values="km", aggfunc="sum", fill_value=0
    )
    order = [c for c in CLASSES if c in table.index]
    columns = [c for c in CLASSES if c in table.columns]
    rank = found[["truth", "estimate"]].apply(lambda s: s.map(CLASSES.index))
    off = (rank["truth"] - rank["estimate"]).abs()
    km = found["km"]
    right, near = km[off == 0].sum() / km.sum(), km[off <= 1].sum() / km.sum()
    print(f"\n{name}: {km.sum():.1f} km, right {right:.3f}, right or the next class {near:.3f}")
    usual = km.groupby(found["truth"]).sum()
    print(f"always {usual.idxmax()}: {usual.max() / km.sum():.3f}")
    for low, high in ((0, 0.3), (0.3, 0.5), (0.5, 1.01)):
        some = found["confidence"].between(low, high, inclusive="left")
        if some.any():
            share = km[some & (off == 0)].sum() / km[some].sum()
            print(f"confidence {low} to {min(high, 1)}: {km[some].sum():.1f} km, right {share:.3f}")
    print(table.loc[order, columns].round(1).to_string())


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ask.add_argument("--extracts", default="../shared/data/osm")
    ask.add_argument("--predicted", default="")
    a = ask.parse_args()
    for path in sorted(Path(a.extracts).glob("*")):
        if path.name.endswith((".osm.pbf", ".osm.gz", ".graphml")):
            report(path.name, extract(path))
    if a.predicted:
        report("a member's roads of a generated city", network(Path(a.predicted)))


if __name__ == "__main__":
    main()
