"""How well `spacenet5 conflate` tells what is new, missing and out of place, where the truth is
known.

    .venv/bin/python benchmarks/conflate.py [--shifts 0 2 5 10] [--noise 1.0] [--draws 3]
        [--extracts ../shared/data/osm] [--predicted outputs/corrections] [--out outputs/conflate]

Generated cities: the true network, traced with errors of `--noise` metres at every 15 m and moved
as a whole, is the prediction. The map is the same network with 12 % of its streets removed, up to
12 % bulged 12 to 20 m out of place, all renamed, and straight streets invented where there are
none. Streets that would land on another one are not moved: nobody could tell. Real extracts of
OpenStreetMap have no imagery here: the extract itself is doctored and traced in the same way.
With `--predicted outputs/corrections`, what `benchmarks/corrections.py` left, the prediction is
that of the workspace's first member on a generated city that it has not seen, and the map is that
city's truth, doctored.

Precision and recall are shares of kilometres, all draws together; `recall of seen` is the share of
those removed streets beside which anything was predicted at all (within 9 m, 30 degrees): what a
network did not see cannot be new. `shift` is the error of the estimated one.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import shapely

from spacenet5_nb.acquire.osm import is_hidden, left_out
from spacenet5_nb.base.labels import Rows, move_lines, read_rows
from spacenet5_nb.base.road_columns import text_of
from spacenet5_nb.cities.noding import make_network
from spacenet5_nb.core import write_text
from spacenet5_nb.demo import CITIES
from spacenet5_nb.graph import from_lines, utm_of
from spacenet5_nb.mapping.conflation import Conflation, conflate, crs_of
from spacenet5_nb.mapping.doctored_map import Doctored, agreement, doctored, traced
from spacenet5_nb.mapping.shift import neighbours_of, pair, sample_lines

HALF_M = 600  # of a generated city
AT = (11.85, 52.6)


def city(k: int, rng: np.random.Generator) -> tuple[np.ndarray, list[dict], str]:
    "A generated city's streets in metres of a UTM zone, their tags, the zone."
    crs = utm_of(*AT)
    corner = move_lines(np.array([shapely.Point(AT)], object), "EPSG:4326", crs)[0]
    streets = make_network(CITIES[k].plan, HALF_M, rng).streets
    lines = np.array([street.line for street in streets], object)
    moved = shapely.transform(lines, lambda xy: xy + (corner.x, corner.y))
    return moved, [{"highway": street.highway} for street in streets], crs


def extract(path: Path) -> tuple[np.ndarray, list[dict], str]:
    "An extract's roads for cars, cut at their junctions as a prediction is."
    rows = read_rows(path)
    tags = [{k: text_of(v) for k, v in t.items() if text_of(v)} for t in rows.tags]
    kept = [k for k, t in enumerate(tags) if not left_out(t) and not is_hidden(t)]
    crs = crs_of(rows.lines[kept])
    g = from_lines(move_lines(rows.lines[kept], "EPSG:4326", crs), [30.0] * len(kept), crs=crs)
    lines = np.array([d["geometry"] for *_, d in g.edges(data=True)], object)
    return lines, [{"highway": "residential"}] * len(lines), crs


def network_city(folder: Path) -> tuple[tuple[np.ndarray, list[dict], str], np.ndarray]:
    "A city's truth, as `city`; and what a member saw of it."
    files = sorted(folder.glob("predicted/*.geojson"))
    truth = [next(folder.glob(f"city/**/geojson_roads_speed/*{p.stem.split('_')[-1]}.geojson"))
             for p in files]  # fmt: skip
    both = [[read_rows(p) for p in some] for some in (truth, files)]
    lines = [np.concatenate([rows.lines for rows in some]) for some in both]
    crs = crs_of(lines[0])
    tags = [{"highway": text_of(t.get("highway"))} for rows in both[0] for t in rows.tags]
    placed = [move_lines(some, "EPSG:4326", crs) for some in lines]
    return (placed[0], tags, crs), placed[1]


def one(
    lines: np.ndarray,
    tags: list[dict],
    crs: str,
    shift_m: float,
    noise_m: float,
    seed: tuple,
    predicted: np.ndarray | None = None,
) -> tuple[Conflation, Doctored, dict]:
    "A doctored map beside a traced prediction: what was found, and how well."
    rng, began = np.random.default_rng(seed), time.process_time()
    wrong = doctored(lines, rng, tags=tags)
    turn = rng.uniform(0, 2 * np.pi)
    shift = shift_m * np.array([np.cos(turn), np.sin(turn)])
    own = traced(lines, rng, noise_m) if predicted is None else predicted
    seen = shapely.transform(own, lambda xy: xy - shift)
    rows = [Rows(move_lines(some, crs, "EPSG:4326"), said, []) for some, said in
            ((seen, [{} for _ in seen]), (wrong.lines, wrong.tags))]  # fmt: skip
    area = shapely.box(*shapely.total_bounds(rows[0].lines)).buffer(0.001)
    found = conflate(*rows, looked_at=area)
    kinds = {
        "new": (lines_of(found.seen, "new", crs), wrong.removed),
        "missing": (lines_of(found.drawn, "missing", crs), wrong.invented),
        "out of place": (lines_of(found.drawn, "out_of_place", crs), wrong.moved, 25, 60),
    }
    row = {kind: agreement(*some) for kind, some in kinds.items()}
    removed, own = (sample_lines(some) for some in (wrong.removed, to_map(seen, shift)))
    is_seen = pair(removed, neighbours_of(own), 9, 30).index >= 0
    row |= {"seen_km": float(is_seen.mean() * shapely.length(wrong.removed).sum() / 1000)}
    row |= {"shift": float(np.hypot(*(found.shift.whole - shift)))}
    return found, wrong, row | {"cpu_s": time.process_time() - began}


def to_map(lines: np.ndarray, shift: np.ndarray) -> np.ndarray:
    "Predicted lines where the map has them."
    return shapely.transform(lines, lambda xy: xy + shift)


def lines_of(table, kind: str, crs: str) -> np.ndarray:
    "The lines of a kind, in another CRS."
    return table[table["kind"] == kind].to_crs(crs).geometry.to_numpy()


def together(rows: list[dict], kind: str) -> tuple[float, float, float]:
    "Precision and recall of a kind over all draws, by kilometres; true kilometres."
    found = np.array([(r[kind].found_km, r[kind].true_km) for r in rows])
    share = np.array([r[kind][:2] for r in rows])
    sums = np.maximum(found.sum(0), 1e-9)
    return *((share * found).sum(0) / sums), found[:, 1].sum()


def row_of(name: str, shift_m: float, rows: list[dict]) -> dict:
    "A line of the table."
    line = {"map": name, "shift_m": shift_m}
    for kind in ("new", "missing", "out of place"):
        precision, recall, km = together(rows, kind)
        line |= {f"{kind}: precision": precision, f"{kind}: recall": recall, f"{kind}: km": km}
    recall, km = together(rows, "new")[1:]
    line["new: recall of seen"] = recall * km / sum(r["seen_km"] for r in rows)
    line["shift error, m"] = max(r["shift"] for r in rows)
    return line | {"CPU, s": sum(r["cpu_s"] for r in rows) / len(rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shifts", type=float, nargs="+", default=[0, 2, 5, 10])
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--extracts", default="../shared/data/osm")
    parser.add_argument("--predicted", default="")
    parser.add_argument("--out", default="outputs/conflate")
    args = parser.parse_args()
    table = []
    for shift in args.shifts:
        rows = [
            one(*city(k, np.random.default_rng([d, k])), shift, args.noise, (d, k, 1))[2]
            for k in range(len(CITIES))
            for d in range(args.draws)
        ]
        table.append(row_of(f"{len(CITIES)} generated cities", shift, rows))
        print(pd.DataFrame(table[-1:]).round(3).to_string(index=False), flush=True)
    if args.predicted:
        place, seen = network_city(Path(args.predicted))
        for shift in args.shifts:
            rows = [one(*place, shift, 0.0, (d, 5), seen)[2] for d in range(args.draws)]
            table.append(row_of("a member's own roads", shift, rows))
    files = [p for p in sorted(Path(args.extracts).glob("*")) if p.name.endswith(
        (".osm.pbf", ".osm.gz", ".graphml"))]  # fmt: skip
    for path in files:
        lines, tags, crs = extract(path)
        for shift in args.shifts:
            rows = [one(lines, tags, crs, shift, args.noise, (d, 9)) for d in range(args.draws)]
            table.append(row_of(path.name, shift, [r for *_, r in rows]))
            print(pd.DataFrame(table[-1:]).round(3).to_string(index=False), flush=True)
    print(pd.DataFrame(table).round(3).to_string(index=False))
    write_text(Path(args.out) / "conflate.json", json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
