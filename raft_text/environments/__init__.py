"""Tools that a language model can use between its turns."""
