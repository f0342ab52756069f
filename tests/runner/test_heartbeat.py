"""The shared memory that tells a parent what its worker does."""

import subprocess
import sys
import time

from bpqp_bench.runner.heartbeat import Heartbeat


def test_a_new_page_is_idle_since_now():
    before = time.monotonic()
    heartbeat = Heartbeat()
    stage, seconds = heartbeat.read()
    assert stage == "idle"
    assert 0.0 <= seconds <= time.monotonic() - before
    heartbeat.close()


def test_stage_and_time_are_seen_through_another_mapping():
    heartbeat = Heartbeat()
    other = Heartbeat(heartbeat.fd)
    before = time.monotonic()
    heartbeat.enter("forward")
    time.sleep(0.02)
    stage, seconds = other.read()
    assert stage == "forward"
    assert 0.02 <= seconds <= time.monotonic() - before
    heartbeat.close()


def test_a_reader_never_sees_half_of_a_change():
    # A stage whose time is not yet there would look as old as the machine, and be ended for it.
    # In another process: threads of one take turns and never meet in the middle of a store.
    heartbeat = Heartbeat()
    code = (
        "from bpqp_bench.runner.heartbeat import Heartbeat\n"
        f"heartbeat = Heartbeat({heartbeat.fd})\n"
        "while True: heartbeat.enter('forward'); heartbeat.enter('idle')"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], pass_fds=(heartbeat.fd,))
    try:
        while heartbeat.read()[0] != "forward":
            assert writer.poll() is None
        deadline = time.monotonic() + 1.0
        worst = 0.0
        while time.monotonic() < deadline:
            worst = max(worst, heartbeat.read()[1])
    finally:
        writer.kill()
        writer.wait()
    assert worst < 5.0
    heartbeat.close()
