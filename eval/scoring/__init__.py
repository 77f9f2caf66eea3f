"""Scoring: from a command line to OUT/MODEL/DATASET/{results.json,predictions.jsonl}.

A run passes these things, in this order:

1. ScoringCommand (command.py): a command and its options; its function makes the evaluation, reads datasets.
2. ScoringRequest (options.py): the values of the command line.
3. EvalDataset (eval/data): rows as records and as conversations, with clusters and training rows.
4. Evaluation (evaluation.py): the command's part: lines of predictions.jsonl, figures of results.json.
5. WeightedAdapter (adapters): an adapter and its weight.
6. Prompting (eval/data/prompts.py): messages to token ids, as the adapter was trained.
7. Candidate (candidates.py): a row of the table: the base, or weighted adapters on it, with its prompting.
8. Backend (eval/models): the model that answers, or an earlier run (--rescore); `Opened` has it with the
   candidates.
9. ScoringPlan (plan.py): everything checked, with the jobs and the identity for run.json.
10. Job (evaluation.py): a candidate on a dataset, planned. Cross-checks and fixed prompts have a `main` job.
11. BatchPlan (eval/models/batch_plan.py): a job's prompts in batches, and the function that answers a batch.
12. Fields: what the model answers to a row.
13. PredictionLog (eval/runs/results.py): the predictions, batch by batch, so that a killed run resumes.

One loop (pipeline.py) takes the fields of every batch from this process or from workers (remote.py), makes
predictions of them, and writes the results of each job when it has its rows.
"""
