"""Hostile programs against the sandbox. Each is bounded by itself too: were a wall to fall, the machine would not."""

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from raft_core.errors import ConfigError, DeviceError
from raft_text.reasoning.sandbox import Limits, Outcome, Sandbox
from raft_text.reasoning.sandbox.pool import WARDEN

pytestmark = pytest.mark.skipif(Sandbox.unsupported() is not None, reason="programs are refused on this system")

# The way out of the import list that every allowed module leaves open: from here on only the kernel is in the way.
ESCAPE = "import random\nos = random._os\nsys = os.sys\nmodules = sys.modules\n"
LIBC = ESCAPE + "ctypes = modules['ctypes']\nlibc = ctypes.CDLL(None, use_errno=True)\n"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(Limits(cpu_s=1, wall_s=3, memory_mib=64), workers=2) as sandbox:
        yield sandbox


def solution(body: str, prelude: str = "") -> str:
    return prelude + "def solution():\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n"


def test_values_come_back_as_text(sandbox):
    programs = {
        solution("return 6 * 7"): "42",
        solution("return 1 / 3"): repr(1 / 3),
        solution("return -2.5e-7"): "-2.5e-07",
        solution("return Fraction(1, 3)", "from fractions import Fraction\n"): "1/3",
        solution("return Decimal('1.10')", "from decimal import Decimal\n"): "1.10",
        solution("return math.floor(2.9)"): "2",  # without an import, as ReFT's programs do
        solution("return [5]"): "5",
        solution("return 'B'"): "B",
        solution("print('working')\nreturn 10 ** 30"): "1" + "0" * 30,
        solution("return datetime.strptime('2024-03-01', '%Y-%m-%d').day", "from datetime import datetime\n"): "1",
        solution("return sorted({'b', 'a'}) == ['a', 'b'] and round(random.random(), 3)", "import random\n"): "0.844",
    }
    assert sandbox.run(list(programs)) == [Outcome("answer", text) for text in programs.values()]


@pytest.mark.skipif(importlib.util.find_spec("sympy") is None, reason="SymPy is not installed")
def test_sympy_solves_without_reading_its_files():
    values = {
        "solve(2 * x - 7, x)": "7/2",
        "integrate(x ** 2, (x, 0, 3))": "9",
        "solve([x + y - 3, x - y - 1], [x, y])[x]": "2",
        "limit(sin(x) / x, x, 0)": "1",
        "Matrix([[1, 2], [3, 4]]).det()": "-2",
        "N(sqrt(2), 5)": "1.4142",
    }
    programs = [solution(f"x, y = symbols('x y')\nreturn {value}", "from sympy import *\n") for value in values]
    with Sandbox(Limits(cpu_s=20, wall_s=60), imports=["math", "sympy"], workers=1) as sandbox:
        assert [outcome.text for outcome in sandbox.run(programs)] == list(values.values())


def test_a_program_without_an_answer_says_why(sandbox):
    programs = {
        "def solution(:": "SyntaxError",
        "x = 1": "no function solution",
        "solution = 3": "no function solution",
        solution("return 1 / 0"): "ZeroDivisionError: division by zero",
        solution("raise SystemExit(3)"): "SystemExit: 3",
        solution("import os"): "a program may not import",
        solution("import subprocess"): "not import subprocess",
        solution("from . import pool"): "a program may not import",
        solution("return open('/etc/passwd').read()"): "NameError",
        solution("return 10 ** 5000"): "4300 digits",
        "#" * 70_000: "70000 bytes",
    }
    for (program, part), outcome in zip(programs.items(), sandbox.run(list(programs)), strict=True):
        assert outcome.status == "error", program
        assert part in outcome.text


