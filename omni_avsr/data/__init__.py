"""From label files to batches."""
