"""RAFT's core: the loop and everything in it that does not know what an image or a text is."""
