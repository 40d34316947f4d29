"""Start the app in the browser on the bundled models: python demos/app.py [RUNS_FOLDER]"""

import sys

from raft_cli import main

if __name__ == "__main__":  # the app's worker process imports this module too
    sys.exit(main(["demo", *sys.argv[1:]]))
