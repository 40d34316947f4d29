"""Preferences and the rewards that are learned from them, for pictures and for text alike."""
