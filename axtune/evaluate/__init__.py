"""What a model says, judged: what is wanted, and whether an answer is that.

Stands on `data`; imports no torch.
"""
