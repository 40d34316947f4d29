"""Where the samples of a round come from."""
