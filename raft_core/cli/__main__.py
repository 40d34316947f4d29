"""``python -m raft_core.cli`` is ``raft``."""

import sys

from raft_core.cli import main

sys.exit(main())
