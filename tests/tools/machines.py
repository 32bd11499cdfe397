"""Two machines in one: each has a network of its own, joined by one cable.

That takes network namespaces, which some containers don't allow; there both machines
meet over the loopback, as two processes of one machine.
"""

import contextlib
import socket
import subprocess
from collections.abc import Iterator

CABLE = """set -eu
ip link set lo up
unshare --net sleep infinity &
trap "kill $!" EXIT
while [ "$(readlink /proc/$!/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do
  sleep 0.05
done
ip link add eth0 type veth peer name eth0 netns $!
ip address add 10.77.0.1/24 dev eth0
ip link set eth0 up
nsenter --target $! --net sh -c '
  ip link set lo up
  ip address add 10.77.0.2/24 dev eth0
  ip link set eth0 up
'
echo $$ $!
read -r _
"""
UNSHARE = ('unshare', '--user', '--map-root-user', '--net', 'sh', '-c', CABLE)


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[list, dict]]:
    """What starts a command on each of two machines, and their common environment."""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        cable = subprocess.Popen(UNSHARE, **pipes, stderr=subprocess.DEVNULL, text=True)
    except FileNotFoundError:  # no such tool
        yield on_loopback()
        return
    with cable:
        ends = cable.stdout.readline().split()
        if ends:
            enter = ('nsenter', '--user', '--preserve-credentials', '--net', '--target')
            environment = dict(
                MASTER_ADDR='10.77.0.1', PORT='29500', GLOO_SOCKET_IFNAME='eth0'
            )
            yield [[*enter, end] for end in ends], environment
        else:
            yield on_loopback()


def on_loopback() -> tuple[list, dict]:
    """Two machines that are none."""
    return [[], []], dict(MASTER_ADDR='127.0.0.1', PORT=str(free_port()))


def free_port() -> int:
    """A port of the loopback that nobody uses."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]
