# SPDX-License-Identifier: MIT
"""The rules of the house: how large, what imports what, how files open, what must stand nowhere."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tools import draw_pictures, notebooks
from tools.set_repository import ROOT, tracked_files

# Lines of Python. The first two keep what was reached from growing; the aim is 6,500 and 900.
PACKAGE_LINES = 7_880
CORE_LINES = 905
FILE_LINES = 450
FUNCTION_LINES = 70

CORE = ("_inputs", "patches", "embeddings", "attention", "blocks", "vit")
# What the package makes known by name, where it is there.
BESIDE = ("stems", "tokenisers", "backbones", "attentions", "positions", "mlps")
# What chapters 9 and 10 choose from comes on top of the lines above: in the package, in its core.
CHOICES_LINES, CHOICES_CORE_LINES = 670, 95
# And a pretrained ResNet as patch embedding: backbones.py, and what makes it known and loads it.
BACKBONES_LINES = 167
CORE_FILES = [ROOT / "vitcore" / f"{name}.py" for name in (*CORE, "models", "__init__")]
SOURCES = [path for path in tracked_files() if path.suffix == ".py" and path.exists()]
VITCORE = [path for path in SOURCES if path.is_relative_to(ROOT / "vitcore")]
VITBOOK = [path for path in SOURCES if path.is_relative_to(ROOT / "vitbook")]
README = (ROOT / "README.md").read_text("utf-8")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def lines_of(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


# --- how large ----------------------------------------------------------------------------------


def test_vitcore_stays_small() -> None:
    sizes = {relative(path): lines_of(path) for path in VITCORE}
    assert sum(sizes.values()) <= PACKAGE_LINES + CHOICES_LINES + BACKBONES_LINES, sizes


def test_the_core_is_read_in_an_evening() -> None:
    sizes = {name: lines_of(ROOT / "vitcore" / f"{name}.py") for name in CORE}
    assert sum(sizes.values()) <= CORE_LINES + CHOICES_CORE_LINES, sizes


@pytest.mark.parametrize("path", [*VITCORE, *VITBOOK], ids=relative)
def test_no_file_is_too_long(path: Path) -> None:
    assert lines_of(path) <= FILE_LINES


@pytest.mark.parametrize("path", VITCORE, ids=relative)
def test_no_function_is_too_long(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= FUNCTION_LINES, f"{node.name} has {length} lines"


# --- what imports what --------------------------------------------------------------------------


class Arrow(NamedTuple):
    """One import: the module it leads to, the name asked for there, and the line."""

    module: str
    name: str | None
    line: int


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def arrows(path: Path) -> Iterator[Arrow]:
    """Every import of a file, at its top and inside its functions.

    A module's ``__getattr__`` is left out: it answers for an old path, and the module itself uses
    nothing of what lies there.
    """
    package = list(path.relative_to(ROOT).parent.parts)
    todo: list[ast.AST] = [parse(path)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Arrow(alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Arrow(module, alias.name, node.lineno)
        for child in ast.iter_child_nodes(node):
            old_path = isinstance(node, ast.Module) and getattr(child, "name", "") == "__getattr__"
            if not old_path:
                todo.append(child)


def import_graph(paths: list[Path]) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports."""
    names = {module_name(path) for path in paths}
    graph: dict[str, set[str]] = {}
    for path in paths:
        here = module_name(path)
        graph[here] = set()
        for arrow in arrows(path):
            inner = f"{arrow.module}.{arrow.name}"
            target = inner if inner in names else arrow.module
            if target in names and target != here:
                graph[here].add(target)
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of a circle, or none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("paths", [VITCORE, VITBOOK], ids=["vitcore", "vitbook"])
def test_arrows_go_one_way(paths: list[Path]) -> None:
    assert circle(import_graph(paths)) == []


@pytest.mark.parametrize("path", VITCORE, ids=relative)
def test_vitcore_stands_alone(path: Path) -> None:
    """What people take with them imports nothing of the pages, the scripts or the tests."""
    for arrow in arrows(path):
        top = arrow.module.split(".")[0]
        assert top not in {"vitbook", "benchmarks", "tools", "tests"}, f"line {arrow.line}: {top}"


