"""Recipes: their schema, their strict loader, and the faults that both report. No torch."""
