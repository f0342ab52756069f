"""The page that tells a parent what its worker does."""

import subprocess
import sys
import time

from bpqp_bench.runner.heartbeat import StagePage


def test_a_new_page_is_idle_since_now():
    before = time.monotonic()
    page = StagePage()
    stage, seconds = page.read()
    assert stage == "idle"
    assert 0.0 <= seconds <= time.monotonic() - before
    page.close()


def test_stage_and_time_are_seen_through_another_mapping():
    page = StagePage()
    other = StagePage(page.fd)
    before = time.monotonic()
    page.enter("forward")
    time.sleep(0.02)
    stage, seconds = other.read()
    assert stage == "forward"
    assert 0.02 <= seconds <= time.monotonic() - before
    page.close()


def test_a_reader_never_sees_half_of_a_change():
    # A stage whose time is not yet there would look as old as the machine, and be ended for it.
    # In another process: threads of one take turns and never meet in the middle of a store.
    page = StagePage()
    code = (
        "from bpqp_bench.runner.heartbeat import StagePage\n"
        f"page = StagePage({page.fd})\n"
        "while True: page.enter('forward'); page.enter('idle')"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], pass_fds=(page.fd,))
    try:
        while page.read()[0] != "forward":
            assert writer.poll() is None
        deadline = time.monotonic() + 1.0
        worst = 0.0
        while time.monotonic() < deadline:
            worst = max(worst, page.read()[1])
    finally:
        writer.kill()
        writer.wait()
    assert worst < 5.0
    page.close()
