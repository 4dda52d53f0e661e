"""What a user's first labelled chips are worth: training from the members that come with the
workspace, from ImageNet's weights and from fresh ones, at 2, 4 and 8 chips.

    .venv/bin/python benchmarks/train_own.py [--arms world imagenet fresh] [--chips 2 4 8]
        [--draws 2 2 3] [--steps 200] [--minutes 40] [--out outputs/train-own-curve]

Nine chips of SpaceNet 3 Las Vegas, of which the members have seen none. A draw is an order of the
nine: the first chips are trained on, all others are scored, and each arm gets the same. `world` is
`train-own --begin-with world` (preset `finetune`, the first member), `imagenet` is `train-own` as
it is (preset `small`), `fresh` that without any learned weights. Steps are the same for all. With
`--preset` arms differ in what training begins with, and in nothing else. At 0 chips stands what
`extract` gives without training.

Every training is a file, so that the same command goes on where it ended; what does not fit into
`--minutes` is left for then. Differences between arms are taken chip by chip within a draw, with
Student's interval over those pairs; chips come back in several draws, so the interval is a little
too narrow. Dice is that of roads 4 m wide on a grid of 1 m.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from leave_one_out import SCORES, make_preset, open_chips, score_of, with_interval

from spacenet5_nb.base.pyplot import plt
from spacenet5_nb.core import DataError, Run, load_preset, load_settings, write_json
from spacenet5_nb.extract import find_members, own_preset
from spacenet5_nb.inference.members import weights_hash
from spacenet5_nb.train import fit
from spacenet5_nb.training.resume import fingerprint

ARMS = ("world", "imagenet", "fresh")
COLOURS = {"world": "tab:green", "imagenet": "tab:orange", "fresh": "tab:grey"}


@dataclass(frozen=True)
class Training:
    "One training of one arm."

    arm: str
    chips: int  # that are trained on
    draw: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.chips}-{self.draw}"


def trainings(arms: list[str], chips: list[int], draws: list[int]) -> list[Training]:
    "All trainings; the arms of one draw follow each other, so that a short run has whole pairs."
    if len(draws) != len(chips):
        raise DataError("--draws", f"has {len(draws)} numbers, --chips {len(chips)}", "One each.")
    pairs = [
        (d, n) for d in range(max(draws)) for n, most in zip(chips, draws, strict=True) if d < most
    ]
    return [Training(arm, n, d) for d, n in pairs for arm in arms]


def dealt(chips: pd.DataFrame, training: Training, seed: int) -> pd.DataFrame:
    "The chips with fold 1 for those that are trained on and 0 for those that are scored."
    if not 0 < training.chips < len(chips):
        raise DataError(
            f"--chips {training.chips}", f"there are {len(chips)}", "Leave one at least."
        )
    order = np.random.default_rng((seed, training.draw)).permutation(len(chips))
    fold = np.zeros(len(chips), int)
    fold[order[: training.chips]] = 1
    return chips.assign(fold=fold)


def preset_of(arm: str, name: str, steps: int, pairs: list[str]):
    "The preset, beginning with an arm's weights."
    member = find_members("world")[0] if arm == "world" else None
    weights = {
        "world": [],
        "imagenet": ["network.pretrained=true"],
        "fresh": ["network.pretrained=false"],
    }
    return make_preset(name, [*pairs, *weights[arm]], steps, 2, member)


def world_hash() -> str:
    "A short name for the weights of the members of the workspace: other ones are trained anew."
    return "-" + weights_hash(find_members("world")[0])[:8]


def score_all(run: Run, chips: pd.DataFrame, member: Path) -> list[dict]:
    "Dice and APLS of chips."
    return [{"chip": c["chip"], **score_of(run, c, member)} for _, c in chips.iterrows()]


def train_once(run: Run, training: Training, chips: pd.DataFrame) -> list[dict]:
    "Train and score; what is there from the same inputs is read."
    begun = world_hash() if training.arm == "world" else ""
    path, name = run.folder / "trainings" / f"{training.name}.json", f"{training.name}{begun}"
    mark = [fingerprint(run.preset, 0, chips, run.seed), begun]
    if path.is_file() and (old := json.loads(path.read_text()))["fingerprint"] == mark:
        return old["rows"]
    began, folder = time.process_time(), run.folder / "members" / name
    fit(run.preset, 0, chips, out=folder, cache=run.cache, device="cpu", seed=run.seed)
    cpu = {"cpu_s": round(time.process_time() - began, 1)}
    scored = score_all(run, chips[chips.fold == 0], folder / "last.safetensors")
    rows = [{**vars(training), **cpu, **row} for row in scored]
    write_json(path, {"fingerprint": mark, "rows": rows})
    means = pd.DataFrame(rows)[list(SCORES)].mean().round(3).to_dict()
    print(f"{training.name}: {cpu['cpu_s']:.0f} s of CPU, {means}", flush=True)
    return rows


def untrained(run: Run, chips: pd.DataFrame) -> list[dict]:
    "The members of the workspace as they are, by their own preset: what `extract` gives."
    path, member = run.folder / "trainings" / "world-0.json", find_members("world")[0]
    if path.is_file() and (old := json.loads(path.read_text()))["member"] == world_hash():
        return old["rows"]
    own = replace(run, preset=load_preset("world"))
    rows = [{**vars(Training("world", 0, 0)), **r} for r in score_all(own, chips, member)]
    write_json(path, {"member": world_hash(), "rows": rows})
    return rows


def differences(table: pd.DataFrame, arm: str, other: str) -> pd.DataFrame:
    "One arm minus another, chip by chip within each draw."
    both = [
        table[table.arm == a].set_index(["chips", "draw", "chip"])[list(SCORES)]
        for a in (arm, other)
    ]
    return (both[0] - both[1]).dropna(how="all")


def report(table: pd.DataFrame) -> None:
    "Means of every arm, and what one has over another."
    means = table.groupby(["chips", "arm"])[list(SCORES)].mean()
    counts = table.groupby(["chips", "arm"]).agg(draws=("draw", "nunique"), scored=("chip", "size"))
    print(means.join(counts).round(3).to_string())
    arms = [a for a in ARMS if a in set(table.arm)]
    for k, arm in enumerate(arms):
        for other in arms[k + 1 :]:
            for n, rows in differences(table, arm, other).groupby("chips"):
                for score in SCORES:
                    print(f"{n} chips, {arm} minus {other}, {score}: {with_interval(rows[score])}")


def draw_curve(table: pd.DataFrame, path: Path) -> None:
    "Scores by labelled chips, a line an arm; dots are single draws."
    fig, axes = plt.subplots(1, len(SCORES), figsize=(4 * len(SCORES), 3.4), dpi=90, sharex=True)
    for ax, score in zip(axes, SCORES, strict=True):
        for arm, rows in table.groupby("arm"):
            means, draws = (rows.groupby(by)[score].mean() for by in ("chips", ["chips", "draw"]))
            look = dict(color=COLOURS[arm])
            ax.plot(means.index, means, marker="o", label=arm, **look)
            ax.plot(draws.index.get_level_values(0), draws, ".", alpha=0.4, **look)
        ax.set_title(score)
        ax.set_xlabel("labelled chips")
        ax.grid(alpha=0.3)
    axes[0].legend()
    fig.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path)
    print(f"curve: {path}")


def parsed():
    data = Path(__file__).resolve().parents[1] / "../shared/data/spacenet3_vegas"
    ask = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ask.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    ask.add_argument("--chips", nargs="+", type=int, default=[2, 4, 8])
    ask.add_argument("--draws", nargs="+", type=int, default=[2, 2, 3], help="one a --chips")
    ask.add_argument("--steps", type=int, default=200)
    ask.add_argument("--minutes", type=float, default=40)
    ask.add_argument("--preset", default="", help="for every arm [default: each its own]")
    ask.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    ask.add_argument("--data", type=Path, default=data)
    ask.add_argument(
        "--out", type=Path, default=Path(load_settings().outputs_root) / "train-own-curve"
    )
    ask.add_argument("--seed", type=int, default=load_settings().seed)
    return ask.parse_args()


def main():
    a, start = parsed(), time.monotonic()
    todo = trainings(a.arms, a.chips, a.draws)
    names = {arm: a.preset or own_preset("world" if arm == "world" else "") for arm in a.arms}
    presets = {arm: preset_of(arm, name, a.steps, a.set) for arm, name in names.items()}
    run = Run("train-own-curve", a.out, a.data, presets[a.arms[0]], a.seed)
    chips = {arm: open_chips(replace(run, preset=p), 0) for arm, p in presets.items()}
    rows = untrained(run, chips["world"]) if "world" in a.arms else []
    done = 0
    for training in todo:
        if time.monotonic() - start > 60 * a.minutes:
            break
        own = replace(run, preset=presets[training.arm])
        rows += train_once(own, training, dealt(chips[training.arm], training, a.seed))
        done += 1
    table = pd.DataFrame(rows)
    report(table)
    draw_curve(table, a.out / "curve.png")
    if done < len(todo):
        print(f"{done} of {len(todo)} trainings; run it again to go on")


if __name__ == "__main__":
    main()
