"""What the pages have in common: the worker process, the runs folder, limits, and errors in words. No page layout here."""
