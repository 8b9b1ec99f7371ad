"""Checkpoints for others to load: Hugging Face, vLLM, llama.cpp and Ollama.

Stands on `weights`; knows nothing of `verify`.
"""
