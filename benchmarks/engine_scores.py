"""Held-out scores of a finished run by each way to compute its members: engines, fused
convolutions, norms kept as they were trained, views. Test chips alone, which no member has seen.

    .venv/bin/python benchmarks/engine_scores.py [--run demo] [--chips 25]
        [--ways torch/none openvino/none fuse/none norms/none torch/flips]
"""

import argparse

import numpy as np
import torch

from spacenet5_nb import ensemble
from spacenet5_nb.core import EnsembleConfig, open_run
from spacenet5_nb.explore import load_chips
from spacenet5_nb.inference.cpu_engines import with_engine
from spacenet5_nb.inference.members import Member, read_image
from spacenet5_nb.model import load, set_threads, to_bytes
from spacenet5_nb.pipeline import make_score

WAYS = ["torch/none", "openvino/none", "fuse/none", "norms/none", "torch/flips"]


def opened(paths: list, way: str, c: EnsembleConfig) -> list[Member]:
    "Members as a way computes them; `norms` leaves networks as their checkpoints have them."
    members = ensemble.open_members(paths, device="cpu", weights=c.weights, fuse=way == "fuse")
    if way == "norms":
        plain = [load(m.name).to(memory_format=torch.channels_last).eval() for m in members]
        return [m._replace(net=net, run=net) for m, net in zip(members, plain, strict=True)]
    return with_engine(members, "openvino" if way == "openvino" else "torch")


def main() -> None:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("--run", default="demo")
    ask.add_argument("--chips", type=int, default=25)
    ask.add_argument("--ways", nargs="+", default=WAYS)
    a = ask.parse_args()
    set_threads()
    r = open_run(a.run, a.run)
    rows, score = load_chips(r).query("split == 'test'").head(a.chips), make_score(r)
    print(f"{len(rows)} test chips\n| way / views | APLS_length | APLS_time | differs by, 255ths |")
    print("|---|---|---|---|", flush=True)
    first: dict[str, np.ndarray] = {}
    for way, tta in (w.split("/") for w in a.ways):
        members, said, off = opened(ensemble.member_paths(r), way, r.preset.ensemble), [], 0
        for row in rows.itertuples():
            image, valid = read_image(row.image, members)
            p = ensemble.mean_of_members(members, image, tta=tta) * torch.from_numpy(valid)
            probs = to_bytes(p).numpy()
            off = max(off, int(np.abs(probs - first.setdefault(row.chip, probs).astype(int)).max()))
            said.append(score(row.chip, probs))
        means = [np.mean([s[k] for s in said]) for k in ("apls_length", "apls_time")]
        print(f"| {way}, {tta} | {means[0]:.4f} | {means[1]:.4f} | {off} |", flush=True)


if __name__ == "__main__":
    main()
