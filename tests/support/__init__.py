"""What tests share: rows, tiny models, adapters, killed commands."""
