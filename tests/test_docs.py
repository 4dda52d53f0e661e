"""README, docs/ and CONTRIBUTING: links lead somewhere, tables say what the code says.

`python tests/test_docs.py` writes the table of preset keys in docs/settings.md anew.
"""

import ast
import io
import json
import re
import tokenize
import tomllib
from dataclasses import fields
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from spacenet5_nb.base.settings import _SETTINGS_ENV, Settings
from spacenet5_nb.core import preset_names
from spacenet5_nb.workflow.stage_table import STAGES

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *DOCS,
    *(ROOT / folder / "README.md" for folder in ("data", "outputs")),
]
SCHEMA = ROOT / "spacenet5_nb/base/preset_schema.py"
KEYS = "## Every key of a preset"


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    "A page without its code blocks."
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)


def links(path: Path) -> list[str]:
    "Targets of a page's links and pictures within this repository."
    found = re.findall(r"\]\(([^)\s]+)\)", prose(path))
    return [link for link in found if not link.startswith(("http://", "https://", "mailto:"))]


def anchors(path: Path) -> set[str]:
    "What GitHub makes of a page's headings."
    titles = re.findall(r"^#+ (.+)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path):
    for link in links(path):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{name(path)}: {link}"
        assert not anchor or anchor in anchors(target), f"{name(path)}: {link}: no such heading"


def test_readme_is_read_in_one_sitting():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_readme_leads_to_every_page():
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        seen.add(page)
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        todo += [t for t in targets if t.suffix == ".md" and t not in seen]
    assert not set(PAGES) - seen


def test_readme_names_every_stage_in_order():
    text = (ROOT / "README.md").read_text()
    assert re.findall(r"^\| \[`(\d\d_\w+)`\]", text, re.M) == list(STAGES)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_commands_and_their_options_exist(path):
    "Every `spacenet5 COMMAND --option` on a page is one that the command line has."
    import typer

    from spacenet5_nb.pipeline import app

    known = {
        command: {o for p in c.params for o in (*p.opts, *p.secondary_opts)} | {"--debug", "--help"}
        for command, c in typer.main.get_command(app).commands.items()
    }
    for command, rest in re.findall(r"spacenet5 ([a-z][\w-]*)([^`|\n]*)", path.read_text()):
        if command not in known:
            assert rest.startswith(":"), f"{name(path)}: spacenet5 {command}"  # its own output
            continue
        options = re.findall(r"(?<=\s)--?[a-z][\w-]*", rest.partition("  #")[0])
        assert not set(options) - known[command], f"{name(path)}: spacenet5 {command}{rest}"


def module_file(dotted: str) -> Path:
    "The file of the module in which `vectorize.find_masks` or `roads.skeleton.thin` is."
    return ROOT / "spacenet5_nb" / f"{dotted.rpartition('.')[0].replace('.', '/')}.py"


def names_in(path: Path) -> tuple[set[str], set[str]]:
    "What a module defines at its top, and what it imports there; it is not run."
    defined, imported = set(), set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            imported |= {a.asname or a.name for a in node.names}
    return defined, imported


def test_the_walks_name_functions_and_the_notebooks_that_define_them():
    text = prose(ROOT / "docs/architecture.md")
    steps = re.findall(r"\(\.\./nbs/([\w/]+)\.ipynb\) \| `([\w.]+)` \|", text)
    assert len(steps) > 20
    for notebook, dotted in steps:
        room, _, stem = notebook.rpartition("/")
        module = f"{room}.{stem}" if room else re.sub(r"^\d\d[a-z]?_", "", stem)
        assert dotted.rpartition(".")[0] == module, f"{dotted} beside {notebook}"
        assert dotted.rpartition(".")[2] in names_in(module_file(dotted))[0], (
            f"{notebook} does not define {dotted}: name the notebook that does"
        )


def test_architecture_names_things_that_exist():
    text = prose(ROOT / "docs/architecture.md")
    named = set(re.findall(r"`((?:\w+\.){1,2}\w+)`", text)) - {"vectorize.threshold"}  # a key
    named = [dotted for dotted in named if module_file(dotted).is_file()]
    assert len(named) > 25
    for dotted in named:
        assert dotted.rpartition(".")[2] in set.union(*names_in(module_file(dotted))), dotted


def test_the_rooms_are_listed_in_their_order():
    from test_architecture import ROOMS

    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| \[`(\w+)`\]\(\.\./nbs/\w+/README\.md\) \| (\d\d) \|", text, re.M)
    assert rows == [(room, f"{stage:02}") for room, stage in ROOMS.items()]


def test_settings_are_the_codes():
    text = (ROOT / "docs/settings.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(SPACENET5_\w+)` \| .* \| ?`?(.*?)`? ?\|$", text, re.M)
    assert rows == [(f.name, _SETTINGS_ENV[f.name], str(f.default)) for f in fields(Settings)]


def test_every_preset_is_listed():
    text = (ROOT / "docs/settings.md").read_text()
    assert sorted(re.findall(r"\.\./configs/(\w+)\.yaml\)", text)) == preset_names()


def test_every_dependency_is_listed_with_its_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"core": project["dependencies"], **project["optional-dependencies"]}
    del groups["all"]
    text = (ROOT / "docs/dependencies.md").read_text()
    listed = {
        section.split("\n")[0].strip("`[]"): re.findall(r"^\| ([\w-]+) \|", section, re.M)[1:]
        for section in text.split("\n## ")[1:]
    }
    for group, wanted in groups.items():
        assert sorted(listed[group]) == sorted(Requirement(r).name for r in wanted), group


