"""The members that come with the workspace: trained on real tiles, scored on tiles they never saw.

    .venv/bin/python benchmarks/world.py make all31 --seed 31
    .venv/bin/python benchmarks/world.py train held-out --without 0 1
    .venv/bin/python benchmarks/world.py train no-shanghai --source-out spacenet3_shanghai
    .venv/bin/python benchmarks/world.py finetune own --sources spacenet3_shanghai --without 0 1
        --chips 8 --begin-with outputs/world/no-shanghai/last.safetensors
    .venv/bin/python benchmarks/world.py score outputs/world/held-out/last.safetensors --folds 1
    .venv/bin/python benchmarks/world.py draw outputs/world/held-pair --folds 1
    .venv/bin/python benchmarks/world.py nine outputs/world/held-out/last.safetensors
    .venv/bin/python benchmarks/world.py ship outputs/world/all/last.safetensors

A training goes on where it ended. `--data` is a folder with `tiles.csv`, and per source `images/`
and `masks/`. Tiles that belong together (`group`) are in one fold of five, drawn within their
source; a source of fewer than five groups is in none, so always trained on. `train` learns from
every tile that is in no fold of `--without`, and from no tile of `--source-out`; preset `world`
says how. `finetune` goes on from a member with a few tiles of a source. `score` prints, for each
source, the F1 of centre lines (within 5 m; precision and recall beside it, all tiles of the source
together) and APLS_length with the interval of a bootstrap over tiles, and APLS and TOPO by the
protocol of SAM-Road's SpaceNet table. Its truth are the centre lines of the label masks, cut to
where the image has data. `draw` shows the best, the median and the worst tile of each source.
`nine` scores nine Las Vegas chips with line labels, which `train` never sees. `ship` writes weights
of 16 bits into the package; `make` trains on everything and ships that.
"""

import argparse
import hashlib
from dataclasses import asdict, replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from affine import Affine
from rasterio.features import shapes
from scipy import stats
from skimage.transform import resize, rotate

from spacenet5_nb import demo, ensemble, graph, masks, model, raster, vectorize
from spacenet5_nb.apls import apls, apls_sat2graph
from spacenet5_nb.base.pyplot import plt
from spacenet5_nb.core import (
    Channels,
    DataError,
    Run,
    load_preset,
    load_settings,
    write_json,
    write_text,
)
from spacenet5_nb.explore import find_chips
from spacenet5_nb.extract import band_count, find_members, world_folder
from spacenet5_nb.judge.pixel_roads import pixels_of_roads
from spacenet5_nb.judge.routes import roads_of
from spacenet5_nb.networks.member_header import SUMS
from spacenet5_nb.networks.training_profile import looks_in
from spacenet5_nb.topo import topo_sat2graph
from spacenet5_nb.train import fit

CRS = raster.CRS.from_epsg(32611)  # tiles have no place: each is put at the same one
CORNER = (500_000.0, 4_000_000.0)
FOLDS, SEED, NEAR_M = 5, 5, 5.0
COLUMNS = ("chip", "city", "image", "label", "gsd_m", "part", "known", "bands", "dtype")
GROUNDS = (  # red, green, blue of water, meadow, forest, sand, dark water
    (0.12, 0.2, 0.25),
    (0.2, 0.3, 0.15),
    (0.1, 0.16, 0.1),
    (0.55, 0.48, 0.4),
    (0.2, 0.16, 0.25),
)
# how often each comes; the demo's generated cities share what is left
WEIGHTS = {
    "spacenet3_vegas": 0.25,
    "spacenet3_shanghai": 0.31,
    "gsi_japan_roads": 0.19,
    "massachusetts_roads": 0.05,
    "spacenet_paris_osm": 0.03,
    "textures": 0.04,
}
# A mask's lines are the truth: nothing is joined, dropped or guessed while they are traced.
TRUTH = dict(
    threshold=0.5,
    low_threshold=None,
    valley_share=0.0,
    gap_m=0.0,
    gap_aligned_m=0.0,
    gap_side_m=0.0,
    gap_border_m=0.0,
    gap_longest_m=0.0,
    min_component_m=10.0,
    faint_spur_m=0.0,
    split_crossings=False,
)