@pytest.mark.parametrize("path", CORE_FILES, ids=relative)
def test_the_core_needs_torch_and_einops_alone(path: Path) -> None:
    allowed = {"torch", "einops", *sys.stdlib_module_names}
    # The package makes the others known where they are there; no file of the core needs them.
    inside = {
        f"vitcore.{name}" for name in (*CORE, *(("models", *BESIDE) * (path.stem == "__init__")))
    }
    for arrow in arrows(path):
        if arrow.module.split(".")[0] in allowed:
            continue
        reached = arrow.module if arrow.module != "vitcore" else f"vitcore.{arrow.name}"
        assert reached in inside, f"line {arrow.line} imports {reached}"
    calls = [node for node in ast.walk(parse(path)) if isinstance(node, ast.Call)]
    hidden = [call for call in calls if "import" in ast.unparse(call.func)]
    assert not hidden, [ast.unparse(call) for call in hidden]


def test_no_package_hides_an_import_error() -> None:
    for path in [*VITCORE, *VITBOOK]:
        if path.name == "__init__.py":
            assert "ImportError" not in path.read_text("utf-8"), relative(path)


def test_importing_vitcore_is_light(tmp_path: Path) -> None:
    heavy = ["torchvision", "matplotlib", "tqdm", "safetensors", "platformdirs", "PIL", "timm"]
    program = f"import sys, vitcore; print([name for name in {heavy} if name in sys.modules])"
    # torch itself may bring some of them; what counts is what vitcore adds.
    bare = program.replace("vitcore", "torch")
    assert python(program, tmp_path) == python(bare, tmp_path)


def python(program: str, folder: Path) -> str:
    """Run ``program`` in ``folder``, from which it imports first, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- one chapter, one module, one test file -----------------------------------------------------


ROW = re.compile(r"^\| \[(\d+) [^\]]+\]\((notebooks/[^)]+)\) \| (.+) \| (.+) \|$", re.MULTILINE)
LINK = re.compile(r"\[`([^`]+)`\]\(([^)]+)\)")
CHAPTERS = ROW.findall(README)


def files_that_test(name: str) -> list[Path]:
    """The test file of a module, or the test files of a folder."""
    found = sorted((ROOT / "tests").glob(f"test_{name}_*.py"))
    whole = ROOT / "tests" / f"test_{name}.py"
    return [whole, *found] if whole.exists() else found


def test_the_table_lists_every_chapter() -> None:
    assert [path for _, path, _, _ in CHAPTERS] == [
        relative(path) for path in notebooks.chapter_paths()
    ]
    assert [int(number) for number, *_ in CHAPTERS] == [
        int(path.name[:2]) for path in notebooks.chapter_paths()
    ]


@pytest.mark.parametrize(("number", "notebook", "modules", "tests"), CHAPTERS)
def test_one_chapter_one_module_one_test_file(
    number: str, notebook: str, modules: str, tests: str
) -> None:
    """What the row names is there, each with its test by the same name; see the chapter's too."""
    assert Path(notebook).name.startswith(f"{int(number):02}_")
    named = LINK.findall(modules)
    assert named
    for shown, target in named:
        assert (ROOT / target).exists(), target
        assert target.removeprefix("vitcore/").rstrip("/") == shown.rstrip("/")
    wanted = []
    for _, target in named:
        own = Path(target).stem
        folder = (ROOT / target).parent.name
        stem = own if folder == "vitcore" else f"{folder}_{own}"
        assert files_that_test(stem), f"{target} has no tests/test_{stem}.py"
        several = (ROOT / target).is_dir() and [*(ROOT / "tests").glob(f"test_{stem}_*.py")]
        wanted.append(f"test_{stem}_*.py" if several else f"test_{stem}.py")
    assert [shown for shown, _ in LINK.findall(tests)] == wanted
    for shown, target in LINK.findall(tests):
        assert target == ("tests" if "*" in shown else f"tests/{shown}")


ROOMS = sorted(
    {
        (path.relative_to(ROOT).parts[0], Path(path.relative_to(ROOT).parts[1]).stem)
        for path in [*VITCORE, *VITBOOK]
    }
)
# These have the tests of what they serve: the command line, the package, what opens torchvision.
SERVED = {"__main__": "cli", "__init__": "wheel", "_inputs": "vit"}
SERVED |= {"_standin": "data"}


