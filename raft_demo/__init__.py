"""The app that shows models before and after, aligns them, and learns a person's taste: `raft demo`."""