def trace_mask(mask, grid):
    "The centre lines of a road mask as a road graph."
    channels = Channels.best()
    probs = np.zeros((len(channels), *mask.shape), np.uint8)
    probs[channels.road] = np.where(mask, 255, 0)
    fine = raster.target_grid(grid, 0.5)
    probs, _ = raster.resample(probs, np.ones(mask.shape, bool), grid, fine)
    place = dict(transform=fine.transform, crs=fine.crs)
    return vectorize.vectorize(probs, config=TRUTH, channels=channels, **place)


def cut(g, grid, valid):
    "A graph without what lies where the image has no data."
    if valid.all():
        return g
    found = shapes(valid.astype(np.uint8), transform=grid.transform)
    area = shapely.union_all([shapely.geometry.shape(s) for s, v in found if v])
    pieces = [d["geometry"].intersection(area) for *_, d in g.edges(data=True)]
    lines = [p for p in shapely.get_parts(pieces) if p.geom_type == "LineString" and p.length > 1]
    return graph.from_lines(lines, [40.0] * len(lines), crs=g.graph["crs"])


def write_tile(row, data, folder):
    "A tile as a GeoTIFF and the centre lines of its mask as GeoJSON; what is there stays."
    stem = f"{row.dataset}_{Path(row.image).stem}"
    image, label = folder / f"{stem}.tif", folder / f"{stem}.geojson"
    if image.is_file() and label.is_file():
        return image, label
    with rasterio.open(data / row.dataset / "images" / row.image) as source:
        pixels = source.read()[:3]
    with rasterio.open(data / row.dataset / "masks" / row.mask) as source:
        mask = source.read(1) > 127
    place = Affine(row.gsd_x_m, 0, CORNER[0], 0, -row.gsd_y_m, CORNER[1])
    grid = raster.Grid(mask.shape, place, CRS)
    g = trace_mask(mask, grid)
    lines = [d["geometry"] for *_, d in g.edges(data=True)]
    raster.write(image, pixels, grid=grid)
    table_of(lines).to_file(label, driver="GeoJSON")
    return image, label


def table_of(lines):
    "Lines as a table in longitude and latitude; their speed is a filler that is never taught."
    table = gpd.GeoDataFrame({"inferred_speed_mph": [25.0] * len(lines)}, geometry=lines, crs=CRS)
    return table.to_crs(4326)


def folds_of(tiles):
    "A fold of five for each tile, by its group and within its source; -1: always trained on."
    out = pd.Series(-1, tiles.index)
    for _, rows in tiles.groupby("dataset"):
        groups = sorted(set(rows.group))
        order = np.random.default_rng(SEED).permutation(len(groups))
        fold = {groups[g]: k % FOLDS for k, g in enumerate(order)}
        if len(groups) >= FOLDS:
            out[rows.index] = rows.group.map(fold)
    return out


def open_tiles(data, out):
    "The real tiles as chips, with their folds."
    tiles = pd.read_csv(data / "tiles.csv", dtype={"image": str, "mask": str})
    paths = [write_tile(row, data, out / "tiles") for row in tiles.itertuples()]
    return pd.DataFrame(
        {
            "chip": [p.stem for p, _ in paths],
            "city": tiles.dataset,
            "image": [str(p) for p, _ in paths],
            "label": [str(label) for _, label in paths],
            "gsd_m": np.sqrt(tiles.gsd_x_m * tiles.gsd_y_m),
            "part": folds_of(tiles),
            "known": "road,junction",
            "bands": 3,
            "dtype": "uint8",
        }
    )


def open_cities(out, root):
    "Generated cities as chips; they know everything."
    root = Path(root) if root else demo.make_demo(out / "cities", seed=SEED)
    found = find_chips(root, n_bands=3, chip_m=0)
    found = found[(found.label != "") & (found.split == "train")]
    sizes = [raster.gsd_of(raster.grid_of(i)) for i in found.image]
    bands = [band_count(i) for i in found.image]
    found = found.assign(gsd_m=sizes, part=-1, known="", bands=bands, dtype="uint16")
    return found[list(COLUMNS)]


