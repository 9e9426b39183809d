"""The layering of the package: what may import what, and through which names."""

import ast
import functools
import graphlib
import importlib
import importlib.util
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]

# From the bottom to the top. A folder imports only those before it, and the small modules below.
FOLDERS = (
    "noise",
    "parallel",
    "data",
    "runs",
    "models",
    "weights",
    "evaluation",
    "training",
    "robustness",
    "denoising",
    "adaptation",
    "semi_supervised",
    "studies",
    "launch",
)
SMALL = (
    "registry",
    "terminal",
    "writing",
    "stopping",
    "buckets",
    "counting",
)  # these import no folder
NOISE_MAY_IMPORT = {"jax", "flax", "numpy"}


def name_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    name_of(file): file
    for top in ("pnoise_jax", "launch", "configs")
    for file in sorted((ROOT / top).rglob("*.py"))
}


def layer(module):
    """The folder or the small module to which a module belongs: "noise", "registry", "launch"."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pnoise_jax" and len(parts) > 1 else parts[0]


def is_package(module):
    return module in FILES and FILES[module].name == "__init__.py"


@functools.cache
def tree(module):
    return ast.parse(FILES[module].read_text())


@functools.cache
def imports(module):
    """All imports in a file, also those within functions: (the module named, the name or None)."""
    statements = []
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            package = module if is_package(module) else module.rpartition(".")[0]
            source = importlib.util.resolve_name(source, package)
            statements += [(source, alias.name, alias.asname) for alias in node.names]
        elif isinstance(node, ast.Import):
            statements += [(alias.name, None, alias.asname) for alias in node.names]
    return statements


def modules_imported(module):
    """Which of our own files the imports of a file lead to."""
    named = [
        f"{source}.{name}" if f"{source}.{name}" in FILES else source
        for source, name, _ in imports(module)
    ]
    return {name for name in named if name in FILES and name != "pnoise_jax"}


@functools.cache
def public_names(package):
    """A package's public names: those in its __all__."""
    return frozenset(getattr(importlib.import_module(package), "__all__", ()))


def bypasses(module):
    """Imports and attributes in a file that are not public names of another package."""
    lines, packages = [], {}
    for source, name, alias in imports(module):
        inner = f"{source}.{name}"
        if source == "pnoise_jax" or not source.startswith("pnoise_jax."):
            if is_package(inner):
                packages[alias or name] = inner
        elif layer(source) in SMALL or layer(source) == layer(module):
            pass
        elif is_package(inner):
            packages[alias or name] = inner
        elif name is None or not is_package(source) or name not in public_names(source):
            lines.append(f"{module} imports {name} from {source}")
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            package = packages.get(node.value.id)
            inner = f"{package}.{node.attr}"
            if inner in FILES and not is_package(inner) and node.attr not in public_names(package):
                lines.append(f"{module} uses {inner}")
    return lines


def allowed_layers(ours):
    """What a folder or small module may import besides itself."""
    if ours in SMALL:
        return {*SMALL}
    below = FOLDERS[: FOLDERS.index(ours)] if ours in FOLDERS else FOLDERS  # configs/ import all
    return {*below, *SMALL, "configs"} if ours == "launch" else {*below, *SMALL}


def test_a_folder_imports_only_what_stands_below_it():
    assert not [
        f"{module} imports {other}"
        for module in FILES
        for other in modules_imported(module)
        if layer(other) not in {layer(module), *allowed_layers(layer(module))}
    ]


def test_every_folder_and_small_module_has_its_place():
    there = {layer(module) for module in FILES} - {"pnoise_jax", "configs"}
    assert there <= {*FOLDERS, *SMALL}


def test_imports_have_no_cycle():
    """Not even under TYPE_CHECKING or within a function."""
    graph = {module: modules_imported(module) - {module} for module in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the cycle


def test_only_public_names_of_other_packages_are_imported():
    assert not [line for module in FILES for line in bypasses(module)]


def test_programs_find_configs_outside_a_clone():
    """There is no package "configs" to import where ours is installed: `main.built_in_config`."""
    outside = [module for module in FILES if not module.startswith("configs")]
    using = {m for m in outside for name, *_ in imports(m) if name.split(".")[0] == "configs"}
    assert not using


def test_noise_imports_only_jax_flax_and_the_registry():
    outside = set()
    for module in (module for module in FILES if layer(module) in ("noise", "registry")):
        ours = {layer(other) for other in modules_imported(module)}
        assert ours <= {"noise", "registry"}, module
        outside |= {source.partition(".")[0] for source, _, _ in imports(module)}
    assert outside - sys.stdlib_module_names <= NOISE_MAY_IMPORT | {"pnoise_jax"}


def test_importing_noise_loads_nothing_but_what_jax_and_flax_load():
    program = (
        "import sys, {}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    )  # fmt: skip

    def loaded(module):
        command = [sys.executable, "-c", program.format(module)]
        output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return set(output.stdout.split())

    extra = loaded("pnoise_jax.noise") - loaded("jax, flax.linen") - sys.stdlib_module_names
    assert extra == {"pnoise_jax"}


def test_studies_load_libraries_when_they_need_them():
    """Or every program, even one that only lists its flags, would start seconds later."""
    code = "import sys, pnoise_jax.studies; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    late = {"grain", "matplotlib", "scipy.optimize", "scipy.stats", "sklearn"}
    assert not late & set(output.split())
