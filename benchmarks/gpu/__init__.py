"""A round on this machine's accelerator against a bare loop of the same work."""
