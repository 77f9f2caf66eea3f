"""Check that the file and the entry of a compiled dataset still match its manifest."""

from pathlib import Path

from tuneyard.compiler.publish.registry import changed_entry, compiled_entries
from tuneyard.core.datasets import REGISTRY, Dataset
from tuneyard.core.datasets.compiled import Manifest, Manifests
from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import sha256
from tuneyard.core.language.message import _, typed

CHANGED_FILE = ProblemCode("E431", _("a file that changed since the compile"), _("Compile again."))


def compile_again(manifest: Manifest) -> str:
    """Name the command that compiles a dataset from the same spec and the sources of its options."""
    words = ["tuneyard", "data", "compile", manifest.spec]
    splits_of_members: dict[str, set[str]] = {}
    for source in manifest.sources:
        if source.names:
            splits_of_members.setdefault(source.path, set()).add(source.split)
    sources = []
    for source in manifest.sources:
        if source.is_named:
            is_of_several = len(splits_of_members.get(source.path, ())) > 1  # members go by their names
            sources.append(source.path if is_of_several else f"{source.split}={source.path}")
    for text in dict.fromkeys(sources):
        words += ["--source", text]
    return _("`{words}` writes it again", words=typed(words))


def since_compiled(dataset: Dataset, out: Path, manifests: Manifests) -> list[Problem] | None:
    """How file and entry of a dataset differ from a compile's manifest, None if no manifest lists either."""
    is_compiled = False
    problems: list[Problem] = []
    for folder, manifest in manifests.items():
        hint = compile_again(manifest)
        path = dataset.path
        if path.parent == out / folder and path.name in manifest.files:
            is_compiled = True
            compiled_file = manifest.files[path.name]
            if not path.exists():
                problems.append(
                    Problem(CHANGED_FILE, str(path), _("the compiled file is missing"), hint=hint)
                )
            elif not path.is_file() or sha256(path) != compiled_file.sha256:
                message = _(
                    "the file has changed since it was compiled (with {rows} rows)", rows=compiled_file.rows
                )
                problems.append(Problem(CHANGED_FILE, str(path), message, hint=hint))
        compiled = compiled_entries(folder, manifest).get(dataset.name)
        if compiled:
            is_compiled = True
            problems += changed_entry(str(out / REGISTRY), dataset.name, dataset.entry, compiled, hint)
    return problems if is_compiled else None
