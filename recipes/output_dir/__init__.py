"""What a training leaves in its output_dir: checkpoints, records, the course of its figures."""
