"""From files to token ids and labels, every row accounted for. No torch at the doors."""
