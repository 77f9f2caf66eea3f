"""One compiled dataset and its report: the report of the published one, and the publishing of a new one."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.request import COUNTED, CompileReport, CompileRequest, Identity, Sources
from tuneyard.compiler.spec.model import Spec
from tuneyard.compiler.write.entries import entries_of
from tuneyard.core.datasets import is_records
from tuneyard.core.datasets.manifest import Manifest, write_manifest
from tuneyard.core.files import sha256
from tuneyard.core.installation.checkout import version


def report_if_up_to_date(
    registry: Registry, spec: Spec, request: CompileRequest, hashed_sources: Callable[[], Sources]
) -> CompileReport | None:
    """The report of the compiled dataset. None if a compile would write or report anything else.

    `hashed_sources` waits for the hashes of the sources.
    """
    manifest = registry.manifests.get(spec.name)
    if manifest is None or not manifest.files:
        return None
    for name, file in manifest.files.items():
        path = registry.folder / spec.name / name
        if not is_records(path) or sha256(path) != file.sha256:
            return None
    if manifest.made_from != request.identity(spec, hashed_sources()):
        return None
    first, counts = manifest.first_problems, manifest.counts
    if request.every_problem and len(first) < sum(manifest.problems.values()):
        return None
    problems = Problems.again(manifest.problems, first, manifest.notes)
    problems.fatal = request.strict and problems.count("W") > 0
    return CompileReport(
        name=spec.name,
        problems=problems,
        **{key: counts[key] for key in COUNTED},
        datasets=manifest.records,
        fit=manifest.fit,
        unused=Unused(Counter(manifest.not_used), Counter(manifest.ignored)),
        up_to_date=True,
    )


def publish_dataset(
    registry: Registry, staged: Path, spec: Spec, report: CompileReport, made_from: Identity
) -> None:
    """Publish a staged dataset. `report_if_up_to_date` makes the report again from its manifest."""
    entries = entries_of(spec, spec.splits)
    manifest = Manifest(
        about=spec.about,
        counts={**{key: getattr(report, key) for key in COUNTED}, "records": report.datasets},
        problems=dict(sorted(report.problems.counts.items())),
        first_problems=report.problems.first(),
        notes=report.problems.notes,
        not_used=dict(report.unused.rows),
        ignored=dict(report.unused.ignored),
        fit=report.fit,
        cluster=spec.group,
        files=report.files,
        entries={name: entry for name, entry in entries.items() if name in report.datasets},
        made_from=made_from,
        tuneyard=version(),  # beside the identity: a commit elsewhere makes no dataset stale
    )
    write_manifest(staged, manifest)
    report.problems.notes.extend(registry.publish(staged, spec.name, manifest))