HOSTILE = {
    "infinite loop": (solution("while True: pass"), {"timeout"}),
    "loop that catches everything": (
        solution("while True:\n    try:\n        while True: pass\n    except BaseException: pass"),
        {"timeout"},
    ),
    "deadlock": (
        solution("lock = modules['_thread'].allocate_lock(); lock.acquire(); lock.acquire()", ESCAPE),
        {"timeout"},
    ),
    "sleep": (solution("modules['time'].sleep(60)", ESCAPE), {"error"}),
    "fork": (solution("return [os.fork() for _ in range(3)]", ESCAPE), {"error"}),
    "threads": (solution("return modules['_thread'].start_new_thread(print, ())", ESCAPE), {"error"}),
    "memory at once": (solution("return len(bytes(10 ** 10))"), {"memory"}),
    "memory bit by bit": (solution("a = []\nfor _ in range(10 ** 4): a.append(bytearray(10 ** 6))\nreturn len(a)"), {"memory"}),
    "a huge whole number": (solution("return 9 ** 9 ** 9"), {"timeout", "memory"}),
    "endless recursion": (solution("f = lambda n: f(n + 1)\nreturn f(0)"), {"error"}),
    "endless recursion, no limit": (
        solution("sys.setrecursionlimit(10 ** 9)\nclass A:\n    def __repr__(self): return repr(self)\nreturn A()", ESCAPE),
        {"error", "memory", "crashed", "timeout"},
    ),
    "deep source": ("x = " + "(" * 10_000 + ")" * 10_000, {"error", "memory"}),
    "long answer": (solution("return 'x' * 10 ** 6"), {"output"}),
    "flood of print": (solution("for _ in range(10 ** 4): print('x' * 1000)\nreturn 1"), {"answer"}),
    "flood of its pipe": (solution("while True: os.write(3, b'x' * 65536)", ESCAPE), {"output"}),
    "flood of descriptors": (solution("return [os.dup(0) for _ in range(3)]", ESCAPE), {"error"}),
    "exit": (solution("os._exit(0)", ESCAPE), {"error"}),
    "abort": (solution("os.abort()", ESCAPE), {"crashed"}),
    "broken memory": (solution("return ctypes.string_at(1)", LIBC), {"crashed"}),
    "execute": (solution("os.execv('/bin/true', ['true'])", ESCAPE), {"error"}),
    "shell": (solution("assert os.system('true') == 0", ESCAPE), {"error"}),
    "import ctypes": (solution("import ctypes"), {"error"}),
    "kill everything": (solution("os.kill(-1, 0)", ESCAPE), {"error"}),
    "raise a limit": (
        solution("resource = modules['resource']\nresource.setrlimit(resource.RLIMIT_NPROC, (9, 9))", ESCAPE),
        {"error"},
    ),
    "an exception that cannot be shown": (
        solution("class E(Exception):\n    def __str__(self): raise self\nraise E()"),
        {"error"},
    ),
    "a value that cannot be shown": (solution("class A:\n    def __str__(self): raise SystemExit\nreturn A()"), {"error"}),
}


def test_hostile_programs_end_without_harm(sandbox):
    outcomes = sandbox.run([program for program, _ in HOSTILE.values()])
    for (name, (_, expected)), outcome in zip(HOSTILE.items(), outcomes, strict=True):
        assert outcome.status in expected, (name, outcome)
    assert sandbox.run([solution("return 1")]) == [Outcome("answer", "1")]


def test_the_kernel_refuses_what_python_cannot(sandbox):
    """Straight to the C library, past everything that is Python."""
    calls = {
        "socket": "libc.socket(2, 1, 0)",
        "fork": "libc.fork()",
        "open": "libc.open(b'/etc/passwd', 0)",
        "unlink": "libc.unlink(b'/nothing')",
        "mkdir": "libc.mkdir(b'/folder', 0o777)",
        "kill": "libc.kill(libc.getpid(), 0)",
        "ptrace": "libc.ptrace(0, 0, 0, 0)",
        "chroot": "libc.chroot(b'/')",
        "setuid": "libc.setuid(0)",
        "unshare": "libc.unshare(0x10000000)",
        "dup": "libc.dup(0)",
        "read": "libc.read(0, ctypes.create_string_buffer(1), 1)",
        "prctl": "libc.prctl(22, 0, 0, 0, 0)",
        "executable mmap": "ctypes.c_long(libc.mmap(0, 4096, 7, 0x22, -1, 0)).value",
        "executable mprotect": "libc.mprotect(ctypes.addressof(ctypes.create_string_buffer(1)) & ~4095, 4096, 7)",
    }
    outcomes = sandbox.run([solution(f"return {call}, ctypes.get_errno()", LIBC) for call in calls.values()])
    assert dict(zip(calls, outcomes, strict=True)) == dict.fromkeys(calls, Outcome("answer", "(-1, 1)"))  # 1 is EPERM