def test_licences_are_those_that_packages_state():
    "The first word of each licence, where the installed package states one in a word."
    text = (ROOT / "docs/dependencies.md").read_text()
    rows = dict(re.findall(r"^\| ([\w-]+) \| ([^|]+?) \|", text, re.M))
    checked = 0
    for package, licence in rows.items():
        try:
            stated = metadata.metadata(package)
        except metadata.PackageNotFoundError:
            continue  # a heading, or something that is no package
        words = stated.get("License-Expression") or (stated.get("License") or "").split("\n")[0]
        kind = re.match(r"(MIT|BSD|Apache|MPL)", words)
        if kind and " AND " not in words:
            assert licence.startswith(kind[1]), f"{package}: {licence}, it states {words}"
            checked += 1
    assert checked > 25


WHERE = {  # a class of the schema: where its keys stand in a preset
    "Preset": "the preset itself",
    "DataConfig": "`data`",
    "MasksConfig": "`masks`",
    "FoldConfig": "one of `folds`",
    "TrainConfig": "`train`",
    "StageConfig": "one of `train.stages`, or of a fold's `stages`",
    "LossConfig": "`loss`, or a fold's",
    "HeadConfig": "one head of a `loss`",
    "EnsembleConfig": "`ensemble`",
    "VectorizeConfig": "`vectorize`",
    "SpeedConfig": "`speed`",
    "AplsConfig": "`apls`",
    "MapsConfig": "`maps`",
}


def preset_keys() -> str:
    "Tables of all keys: default, what a key may be, what the schema's comment says of it."
    source = SCHEMA.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    said = {t.start[0]: t.string.strip("# ") for t in tokens if t.type == tokenize.COMMENT}
    alone = {n for n, line in enumerate(source.splitlines(), 1) if line.lstrip().startswith("#")}
    classes = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.ClassDef)}
    assert set(classes) == set(WHERE), "a class of the schema has no place in WHERE"
    return "\n\n".join(
        f"### {place}\n\n{ast.get_docstring(classes[name])}\n\n"
        "| key | default | may be | |\n|---|---|---|---|\n"
        + "\n".join(
            f"| `{field.target.id}` | {default(field.value)} | {kind(field.annotation)} "
            f"| {comment(field, said, alone)} |"
            for field in classes[name].body
            if isinstance(field, ast.AnnAssign)
        )
        for name, place in WHERE.items()
    )


def comment(field: ast.AnnAssign, said: dict[int, str], alone: set[int]) -> str:
    "What stands behind a field or in the lines above it."
    first = field.lineno
    while first - 1 in alone:
        first -= 1
    texts = [said[n] for n in range(first, field.end_lineno + 1) if n in said]
    return " ".join(texts).replace("|", "\\|")


def default(value: ast.expr | None) -> str:
    "A default as YAML would have it."
    if value is None:
        return "must be given"
    if isinstance(value, ast.Call):
        keys = ", ".join(f"{k.arg}: {k.value.value}" for k in value.keywords)
        return (
            f"`{{{keys}}}`"
            if keys
            else "`selim_sef`"
            if "selim_sef" in ast.unparse(value)
            else "below"
        )
    data = ast.unparse(value)
    if data == "(StageConfig(),)":
        return "one stage of defaults"
    return f"`{json.dumps(ast.literal_eval(value))}`"


def kind(annotation: ast.expr) -> str:
    "A type in words, choices by name."
    text = ast.unparse(annotation)
    if isinstance(annotation, ast.BinOp) and "Literal" in text:
        return f"{kind(annotation.left)}, {kind(annotation.right)}"
    if found := re.fullmatch(r"Literal\[(.+)\]", text):
        return ", ".join(f"`{choice}`" for choice in found[1].replace("'", "").split(", "))
    words = {"int": "whole number", "float": "number", "bool": "true, false", "str": "text"}
    words |= {"None": "null", "Channels": "a name, a CSV, or its keys"}
    shapes = {"tuple": "list", "dict": "mapping"}
    return ", ".join(
        words.get(part) or shapes.get(part.partition("[")[0], "section")
        for part in text.split(" | ")
    )


def test_every_key_of_a_preset_is_listed_as_the_schema_has_it():
    text = (ROOT / "docs/settings.md").read_text()
    assert text == with_keys(text), "run: .venv/bin/python tests/test_docs.py"


def with_keys(text: str) -> str:
    "The page of settings with the tables as they should be."
    head, _, rest = text.partition(KEYS)
    introduction = rest.partition("###")[0].strip()
    return f"{head}{KEYS}\n\n{introduction}\n\n{preset_keys()}\n"


if __name__ == "__main__":
    page = ROOT / "docs/settings.md"
    page.write_text(with_keys(page.read_text()))
