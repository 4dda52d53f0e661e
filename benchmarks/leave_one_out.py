"""Real learning: each real chip in turn is held out, a network is trained on all others, and the held-out chip is scored.

    .venv/bin/python benchmarks/leave_one_out.py [--preset small] [--steps 1200] [--minutes 60] [--out outputs/leave-one-out]

Nine chips of SpaceNet 3 Las Vegas, the preset's first network from fresh weights, its vectorizer and the judge. Every finished chip is a file, so that the same command goes on
where it ended. The mean over chips comes with Student's interval.
"""
import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from spacenet5_nb import explore, masks
from spacenet5_nb.core import Run, StageConfig, load_preset, load_settings, write_json
from spacenet5_nb.dataset import cached_image
from spacenet5_nb.ensemble import predict
from spacenet5_nb.pipeline import score_probs
from spacenet5_nb.raster import read_named
from spacenet5_nb.resume import fingerprint
from spacenet5_nb.train import fit
from spacenet5_nb.validation import Tally


def open_chips(run):
    "Every labelled chip with its target, each a fold of its own."
    chips = explore.find_chips(run.data_root, n_bands=3, chip_m=0)
    chips = chips[chips.label != ""].sort_values("chip").reset_index(drop=True)
    chips = chips.assign(mask=[str(run.mask(c)) for c in chips.chip], fold=range(len(chips)))
    for c in chips.itertuples():
        if not Path(c.mask).is_file(): masks.make_chip_mask((c.image, c.label, c.mask, run.preset.data.gsd_m, run.preset.channels, run.preset.masks))
    return chips


def score_of(run, chip, member):
    "Dice and APLS of one chip, averaged over the preset's views."
    image = np.load(cached_image(chip["image"], 3, cache=run.cache, gsd_m=run.preset.data.gsd_m))
    probs = predict([member], image, tta=run.preset.ensemble.tta, device="cpu", as_bytes=True)
    road, tally = run.preset.channels.road, Tally()
    mask, _, names = read_named(chip["mask"])
    tally.add(probs[road] >= 128, mask[names.index("road")] > 0)
    return tally.means() | score_probs(run, chip.rename(chip["chip"]), probs, {})


def main():
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ask.add_argument("--preset", default="small")
    ask.add_argument("--data", default=str(Path(__file__).resolve().parents[1]/"../shared/data/spacenet3_vegas"))
    ask.add_argument("--out", default=str(Path(load_settings().outputs_root)/"leave-one-out"))
    ask.add_argument("--steps", type=int, default=1200)
    ask.add_argument("--minutes", type=float, default=60)
    a = ask.parse_args()
    p = load_preset(a.preset)
    stage = replace(p.train.stages[-1], epochs=max(a.steps//100, 1), steps_per_epoch=100, validate_every=10**6) if p.train.stages else StageConfig()
    out, start, rows = Path(a.out), time.monotonic(), []
    run = Run("leave-one-out", out, Path(a.data), p, load_settings().seed)
    chips = open_chips(run)
    p = replace(p, folds=(p.folds[0],)*len(chips), train=replace(p.train, stages=(stage,), validation_chips=1))
    run = replace(run, preset=p)
    for k, chip in chips.iterrows():
        path, mark = out/f"chip{k}.json", fingerprint(p, k, chips, run.seed)
        if path.is_file() and json.loads(path.read_text())["fingerprint"] == mark: rows.append(json.loads(path.read_text())); continue
        if time.monotonic() - start > 60*a.minutes: break
        began = time.monotonic()
        fit(p, k, chips, out=run.fold(k), cache=run.cache, device="cpu", seed=run.seed)
        rows.append({"chip": chip["chip"], "fingerprint": mark, "seconds": time.monotonic() - began, **score_of(run, chip, run.fold(k)/"last.safetensors")})
        write_json(path, rows[-1])
        print(", ".join(f"{key} {v:.3f}" if isinstance(v, float) else str(v) for key, v in rows[-1].items() if key != "fingerprint"), flush=True)
    table = pd.DataFrame(rows)
    print(table.drop(columns="fingerprint").round(3).to_string(index=False) if len(table) else "nothing trained yet")
    for name in ("dice", "apls_length", "apls_time"):
        v = table[name].dropna() if len(table) else []
        if len(v) > 1: print(f"{name}: {v.mean():.3f} ± {stats.t.ppf(0.975, len(v) - 1)*v.std()/math.sqrt(len(v)):.3f} (95 %, {len(v)} chips)")
    if len(table) < len(chips): print(f"{len(table)} of {len(chips)} chips; run it again to go on")


if __name__ == "__main__": main()
