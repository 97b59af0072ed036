"""A stand-in for the Hugging Face Hub: as much of its API as reading and committing files takes.

Written after what huggingface_hub sends and expects; the real server may refuse what this one
takes. It keeps commits in memory, files as git would without LFS.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_writer"


class Repo:
    """Commits by their hash, and branches."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}
        self.private = False
        self.commit("main", {})

    def commit(self, branch: str, changes: dict[str, bytes], gone: Iterable[str] = ()) -> str:
        files = {**self.commits.get(self.refs.get(branch, ""), {}), **changes}
        files = {name: content for name, content in files.items() if name not in gone}
        text = repr((len(self.commits), sorted(files.items())))
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = files
        self.refs[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


class Hub(ThreadingHTTPServer):
    """`repos` holds what there is; `requests` what was asked for."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []
        self.sizes: dict[str, int] = {}
        """By path, what a HEAD says instead of the truth."""
        self.address = f"http://127.0.0.1:{self.server_port}"

    def put(self, name: str, files: dict[str, bytes], branch: str = "main") -> str:
        return self.repos.setdefault(name, Repo()).commit(branch, files)

    def handle_error(self, *_: Any) -> None:
        pass  # the client hangs up in some tests


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, code: int, body: bytes = b"", **headers: Any) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, content: Any, code: int = 200) -> None:
        self._send(code, json.dumps(content).encode(), Content_Type="application/json")

    def _error(self, code: int, kind: str) -> None:
        self._send(code, json.dumps({"error": kind}).encode(), X_Error_Code=kind)

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        return path

    def _writes(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_HEAD(self) -> None:
        path = self._path()
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        repo = self.server.repos.get(found[1]) if found else None
        if found is None or repo is None or (repo.private and not self._writes()):
            return self._error(401 if found else 404, "RepoNotFound")
        sha = repo.find(found[2])
        if sha is None:
            return self._error(404, "RevisionNotFound")
        content = repo.commits[sha].get(found[3])
        if content is None:
            return self._send(404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X_Repo_Commit": sha}
        if self.command == "HEAD" and path in self.server.sizes:
            headers["Content_Length"] = str(self.server.sizes[path])
        self._send(200, content, **headers)

    def do_GET(self) -> None:
        if "/resolve/" in self.path:
            return self.do_HEAD()
        path = self._path()
        tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path)
        if tree and tree[1] in self.server.repos:
            repo = self.server.repos[tree[1]]
            files = repo.commits[str(repo.find(tree[2]))]
            return self._json(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": name}
                    for name, content in files.items()
                ]
            )
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path)
        if found and found[1] in self.server.repos:
            repo = self.server.repos[found[1]]
            self._json({"id": found[1], "sha": repo.refs["main"], "siblings": []})
        else:
            self._error(404, "RepoNotFound")

    def do_POST(self) -> None:
        path = self._path()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            header = re.match(r"---\n(.*?)---\n", text, flags=re.DOTALL)
            wrong = header is None or not isinstance(yaml.safe_load(header[1]), dict)
            errors = [{"message": "no header"}] if wrong else []
            return self._json({"errors": errors, "warnings": []}, 400 if errors else 200)
        if not self._writes():
            return self._json({"error": "Unauthorized"}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.server.repos:
                return self._json({"error": "exists", "url": f"{self.server.address}/{name}"}, 409)
            self.server.repos[name] = Repo()
            self.server.repos[name].private = bool(
                asked.get("private") or asked.get("visibility") == "private"
            )
            return self._json({"url": f"{self.server.address}/{name}"})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(\w+)/([^/]+)", path)
        assert found is not None, path
        name, what, revision = found.groups()
        repo = self.server.repos[name]
        if what == "branch":
            if revision in repo.refs:
                return self._json({"error": "exists"}, 409)
            repo.refs[revision] = repo.refs["main"]
            return self._json({})
        if what == "preupload":
            return self._json(
                {
                    "files": [
                        {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for file in json.loads(body)["files"]
                    ]
                }
            )
        assert what == "commit", path
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        gone = {line["value"]["path"] for line in lines if line["key"] == "deletedFile"}
        answer = {"success": True, "hookOutput": ""}
        if "create_pr=1" in self.path:
            repo.refs["refs/pr/1"] = repo.refs["main"]
            revision = "refs/pr/1"
            answer["pullRequestUrl"] = f"{self.server.address}/{name}/discussions/1"
        sha = repo.commit(revision, files, gone)
        self._json(
            {**answer, "commitOid": sha, "commitUrl": f"{self.server.address}/{name}/commit/{sha}"}
        )
