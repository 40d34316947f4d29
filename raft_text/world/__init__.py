"""How the bundled language models were made: ``python -m raft_text.world.make``."""
