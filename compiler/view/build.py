"""The payload of a dataset's page: `verify` reads and audits all rows, a sample of them is shown in full."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.compiler.verify.comparison import row_bar
from tuneyard.compiler.verify.dataset import LoadedDataset, loaded
from tuneyard.compiler.verify.recipe_file import RecipeFile, Settings
from tuneyard.compiler.verify.report import histogram
from tuneyard.compiler.view.page_rows import CUT_CODE, DROPPED, PageRows
from tuneyard.compiler.view.payload import (
    SEED,
    CodeCount,
    PageRow,
    ViewPayload,
    json_of,
)
from tuneyard.compiler.view.scan import Scan
from tuneyard.core.drawing.page import embedded
from tuneyard.core.errors.problem_codes import meaning_of
from tuneyard.core.language.message import SEMICOLON, _, joined
from tuneyard.core.llamafactory.prompt.token_weights import read_weights, weights_file
from tuneyard.core.training.training_run import names_in

if TYPE_CHECKING:
    from tuneyard.core.llamafactory.prompt.token_losses import TokenLossFile

BARS = 30
ROWS = 2000
LARGEST = 19_500_000
"""Bytes of the rows of a page. The page has at most 20 MB."""
OWN_TEMPLATE = _("the tokenizer's own chat template")
MESSAGES = {
    DROPPED: _("LLaMA-Factory leaves the row out of the training"),
    CUT_CODE: _("tokens of the row are cut by cutoff_len"),
}


def within_limit(page_rows: Iterable[PageRow], largest: int = LARGEST) -> tuple[list[PageRow], int]:
    """Rows of at most `largest` bytes for the page, and how many were left off.

    When they are too large together, every second of them goes. So the rows that stay are evenly spread,
    small and large ones alike.
    """
    kept: list[PageRow] = []
    sizes: list[int] = []
    stride = 1
    count = 0
    for page_row in page_rows:
        if count % stride == 0:
            kept.append(page_row)
            sizes.append(len(embedded(json_of(page_row)).encode(errors="replace")))
        count += 1
        while sum(sizes) > largest and len(kept) > 1:
            stride *= 2
            kept, sizes = kept[::2], sizes[::2]
    return kept, count - len(kept)


def build(
    name: str,
    folder: Path,
    settings: Settings,
    recipe: RecipeFile | None = None,
    rows: int = ROWS,
    losses: "TokenLossFile | None" = None,
    media_folders: Sequence[Path] = (),
) -> ViewPayload:
    """Everything that the page of a dataset shows: a sample of so many `rows`, and counts over all of them.

    It verifies and counts all records, then reads those of the page again.

    `settings` are those of a recipe or of options. Without a model among them the rows have no tokens.
    Pictures of the dataset's folders and of `media_folders` are on the page.
    `RequestError` if the dataset is not registered, if its file is missing, or if the model or the template
    cannot be used. If LLaMA-Factory cannot load the file, the rows have no tokens and `note` has the reason.
    """
    scan = Scan()
    with loaded(name, folder, settings, recipe) as dataset:
        dataset.compare(scan.counted(dataset.expected.records()))
        scan.compare()
        if dataset.rows is None:  # why LLaMA-Factory cannot load the file, at the record
            dataset.finish()
        page_rows = PageRows(scan, dataset.verdict, dataset.rows, losses)
        page_rows.picture_folders = [folder, dataset.dataset.path.parent, *media_folders]
        if recipe is not None and page_rows.tokens and name in names_in(settings.get("dataset")):
            weights = weights_file(recipe.path)
            if weights:
                page_rows.tokens.weights = read_weights(weights)
        page_rows.choose(rows, SEED)
        read_rows = page_rows.read(dataset.dataset)
        with row_bar(_("tokens of {name}", name=name), page_rows.codes, read_rows) as bar:
            kept, left_off = within_limit(bar)
    if dataset.rows is not None:
        dataset.finish()
    payload = _payload(dataset, settings, page_rows)
    payload.rows, payload.left_off = kept, left_off
    return payload


def _payload(loaded_dataset: LoadedDataset, settings: Settings, page_rows: PageRows) -> ViewPayload:
    """The counts over all rows."""
    verdict, scan, dataset = page_rows.verdict, page_rows.scan, loaded_dataset.dataset
    payload = ViewPayload(
        dataset=dataset.name,
        file=_display_path(dataset.path),
        stage=verdict.stage,
        all_rows=scan.rows,
        labels=scan.labels.most_common(),
    )
    if verdict.audit:
        payload.model = Path(str(settings["model_name_or_path"])).name
        payload.template = OWN_TEMPLATE
        if settings.get("template"):
            payload.template = str(settings["template"])
        payload.cutoff_len = verdict.cutoff
        audit, lengths = verdict.audit, verdict.audit.lengths  # of all rows, in tokens
        payload.tokens = audit.uncut
        payload.learned = audit.learned
        payload.cut = audit.uncut - audit.seen
        payload.bins = histogram(lengths, BARS)
        if not (verdict.stage == "pt" and verdict.packing):
            payload.over_cutoff = sum(rows for length, rows in lengths.items() if length > verdict.cutoff)
    elif loaded_dataset.loader_problem:
        payload.note = loaded_dataset.loader_problem.message
    else:
        payload.note = joined(verdict.not_checked, ". ")
    payload.problems = list(_problems(page_rows, payload))
    return payload


def _problems(page_rows: PageRows, payload: ViewPayload) -> Iterator[CodeCount]:
    """The problems by code, over all rows: errors first, then by their number."""
    verdict, rows_of_code = page_rows.verdict, page_rows.rows_of_code
    texts = {}
    for problem in reversed(verdict.problems):
        texts[problem.code] = joined(filter(None, [problem.message, problem.hint]), SEMICOLON)
    codes = {*rows_of_code, *verdict.counts}
    for code in sorted(codes, key=lambda code: (code[0] != "E", code)):
        rows = len(rows_of_code.get(code, ()))  # 0: a problem of the whole dataset
        yield CodeCount(code, texts[code] if code in verdict.counts else meaning_of(code), rows)
    for code, count in ((DROPPED, verdict.dropped), (CUT_CODE, payload.over_cutoff)):
        if count:
            yield CodeCount(code, MESSAGES[code], count)


def _display_path(path: Path) -> str:
    """A path within the working folder, otherwise its last name: the page may leave the machine."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return path.name
