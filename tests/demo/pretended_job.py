"""A stand-in for ``raft_demo.queue.job``: it aligns nothing, and does what files tell it to.

``RUNS/NAME.do`` holds "wait" (until a signal, then 130), "finish", "fail" or "die" (by a kill); it is read again while waiting.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

runs, name = Path(sys.argv[1]), sys.argv[2]
folder, order = runs / name, runs.parent / f"{name}.do"


def ended(code: int, status: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("rounds: 3\npolicy: {class_path: x.Y}\n")
    (folder / "run.json").write_text(json.dumps({"status": status}))
    (runs / ".queue" / f"{name}.end").write_text(json.dumps({"code": code}))
    sys.exit(code)


signal.signal(signal.SIGTERM, lambda *_: ended(130, "interrupted"))
with (runs.parent / "began.txt").open("a") as file:
    file.write(f"{name}\n")
while True:
    asked = order.read_text() if order.exists() else "finish"
    if asked == "finish":
        ended(0, "finished")
    if asked == "fail":
        print("error: the model is gone; fetch it again")
        (runs / ".queue" / f"{name}.end").write_text(json.dumps({"code": 2}))
        sys.exit(2)
    if asked == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
