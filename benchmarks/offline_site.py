"""Make the site that ``asv publish`` wrote viewable without the internet.

``python benchmarks/offline_site.py .asv/html [CACHE]`` puts the libraries that asv's page loads
from content delivery networks into the site itself, at the versions that asv names, fetched with
``npm pack``. Files that npm has byte for byte keep the page's integrity hash, so the browser goes
on checking them; flot's and stupidtable's packages hold another build of the same plug-in.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import tarfile
from pathlib import Path

# By the end of the address in asv's page: package with version, and the file in it.
_SOURCES = {
    "jquery-3.3.1.min.js": ("jquery@3.3.1", "dist/jquery.min.js"),
    "jquery.flot.min.js": ("flot@0.8.3", "jquery.flot.js"),
    "jquery.flot.time.min.js": ("flot@0.8.3", "jquery.flot.time.js"),
    "jquery.flot.selection.min.js": ("flot@0.8.3", "jquery.flot.selection.js"),
    "jquery.flot.categories.min.js": ("flot@0.8.3", "jquery.flot.categories.js"),
    "jquery.flot.orderBars.js": ("flot-orderbars@1.0.0", "js/jquery.flot.orderBars.js"),
    "stupidtable.min.js": ("stupid-table-plugin@1.1.3", "stupidtable.min.js"),
    "md5.min.js": ("blueimp-md5@2.19.0", "js/md5.min.js"),
    "bootstrap.min.js": ("bootstrap@3.1.1", "dist/js/bootstrap.min.js"),
    "bootstrap.min.css": ("bootstrap@3.1.1", "dist/css/bootstrap.min.css"),
}
_TAG = re.compile(r'<(?:script|link)\b[^>]*(?:src|href)="(https://[^"]+\.(?:js|css))"[^>]*>')
_INTEGRITY = re.compile(r'\s+integrity="(sha\d+)-([^"]+)"')


def fetch(package: str, cache: Path) -> Path:
    """Return the package's archive, from the cache or by ``npm pack``."""
    archive = cache / f"{package.replace('@', '-')}.tgz"
    if not archive.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "pack", "--silent", package],
            cwd=cache,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=120,
        )
    return archive


def make_offline(site: Path, cache: Path) -> list[str]:
    """Rewrite the site's pages; return what was put into it.

    Raises
    ------
    SystemExit
        If a page loads something that this script does not know.
    """
    placed = []
    for page in sorted(site.glob("*.html")):
        text = page.read_text()
        for match in _TAG.finditer(text):
            address = match[1]
            name = address.rpartition("/")[2]
            if name not in _SOURCES:
                raise SystemExit(f"{page} loads {address}, which is not known; asv has changed")
            package, member = _SOURCES[name]
            with tarfile.open(fetch(package, cache)) as archive:
                stored = archive.extractfile(f"package/{member}")
                assert stored is not None, (package, member)
                content = stored.read()
            (site / "vendor").mkdir(exist_ok=True)
            (site / "vendor" / name).write_bytes(content)
            tag = match[0].replace(address, f"vendor/{name}")
            wanted = _INTEGRITY.search(tag)
            if wanted and not _has_hash(content, wanted[1], wanted[2]):
                tag = _INTEGRITY.sub("", tag)
            text = text.replace(match[0], tag)
            placed.append(name)
        page.write_text(text)
    return placed


def _has_hash(content: bytes, algorithm: str, expected: str) -> bool:
    return base64.b64encode(hashlib.new(algorithm, content).digest()).decode() == expected


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    store = Path(sys.argv[2]) if len(sys.argv) > 2 else folder.parent / "vendor"
    print(f"{len(make_offline(folder, store))} libraries in {folder / 'vendor'}")