def texture(rng, n):
    "Ground without roads, uint8 (3, n, n): waves, meadow or sand, as noise of several widths."
    out, turn = np.zeros((n, n)), rng.uniform(0, 180)
    for _ in range(rng.integers(2, 5)):
        width = np.exp(rng.uniform(np.log(2), np.log(48)))
        stretch = np.exp(rng.uniform(0, 1.2)) if rng.random() < 0.6 else 1.0
        size = max(3, int(n * 1.5 / width)), max(3, int(n * 1.5 / width / stretch))
        layer = resize(rng.standard_normal(size), (n * 3 // 2,) * 2, order=3)
        layer = rotate(layer, turn + rng.uniform(-15, 15))[n // 4 : n // 4 + n, n // 4 : n // 4 + n]
        out += rng.uniform(0.2, 1) * (-abs(layer) if rng.random() < 0.35 else layer)
    out = (out - out.mean()) / max(out.std(), 1e-3)
    base = np.array(GROUNDS[rng.integers(len(GROUNDS))])[:, None, None]
    tint = rng.uniform(0.5, 1.1, (3, 1, 1)) * rng.uniform(0.01, 0.12)
    image = base * np.exp(rng.uniform(-0.4, 0.6)) + out * tint
    image += rng.normal(0, rng.uniform(0, 0.04), image.shape)
    return (np.clip(image, 0.005, 1) * 255).astype(np.uint8)


def open_textures(out, count=60, side=344):
    "Ground without roads as chips: a network that never saw waves draws streets on them."
    folder, rows = out / "textures", []
    for k in range(count):
        image, label = folder / f"texture{k}.tif", folder / f"texture{k}.geojson"
        if not label.is_file():
            place = Affine(0.7, 0, CORNER[0], 0, -0.7, CORNER[1])
            pixels = texture(np.random.default_rng((SEED, k)), side)
            raster.write(image, pixels, grid=raster.Grid((side, side), place, CRS))
            write_json(label, {"type": "FeatureCollection", "features": []})
        rows.append((image.stem, "textures", str(image), str(label), 0.7, -1, "road", 3, "uint8"))
    return pd.DataFrame(rows, columns=COLUMNS)


def with_targets(chips, out, preset):
    "The same chips with their targets' files, made where they are missing."
    paths = []
    for c in chips.itertuples():
        path = out / "masks" / f"{c.chip}.tif"
        if not path.is_file():
            job = (c.image, c.label, str(path), preset.data.gsd_m, preset.channels, preset.masks)
            masks.make_chip_mask(job)
            if c.known:
                with rasterio.open(path, "r+") as target:
                    target.update_tags(known_channels=c.known)
        paths.append(str(path))
    return chips.assign(mask=paths)


def train(a, out, preset):
    "Train the preset's first network on what may be seen; its folder."
    sources = [open_tiles(a.data, out), open_cities(out, a.cities), open_textures(out)]
    chips = pd.concat(sources, ignore_index=True)
    chips = chips[~chips.city.isin(a.source_out)].reset_index(drop=True)
    chips = with_targets(chips, out, preset)
    held_out = chips.part.isin(a.without)
    if not held_out.any():
        held_out[chips.index[-1]] = True  # `fit` asks for one
    generated = sorted(set(chips.city) - set(WEIGHTS))
    weights = WEIGHTS | dict.fromkeys(generated, (1 - sum(WEIGHTS.values())) / len(generated))
    more = {"train": {"city_balanced": weights}}
    network = asdict(preset.folds[0]) | ({"encoder": a.encoder} if a.encoder else {})
    if a.begin_with:
        network["pretrained"] = str(a.begin_with.resolve())
    more["folds"] = [network] * 2
    if a.epochs:
        stage = asdict(preset.train.stages[-1]) | {"epochs": a.epochs, "lr": [[0, a.lr]]}
        crop = {"crop_px": a.crop or stage["crop_px"], "batch": a.batch or stage["batch"]}
        more["train"]["stages"] = [stage | crop | {"validate_every": a.epochs}]
    p = load_preset({"base": a.preset, "name": "world", **more})
    chips = chips.assign(fold=np.where(held_out, 0, 1))
    folder = out / a.name
    rows = fit(p, 0, chips, out=folder, cache=out / "cache", device=a.device, seed=a.seed)
    print(rows.round(3).to_string(index=False))


def finetune(a, out, preset):
    "Go on from a member with a few tiles of a source, as `train-own --begin-with` does."
    own, tiles = load_preset("finetune"), open_tiles(a.data, out)
    mine = tiles[tiles.city.isin(a.sources)].reset_index(drop=True)
    pool, aside = mine[~mine.part.isin(a.without)], mine[mine.part.isin(a.without)]
    if not 0 < a.chips <= len(pool) or not len(aside):
        raise DataError("--chips", f"there are {len(pool)}", "Name --sources, --without, --chips.")
    order = np.random.default_rng((FOLDS, a.seed)).permutation(len(pool))
    seen = pool.iloc[order[: a.chips]].assign(fold=1)
    chips = pd.concat([seen, aside.iloc[:1].assign(fold=0)], ignore_index=True)
    network = asdict(own.folds[0]) | {"pretrained": str(a.begin_with.resolve())}
    p = load_preset({"base": "finetune", "name": "finetune", "folds": [network] * 2})
    chips = with_targets(chips, out, p)
    fit(p, 0, chips, out=out / a.name, cache=out / "cache", device=a.device, seed=a.seed)


def lengths(truth, found):
    "Metres of truth and of what was found, and of each what the other has within `NEAR_M`."
    a, b = (
        shapely.union_all([d["geometry"] for *_, d in g.edges(data=True)]) for g in (truth, found)
    )
    seen, right = a.intersection(b.buffer(NEAR_M)).length, b.intersection(a.buffer(NEAR_M)).length
    return dict(truth_m=a.length, found_m=b.length, seen_m=seen, right_m=right)


def f1_of(rows):
    "F1, precision and recall of all rows together."
    total = rows[["truth_m", "found_m", "seen_m", "right_m"]].sum()
    precision, recall = (
        total.right_m / max(total.found_m, 1e-9),
        total.seen_m / max(total.truth_m, 1e-9),
    )
    return 2 * precision * recall / max(precision + recall, 1e-9), precision, recall


def papers(truth, found):
    """APLS and TOPO as SAM-Road prints them on SpaceNet's tiles of 400 pixels, a metre a pixel; a
    tile that cannot be scored is left out of the mean, as there."""
    pixels = [pixels_of_roads(roads_of(g), CORNER) for g in (truth, found)]
    a, t = apls_sat2graph(*pixels, variant="small_samroad"), topo_sat2graph(*pixels, radius=0.0015)
    return {
        "apls_papers": a.score,
        "topo_precision": t.precision if t.starts else np.nan,
        "topo_recall": t.recall if t.starts else np.nan,
    }


def roads_in(row, opened, preset):
    "A tile's roads as they are found, and as its mask has them."
    grid = raster.grid_of(row.image)
    probs = ensemble.predict(
        opened, row.image, tta=preset.ensemble.tta, device="cpu", as_bytes=True
    )
    target = raster.target_grid(grid, preset.data.gsd_m)
    place = dict(transform=target.transform, crs=target.crs)
    found = vectorize.vectorize(probs, config=preset.vectorize, channels=preset.channels, **place)
    _, valid = raster.read_valid(row.image, 3)
    return found, cut(graph.from_labels(row.label, crs=CRS), grid, valid)


def score_tile(row, found, truth):
    "One tile's centre lines and routes against its mask's."
    has_roads = truth.number_of_edges() > 0
    score = apls(truth, found).score if has_roads else np.nan
    return {
        "chip": row.chip,
        "source": row.city,
        "apls_length": score,
        **papers(truth, found),
        **lengths(truth, found),
    }


def open_scored(a, out, preset):
    "Members, and the tiles that `--folds` or `--sources` name."
    opened = ensemble.open_members(
        find_members(a.members), device="cpu", scales=preset.ensemble.scales
    )
    tiles = open_tiles(a.data, out)
    tiles = tiles[tiles.part.isin(a.folds)] if a.folds else tiles
    tiles = tiles[tiles.city.isin(a.sources)] if a.sources else tiles
    if not len(tiles) or not (a.folds or a.sources):
        raise DataError("score", "has no tile", "Give --folds 0 1 or --sources NAME.")
    return opened, tiles


def score(a, out, preset):
    "The table of sources: what was found of tiles that these members did not see."
    opened, tiles = open_scored(a, out, preset)
    rows = [score_tile(row, *roads_in(row, opened, preset)) for row in tiles.itertuples()]
    rows = pd.DataFrame(rows)
    print(rows.round(3).to_string(index=False))
    for source, mine in rows.groupby("source"):
        f1, precision, recall = f1_of(mine)
        print(
            f"{source}: {len(mine)} tiles, F1 {f1:.3f} (precision {precision:.3f}, recall "
            f"{recall:.3f}), APLS_length {spread(mine.apls_length)}"
        )
        p, r = mine.topo_precision.mean(), mine.topo_recall.mean()
        print(
            f"  as SAM-Road scores tiles of 400 pixels: APLS {spread(mine.apls_papers)} over "
            f"{mine.apls_papers.count()} tiles, TOPO precision {p:.3f}, recall {r:.3f}, F1 "
            f"{2 * p * r / (p + r):.3f} over {mine.topo_precision.count()}"
        )
    known = rows.astype(object).where(rows.notna(), None)  # a tile without roads has no APLS
    write_json(out / f"{Path(a.members).parent.name}-tiles.json", known.to_dict("records"))


def spread(values):
    "A mean and the 95 % interval of a bootstrap over tiles."
    v = values.dropna().to_numpy()
    if len(v) < 2:
        return f"{v.mean() if len(v) else np.nan:.3f}"
    low, high = stats.bootstrap((v,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return f"{v.mean():.3f} [{low:.3f}, {high:.3f}]"


def draw_roads(ax, row, found, truth):
    "Roads over a tile's picture: truth wide and green, found narrow and red."
    with rasterio.open(row.image) as source:
        pixels, box = source.read().astype(float), source.bounds
    low, high = np.percentile(pixels[pixels > 0], [1, 99])
    picture = np.moveaxis(np.clip((pixels - low) / (high - low), 0, 1), 0, -1)
    ax.imshow(picture, extent=(box.left, box.right, box.bottom, box.top))
    for g, look in ((truth, dict(color="lime", lw=3, alpha=0.6)), (found, dict(color="red", lw=1))):
        for *_, d in g.edges(data=True):
            ax.plot(*d["geometry"].xy, **look)
    ax.set_xlim(box.left, box.right)
    ax.set_ylim(box.bottom, box.top)
    ax.axis("off")


def draw(a, out, preset):
    "A picture of the best, the median and the worst tile of each source, by F1."
    opened, tiles = open_scored(a, out, preset)
    drawn = [(row, *roads_in(row, opened, preset)) for row in tiles.itertuples()]
    f1 = [f1_of(pd.DataFrame([lengths(truth, found)]))[0] for _, found, truth in drawn]
    sources = sorted(set(tiles.city))
    fig, axes = plt.subplots(len(sources), 3, figsize=(12, 4.2 * len(sources)), squeeze=False)
    for line, source in zip(axes, sources, strict=True):
        mine = [k for k, (row, *_) in enumerate(drawn) if row.city == source]
        mine.sort(key=lambda k: -f1[k])
        for ax, k in zip(line, (mine[0], mine[len(mine) // 2], mine[-1]), strict=True):
            draw_roads(ax, *drawn[k])
            ax.set_title(f"{drawn[k][0].chip}: F1 {f1[k]:.2f}", fontsize=9)
    fig.tight_layout()
    path = out / f"{Path(a.members).name}.jpg"
    fig.savefig(path, dpi=70)
    print(path)


def nine(a, out, preset):
    "Nine real Las Vegas chips with line labels and speeds, which no training here sees."
    from leave_one_out import SCORES, open_chips, score_of, with_interval

    folder = out / "nine"
    run = Run("nine", folder, a.nine_data, preset, a.seed)
    chips = open_chips(run, 0)
    rows = [
        {"chip": c["chip"], **score_of(run, c, *find_members(a.members))}
        for _, c in chips.iterrows()
    ]
    table = pd.DataFrame(rows)
    print(table.round(3).to_string(index=False))
    for name in SCORES:
        print(f"{name}: {with_interval(table[name]).lstrip('+')}")


def ship(a, out, preset):
    "Members of 16 bits in the package, with what they were trained on in their headers."
    looks = looks_in([t.image for t in open_tiles(a.data, out).itertuples()])
    sizes = [0.2, 0.7, preset.train.scale_gsd_m[1]]  # finest, middle and coarsest of the crops
    seen = {"gsd_m": sizes, "bands": 3, "dtypes": ["uint8", "uint16"], "limits": []}
    seen["looks"] = looks  # of real tiles: generated ground would hide water and snow
    made = []
    for k, path in enumerate(find_members(a.members)):
        net = model.load(path)
        for key in ("metrics", "epoch", "stage"):  # of a validation on one chip of the training
            net.info.pop(key, None)
        whose = {"pretrained": "efficientnet-lite", "licence": "CC BY-SA 4.0"}
        net.info |= {"preset": "world", "trained_on": seen, **whose}
        made.append(model.save(net, world_folder() / f"{k}.safetensors", half=True))
        print(f"{made[-1]}: {made[-1].stat().st_size / 1e6:.1f} MB")
    for other in set(world_folder().glob("*.safetensors")) - set(made):
        other.unlink()  # of members that were there before
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}" for p in made]
    write_text(world_folder() / SUMS, "\n".join(lines) + "\n")


def make(a, out, preset):
    "Train on all tiles and put the member into the package: the one that is there is replaced."
    train(a, out, preset)
    a.members = out / a.name / "last.safetensors"
    ship(a, out, preset)


COMMANDS = {
    "make": make,
    "train": train,
    "finetune": finetune,
    "score": score,
    "draw": draw,
    "nine": nine,
    "ship": ship,
}


def parsed():
    shared = Path(__file__).resolve().parents[1] / "../shared/data"
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ask.add_argument("command", choices=COMMANDS)
    ask.add_argument("name", help="train: of the training; else a folder of members, or world")
    ask.add_argument("--data", type=Path, default=shared / "real_roads")
    ask.add_argument("--nine-data", type=Path, default=shared / "spacenet3_vegas")
    ask.add_argument("--cities", default="", help="a demo's data root [default: made]")
    ask.add_argument("--out", type=Path, default=Path(load_settings().outputs_root) / "world")
    ask.add_argument("--without", type=int, nargs="*", default=[], metavar="FOLD")
    ask.add_argument("--source-out", nargs="*", default=[], metavar="SOURCE")
    ask.add_argument("--folds", type=int, nargs="*", default=[])
    ask.add_argument("--sources", nargs="*", default=[])
    ask.add_argument("--begin-with", type=Path, help="a member to go on from")
    ask.add_argument("--chips", type=int, default=8, help="finetune: tiles that are trained on")
    ask.add_argument("--epochs", type=int, default=0, help="0: the preset's")
    ask.add_argument("--lr", type=float, default=0.001, help="with --epochs")
    ask.add_argument("--crop", type=int, default=0, help="with --epochs: pixels of a side")
    ask.add_argument("--batch", type=int, default=0, help="with --epochs: crops a step")
    ask.add_argument("--encoder", default="", help="timm's name [default: the preset's]")
    ask.add_argument("--preset", default="world")
    ask.add_argument("--tta", default="", help="score, nine: views [default: the preset's]")
    ask.add_argument("--scales", type=int, nargs="*", help="pixel sizes [default: the preset's]")
    ask.add_argument("--device", default="auto")
    ask.add_argument("--seed", type=int, default=load_settings().seed)
    a = ask.parse_args()
    a.members = a.name
    return a


def main():
    a = parsed()
    preset = load_preset(a.preset)
    how = preset.ensemble
    how = replace(how, tta=a.tta or how.tta, scales=tuple(a.scales or how.scales))
    preset = replace(preset, ensemble=how)
    COMMANDS[a.command](a, a.out, preset)


if __name__ == "__main__":
    main()
