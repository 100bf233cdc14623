# SPDX-License-Identifier: MIT
"""Plant one small mistake at a time and list those that the tests let live: make mutants.

By default in the lines of vitcore that changed since the last commit; each is tried on the test
files of its room, in a copy of the tree. (mutmut leaves out what stands outside functions, such as
constants and defaults; cosmic-ray drops no statement and no argument, and changes files in place.)
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Mutant(NamedTuple):
    """A changed file: the line and words of the change, and the whole new text."""

    line: int
    change: str
    source: str


# --- planting --------------------------------------------------------------------------------

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div, ast.Pow: ast.Mult,
}  # fmt: skip
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


def _change(node: ast.AST, **fields: object) -> ast.AST:
    """A copy of a node with some fields replaced."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    if isinstance(node.value, bool):
        yield _change(node, value=not node.value)
    elif isinstance(node.value, int):
        yield _change(node, value=node.value + 1)
    elif isinstance(node.value, float):
        yield _change(node, value=node.value * 1.5 if node.value else 0.5)


def _calls(node: ast.Call, modules: set[str]) -> Iterator[ast.AST]:
    """Swapped arguments, an argument left out, and the call itself left out."""
    for at in range(len(node.args) - 1):
        pair = node.args[at : at + 2]
        if not any(isinstance(argument, ast.Starred) for argument in pair):
            yield _change(node, args=[*node.args[:at], *pair[::-1], *node.args[at + 2 :]])
    for at, keyword in enumerate(node.keywords):
        if keyword.arg is not None:
            yield _change(node, keywords=node.keywords[:at] + node.keywords[at + 1 :])
    function = node.func
    root = function
    while isinstance(root, ast.Attribute):
        root = root.value
    plain = isinstance(root, ast.Name) and (root is function or root.id in {*modules, "self"})
    if isinstance(function, ast.Attribute) and not plain:
        yield function.value
    elif node.args and not isinstance(node.args[0], ast.Starred):
        yield node.args[0]


def _replacements(node: ast.AST, modules: set[str]) -> Iterator[ast.AST]:
    """What may stand in an expression's place."""
    if isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Compare):
        for at, op in enumerate(node.ops):
            ops = [*node.ops[:at], _COMPARED[type(op)](), *node.ops[at + 1 :]]
            yield _change(node, ops=ops)
    elif isinstance(node, ast.BoolOp):
        yield _change(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.BinOp) and type(node.op) in _COMPUTED:
        yield _change(node, op=_COMPUTED[type(node.op)]())
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.ctx, ast.Load):
        yield _change(node, elts=node.elts[::-1])
    elif isinstance(node, ast.Name) and node.id in _NAMES:
        yield _change(node, id=_NAMES[node.id])
    elif isinstance(node, ast.Call):
        yield from _calls(node, modules)


def _conditions(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, (ast.If, ast.IfExp)):
        return [node.test]
    return list(node.ifs) if isinstance(node, ast.comprehension) else []


def _may_go(node: ast.AST) -> bool:
    """Whether a statement can be left out without a name being unknown after it."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        targets = {ast.unparse(target) for target in node.targets}
        used = {ast.unparse(n) for n in ast.walk(node.value) if isinstance(n, ast.expr)}
        return bool(targets & used) or all(isinstance(t, ast.Attribute) for t in node.targets)
    return isinstance(node, ast.AugAssign)


def _visited(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree but for what only speaks: annotations, messages, formatted strings."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "format_spec"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, (ast.Raise, ast.JoinedStr)):
                yield from _visited(child)


def plant(source: str, lines: Iterable[int] | None = None) -> list[Mutant]:
    """Make every small change to a module that compiles, on some lines or on all."""
    tree = ast.parse(source)
    wanted = None if lines is None else set(lines)
    text = source.encode()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    modules = {
        alias.asname or alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
        if (alias.asname or alias.name).split(".")[0].islower() or isinstance(node, ast.Import)
    }
    mutants: list[Mutant] = []

    def add(node: ast.AST, new: str, label: str = "") -> None:
        assert isinstance(node, (ast.expr, ast.stmt))
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        if wanted is not None and wanted.isdisjoint(range(node.lineno, node.end_lineno + 1)):
            return
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        changed = (text[:start] + new.encode() + text[end:]).decode()
        try:
            if ast.dump(ast.parse(changed)) == ast.dump(tree):
                return
        except SyntaxError:
            return
        old = " ".join(text[start:end].decode().split())
        mutants.append(Mutant(node.lineno, f"{old} -> {label or new}", changed))

    for node in _visited(tree):
        for new in _replacements(node, modules):
            whole = ast.unparse(new)
            simple = isinstance(new, (ast.Name, ast.Constant, ast.Call, ast.Attribute))
            add(node, whole if simple else f"({whole})", whole)
        for test in _conditions(node):
            add(test, "True")
            add(test, "False")
        if _may_go(node):
            add(node, "pass", "(left out)")
    unique = {mutant.source: mutant for mutant in reversed(mutants)}
    return sorted(unique.values(), key=lambda mutant: (mutant.line, mutant.change))


# --- trying ----------------------------------------------------------------------------------


def find_tests(file: str, root: Path = ROOT) -> list[list[str]]:
    """The test files of a module: those of its own name, and then those of its folder."""
    path = Path(file)
    room, name = path.parent.name, {"__main__": "cli"}.get(path.stem, path.stem.strip("_"))
    folders = [room] if len(path.parts) > 2 else []
    names = [[f"test_{name}.py", *(f"test_{folder}_{name}.py" for folder in folders)]]
    names += [[f"test_{folder}.py", f"test_{folder}_*.py"] for folder in folders]
    seen: set[str] = set()
    found = []
    for patterns in names:
        files = {str(p.relative_to(root)) for n in patterns for p in (root / "tests").glob(n)}
        if files - seen:
            found.append(sorted(files - seen))
        seen |= files
    return found


def changed_lines(base: str, root: Path = ROOT, where: str = "vitcore") -> dict[str, set[int]]:
    """The lines of each module under ``where`` that differ from a revision."""
    command = ["git", "diff", "-U0", "--no-color", base, "--", where]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    changed: dict[str, set[int]] = {}
    file = ""
    for line in result.stdout.splitlines():
        if line.startswith("+++ "):
            file = line[6:] if line.endswith(".py") else ""
        hunk = re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line)
        if hunk and file:
            first, count = int(hunk[1]), int(hunk[2] or 1)
            changed.setdefault(file, set()).update(range(first, first + count))
    return {name: lines for name, lines in changed.items() if lines}


def _copy_tree(to: Path, root: Path) -> None:
    """Copy what git knows, or would add, to a folder."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name)


