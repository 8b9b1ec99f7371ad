"""What a run will take: memory, batches, steps, and which edits of the recipe make it fit.

Stands on `data`; imports no torch.
"""
