"""The bundled world of emoji: renderer, captions, and the training of every part that ships.

Sprites: Noto Color Emoji. Images Apache-2.0, font SIL Open Font License 1.1, © Google.
"""
