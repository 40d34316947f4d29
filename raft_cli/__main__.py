"""``python -m raft_cli`` is ``raft``."""

import sys

from raft_cli import main

sys.exit(main())
