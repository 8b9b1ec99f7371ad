"""What a run will take: memory, batches, steps, and which edits make it fit. No torch."""
