"""Proof that a checkpoint serves what was trained: certificates, doctor, vLLM."""
