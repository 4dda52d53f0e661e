"""Folds of `faithful` and `best` at full size, on the generated cities at 0.3 m or on a folder's
chips, beside a small preset's: road dice and APLS of chips that were held out.

    .venv/bin/python benchmarks/full_size.py --train faithful:2 best:0 demo:2 --minutes 10
    .venv/bin/python benchmarks/full_size.py --train faithful:3 small:0 --data <chips> --minutes 10

Without `--data` on generated cities.

For a GPU; a small preset is done on a CPU too. There are no pretrained weights here, so every
network starts from fresh ones, with batch normalisation in its decoder, one stage of the preset's
crops and batches and one rise and fall of the rate; all else is the preset's. A first short round
finds out how many steps fit into the minutes. Every fourth chip is held out, and all of a city that
has no training chips. `--precision` is torch's while it learns; scores are computed in 32 bits and
once more in bfloat16. A result is a file in `--out`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from spacenet5_nb import demo, ensemble, explore, masks, pipeline
from spacenet5_nb.base.parallel import parallel
from spacenet5_nb.core import Run, load_preset, load_settings, write_json
from spacenet5_nb.raster import read_named
from spacenet5_nb.train import fit
from spacenet5_nb.training.dataset import cached_image
from spacenet5_nb.training.validation import Tally


def open_preset(name: str, fold: int, a: argparse.Namespace, steps: int):
    "A preset for fresh weights and so many steps."
    p = load_preset(name)
    f = replace(p.folds[fold], pretrained=False, stages=None)
    stage = (p.folds[fold].stages or p.train.stages)[0]
    epochs = 1 if steps < 100 else 5
    stage = replace(
        stage,
        epochs=epochs,
        steps_per_epoch=max(steps // epochs, 1),
        schedule="onecycle",
        lr=((0, a.lr or max(stage.lr[0][1], 5e-4)),),
        freeze_encoder_epochs=0,
        validate_every=10**6,
        sync_bn=False,
    )
    train = replace(
        p.train,
        stages=(stage,),
        validation_chips=1,
        precision=a.precision or p.train.precision,
        max_hours=1.3 * a.minutes / 60,
    )
    return replace(
        p,
        folds=tuple(f if k == fold else g for k, g in enumerate(p.folds)),
        decoder_norm="batch",
        train=train,
    )


def open_chips(run: Run, fold: int, bands: int) -> pd.DataFrame:
    """Labelled chips with targets; held-out ones have the fold's number, those of a city
    without training chips are `far`.
    """
    chips = explore.find_chips(run.data_root, n_bands=bands, chip_m=0)
    chips = chips[chips.label != ""].sort_values(["city", "chip"]).reset_index(drop=True)
    chips["far"] = chips.split != "train"
    other = (fold + 1) % max(len(run.preset.folds), 2)
    chips["fold"] = [fold if far or k % 4 == 1 else other for k, far in enumerate(chips.far)]
    chips["mask"] = [str(run.mask(c)) for c in chips.chip]
    todo = [
        (c.image, c.label, c.mask, run.preset.data.gsd_m, run.preset.channels, run.preset.masks)
        for c in chips.itertuples()
        if not Path(c.mask).is_file()
    ]
    parallel(
        masks.make_chip_mask,
        todo,
        desc="targets",
        module="masks",
        workers=load_settings().n_workers if len(todo) > 8 else 1,
    )
    return chips


def scores_of(
    run: Run, chips: pd.DataFrame, member: Path, bands: int, device: str, precision: str
) -> dict[str, float]:
    "Mean dice and APLS of chips, one view."
    opened, tally, rows = (
        ensemble.open_members([member], device=device, precision=precision),
        Tally(),
        [],
    )
    for _, chip in chips.iterrows():
        image = np.load(
            cached_image(chip["image"], bands, cache=run.cache, gsd_m=run.preset.data.gsd_m)
        )
        probs = ensemble.predict(opened, image, tta="none", as_bytes=True)
        mask, _, names = read_named(chip["mask"])
        tally.add(probs[run.preset.channels.road] >= 128, mask[names.index("road")] > 0)
        rows.append(pipeline.score_probs(run, chip.rename(chip["chip"]), probs, {}))
    found = tally.means() | pd.DataFrame(rows).mean().to_dict()
    return {k: round(float(found[k]), 4) for k in ("dice", "apls_length", "apls_time")}


def one(name: str, fold: int, a: argparse.Namespace, data: Path) -> dict:
    "Train, score, write."
    folder = Path(a.out) / f"{name}-{fold}"
    bands = load_preset(name).folds[fold].bands
    run = Run(f"{name}-{fold}", folder, data, open_preset(name, fold, a, 20), load_settings().seed)
    chips = open_chips(run, fold, bands)
    near = chips[~chips.far].reset_index(drop=True)
    fit(
        run.preset,
        fold,
        near,
        out=folder / "folds/warm",
        cache=run.cache,
        device=a.device,
        seed=run.seed,
        fresh=True,
    )  # kernels are chosen, files are cached
    warm = fit(
        run.preset,
        fold,
        near,
        out=folder / "folds/warm",
        cache=run.cache,
        device=a.device,
        seed=run.seed,
        fresh=True,
    )
    steps = max(int(20 * 60 * a.minutes / warm.seconds.sum()), 20)
    p = open_preset(name, fold, a, steps)
    run, start = replace(run, preset=p), time.perf_counter()
    history = fit(
        p,
        fold,
        near,
        out=run.fold(fold),
        cache=run.cache,
        device=a.device,
        seed=run.seed,
        fresh=True,
    )
    stage, member = p.train.stages[0], run.fold(fold) / "last.safetensors"
    done = len(history) * stage.steps_per_epoch
    row = dict(
        preset=name,
        fold=fold,
        encoder=p.folds[fold].encoder,
        bands=bands,
        gsd_m=p.data.gsd_m or 0.3,
        crop_px=stage.crop_px,
        batch=stage.batch,
        precision=p.train.precision,
        chips=int((near.fold != fold).sum()),
        steps=done,
        seconds=round(time.perf_counter() - start, 1),
        samples_s=round(done * stage.batch / float(history.seconds.sum()), 1),
    )
    parts = {"held_out": near[near.fold == fold], "far": chips[chips.far]}
    for part, some in parts.items():
        if len(some):
            row[part] = {
                k: scores_of(run, some, member, bands, a.device, k) for k in ("float32", "bfloat16")
            } | {"chips": len(some)}
    write_json(Path(a.out) / f"{name}-{fold}.json", row)
    return row


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ask.add_argument(
        "--train", nargs="+", default=["faithful:2", "best:0", "demo:2"], help="preset:fold"
    )
    ask.add_argument("--data", default="", help="folder of chips; default: generated cities")
    ask.add_argument(
        "--grid", type=int, default=4, help="rows and columns of chips of each generated city"
    )
    ask.add_argument("--minutes", type=float, default=10, help="of training, each")
    ask.add_argument("--precision", default="", choices=("", "32", "bf16", "16"))
    ask.add_argument(
        "--lr", type=float, default=0.0, help="peak; default: the preset's, at least 0.0005"
    )
    ask.add_argument("--device", default="auto")
    ask.add_argument("--out", default=str(Path(load_settings().outputs_root) / "full-size"))
    a = ask.parse_args()
    data = (
        Path(a.data)
        if a.data
        else demo.make_demo(
            Path(a.out) / "cities",
            seed=load_settings().seed,
            gsd_m=0.3,
            grid=(a.grid, a.grid),
            test_grid=(2, 2),
        )
    )
    for what in a.train:
        name, _, fold = what.partition(":")
        print(json.dumps(one(name, int(fold or 0), a, data)), flush=True)


if __name__ == "__main__":
    main()
