"""torchvision beside a CPU torch: other programs of the environment import it, too."""

import subprocess
import sys

from raft_core.machine.torchvision import HOOK, install_hook


def started(folder, code: str) -> subprocess.CompletedProcess:
    """Python with the hook in one of its folders of packages, as an environment that `make` has made."""
    words = f"import sys, site; sys.path[:0] = {[p for p in sys.path if p]!r}; site.addsitedir({str(folder)!r}); {code}"
    return subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False)


def test_accelerate_launch_starts(tmp_path):
    assert install_hook(tmp_path).name == HOOK
    launch = "from accelerate.commands.accelerate_cli import main; sys.argv = ['accelerate', 'launch', '--help']; main()"
    done = started(tmp_path, launch)
    assert done.returncode == 0, done.stderr
    assert "--num_processes" in done.stdout


def test_the_hook_imports_nothing_by_itself_and_survives_the_package(tmp_path):
    install_hook(tmp_path)
    done = started(tmp_path, "print('torch' in sys.modules, 'torchvision' in sys.modules)")
    assert (done.stdout.split(), done.stderr) == (["False", "False"], "")
    bare = subprocess.run(
        [sys.executable, "-S", "-c", f"import site; site.addsitedir({str(tmp_path)!r})"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ""},
        cwd=tmp_path,
        check=False,
    )
    assert (bare.returncode, bare.stderr) == (0, "")


def test_the_hook_and_a_call_define_the_operators_once(tmp_path):
    """Looking for torchvision is what sets off the hook: what was about to define the operators finds them defined."""
    install_hook(tmp_path)
    call = "from raft_core.machine.torchvision import ensure_importable; ensure_importable(); import torchvision; print('done')"
    done = started(tmp_path, call)
    assert done.stdout.strip() == "done", done.stderr
