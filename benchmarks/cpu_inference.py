"""Engines for inference on a CPU: eager PyTorch, PyTorch with limits within its convolutions as
`extract` uses it (`limits`), torch.compile, ONNX Runtime and OpenVINO, on the members that come
with the workspace and on one full-size network, in one run.

    .venv/bin/python benchmarks/cpu_inference.py [--size 384] [--rounds 5] [--threads 1]
        [--networks world dpn92] [--engines eager bf16 compile onnx onnx-int8 openvino ...]

ONNX Runtime and OpenVINO are extras (`pip install -e ".[onnx,openvino]"`); an engine that is not
there is said and left out. Engines take turns on the same batch of one; seconds are of processors,
medians. The picture is the real sample, filled up by reflection. A difference is the largest of a
probability, in 255ths, from eager's in 32 bits; an engine that is to be taken must be 1.5 times as
fast and differ by 2 at most. `int8` has convolutions of 8 bits, calibrated on turned views of the
picture; whether its held-out scores are equal this program does not say.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from spacenet5_nb import model, raster
from spacenet5_nb.extract import find_members
from spacenet5_nb.inference.cpu_convolutions import limit_within
from spacenet5_nb.inference.onnx_export import to_onnx
from spacenet5_nb.networks.inference_optimization import quicken

import torch  # isort: skip

SAMPLE = Path(__file__).parents[1] / "spacenet5_nb/assets/sample/las_vegas.tif"
NEEDS = {"onnx": "onnxruntime", "onnx-int8": "onnxruntime", "openvino": "openvino"}
NEEDS |= {"openvino-bf16": "openvino", "openvino-int8": "onnxruntime"}
ENGINES = ("eager", "limits", "bf16", "compile", "compile-bf16", *NEEDS)
Run = Callable[[torch.Tensor], np.ndarray]  # a prepared image to probabilities


def networks(names: list[str]) -> dict[str, model.RoadUNet]:
    "Members by name; a full-size network has fresh weights."
    found = {}
    for name in names:
        if name == "world":
            found |= {f"world {p.stem}": model.load(p) for p in find_members(name)}
        else:
            torch.manual_seed(0)
            found[name] = model.RoadUNet(name, 8, 12).eval()
    return found


def picture(net: model.RoadUNet, size: int) -> torch.Tensor:
    "The sample as a network wants it, (1, bands, size, size)."
    image, _, _ = raster.read_chip(SAMPLE, 3, gsd_m=net.info.get("gsd_m"))
    missing = [(0, max(0, size - n)) for n in image.shape[1:]]
    image = np.pad(image, [(0, 0), *missing], mode="symmetric")[:, :size, :size]
    bands = np.resize(image, (net.spec["in_channels"], size, size))
    x = net.prepare(torch.from_numpy(bands)[None])
    return x.contiguous(memory_format=torch.channels_last)


def in_torch(net: model.RoadUNet, name: str) -> Run:
    kind = torch.bfloat16 if "bf16" in name else torch.float32
    quick: Any = quicken(copy.deepcopy(net), dtype=kind)
    if name == "limits":
        quick = limit_within(quick)
    if "compile" in name:
        quick = torch.compile(quick, dynamic=False)

    def run(x: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            return quick(x.to(kind)).float().sigmoid().numpy()

    return run


def in_onnx(written: bytes, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(written, options, providers=["CPUExecutionProvider"])

    def run(x: torch.Tensor) -> np.ndarray:
        return sigmoid(session.run(None, {"image": x.numpy()})[0])

    return run


def in_8_bits(written: bytes, x: torch.Tensor, folder: Path) -> bytes:
    """The same network with 8-bit weights and activations of its convolutions; sums stay in 32
    bits, because ONNX Runtime has no kernel for theirs."""
    from onnxruntime import quantization

    class Views(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [np.ascontiguousarray(np.rot90(x.numpy(), k, (2, 3))) for k in range(4)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return {"image": self.left.pop()} if self.left else None

    (folder / "network.onnx").write_bytes(written)
    how = dict(per_channel=True, quant_format=quantization.QuantFormat.QDQ)
    quantization.quantize_static(
        folder / "network.onnx", folder / "int8.onnx", Views(), op_types_to_quantize=["Conv"], **how
    )
    return (folder / "int8.onnx").read_bytes()


def in_openvino(written: bytes, bf16: bool, threads: int) -> Run:
    from spacenet5_nb.inference.cpu_engines import openvino_core

    config = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
    }
    core = openvino_core()
    compiled = core.compile_model(core.read_model(io.BytesIO(written)), "CPU", config)

    def run(x: torch.Tensor) -> np.ndarray:
        return sigmoid(compiled([x.numpy()])[0])

    return run


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def engine(name: str, net: model.RoadUNet, x: torch.Tensor, folder: Path, threads: int) -> Run:
    "An engine with a network."
    if name not in NEEDS:
        return in_torch(net, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes become constants, and that is meant
        written = to_onnx(quicken(copy.deepcopy(net)), x.contiguous())
    if "int8" in name:
        written = in_8_bits(written, x, folder)
    if name.startswith("onnx"):
        return in_onnx(written, threads)
    return in_openvino(written, name.endswith("bf16"), threads)


def measure(name: str, net: model.RoadUNet, a: argparse.Namespace) -> None:
    "One network through every engine, in turns."
    x, ready = picture(net, a.size), {}
    with tempfile.TemporaryDirectory() as folder:
        for e in a.engines:
            if e in NEEDS and importlib.util.find_spec(NEEDS[e]) is None:
                print(f"{name}, {e}: {NEEDS[e]} is not installed", flush=True)
                continue
            try:
                ready[e] = engine(e, net, x, Path(folder), a.threads)
                ready[e](x)
            except Exception as error:  # noqa: BLE001  each engine has kinds of its own
                print(f"{name}, {e}: {type(error).__name__}: {str(error)[:200]}", flush=True)
                ready.pop(e, None)
        seconds: dict[str, list[float]] = {e: [] for e in ready}
        for _ in range(a.rounds):
            for e, run in ready.items():
                began = time.process_time()
                run(x)
                seconds[e].append(time.process_time() - began)
        plain = ready["eager"](x)
        for e, spent in seconds.items():
            off = 255 * float(np.abs(ready[e](x) - plain).max())
            times = median(seconds["eager"]) / median(spent)
            row = f"| {name} | {e} | {median(spent):.3f} | {times:.2f} | {off:.2f} |"
            print(row, flush=True)


def main() -> None:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("--networks", nargs="+", default=["world", "dpn92"])
    ask.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    ask.add_argument("--size", type=int, default=384)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--threads", type=int, default=1)
    a = ask.parse_args()
    a.engines = ["eager", *(e for e in a.engines if e != "eager")]
    torch.set_num_threads(a.threads)
    model.keep_memory()
    print("| network | engine | processor time, s | times as fast as eager | differs by, 255ths |")
    print("|---|---|---|---|---|")
    for name, net in networks(a.networks).items():
        measure(name, net, a)


if __name__ == "__main__":
    main()
