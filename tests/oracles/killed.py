"""The end of an endpoint that nobody saw coming."""

from __future__ import annotations

from protocol.endpoint import Endpoint


def kill(endpoint: Endpoint) -> None:
    """As SIGKILL does: the port is gone, and nobody was told."""
    for task in endpoint._dialling:
        task.cancel()
    endpoint._pacemaker.stop()
    driver = endpoint._driver
    driver._open = False
    driver._port.close()
    for handle in (driver._timer, driver._housekeeping):
        if handle is not None:
            handle.cancel()
    driver._links.clear()
    endpoint._peers.clear()