def test_files_of_the_machine_are_neither_read_nor_changed(sandbox, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("do not look")
    attempts = [
        f"return modules['io'].open({str(secret)!r}).read()",
        f"return modules['io'].open({str(secret)!r}, 'w').write('gone')",
        f"return os.open({str(secret)!r}, 0)",
        f"os.remove({str(secret)!r})",
        f"os.rename({str(secret)!r}, {str(secret) + 'x'!r})",
        f"os.mkdir({str(tmp_path / 'new')!r})",
        f"return os.listdir({str(tmp_path)!r})",
    ]
    outcomes = sandbox.run([solution(body, ESCAPE) for body in attempts])
    assert [outcome.status for outcome in outcomes] == ["error"] * len(attempts)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.txt"]
    assert secret.read_text() == "do not look"


def test_secrets_of_the_trainer_are_not_there(monkeypatch):
    monkeypatch.setenv("RAFT_TEST_TOKEN", "token-42")
    with Sandbox(workers=1) as sandbox:
        found = sandbox.run([solution("return sorted(os.environ)", ESCAPE), solution("return sorted(modules)", ESCAPE)])
    assert "RAFT_TEST_TOKEN" not in found[0].text
    assert "'math'" in found[1].text
    assert "'torch'" not in found[1].text and "'torch." not in found[1].text


def test_a_program_leaves_nothing_behind_for_the_next():
    spoil = solution(
        """
        math.sqrt = lambda x: 0
        modules['builtins'].len = lambda x: 0
        modules['__main__'].run = lambda source, imports: b'v666'
        return math.sqrt(16)
        """,
        ESCAPE,
    )
    later = solution("return math.sqrt(16) + len('xx')")
    with Sandbox(workers=1) as sandbox:
        assert [outcome.text for outcome in sandbox.run([spoil, later])] == ["0", "6.0"]


def test_a_program_that_waits_for_a_busy_cpu_is_let_go_on():
    """Its wall time is over long before its seconds of CPU are."""
    body = "total = 0\nfor i in range(3_000_000): total += i\nreturn total"
    with Sandbox(Limits(cpu_s=20, wall_s=0.1), workers=1) as sandbox:
        lock = "lock = modules['_thread'].allocate_lock(); lock.acquire(); lock.acquire()"
        computing, waiting = sandbox.run([solution(body), solution(lock, ESCAPE)])
    assert computing == Outcome("answer", str(sum(range(3_000_000))))
    assert waiting.status == "timeout"


def test_memory_is_capped_where_asked():
    program = solution("return len(bytes(40 * 2 ** 20))")
    for memory_mib, status in ((16, "memory"), (128, "answer")):
        with Sandbox(Limits(memory_mib=memory_mib), workers=1) as sandbox:
            assert sandbox.run([program])[0].status == status


def test_equal_programs_run_once_and_order_is_kept(sandbox):
    programs = [solution(f"return {i % 3}") for i in range(20)]
    assert [outcome.text for outcome in sandbox.run(programs)] == [str(i % 3) for i in range(20)]
    assert sandbox.run([]) == []


def test_layers_are_told_in_words(sandbox):
    layers = sandbox.start()
    assert list(layers) == ["system calls", "limits", "namespaces", "files", "user"]
    assert layers["system calls"].startswith("in force")
    assert layers["limits"].startswith("in force: 1 s of CPU")
    assert "system calls in force" in sandbox.describe()


def test_a_lost_worker_is_replaced(sandbox):
    with Sandbox(workers=1) as sandbox:
        warden = sandbox._wardens.get()
        assert warden is not None
        os.kill(warden.process.pid, signal.SIGKILL)
        warden.process.wait()
        sandbox._wardens.put(warden)
        assert sandbox.run([solution("return 1")]) == [Outcome("answer", "1")]


def test_a_broken_sandbox_is_not_the_programs_fault(monkeypatch):
    with Sandbox(workers=1) as sandbox:
        warden = sandbox._wardens.get()
        assert warden is not None
        warden.stop()
        sandbox._wardens.put(None)

        def broken():
            raise DeviceError("no more processes")

        monkeypatch.setattr(sandbox, "_new_warden", broken)
        assert sandbox.run([solution("return 1")]) == [Outcome("failed", "no more processes")]


def test_closing_ends_the_processes_and_a_later_run_starts_anew():
    sandbox = Sandbox(workers=1)
    sandbox.start()
    warden = sandbox._wardens.get()
    sandbox._wardens.put(warden)
    sandbox.close()
    sandbox.close()
    assert warden is not None
    assert warden.process.returncode is not None
    assert sandbox.run([solution("return 2")]) == [Outcome("answer", "2")]
    sandbox.close()


ABANDONED = """
import os
from raft_text.reasoning.sandbox import Sandbox
sandbox = Sandbox(workers=1)
sandbox.start()
print(sandbox._wardens.get().process.pid, flush=True)
os._exit(0)
"""


def test_workers_end_when_the_trainer_is_killed():
    done = subprocess.run([sys.executable, "-c", ABANDONED], capture_output=True, text=True, timeout=250)
    warden = int(done.stdout)
    for _ in range(1000):
        if not psutil.pid_exists(warden) or psutil.Process(warden).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail("the worker outlives its trainer")


WITHOUT = """
import sys
sys.path.insert(0, {folder!r})
import confine, warden
confine.{name} = {replacement}
try:
    warden.prepare(warden.Rules(1, 5.0, 2 ** 26, 4096, ["math"]))
except confine.RefusedError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "replacement", "complaint"),
    [
        ("_prctl", "lambda *a: None", "a program could open a file; open a socket"),
        ("lock", "lambda *a: None", "a program could open a file"),
        ("lock", "lambda *a: 1 / 0", "its process could not be locked"),
        ("resource.setrlimit", "lambda *a: None", "a program could use more memory than its limit"),
    ],
)
def test_walls_that_do_not_hold_are_a_refusal(name, replacement, complaint):
    script = WITHOUT.format(folder=str(WARDEN.parent), name=name, replacement=replacement)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert f"the walls do not hold: {complaint}" in done.stdout


def test_a_system_without_isolation_is_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "mips")
    with pytest.raises(DeviceError, match="mips and are not run unconfined"):
        Sandbox().run([solution("return 1")])


def test_mistakes_in_the_settings():
    with pytest.raises(ConfigError, match="workers is 0"):
        Sandbox(workers=0)
    with pytest.raises(ConfigError, match="imports is 'math'"):
        Sandbox(imports="math")
    with pytest.raises(ConfigError, match="cpu_s is 0"):
        Limits(cpu_s=0)
    with pytest.raises(ConfigError, match=r"no_such_module.* install it, or take it out of imports"):
        Sandbox(imports=["no_such_module"], workers=1).start()
