"Fresh networks for tests of what comes after training."

from pathlib import Path

import torch

from spacenet5_nb import model
from spacenet5_nb.core import Preset


def members(folder: Path, p: Preset, names=("last",), std: float = 5) -> list[Path]:
    "Checkpoints of every fold, all different, that say something."
    paths = []
    for k in range(len(p.folds)):
        for n, name in enumerate(names):
            torch.manual_seed(100 * k + n)
            net = model.build(p, k)
            torch.nn.init.normal_(net.head.weight, std=std)
            torch.nn.init.zeros_(net.head.bias)
            paths.append(model.save(net, folder / f"{k}/{name}.safetensors"))
    return paths
