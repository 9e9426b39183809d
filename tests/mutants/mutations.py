"""The mistakes that cosmic-ray can make in a file, without those that no test could notice."""

import ast
import collections
import dataclasses
import difflib
import functools
import pathlib
import random
from collections.abc import Iterator

from cosmic_ray import mutating, plugins
from cosmic_ray.ast import ast_nodes, get_ast
from parso.tree import NodeOrLeaf

from tests.mutants import table

Place = tuple[int, int]  # line and column

# Identity instead of equality, or vice versa: the same for None, strings and small numbers.
SAME = {"Eq_Is", "NotEq_IsNot", "Is_Eq", "IsNot_NotEq"}
# Decorators that change how fast or how readable a function is, not what it returns.
HARMLESS = (
    "functools.cache",
    "functools.lru_cache",
    "functools.wraps",
    "functools.partial(jax.jit",
    "jax.jit",
    "nn.nowrap",
)
# Arguments that guard against mistakes of a programmer, or say where a warning points.
GUARDS = {"strict", "kw_only", "frozen", "stacklevel"}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A file with one mistake.

    Attributes:
      package: the key of `table.PACKAGES`.
      file: its path from the root.
      line: where the mistake is, from 1.
      operator: cosmic-ray's name of the kind of mistake.
      code: the whole file.
      diff: the lines that differ from those of the package.
    """

    package: str
    file: pathlib.Path
    line: int
    operator: str
    code: str
    diff: str


def sample(package: str, number: int, seed: int) -> list[Mutant]:
    """Mutants at ``number`` places of a package, or at all if there are fewer."""
    draw = random.Random(f"{seed} {package}")
    every = [(file, *place) for file in table.files(package) for place in _places(file).items()]
    draw.shuffle(every)
    mutants = []
    for file, (line, _), mutations in every:
        if len(mutants) == number:
            break
        shuffled = draw.sample(mutations, len(mutations))
        if mutant := _first(package, file, line, shuffled):
            mutants.append(mutant)
    return mutants


@functools.cache
def _places(file: pathlib.Path) -> dict[Place, list[tuple[str, int]]]:
    """The mutations at each place of a file: an operator, and which of its occurrences."""
    nodes = list(ast_nodes(get_ast((table.ROOT / file).read_text())))
    places = collections.defaultdict(list)
    for name in plugins.operator_names():
        operator = plugins.get_operator(name)
        if operator.arguments():
            continue  # those that replace variables need to be told which
        occurrence = 0
        for node in nodes:
            for start, _ in operator().mutation_positions(node):
                if not (name.partition("_")[2] in SAME or _is_unnoticeable(node)):
                    places[start].append((name, occurrence))
                occurrence += 1
    return dict(sorted(places.items()))


def _first(
    package: str, file: pathlib.Path, line: int, mutations: list[tuple[str, int]]
) -> Mutant | None:
    """The first of the mutations that is valid Python, and not the same program."""
    code = (table.ROOT / file).read_text()
    for name, occurrence in mutations:
        mutated = mutating.mutate_code(code, plugins.get_operator(name)(), occurrence)
        try:
            differs = mutated and ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(code))
        except SyntaxError:
            continue
        if differs:
            operator = name.partition("/")[2]
            lines = difflib.unified_diff(
                code.splitlines(), mutated.splitlines(), str(file), operator, lineterm="", n=0
            )
            return Mutant(package, file, line, operator, mutated, "\n".join(lines))
    return None


def _is_unnoticeable(node: NodeOrLeaf) -> bool:
    """Whether a mistake here changes nothing that is promised."""
    if node.type == "decorator":
        return node.get_code().strip().removeprefix("@").startswith(HARMLESS)
    return _only_checks_types(node) or any(
        _is_for_readers(child, parent) or _only_checks_types(parent)
        for child, parent in _ancestors(node)
    )


def _is_for_readers(node: NodeOrLeaf, parent: NodeOrLeaf) -> bool:
    """Whether a part of its parent is an annotation, the words of an error, or a guard."""
    match parent.type:
        case "raise_stmt" | "decorator" | "tfpdef":
            return True
        case "parameters":
            return node.type == "operator"  # keyword-only from here
        case "funcdef":
            return node is parent.annotation
        case "annassign":
            return node is parent.children[1]
        case "argument":
            return parent.children[0].get_code().strip() in GUARDS
    return False


def _only_checks_types(node: NodeOrLeaf) -> bool:
    return node.type == "if_stmt" and "TYPE_CHECKING" in node.children[1].get_code()


def _ancestors(node: NodeOrLeaf) -> Iterator[tuple[NodeOrLeaf, NodeOrLeaf]]:
    """Each node from this one up, with its parent."""
    while node.parent is not None:
        yield node, node.parent
        node = node.parent
