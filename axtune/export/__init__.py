"""Checkpoints for others to load: Hugging Face, vLLM, GGUF, Ollama."""
