"This workspace in a folder of its own, with presets that take seconds, and its demo run through."

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("nbs", "spacenet5_nb", "configs")
FILES = ("settings.ini", "pyproject.toml", "constraints.txt", "Makefile")
NO_COPY = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "_proc")
# what the demo and the preset for small machines are here: the original's shape in miniature
PRESETS = {
    "demo": """
base: demo_whole
name: demo
folds:
  - {encoder: mobilenetv3_small_050, bands: 3, pretrained: false}
  - {encoder: mobilenetv3_small_050, bands: 8, pretrained: false}
data:
  demo: {cities: [Terra, Enigma], grid: [2, 3], test_grid: [1, 2], chip_m: 220.0, gsd_m: 1.0}
train:
  stages:
    - crop_px: 96
      batch: 4
      epochs: 3
      steps_per_epoch: 3
      lr: [[0, 1.0e-3]]
      schedule: steps
      validate_every: 1
  validation_chips: 2
ensemble: {tta: flips}
""",
    "small": """
base: small_whole
name: small
folds:
  - {encoder: mobilenetv3_small_050, bands: 3, pretrained: false}
  - {encoder: mobilenetv3_small_050, bands: 3, pretrained: false}
data: {gsd_m: 2.0}
train:
  stages:
    - crop_px: 96
      batch: 4
      epochs: 1
      steps_per_epoch: 2
      lr: [[0, 1.0e-3]]
      schedule: steps
      validate_every: 1
  validation_chips: 1
ensemble: {tta: none}
""",
}


def copy_workspace(home: Path) -> None:
    "The workspace's notebooks, package and settings; the presets above for the shipped ones."
    for name in FOLDERS:
        shutil.copytree(ROOT / name, home / name, ignore=NO_COPY)
    for name in FILES:
        shutil.copy(ROOT / name, home)
    (home / ".venv").symlink_to(sys.prefix)
    for name, text in PRESETS.items():
        path = home / "configs" / f"{name}.yaml"
        whole = path.read_text().replace(f"name: {name}", f"name: {name}_whole")
        path.with_stem(f"{name}_whole").write_text(whole)
        path.write_text(text)


def environment(home: Path, outputs: str = "outputs") -> dict[str, str]:
    "Settings of that workspace alone; one thread a process."
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SPACENET5_")}
    return kept | {
        "SPACENET5_ROOT": str(home),
        "SPACENET5_OUTPUTS": str(home / outputs),
        "SPACENET5_DATA": str(home / "data"),
        "SPACENET5_WORKERS": "2",
        "SPACENET5_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def command(*arguments: str) -> list[str]:
    "The program, in a process of its own."
    return [sys.executable, "-c", "from spacenet5_nb.pipeline import main; main()", *arguments]


def run(home: Path, *arguments: str, outputs: str = "outputs") -> str:
    "What the program says; it must succeed."
    call = dict(cwd=home, env=environment(home, outputs), capture_output=True, text=True)
    done = subprocess.run(command(*arguments), **call)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def results(home: Path, outputs: str = "outputs") -> dict[str, bytes]:
    "The bytes of everything that must not depend on the day."
    made = home / outputs / "demo"
    files = [
        *made.glob("masks/*"),
        *made.glob("folds/*/*.safetensors"),
        *made.glob("probs/*"),
        made / "solution.csv",
        made / "roads.geojson",
        made / "scores.csv",
        made / "folds.csv",
    ]
    assert len(files) > 12
    return {p.relative_to(made).as_posix(): p.read_bytes() for p in files}
