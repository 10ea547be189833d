"""A real nginx, with the configuration in `example/deploy/nginx`."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .ports import free_port
from .server import DEADLINE, ROOT, wait_until

CONFIGURATION = ROOT / "example/deploy/nginx"


class Nginx:
    """A running nginx in front of `hosts`, the ports of two gunicorns. Its files differ from those in the repository
    only in addresses, paths, and what `replacements` gives as old and new texts. `stop` and `start` keep its port."""

    def __init__(
        self, program: str, folder: Path, hosts: list[int], site: str, replacements: dict[str, str] | None
    ) -> None:
        self.port = free_port()
        self._program, self._folder = program, folder
        own = {
            "/var/log/nginx": str(folder),
            "site-http.conf": site,
            "listen [::]:80;": "",
            "listen [::]:443 ssl;": "",
            "listen 80;": f"listen 127.0.0.1:{self.port if site == 'site-http.conf' else free_port()};",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "/srv/app": str(ROOT),
            "127.0.0.1:8001": f"127.0.0.1:{hosts[0]}",
            "127.0.0.1:8002": f"127.0.0.1:{hosts[1]}",
        }
        for source in CONFIGURATION.glob("*.conf"):
            text = source.read_text()
            for old, new in (own | (replacements or {})).items():
                text = text.replace(old, new)
            (folder / source.name).write_text(text)
        with (folder / site).open("a") as file:  # the default folders may be root's
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
                file.write(f"{kind}_temp_path {folder / kind};\n")

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [self._program, "-p", str(self._folder), "-c", str(self._folder / "nginx.conf")]
        command += ["-g", f"daemon off; pid {self._folder / 'nginx.pid'};"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_until(self._accepts)

    def reload(self) -> None:
        """Reload the configuration. New workers serve new connections, and the old ones keep theirs."""
        before = self._worker_pids()
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(self._worker_pids() - before) == len(before))

    def stop(self) -> None:
        """End nginx at once, as a restart does: every connection is cut."""
        self.process.terminate()
        self.process.communicate(timeout=DEADLINE)

    def log(self, name: str) -> str:
        """The text of `access.log` or `error.log`."""
        return (self._folder / name).read_text()

    def _worker_pids(self) -> set[int]:
        pid = self.process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def _accepts(self) -> bool:
        assert self.process.poll() is None, f"nginx has ended:\n{self.process.communicate()[1]}"
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


@contextmanager
def running_nginx(
    program: str, hosts: list[int], site: str = "site-http.conf", replacements: dict[str, str] | None = None
) -> Iterator[Nginx]:
    """An nginx for a `with` block. If the block fails, its logs are printed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # nginx's workers may run as another user
        nginx = Nginx(program, Path(folder), hosts, site, replacements)
        nginx.start()
        try:
            yield nginx
        except BaseException:
            print(nginx.log("error.log"), nginx.log("access.log"))
            raise
        finally:
            nginx.stop()
