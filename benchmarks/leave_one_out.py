"""Real learning: each real chip in turn is held out, a network is trained on all others, and the
held-out chip is scored.

    .venv/bin/python benchmarks/leave_one_out.py [--preset small] [--steps 1200]
        [--minutes 60] [--out outputs/leave-one-out]
    .venv/bin/python benchmarks/leave_one_out.py --parts 3 --steps 500 --seed 1
        --set data.gsd_m=1.5 --set stage.lr=[[0,0.01]] --out outputs/screen/coarse
    .venv/bin/python benchmarks/leave_one_out.py --cities 1500 --out outputs/cities-first
        --compare outputs/leave-one-out
    .venv/bin/python benchmarks/leave_one_out.py --preset finetune --begin-with world --parts 3
        --steps 200 --out outputs/nine-finetuned
    .venv/bin/python benchmarks/leave_one_out.py --preset finetune --steps 200
        --begin-with spacenet5_nb/assets/world/0.safetensors --hold-out img1521 img794
        --without img0 img230 img699 --set stage.head_rate=20 --out outputs/choose/rate-20

Nine chips of SpaceNet 3 Las Vegas, the preset's first network from fresh weights, its vectorizer
and the judge. Every finished part is a file, so that the same command goes on where it ended. The
mean over chips comes with Student's interval.

`--parts 3` holds out every third chip: three trainings instead of nine, to choose what is worth the
nine. `--hold-out` names the chips of one training's only part instead, and `--without` those that
are neither trained on nor scored: with the chips of one part left out, keys can be chosen on the
six others, and that part reports. `--set` changes a key of the preset; `stage.` is its last stage,
`network.` its first network.
`--cities` trains the network on generated cities first and goes on from there: no real chip is seen
by that. `--begin-with` goes on from every member of a folder, or of the workspace (`world`, which
saw none of the nine), and scores their mean, as `train-own --begin-with` does. `--compare` prints
differences chip by chip. Dice is always that of roads 4 m wide on a grid of 1 m, whatever the
network's own grid, so that it can be compared between grids. Who chooses by these chips and reports
the same chips reports too much: choose with one seed, and report with another at least.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import yaml
from scipy import stats
from skimage.transform import resize

from spacenet5_nb import demo, ensemble, explore, masks
from spacenet5_nb.core import (
    DataError,
    Preset,
    PresetError,
    Run,
    load_preset,
    load_settings,
    write_json,
)
from spacenet5_nb.extract import find_members
from spacenet5_nb.model import read_info
from spacenet5_nb.pipeline import score_probs
from spacenet5_nb.raster import read_named
from spacenet5_nb.train import fit
from spacenet5_nb.training.resume import fingerprint

SCORES, TRUTH_M = ("dice", "apls_length", "apls_time"), 1.0


def nested(pairs):
    "`a.b=1` as {'a': {'b': 1}}, values as YAML reads them."
    out = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        *path, last = key.split(".")
        place = out
        for part in path:
            place = place.setdefault(part, {})
        place[last] = yaml.safe_load(value)
    return out


def make_preset(
    name: str, pairs: list[str], steps: int, parts: int, member: Path | None = None
) -> Preset:
    """The preset with its first network for every part, one stage of so many steps, and the
    changes asked for.
    """
    base, changes = load_preset(name), nested(pairs)
    encoder = {"encoder": read_info(member)["spec"]["encoder"]} if member else {}
    if not base.train.stages:
        raise PresetError(name, "has no training stage", "Give it one in train.stages.")
    per_epoch = min(steps, 100)
    stage = (
        asdict(base.train.stages[-1])
        | dict(epochs=max(steps // per_epoch, 1), steps_per_epoch=per_epoch, validate_every=10**6)
        | changes.pop("stage", {})
    )
    network = (
        asdict(base.folds[0])
        | changes.pop("network", {})
        | ({"pretrained": str(member.resolve()), **encoder} if member else {})
    )
    training = {"validation_chips": 1, **changes.pop("train", {}), "stages": [stage]}
    return load_preset(
        {"base": name, "name": base.name, "folds": [network] * parts, "train": training, **changes}
    )


def open_chips(run: Run, parts: int) -> pd.DataFrame:
    "Every labelled chip with its target; chip k belongs to part k modulo their number."
    chips = explore.find_chips(run.data_root, n_bands=3, chip_m=0)
    chips = chips[chips.label != ""].sort_values("chip").reset_index(drop=True)
    if not len(chips):
        raise DataError(
            run.data_root, "holds no labelled chip", "Name the folder of the real chips: --data"
        )
    folder = (
        run.folder / f"masks-{run.preset.data.gsd_m}"
    )  # another grid in the same folder has targets of its own
    chips = chips.assign(
        mask=[str(folder / f"{c}.tif") for c in chips.chip],
        fold=[k % (parts or len(chips)) for k in range(len(chips))],
    )
    for c in chips.itertuples():
        if not Path(c.mask).is_file():
            masks.make_chip_mask(
                (
                    c.image,
                    c.label,
                    c.mask,
                    run.preset.data.gsd_m,
                    run.preset.channels,
                    run.preset.masks,
                )
            )
    return chips


def dealt_by_name(chips: pd.DataFrame, held_out: list[str], without: list[str]) -> pd.DataFrame:
    "Those held out as part 0, all others trained on; some are left out altogether."
    names = chips.chip.str.rsplit("_", n=1).str[-1]
    if missing := sorted({*held_out, *without} - set(names)):
        raise DataError(
            ", ".join(missing), "no such chip", f"Name some of these: {', '.join(names)}"
        )
    parts = (~names.isin(held_out)).astype(int)
    return chips.assign(fold=parts)[~names.isin(without)].reset_index(drop=True)


def dice_of(run, chip, road):
    "Dice of a probability raster of any grid against the label's roads on a grid of 1 m."
    path = run.folder / "truth" / f"{chip['chip']}.tif"
    if not path.is_file():
        masks.make_chip_mask(
            (
                chip["image"],
                chip["label"],
                str(path),
                TRUTH_M,
                run.preset.channels,
                load_preset("small").masks,
            )
        )
    mask, _, names = read_named(path)
    truth = mask[names.index("road")] > 0
    found = (
        road
        if road.shape == truth.shape
        else resize(road, truth.shape, order=1, preserve_range=True)
    )
    return 2 * ((found >= 128) & truth).sum() / max((found >= 128).sum() + truth.sum(), 1)


def score_of(run, chip, *members):
    """Dice and APLS of one chip, averaged over the preset's views; given the file, pixels
    without data are no road, as in the pipeline.
    """
    how = run.preset.ensemble
    probs = ensemble.predict(
        list(members), chip["image"], tta=how.tta, scales=how.scales, device="cpu", as_bytes=True
    )
    return {
        "dice": float(dice_of(run, chip, probs[run.preset.channels.road])),
        **score_probs(run, chip.rename(chip["chip"]), probs, {}),
    }


def train_on_cities(name: str, pairs: list[str], steps: int, out: Path, seed: int) -> Path:
    "Train the preset's first network on generated cities; its member."
    run = Run(
        "cities",
        out / "on-cities",
        demo.make_demo(out / "cities", seed=seed),
        make_preset(name, pairs, steps, 2),
        seed,
    )
    chips = open_chips(run, 0)
    fit(
        run.preset,
        0,
        chips.assign(fold=[0, *[1] * (len(chips) - 1)]),
        out=run.fold(0),
        cache=run.cache,
        device="cpu",
        seed=seed,
    )  # one chip held out: `fit` asks for it
    return run.fold(0) / "last.safetensors"


def train_part(run: Run, k: int, chips: pd.DataFrame, presets: Sequence[Preset]) -> list[dict]:
    """Train a network of every preset without part k and score its chips by their mean; what is
    there from the same inputs is read.
    """
    path, mark = (
        run.folder / f"part{k}.json",
        [
            *(fingerprint(p, k, chips, run.seed) for p in presets),
            asdict(run.preset.vectorize),
            asdict(run.preset.speed),
            run.preset.ensemble.tta,
        ],
    )
    if path.is_file() and (old := json.loads(path.read_text()))["fingerprint"] == mark:
        return old["rows"]
    began = time.process_time()
    folders = [run.fold(k) / str(j) if j else run.fold(k) for j in range(len(presets))]
    for preset, folder in zip(presets, folders, strict=True):
        fit(preset, k, chips, out=folder, cache=run.cache, device="cpu", seed=run.seed)
    cpu, members = time.process_time() - began, [f / "last.safetensors" for f in folders]
    rows = [
        {"chip": c["chip"], "cpu_s": cpu, **score_of(run, c, *members)}
        for _, c in chips[chips.fold == k].iterrows()
    ]
    write_json(path, {"fingerprint": mark, "rows": rows})
    for row in rows:
        print(
            ", ".join(
                f"{key} {v:.3f}" if isinstance(v, float) else str(v) for key, v in row.items()
            ),
            flush=True,
        )
    return rows


def with_interval(values) -> str:
    v = pd.Series(values).dropna()
    if len(v) < 2:
        return "–"
    half = stats.t.ppf(0.975, len(v) - 1) * v.std() / math.sqrt(len(v))
    return f"{v.mean():+.3f} ± {half:.3f} (95 %, {len(v)} chips)"


def compare(table: pd.DataFrame, other: Path) -> None:
    "Differences from another run, chip by chip."
    rows = [r for p in sorted(other.glob("part*.json")) for r in json.loads(p.read_text())["rows"]]
    if not rows:
        raise DataError(other, "holds no part*.json", "Name the --out of an earlier run.")
    both = table.set_index("chip").join(
        pd.DataFrame(rows).set_index("chip").add_suffix(" there"), how="inner"
    )
    change = pd.DataFrame({name: both[name] - both[f"{name} there"] for name in SCORES})
    print(f"\nminus {other}:\n{change.round(3).to_string()}")
    for name in SCORES:
        print(f"{name}: {with_interval(change[name])}, {(change[name] > 0).sum()} better")


def parsed():
    ask = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ask.add_argument("--preset", default="small")
    ask.add_argument(
        "--data",
        default=str(Path(__file__).resolve().parents[1] / "../shared/data/spacenet3_vegas"),
    )
    ask.add_argument("--out", default=str(Path(load_settings().outputs_root) / "leave-one-out"))
    ask.add_argument("--steps", type=int, default=1200)
    ask.add_argument("--minutes", type=float, default=60)
    ask.add_argument("--parts", type=int, default=0, help="0: each chip is one")
    names = dict(nargs="+", default=[], metavar="IMG")
    ask.add_argument("--hold-out", help="img1521 ...: the only part", **names)
    ask.add_argument("--without", help="img0 ...: with --hold-out", **names)
    ask.add_argument("--seed", type=int, default=load_settings().seed)
    ask.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    ask.add_argument(
        "--cities",
        type=int,
        default=0,
        metavar="STEPS",
        help="train so many steps on generated cities first",
    )
    ask.add_argument("--begin-with", default="", metavar="MEMBERS", help="world, or a folder")
    ask.add_argument("--compare", type=Path, metavar="OUT", help="another run's --out")
    return ask.parse_args()


def check_one_start(cities: int, begin_with: str) -> None:
    "PresetError where a training would have to begin with two things."
    if cities and begin_with:
        raise PresetError(
            f"--cities {cities} and --begin-with {begin_with}",
            "each say what training begins with",
            "Give one of them.",
        )


def main():
    a = parsed()
    out, start = Path(a.out), time.monotonic()
    members = find_members(a.begin_with) if a.begin_with else [None]
    if a.cities:
        members = [train_on_cities(a.preset, a.set, a.cities, out, a.seed)]
    first = make_preset(a.preset, a.set, a.steps, 1, members[0])
    run = Run("leave-one-out", out, Path(a.data), first, a.seed)
    chips = open_chips(run, a.parts)
    if a.hold_out:
        chips = dealt_by_name(chips, a.hold_out, a.without)
    parts = [0] if a.hold_out else sorted(chips.fold.unique())
    presets = [make_preset(a.preset, a.set, a.steps, max(len(parts), 2), m) for m in members]
    run, rows = replace(run, preset=presets[0]), []
    for k in parts:
        if time.monotonic() - start > 60 * a.minutes:
            break
        rows += train_part(run, int(k), chips, presets)
    if not rows:
        return print("nothing trained yet")
    table = pd.DataFrame(rows)
    print(table.round(3).to_string(index=False))
    for name in SCORES:
        print(f"{name}: {with_interval(table[name]).lstrip('+')}")
    if len(table) < (todo := chips.fold.isin(parts).sum()):
        print(f"{len(table)} of {todo} chips; run it again to go on")
    if a.compare:
        compare(table, a.compare)


if __name__ == "__main__":
    main()
