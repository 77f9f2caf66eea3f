"""The pipeline that all scoring commands share: options, candidates, tasks."""
