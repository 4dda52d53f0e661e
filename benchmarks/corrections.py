"""What mending a quarter of a prediction is worth in the other three: `train-own --labels
mended.gpkg --looked-at area.gpkg --begin-with world`, its weights, and what it is compared with.

    .venv/bin/python benchmarks/corrections.py [--city Enigma] [--seed 77] [--steps 120] [--draws 2]
        [--arms none mended] [--lr 0.0005] [--minutes 25] [--out outputs/corrections]

A generated city that no member has seen (another seed than any training's), eight chips of 200 m.
The workspace's first member predicts all of it. In two chips its errors are mended: what the truth
has and the prediction lacks within six metres is added, what it has beside the truth is deleted,
the rest stays as it was predicted. The other six keep the prediction. Each arm is scored on those
six against the truth; a draw is another pair of chips.

none       the member as it is: no correction
mended     begun with the member; edited places count in full, what was looked at half, the rest a
           tenth, as `train-own` does
equal      the same labels, all in full
two chips  begun with the member; the rest is not trained on
fresh      the labels of `mended`, from fresh weights
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from leave_one_out import SCORES, make_preset, score_of, with_interval

from spacenet5_nb import demo, ensemble, explore, masks, raster
from spacenet5_nb.acquire.osm import footprint, write_labels
from spacenet5_nb.base.labels import Rows, move_lines, read_rows
from spacenet5_nb.core import Run, load_preset, load_settings, write_json, write_text
from spacenet5_nb.extract import find_members
from spacenet5_nb.mapping.conflation import stretches, substring
from spacenet5_nb.mapping.corrections import find_edits, weights_of
from spacenet5_nb.mapping.shift import neighbours_of, pair, sample_lines
from spacenet5_nb.speed import add_speeds
from spacenet5_nb.targets.label_weights import MEMBER, Weights, weights_json
from spacenet5_nb.train import fit
from spacenet5_nb.vectorize import vectorize

ARMS = ("none", "mended", "fresh", "equal", "two chips")
GRID, CHIP_M = (2, 4), 200.0


def predicted(image: str, member: Path) -> tuple[np.ndarray, list[dict], str]:
    "Roads of a chip with speeds, by the world members' own preset, in metres."
    p = load_preset("world")
    how = dict(tta=p.ensemble.tta, scales=p.ensemble.scales, device="cpu", as_bytes=True)
    probs = ensemble.predict([member], image, **how)
    grid = raster.target_grid(image, p.data.gsd_m)
    place = dict(transform=grid.transform, crs=grid.crs, channels=p.channels)
    g = add_speeds(vectorize(probs, config=p.vectorize, **place), probs, config=p.speed, **place)
    edges = [d for *_, d in g.edges(data=True)]
    lines = np.array([d["geometry"] for d in edges], object)
    return lines, [{"speed_kph": d["speed_kph"]} for d in edges], str(g.graph["crs"])


def mended(old: Rows, truth: Rows, crs: str, near_m: float = 6.0) -> Rows:
    "A prediction without its errors: roads added and deleted, the rest as it was."
    out, tags = [], []
    pairs = ((old, truth, True), (truth, old, False))
    for rows, other, keeps in pairs:
        lines, others = (move_lines(r.lines, "EPSG:4326", crs) for r in (rows, other))
        if not len(lines):
            continue
        here = sample_lines(lines)
        near = pair(here, neighbours_of(sample_lines(others)), near_m).index >= 0
        for part in stretches(here, near.astype(int), shapely.length(lines)):
            if bool(part.label) == keeps:
                out.append(substring(lines[part.line], part.low_m, part.high_m))
                tags.append(rows.tags[part.line])
    return Rows(move_lines(np.array(out, object), crs, "EPSG:4326"), tags, [])


def write_label(rows: Rows, weights: Weights | None, path: Path) -> str:
    "A label file with what it is worth."
    frame = gpd.GeoDataFrame(pd.DataFrame(rows.tags, dtype=object),
                             geometry=gpd.GeoSeries(list(rows.lines), crs="EPSG:4326"))  # fmt: skip
    write_labels(frame, path)
    if weights is not None:
        member = json.dumps({MEMBER: weights_json(weights)})[1:-1]
        write_text(path, path.read_text().replace('{"type"', "{" + member + ', "type"', 1))
    return str(path)


def labels_of(run: Run, chips: pd.DataFrame, chosen: list[int], arm: str) -> pd.DataFrame:
    "The chips that an arm trains on, with their targets."
    rows = []
    for k, c in enumerate(chips.itertuples()):
        if arm == "two chips" and k not in chosen:
            continue
        old = read_rows(run.folder / "predicted" / f"{c.chip}.geojson")
        crs = str(c.crs_m)
        new = mended(old, read_rows(c.label), crs) if k in chosen else old
        weights = None
        if arm in ("mended", "fresh"):
            edits = find_edits(new, old) if len(old.lines) else None
            seen = footprint(c.image)
            weights = weights_of(edits, seen) if k in chosen and edits else Weights(0.1, ())
        name = f"{arm.replace(' ', '-')}-{'-'.join(map(str, chosen))}"
        label = write_label(new, weights, run.folder / name / f"{c.chip}.geojson")
        mask = str(run.folder / name / f"{c.chip}.tif")
        p = run.preset
        masks.make_chip_mask((c.image, label, mask, p.data.gsd_m, p.channels, p.masks))
        rows.append({**c._asdict(), "mask": mask, "fold": 1})
    held = {**rows[0], "chip": "held_out", "fold": 0}  # `fit` asks for one; it is not looked at
    return pd.DataFrame([*rows, held]).drop(columns="Index")


def train(run: Run, chips: pd.DataFrame, chosen: list[int], arm: str, steps: int) -> Path:
    "Train an arm; its member."
    preset = run.preset
    if arm == "fresh":
        preset = make_preset("small", ["network.pretrained=false"], steps, 2)
    own = replace(run, preset=preset)
    table = labels_of(own, chips, chosen, arm)
    out = run.folder / "members" / f"{arm.replace(' ', '-')}-{'-'.join(map(str, chosen))}"
    fit(preset, 0, table, out=out, cache=run.cache, device="cpu", seed=run.seed)
    return out / "last.safetensors"


def judged(run: Run, arm: str):
    "An arm's own grid; roads are traced in one way for all."
    world = load_preset("world")
    if arm == "none":
        return world
    own = load_preset("small") if arm == "fresh" else run.preset
    return replace(own, vectorize=world.vectorize, speed=world.speed, ensemble=world.ensemble)


def score_arm(run: Run, chips: pd.DataFrame, chosen: list[int], arm: str, steps: int) -> list[dict]:
    "An arm's scores on the chips that nobody mended; what is there is read."
    path = run.folder / "scores" / f"{arm.replace(' ', '-')}-{'-'.join(map(str, chosen))}.json"
    if path.is_file() and (old := json.loads(path.read_text()))["steps"] == steps:
        return old["rows"]
    began = time.process_time()
    known = find_members("world")[0]
    member = known if arm == "none" else train(run, chips, chosen, arm, steps)
    own = replace(run, preset=judged(run, arm))
    rest = [k for k in range(len(chips)) if k not in chosen]
    rows = [
        {"arm": arm, "draw": str(chosen), "chip": c["chip"], **score_of(own, c, member)}
        for _, c in chips.iloc[rest].iterrows()
    ]
    write_json(path, {"steps": steps, "rows": rows})
    means = pd.DataFrame(rows)[list(SCORES)].mean().round(3).to_dict()
    print(f"{arm} {chosen}: {time.process_time() - began:.0f} s of CPU, {means}", flush=True)
    return rows


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ask.add_argument("--city", default="Enigma")
    ask.add_argument("--seed", type=int, default=77)
    ask.add_argument("--steps", type=int, default=120)
    ask.add_argument("--draws", type=int, default=2)
    ask.add_argument("--lr", type=float, default=0.0, help="0: the preset's")
    ask.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    ask.add_argument("--minutes", type=float, default=25)
    ask.add_argument("--out", default=str(Path(load_settings().outputs_root) / "corrections"))
    a, start = ask.parse_args(), time.monotonic()
    root = demo.make_demo(
        Path(a.out) / "city",
        seed=a.seed,
        chip_m=CHIP_M,
        grid=GRID,
        test_grid=GRID,
        cities=[a.city],
        workers=1,
    )
    rate = [f"stage.lr=[[0, {a.lr}]]"] if a.lr else []
    begun = make_preset("finetune", rate, a.steps, 2, find_members("world")[0])
    run = Run("corrections", Path(a.out), root, begun, a.seed)
    chips = explore.find_chips(root, n_bands=3, chip_m=0)
    chips = chips[chips.label != ""].sort_values("chip").reset_index(drop=True)
    member, zones = find_members("world")[0], []
    for c in chips.itertuples():
        lines, tags, crs = predicted(c.image, member)
        zones.append(crs)
        rows = Rows(move_lines(lines, crs, "EPSG:4326"), tags, [])
        write_label(rows, None, run.folder / "predicted" / f"{c.chip}.geojson")
    chips = chips.assign(crs_m=zones)
    table = []
    for draw in range(a.draws):
        chosen = [draw, draw + len(chips) // 2]
        for arm in a.arms:
            if time.monotonic() - start < 60 * a.minutes:
                table += score_arm(run, chips, chosen, arm, a.steps)
    found = pd.DataFrame(table)
    print(found.groupby("arm", sort=False)[list(SCORES)].mean().round(3).to_string())
    wide = found.set_index(["arm", "draw", "chip"])[list(SCORES)]
    for other in ARMS:
        if other != "mended" and {other, "mended"} <= set(found["arm"]):
            gain = (wide.loc["mended"] - wide.loc[other]).dropna()
            for score in SCORES:
                print(f"mended minus {other}, {score}: {with_interval(gain[score])}")


if __name__ == "__main__":
    main()
