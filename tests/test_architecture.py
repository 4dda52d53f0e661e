"The house's structure: arrows between modules, two spines, stage notebooks as papermill and git want them, sizes."
import ast
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from spacenet5_nb.stages import _imports

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT/"nbs").glob("[0-9]*.ipynb"))
STAGES = [p for p in NOTEBOOKS if re.match(r"0[1-8]_", p.name)]
GRAPH_SPINE = ("core", "raster", "speed_limits", "graph", "folds", "explore", "survey", "disagree", "shapes", "masks", "vectorize", "speed", "apls", "topo", "maps")


def cells(path): return json.loads(path.read_text())["cells"]


def source(cell): return "".join(cell["source"])


def module_of(path):
    found = [m[1] for c in cells(path) if (m := re.search(r"^#\| ?default_exp (\w+)", source(c), re.M))]
    assert len(found) <= 1, f"{path.name} exports to {found}"
    return found[0] if found else None


ORDER = {module_of(p): p.stem.split("_")[0] for p in NOTEBOOKS}  # module -> 00, 00b, 03c, ...


def imports_of(module):
    "Modules of the package that an exported module imports, at top level or inside functions."
    return _imports((ROOT/"spacenet5_nb"/f"{module}.py").read_text()) & set(ORDER)


def test_a_module_imports_only_from_lower_or_equal_numbers():
    wrong = [f"{m} ({n}) imports {i} ({ORDER[i]})" for m, n in ORDER.items() if m for i in imports_of(m) if ORDER[i][:2] > n[:2]]
    assert not wrong


def test_no_circle_of_imports():
    state = {}
    def visit(module, trail):
        assert state.get(module) != "open", " -> ".join([*trail, module])
        if module in state: return
        state[module] = "open"
        for other in imports_of(module): visit(other, [*trail, module])
        state[module] = "done"
    for module in filter(None, ORDER): visit(module, [])


def test_the_judge_does_not_know_the_contestant():
    assert not imports_of("apls") & {"vectorize", "speed", "pipeline"}


def test_the_graph_spine_never_imports_torch():
    code = f"import sys\nfrom spacenet5_nb import {', '.join(GRAPH_SPINE)}\nprint(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'timm', 'lightning')))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("path", STAGES, ids=lambda p: p.stem)
def test_a_stage_notebook_has_its_typed_parameters_and_its_run(path):
    from spacenet5_nb.runner import read_parameters
    declared = read_parameters(path)
    assert [(n, declared[n].kind, declared[n].default) for n in ("run", "preset", "data_root", "device")] == [
        ("run", str, ""), ("preset", str, ""), ("data_root", str, ""), ("device", str, "auto")]
    assert all(p.comment for p in declared.values())
    assert ("fold" in declared) == path.name.startswith("04")
    headings = [source(c) for c in cells(path) if c["cell_type"] == "markdown" and re.search(r"^## Run", source(c), re.M)]
    assert headings, "a stage notebook ends with ## Run"


@pytest.mark.parametrize("path", STAGES, ids=lambda p: p.stem)
def test_a_stage_notebook_keeps_no_outputs(path):
    assert not [c["id"] for c in cells(path) if c.get("outputs") or c.get("execution_count")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_begins_with_a_title_and_one_sentence(path):
    first = source(cells(path)[0])
    assert re.match(r"# .+\n> .+", first), first[:80]
    assert path.stat().st_size < 400_000


def test_every_stage_is_in_the_pipeline():
    from spacenet5_nb.stages import STAGES as table
    assert list(table) == [p.stem for p in STAGES]


def functions(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef): yield node.name, node.end_lineno - node.lineno + 1


def test_sizes():
    "STYLE's sizes, reported; only gross breaches fail."
    sizes = sorted((n, f"{p.stem}.{f}") for p in (ROOT/"spacenet5_nb").glob("[a-z]*.py") for f, n in functions(p))
    lines = {p.stem: len(p.read_text().splitlines()) for p in (ROOT/"spacenet5_nb").glob("[a-z]*.py")}
    over = [f"{name} {n}" for n, name in sizes if n > 40]
    print(f"{len(sizes)} functions: median {sizes[len(sizes)//2][0]}, 9 in 10 under {sizes[int(.9*len(sizes))][0]}, over 40: {over}")
    print(f"modules over 300 lines: { {k: v for k, v in lines.items() if v > 300} }")
    if over: warnings.warn(f"functions over 40 lines: {over}", stacklevel=1)
    assert sizes[-1][0] <= 80 and sizes[len(sizes)//2][0] <= 12 and max(lines.values()) <= 800


@pytest.mark.parametrize("name", [p.stem for p in STAGES])
def test_a_stage_begins_with_what_it_takes_makes_and_shows(name):
    "A guided tour: title, one sentence, then what goes in, what comes out, what there is to see, before any code but the parameters."
    first = cells(ROOT/"nbs"/f"{name}.ipynb")[:4]
    text = "\n".join(source(c) for c in first if c["cell_type"] == "markdown")
    assert all(f"**{word}**" in text for word in ("Takes", "Makes", "Shows")), f"{name}: the cell after the parameters should say so"
