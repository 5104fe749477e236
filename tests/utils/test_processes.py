"""Calls side by side: results, errors, and what stops them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from prsr.utils import processes
from prsr.utils.processes import call_side_by_side

PROGRAM = """
import sys
from pathlib import Path
from prsr.utils.processes import call_side_by_side
from tests.utils.test_processes import write_slowly

if __name__ == "__main__":
    files = {name: Path(sys.argv[1], name) for name in ("a", "b")}
    try:
        call_side_by_side(write_slowly, files, 2, lambda name, message: print(message, flush=True))
    except KeyboardInterrupt:
        sys.exit("interrupted")
"""


def describe(argument, send):
    send(argument + 1)
    send([torch.get_num_threads(), float(torch.linspace(0, 1, 10**6).sin().sum())])
    send(os.getpid())


def meet(path, send):
    """Write a file, wait for one of another call, and count them all."""
    path.touch()
    deadline = time.monotonic() + 300
    while (found := len(list(path.parent.iterdir()))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    send(found)


def write_slowly(path, send):
    """Write a file and remove it when stopped, as an unfinished one."""
    path.touch()
    try:
        send(os.getpid())
        time.sleep(3600)  # longer than a test may take
    finally:
        path.unlink()


def fail_beside(path, send):
    """Write slowly, or fail as soon as the file a has been written."""
    if path.name != "failing":
        return write_slowly(path, send)
    while not (path.parent / "a").exists():
        time.sleep(0.01)
    return int("seven")


class WithTwoArguments(ValueError):
    """Pickle would call it with its one message."""

    def __init__(self, part, whole):
        super().__init__(f"{part} of {whole}")


def fail_with_two_arguments(argument, send):
    raise WithTwoArguments("seven", 8)


def die(argument, send):
    os.kill(os.getpid(), signal.SIGKILL)


def received(work, arguments, count):
    """The messages of each call."""
    messages = {name: [] for name in arguments}
    call_side_by_side(work, arguments, count, lambda name, each: messages[name].append(each))
    return messages


def test_results_do_not_depend_on_the_number_of_processes(threads, monkeypatch):
    started, most, start = [], [], processes.start

    def counted(*arguments):
        receiver, process = start(*arguments)
        started.append(process)
        most.append(sum(each.is_alive() for each in started))
        return receiver, process

    monkeypatch.setattr(processes, "start", counted)
    threads(2)
    arguments = {"one": 1, "two": 2, "three": 3}
    here = received(describe, arguments, 1)
    assert torch.get_num_threads() == 2
    assert most == []
    beside = received(describe, arguments, 2)
    assert len(most) == 3
    assert max(most) <= 2  # one may have ended before the last began
    assert {messages.pop() for messages in here.values()} == {os.getpid()}
    assert [messages.pop() for messages in beside.values()] == [each.pid for each in started]
    assert here == beside
    assert [messages[0] for messages in here.values()] == [2, 3, 4]
    assert {messages[1][0] for messages in here.values()} == {1}


def test_calls_are_made_at_the_same_time(tmp_path):
    assert received(meet, {name: tmp_path / name for name in "ab"}, 2) == {"a": [2], "b": [2]}


def test_an_error_reaches_the_caller_and_stops_the_other_calls(tmp_path):
    files = {name: tmp_path / name for name in ("a", "failing")}
    message = r"^invalid literal for int\(\) with base 10: 'seven'$"
    with pytest.raises(ValueError, match=message) as caught:
        received(fail_beside, files, 2)
    assert list(tmp_path.iterdir()) == []
    assert "in fail_beside\n" in str(caught.value.__cause__)


def test_an_error_that_cannot_be_pickled_reaches_the_caller_as_text():
    with pytest.raises(RuntimeError, match=r"^WithTwoArguments: seven of 8$") as caught:
        received(fail_with_two_arguments, {"a": 0}, 2)
    assert "in fail_with_two_arguments\n" in str(caught.value.__cause__)


def test_an_error_in_this_process_restores_the_number_of_threads(tmp_path, threads):
    threads(2)
    (tmp_path / "a").touch()
    with pytest.raises(ValueError, match="seven"):
        received(fail_beside, {"failing": tmp_path / "failing"}, 1)
    assert torch.get_num_threads() == 2


def test_a_killed_process_is_an_error():
    with pytest.raises(ChildProcessError, match="the process of a ended with exit code -9"):
        received(die, {"a": 0}, 2)


def test_processes_do_not_receive_interrupts_of_the_terminal_even_while_they_start(monkeypatch):
    start = processes.start

    def interrupted(*arguments):
        receiver, process = start(*arguments)
        os.kill(process.pid, signal.SIGINT)
        return receiver, process

    monkeypatch.setattr(processes, "start", interrupted)
    assert [messages[0] for messages in received(describe, {"a": 1, "b": 2}, 2).values()] == [2, 3]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def has_ended(pid):
    """Whether a process ends within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("send_signal", "number", "expected"),
    [
        (os.kill, signal.SIGINT, (1, "interrupted\n")),
        (os.killpg, signal.SIGINT, (1, "interrupted\n")),  # as a terminal does
        (os.kill, signal.SIGKILL, (-signal.SIGKILL, "")),
    ],
)
def test_no_process_and_no_unfinished_file_survives_the_caller(
    tmp_path, send_signal, number, expected
):
    (tmp_path / "program.py").write_text(PROGRAM)
    folder = tmp_path / "files"
    folder.mkdir()
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "program.py", folder],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((root, os.environ.get("PYTHONPATH", "")))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children = [int(parent.stdout.readline()) for _ in range(2)]
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]
    send_signal(parent.pid, number)
    _, errors = parent.communicate(timeout=300)
    assert (parent.returncode, errors) == expected
    assert all(map(has_ended, children))
    assert list(folder.iterdir()) == []
