#!/usr/bin/env python3
"""Fetches the newest source archive of a package from the index that pip is configured for, and prints where it lies.

    sdist.py PACKAGE FOLDER

`pip download` would run the package's build to learn its metadata; this reads the index's page, as pip does first, and
checks the hash that the page gives.
"""

import hashlib
import html
import pathlib
import re
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from base64 import b64encode

NEWEST = re.compile(r"\d+")


def pip_setting(name):
    """A setting by pip's own order: environment, then files; pip's default where there is none."""
    for scope in (":env:", "global", "install"):
        asked = [sys.executable, "-m", "pip", "config", "get", f"{scope}.{name}"]
        answer = subprocess.run(asked, capture_output=True, text=True)
        if answer.returncode == 0 and answer.stdout.strip():
            return answer.stdout.strip()
    return None


def default_index():
    from pip._internal.models.index import PyPI

    return PyPI.simple_url


def opened(url):
    """A response; user and password of the address go into a header, as urllib does not take them from there."""
    parts = urllib.parse.urlsplit(url)
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
    if parts.username:
        secret = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_header("authorization", "Basic " + b64encode(secret.encode()).decode())
    return urllib.request.urlopen(request, timeout=60, context=ssl.create_default_context(cafile=pip_setting("cert")))


def newest(page, package):
    """(file name, address with its hash) of the archive with the highest version on a page of links."""
    stem = re.escape(package.replace("-", "_")).replace("_", "[-_]")
    links = re.findall(rf'href="([^"]+)"[^>]*>\s*({stem}-\d[^<]*\.tar\.gz)\s*<', page)
    if not links:
        sys.exit(f"the index has no source archive of {package}")
    link, name = max(links, key=lambda link: [int(number) for number in NEWEST.findall(link[1])])
    return name, html.unescape(link)


def main():
    package, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    index = (pip_setting("index-url") or default_index()).rstrip("/") + f"/{package}/"
    name, link = newest(opened(index).read().decode(), package)
    path = folder / name
    if not path.exists():
        url, _, fragment = urllib.parse.urljoin(index, link).partition("#")
        print(f"fetching {name}", file=sys.stderr)
        archive = opened(url).read()
        algorithm, _, wanted = fragment.partition("=")
        if wanted and hashlib.new(algorithm, archive).hexdigest() != wanted:
            sys.exit(f"{name} is not what the index says it is: its {algorithm} differs")
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive)
    print(path)


if __name__ == "__main__":
    main()
