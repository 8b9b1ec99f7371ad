"""Training: the objectives, TRL's trainers, and what a person sees of a run."""