def passes(tree: Path, files: Sequence[str], seconds: float) -> bool:
    """Run test files in a copy of the tree until one test fails; too long counts as a failure."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
    # Without bytecode: two changes of one second and one length would share a compiled file.
    settings = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tree, env={**os.environ, **settings}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with the workers that it started
            process.wait()


def lives(tree: Path, file: str, mutant: Mutant, tests: Sequence[list[str]], limit: float) -> bool:
    """Say whether all tests of a module pass with a mutant in its place; then put it back."""
    path = tree / file
    whole = path.read_text(encoding="utf-8")
    path.write_text(mutant.source, encoding="utf-8")
    try:
        return all(passes(tree, files, limit) for files in tests)
    finally:
        path.write_text(whole, encoding="utf-8")


def hunt(
    chosen: dict[str, list[Mutant]], root: Path = ROOT, workers: int = 2, limit: float = 300.0
) -> tuple[list[str], int]:
    """Try mutants by file and print those that live; returns them and how many were tried."""
    living: list[str] = []
    tried = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(workers):
            _copy_tree(Path(folder) / str(number), root)
            trees.put(Path(folder) / str(number))
        for file, mutants in chosen.items():
            tests = find_tests(file, root)
            tree = trees.get()
            started = time.monotonic()
            if not tests or not all(passes(tree, files, limit) for files in tests):
                print(f"{file}: left out, its tests fail or take over {limit:g} s as they are")
                trees.put(tree)
                continue
            trees.put(tree)
            # A mutant that loops is as good as killed.
            patience = min(limit, 3 * (time.monotonic() - started) + 10)
            print(f"{file}: {len(mutants)} mutants", flush=True)
            tried += len(mutants)

            def attempt(mutant: Mutant) -> None:
                tree = trees.get()
                try:
                    if lives(tree, file, mutant, tests, patience):  # noqa: B023
                        living.append(f"{file}:{mutant.line} {mutant.change}")  # noqa: B023
                        print(f"  lives: {living[-1]}", flush=True)
                finally:
                    trees.put(tree)

            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(attempt, mutants))
    return living, tried


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Plant mutants as the command line asks; the exit status is 0 whatever lives."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--base", default="HEAD~1", help="revision to compare with")
    parser.add_argument("--files", nargs="*", help="whole files instead of changed lines")
    parser.add_argument("--sample", type=int, help="at most so many a file, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one mutant")
    options = parser.parse_args(arguments)
    if options.files:
        lines: dict[str, set[int] | None] = dict.fromkeys(options.files)
    else:
        lines = dict(changed_lines(options.base, root))
    rng = random.Random(options.seed)
    chosen = {}
    for file, some in lines.items():
        mutants = plant((root / file).read_text(encoding="utf-8"), some)
        if options.sample is not None and len(mutants) > options.sample:
            mutants = sorted(rng.sample(mutants, options.sample))
        if mutants:
            chosen[file] = mutants
    living, tried = hunt(chosen, root, options.workers, options.limit)
    print(f"{len(living)} of {tried} mutants live")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
