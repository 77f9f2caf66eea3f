"""predictions.jsonl: one line for each example of a dataset, with the model's answer and what it counts as.

A line has the fields of its command. The format of the lines is that of run.json in the folder of the run.
"""

from typing import Annotated, TypedDict

from tuneyard.core.records.json_schema import Count
from tuneyard.core.records.record import line_record


class AnswerFields(TypedDict, total=False):
    """What a model gives for an example."""

    model_output: Annotated[str, "the answer as the model gave it"]
    label_mass: Annotated[float | None, "probability of all labels together"]
    too_long: Annotated[str, "why there is no answer: the context cannot hold the prompt"]
    refused: Annotated[str, "why there is no answer: the server refused the prompt"]
    loss: Annotated[float | None, "sum over the tokens of the expected text, in nats"]
    tokens: Annotated[int | None, "how many tokens the loss is the sum of"]
    truncated: Annotated[bool, "the text was cut, as in the training"]
    example_tokens: Annotated[int, "length before the text was cut"]
    transcript: Annotated[list[dict[str, str]], "a conversation with the model's turns"]
    cut_short: Annotated[bool, "the context was full before the last turn"]
    chosen_logp: Annotated[float, "log-probability of the chosen answer"]
    chosen_tokens: int
    rejected_logp: Annotated[float, "log-probability of the rejected answer"]
    rejected_tokens: int
    answer_logp: Annotated[float, "log-probability of the marked answer"]
    answer_tokens: int


class PredictionFields(AnswerFields, total=False):
    """What is known of an example and its answer."""

    choices: Annotated[dict[str, float] | None, "log-probability of each label"]
    instruction: Annotated[str, "the prompt"]
    input: str
    expected_output: str
    predicted_output: Annotated[str, "what the answer counts as; unknown: none of the labels"]
    idx: Annotated[object, "the example's own id; -1: it has none"]
    correct: Annotated[bool, "whether the answer is correct, unless equal outputs say so"]
    cluster: Annotated[str | int, "examples of one cluster are not independent"]
    type: Annotated[str, "kind of the example"]
    subtype: str
    similarity: Annotated[float | None, "of the answer to the reference, 0 to 1"]
    token_f1: float | None
    reference: Annotated[str, "the expected text"]
    references: Annotated[list[str], "the answers in the data, turn by turn"]
    prediction: Annotated[str, "the answer without a thought"]
    prompt_tokens: int
    reference_tokens: int
    prediction_tokens: int
    expected_reason: str
    reason: Annotated[str, "the reason in the answer"]
    functions: Annotated[list[str], "the expected functions"]
    calls: Annotated[int | None, "how many tool calls the answer has; null: it cannot be read"]
    right_function: bool
    right_number: bool
    chosen: str
    rejected: str
    answer: Annotated[str, "the answer that is marked desirable or not"]


@line_record("predictions.jsonl", "predictions.jsonl: a line for each example of one model on one dataset")
class Prediction(PredictionFields):
    """An example with its answer."""

    row: Annotated[Count, "number of the example in the dataset, from 0"]
