"""A run as one page that can be read anywhere: what was trained on what, and what it learned."""
