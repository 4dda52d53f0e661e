"Fresh networks for tests of what comes after training."

from pathlib import Path

import torch

from spacenet5_nb import core, model
from spacenet5_nb.core import Preset

ENCODERS = sorted(  # of the presets: name, bands, decoder, its norm
    {
        (f.encoder, f.bands, tuple(p.decoder), p.decoder_norm)
        for p in map(core.load_preset, core.preset_names())
        for f in p.folds
    }
)


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