@pytest.mark.parametrize(("package", "room"), ROOMS)
def test_every_room_has_its_tests(package: str, room: str) -> None:
    name = SERVED.get(room, room.lstrip("_"))
    beside = files_that_test(f"book_{name}") if package == "vitbook" else []
    assert files_that_test(name) or beside, f"write tests/test_{name}.py"


# --- the paths that readers met -----------------------------------------------------------------


PATHS = re.search(r"<!-- paths begin -->\n(.*?)<!-- paths end -->", README, re.DOTALL)
PROMISED = (
    re.findall(r"^from (vit\w+(?:\.\w+)*) import (.+)$", PATHS.group(1), re.MULTILINE)
    if (PATHS)
    else []
)


@pytest.mark.parametrize(("module", "names"), PROMISED, ids=lambda text: text.split(",")[0])
def test_a_path_that_readme_promises(module: str, names: str) -> None:
    there = importlib.import_module(module)
    for name in names.split("#")[0].split(","):
        assert name.strip().isidentifier()
        if not hasattr(there, name.strip()):
            importlib.import_module(f"{module}.{name.strip()}")


def test_old_paths_are_promised() -> None:
    modules = {module for module, _ in PROMISED}
    old = {"vitcore", "vitcore.data", "vitcore.augment", "vitcore.training", "vitcore.recipes"}
    assert old <= modules


@pytest.mark.parametrize("path", notebooks.notebook_paths(), ids=lambda path: path.stem)
def test_chapters_import_from_promised_paths_alone(path: Path) -> None:
    modules = {module for module, _ in PROMISED}
    for cell in notebooks.read(path).cells:
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom):
                met = [node.module or ""]
            elif isinstance(node, ast.Import):
                met = [alias.name for alias in node.names]
            else:
                continue
            for module in met:
                if module.split(".")[0] in {"vitcore", "vitbook"}:
                    assert module in modules, f"{module} is not among README's import paths"


# --- how files open, and what stands nowhere ----------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_file_opens_with_licence_and_purpose(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith("# SPDX-License-Identifier: MIT\n")
    docstring = ast.get_docstring(parse(path))
    assert docstring
    assert docstring.split("\n\n")[0].endswith((".", "?"))


# Written in parts, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a path of one machine": re.compile(
        r"(?<![\w.~-])/(?:" + "work|root|home/[a-z]|Users/[A-Z]|mnt" + r")/\w"
    ),
    "a package registry's host": re.compile(
        "|".join(("py" + r"pi\.org", "python" + r"hosted\.org", "download" + r"\.pytorch\.org"))
    ),
    "a mark of a merge": re.compile("^(?:" + "<" * 7 + "|" + ">" * 7 + ") ", re.MULTILINE),
}
# These plant paths to find out whether they are found.
PLANTED = {"tests/test_notebooks.py"}


@pytest.mark.parametrize("path", tracked_files(), ids=relative)
def test_nothing_of_one_machine_is_tracked(path: Path) -> None:
    if relative(path) in PLANTED:
        return
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        return  # a picture or weights
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    for what, pattern in FORBIDDEN.items():
        found = pattern.search(text)
        assert not found, f"{what}: {found.group(0)!r}"
    if relative(path) != ".ci/run":
        outside = "../" + "shared"
        assert outside not in text


def test_no_images_travel_with_the_repository() -> None:
    names = [relative(path) for path in tracked_files()]
    assert not [name for name in names if name.endswith((".npz", ".gz", ".pt", ".pth", ".pkl"))]
    big = [relative(path) for path in tracked_files() if path.stat().st_size > 5_000_000]
    assert not big


@pytest.mark.parametrize("name", draw_pictures.PICTURES)
def test_pictures_are_those_that_the_code_draws(name: str) -> None:
    assert (ROOT / name).read_text("utf-8") == draw_pictures.PICTURES[name](), "run make pictures"


def test_versions_have_one_source() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert 'dynamic = ["version"]' in text
    assert not re.search(r'^version = "', text, re.MULTILINE)
