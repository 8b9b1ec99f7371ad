"""Proof that a checkpoint serves what was trained: certificates, doctor, the real vLLM.

Stands on `weights`; knows nothing of `export`.
"""
