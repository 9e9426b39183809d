"""A small local Hugging Face hub: repositories in memory, at the real hub's paths."""

import contextlib
import hashlib
import http.server
import json
import re
from collections.abc import Iterator, Mapping

from tests.weights import local_server

Files = Mapping[str, bytes]


class Hub:
    """Repositories by name, each with its commits, and branches that can move.

    Attributes:
      commits: the files, by repository and commit hash.
      branches: the commit hash, by repository and name.
      requests: the paths that were requested.
    """

    def __init__(self):
        self.commits: dict[tuple[str, str], Files] = {}
        self.branches: dict[tuple[str, str], str] = {}
        self.gated: set[str] = set()
        self.requests: list[str] = []

    def commit(self, repository: str, files: Files, branch: str = "main") -> str:
        """Adds a commit to a branch; returns its hash."""
        content = b"".join(name.encode() + files[name] for name in sorted(files))
        commit = hashlib.sha1(repository.encode() + content).hexdigest()
        self.commits[repository, commit] = files
        self.branches[repository, branch] = commit
        return commit

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content for an address, without its query."""
        self.requests.append(path)
        for pattern, handle in (
            (r"/api/models/(\w[^/]*/[^/]+)/revision/([^/]+)", self._info),
            (r"/api/models/(\w[^/]*/[^/]+)/tree/([^/]+)", self._tree),
            (r"/(\w[^/]*/[^/]+)/resolve/([^/]+)/(.+)", self._file),
        ):
            if match := re.fullmatch(pattern, path):
                return self._checked(handle, *match.groups())
        return 404, {}, b""

    def _checked(self, handle, repository, revision, *name):
        if repository in self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
        if not any(known == repository for known, _ in self.commits):
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        commit = self.branches.get((repository, revision), revision)
        if (repository, commit) not in self.commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        return handle(repository, commit, *name)

    def _info(self, repository, commit):
        siblings = [{"rfilename": name} for name in self.commits[repository, commit]]
        return 200, {}, _json({"id": repository, "sha": commit, "siblings": siblings})

    def _tree(self, repository, commit):
        files = self.commits[repository, commit]
        return (
            200,
            {},
            _json(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
                    for name, content in files.items()
                ]
            ),
        )

    def _file(self, repository, commit, name):
        content = self.commits[repository, commit].get(name)
        if content is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        return 200, {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": commit}, content


def _json(value) -> bytes:
    return json.dumps(value).encode()


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """Serves a hub; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, content = hub.answer(self.path.partition("?")[0])
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with local_server.serving(Handler) as address:
        yield address
