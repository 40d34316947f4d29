"""Numbers of other implementations, recorded by scripts that name version and call; tests hold our losses against them."""
