"""The rows of a dataset's file by LLaMA-Factory's loader, in the order of the file."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tuneyard.core.llamafactory.loader import RecipeData, replaced


def aligned_rows(data: RecipeData, attributes: Any) -> Any:
    """All rows of a dataset in LLaMA-Factory's own format."""
    from llamafactory.data import loader

    whole = replace(attributes, num_samples=None)
    arguments = (data.model_args, data.data_args, data.training_args, data.stage)
    with data.loading(whole), replaced(loader, get_dataset_list=lambda *_unused: [whole]):
        if data.data_args.streaming:
            if not data.training_args.dataloader_num_workers:
                raise ValueError("streaming reads nothing without dataloader_num_workers: 1 (or more)")
            next(iter(loader._get_merged_dataset(["it"], *arguments)))
        read_whole = copy.copy(data.data_args)
        read_whole.streaming = False
        if attributes.num_samples:
            read_whole.max_samples = None
        return loader._get_merged_dataset(["it"], arguments[0], read_whole, *arguments[2:])


def rows_as_in_file(data: RecipeData, attributes: Any) -> Any:
    """All rows of a dataset before LLaMA-Factory converts them to its own format."""
    from llamafactory.data import loader

    with replaced(loader, align_dataset=lambda rows, *_unused: rows):
        return aligned_rows(data, attributes)


def row_converter(data: RecipeData, attributes: Any) -> Callable[[Any], Any]:
    """LLaMA-Factory's function that converts one row of a file to its own format."""
    from llamafactory.data.converter import get_dataset_converter

    converter: Callable[[Any], Any] = get_dataset_converter(attributes.formatting, attributes, data.data_args)
    return converter
