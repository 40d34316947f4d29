"""The bundled image world: captioned scenes, and the small models pretrained on them.

`python -m raft_diffusion.world.make` makes every weight in `raft_diffusion/bundled` from a seed;
`python -m raft_diffusion.world.gates` measures what they reach.
"""
